"""The pass itself: ranks that pay for every layer, and the factors that take its place.

A rank counts only where it saves bytes or multiply-adds. Ranks are multiples of the target's
quantum, since kernels take the time of the next multiple. Of the forms a convolution has, those
are offered that no other beats in both error and multiply-adds. Layers that read the same tensor
(query, key and value) get a first factor in common where that costs less at the same error.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Quota, Skip, Stage
from onnxpress.errors import RecipeError, UsageError
from onnxpress.graph import attribute
from onnxpress.layers import Layer, is_scaled_gemm
from onnxpress.passes.factorize.decompose import Factored, spatial, tucker
from onnxpress.passes.factorize.rewrite import (
    write_convolutions,
    write_embedding,
    write_pair,
    write_shared,
)
from onnxpress.reconstruction import LowRank, damped_gram, low_rank, output_energy, repaired
from onnxpress.statistics import LayerStatistics, Observations

__all__ = ["Factorize"]

Float64 = npt.NDArray[np.float64]
T = TypeVar("T")

_MOST_RANKS = 8
_MOST_SPLITS = 5
"""Of each form of a convolution: their factors take a second each to fit."""
_HOPELESS_ERROR = 0.3
_NODE_BYTES = 120
_FRACTIONS = (0.25, 0.375, 0.5, 0.625, 0.75)
"""Of a convolution's channels that Tucker's core may keep."""
_SMALL = 16
"""Sides: below the smallest rank quantum there is nothing to gain."""


@dataclass(frozen=True)
class Factorize(Pass):
    """Thin matrices instead of a wide one."""

    name: ClassVar[str] = "factorize"
    stage: ClassVar[Stage] = Stage.LOW_RANK
    rewrites_from_statistics: ClassVar[bool] = True

    energy: float = field(
        default=0.0,
        metadata={"help": "Keep this share of each layer's output energy; 0: the budget decides."},
    )
    ratio: float = field(
        default=0.0,
        metadata={"help": "Keep this share of the model's multiply-adds; 0: the budget decides."},
    )
    rank: int = field(default=0, metadata={"help": "One rank for every layer; 0: chosen by layer."})
    weighting: str = field(
        default="outputs",
        metadata={
            "help": "What is kept: outputs (needs calibration data), inputs (each input weighed "
            "by its size, FWSVD's form), or weights (plain SVD)."
        },
    )
    refinement: bool = field(
        default=True,
        metadata={"help": "Fit each layer again to what the factorized network feeds it."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name, value in (("energy", self.energy), ("ratio", self.ratio)):
            if not 0 <= value < 1:
                raise UsageError(
                    f"factorize: {name} is {value:g}; expected a share below 1, or 0 for none"
                )
        if self.rank < 0:
            raise UsageError(f"factorize: rank is {self.rank}; expected a positive number, or 0")
        if sum(bool(value) for value in (self.energy, self.ratio, self.rank)) > 1:
            raise UsageError("factorize: energy, ratio and rank exclude each other; give one")
        if self.weighting not in ("outputs", "inputs", "weights"):
            raise UsageError(
                f"factorize: weighting is {self.weighting!r}; expected outputs, inputs or weights"
            )

    @property
    def refines(self) -> bool:
        """Refinement fits outputs, so it needs that weighting."""
        return self.refinement and self.weighting == "outputs"

    def observes(self, context: Context) -> Observations:
        """The Gram matrices of all layers, for what the others cost counts in a ratio."""
        return Observations(layers=frozenset(layer.name for layer in context.layers), gram=True)

    def quota(self, context: Context) -> Quota | None:
        """The multiply-adds to save for the wanted ratio."""
        return context.quota_of(self.ratio)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Forms and ranks for every layer, the cheapest first."""
        proposals: list[Proposal | Skip] = []
        taken: set[str] = set()
        for layers in _shared_inputs(context):
            shared = self._shared(context, layers)
            if shared is not None:
                proposals.append(shared)
                taken |= {layer.name for layer in layers}
        for layer in context.layers:
            if layer.name in taken:
                continue
            reason = _refusal(layer) or self._unknown(context, layer)
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
                continue
            candidates = self._candidates(context, layer)
            proposals.append(
                Proposal(layer.name, candidates)
                if candidates
                else Skip(layer.name, self._no_rank(layer))
            )
        order = {layer.name: index for index, layer in enumerate(context.layers)}
        return sorted(proposals, key=lambda item: order[item.site])

    def _unknown(self, context: Context, layer: Layer) -> str | None:
        """What calibration data would have to say of the layer, or `None`."""
        moments = context.moments(layer)
        if layer.op_type == "Gather" or not self._needs_data:
            return None
        if moments is None or moments.gram is None:
            return "without calibration data its rank would be a guess; name an energy or a rank"
        centred = moments.centred_gram
        assert centred is not None
        if not np.einsum("gii->", centred) > 1e-12 * np.einsum("gii->", moments.gram):
            return "its inputs are the same for all calibration data, so no rank is known to do"
        return None

    @property
    def _needs_data(self) -> bool:
        return not (self.energy or self.rank)

    def _no_rank(self, layer: Layer) -> str:
        if self.rank:
            most = _most_rank(layer)
            return f"rank {self.rank} saves nothing; it would have to be at most {most}"
        return "no rank that saves multiply-adds keeps enough of its output"

    def _candidates(self, context: Context, layer: Layer) -> tuple[Candidate, ...]:
        found = [self._pair(context, layer, rank) for rank in self._ranks(context, layer)]
        if layer.op_type == "Conv" and min(layer.shape[2:]) > 1 and len(layer.shape) == 4:
            found += self._split(context, layer)
        found = [c for c in found if c.saved_bytes > 0 or c.saved_multiply_adds > 0]
        if self.energy:
            # Each form's least rank is here already: the cheapest form is wanted.
            found = sorted(found, key=lambda c: -c.saved_multiply_adds)[:1]
        return _frontier(found)

    def _ranks(self, context: Context, layer: Layer) -> list[int]:
        most = _most_rank(layer)
        if self.rank:
            return [self.rank] if self.rank <= most else []
        components = self._components(context, layer)
        quantum = context.target.rank_quantum
        ranks = list(range(quantum, most + 1, quantum))
        if self.energy:
            return [rank for rank in ranks if components.error(rank) <= 1 - self.energy][:1]
        ranks = [rank for rank in ranks if components.error(rank) <= _HOPELESS_ERROR]
        return _thinned(ranks)

    def _split(self, context: Context, layer: Layer) -> list[Candidate]:
        """Spatial and Tucker forms of a convolution."""
        outputs, inputs = layer.shape[:2]
        quantum = context.target.rank_quantum
        whole = math.prod(layer.shape)
        ranks = [self.rank] if self.rank else range(quantum, max(inputs, outputs) + 1, quantum)
        found: list[tuple[str, int, int]] = [("spatial", rank, 0) for rank in ranks]
        cuts = [(_up(inputs * f, quantum), _up(outputs * f, quantum)) for f in _FRACTIONS]
        cuts = [(self.rank, self.rank)] if self.rank else sorted(set(cuts))
        found += [
            ("tucker", rank, cut)
            for cut, rank in cuts
            if cut <= inputs and rank <= outputs and (cut, rank) != (inputs, outputs)
        ]
        found = [form for form in found if _form_cost(layer, *form)[1] < 0.9 * whole]
        candidates = []
        for kind in ("spatial", "tucker"):
            for _, rank, cut in _thinned([form for form in found if form[0] == kind], _MOST_SPLITS):
                candidate = self._form(context, layer, kind, rank, cut)
                enough = 1 - self.energy if self.energy else _HOPELESS_ERROR
                if self.rank or candidate.predicted_error <= enough:
                    candidates.append(candidate)
                    if self.energy:
                        break
        return candidates

    def _pair(self, context: Context, layer: Layer, rank: int) -> Candidate:
        components = self._components(context, layer)
        return self._candidate(context, layer, "pair", rank, 0, components.error(rank))

    def _form(
        self, context: Context, layer: Layer, form: str, rank: int, input_rank: int
    ) -> Candidate:
        error = self._factored(context, layer, form, rank, input_rank).error
        return self._candidate(context, layer, form, rank, input_rank, error)

    def _candidate(
        self, context: Context, layer: Layer, form: str, rank: int, input_rank: int, error: float
    ) -> Candidate:
        whole = math.prod(layer.shape)
        numbers, cost = _form_cost(layer, form, rank, input_rank)
        parameters: dict[str, bool | int | str] = {"form": form, "rank": rank}
        if input_rank:
            parameters["input_rank"] = input_rank
        parameters["from_statistics"] = self._observed(context, layer)
        size = layer.nbytes // max(whole, 1)
        return Candidate(
            parameters,
            predicted_error=error,
            saved_bytes=(whole - numbers) * size - _NODE_BYTES,
            saved_multiply_adds=context.multiply_adds(layer) * (1 - cost / whole),
        )

    def _observed(self, context: Context, layer: Layer) -> bool:
        moments = context.moments(layer)
        return self.weighting != "weights" and moments is not None and moments.gram is not None

    def _gram(self, moments: LayerStatistics | None) -> Float64 | None:
        """What the factors are fitted under."""
        if moments is None or moments.gram is None or self.weighting == "weights":
            return None
        if self.weighting == "inputs":
            return np.asarray(np.diag(np.diagonal(moments.gram[0])), np.float64)
        return np.asarray(damped_gram(moments.gram, moments.rows)[0], np.float64)

    def _biased(self, layer: Layer) -> bool:
        return self.weighting == "outputs" and takes_bias(layer)

    def _components(self, context: Context, layer: Layer) -> LowRank:
        def make() -> LowRank:
            moments = context.moments(layer)
            biased = self._biased(layer)
            weights, _ = repaired(layer.read(), moments, biased=biased)
            mean = moments.mean[0] if moments is not None and biased else None
            return low_rank(weights, self._gram(moments), mean)

        return context.cached(("components", self.weighting), [layer], make)

    def _factored(
        self, context: Context, layer: Layer, form: str, rank: int, input_rank: int
    ) -> Factored:
        def make() -> Factored:
            moments = context.moments(layer)
            biased = self._biased(layer)
            weights, _ = repaired(layer.read(), moments, biased=biased)
            gram = self._gram(moments)
            if gram is not None and moments is not None and biased:
                gram = gram - np.outer(moments.mean[0], moments.mean[0])
            weight = weights.reshape(layer.shape)
            if form == "spatial":
                return spatial(weight, gram, rank)
            return tucker(weight, gram, input_rank, rank)

        return context.cached((form, rank, input_rank, self.weighting), [layer], make)

    def _shared(self, context: Context, layers: Sequence[Layer]) -> Proposal | None:
        """One proposal for layers that read the same tensor, where it costs less than apart."""
        if any(_refusal(layer) or self._unknown(context, layer) for layer in layers):
            return None
        inputs = layers[0].read().shape[1]
        outputs = [layer.read().shape[0] for layer in layers]
        together = self._joint(context, layers)
        most = inputs * sum(outputs) // (inputs + sum(outputs))
        quantum = context.target.rank_quantum
        ranks = [self.rank] if self.rank else list(range(quantum, most + 1, quantum))
        if self.energy:
            ranks = [r for r in ranks if together.error(r) <= 1 - self.energy][:1]
        ranks = _thinned([r for r in ranks if self.rank or together.error(r) <= _HOPELESS_ERROR])
        cheaper = 0
        candidates = []
        rows = _rows(context, layers[0])
        for rank in ranks:
            if rank > most:
                continue
            cost = rank * (inputs + sum(outputs))
            apart = 0
            for layer in layers:
                own = self._components(context, layer)
                enough = [
                    r
                    for r in range(quantum, inputs, quantum)
                    if own.error(r) <= together.error(rank)
                ]
                whole = inputs * layer.read().shape[0]
                pair = enough[0] * (inputs + layer.read().shape[0]) if enough else whole
                apart += min(pair, whole)
            cheaper += cost < apart
            saved = inputs * sum(outputs) - cost
            size = layers[0].nbytes // (inputs * outputs[0])
            candidates.append(
                Candidate(
                    {
                        "form": "shared",
                        "rank": rank,
                        "members": "\n".join(layer.name for layer in layers),
                        "from_statistics": self._observed(context, layers[0]),
                    },
                    predicted_error=together.error(rank),
                    saved_bytes=saved * size - _NODE_BYTES,
                    saved_multiply_adds=saved * rows,
                )
            )
        if not candidates or 2 * cheaper <= len(candidates):
            return None
        return Proposal(layers[0].name, tuple(candidates))

    def _joint(self, context: Context, layers: Sequence[Layer]) -> LowRank:
        """Components of all the layers' outputs, each scaled to the same energy."""

        def make() -> LowRank:
            moments = context.moments(layers[0])
            biased = all(self._biased(layer) for layer in layers)
            scaled = []
            for layer in layers:
                weights, _ = repaired(layer.read(), context.moments(layer), biased=biased)
                scaled.append(weights / _scale(context, layer))
            mean = moments.mean[0] if moments is not None and biased else None
            return low_rank(np.concatenate(scaled), self._gram(moments), mean)

        return context.cached(("joint", self.weighting), layers, make)

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Put the factors in the place of every use of a decided layer."""
        for decision in decisions:
            layer = context.layer(decision.site)
            parameters = decision.candidate.parameters
            moments = context.moments(layer)
            observed = moments is not None and moments.gram is not None
            if parameters["from_statistics"] and not observed:
                raise RecipeError(
                    f"factorizing {layer.name!r} needs the calibration data it was planned with; "
                    "give it with --calibration"
                )
            form, rank = str(parameters["form"]), int(parameters["rank"])
            if form == "shared":
                members = [context.layer(name) for name in str(parameters["members"]).split("\n")]
                self._write_shared(context, members, rank)
            elif form == "pair":
                self._write_pair(context, layer, rank)
            else:
                found = self._factored(
                    context, layer, form, rank, int(parameters.get("input_rank", 0))
                )
                offset = np.zeros(layer.shape[0])
                if self._biased(layer) and moments is not None:
                    weights, offset = repaired(layer.read(), moments, biased=True)
                    offset = offset + (weights - found.product) @ moments.mean[0]
                write_convolutions(layer, found.factors, offset)

    def _write_pair(self, context: Context, layer: Layer, rank: int) -> None:
        components = self._components(context, layer)
        first, second = components.factors(rank)
        offset = np.zeros(len(second))
        if self._biased(layer):
            _, drift = repaired(layer.read(), context.moments(layer), biased=True)
            offset = drift + components.bias_shift(rank)
        kernel = layer.shape[2:]
        if layer.op_type == "Conv":
            ones = (1,) * len(kernel)
            factors = (
                first.reshape(rank, layer.shape[1], *kernel),
                second.reshape(-1, rank, *ones),
            )
            write_convolutions(layer, factors, offset)
        elif layer.op_type == "ConvTranspose":
            inward = first.reshape(rank, -1, *(1,) * len(kernel))
            outward = second.T.reshape(rank, layer.shape[1], *kernel)
            write_convolutions(layer, (inward, outward), np.zeros(layer.shape[1]))
        elif layer.op_type == "Gather":
            write_embedding(layer, first, second)
        else:
            write_pair(layer, first, second, offset)

    def _write_shared(self, context: Context, layers: Sequence[Layer], rank: int) -> None:
        components = self._joint(context, layers)
        first, second = components.factors(rank)
        shift = components.bias_shift(rank)
        biased = all(self._biased(layer) for layer in layers)
        seconds: list[Float64] = []
        start = 0
        for layer in layers:
            end = start + layer.read().shape[0]
            scale = _scale(context, layer)
            seconds.append(second[start:end] * scale)
            if biased:
                _, drift = repaired(layer.read(), context.moments(layer), biased=True)
                shift_bias(layer.graph, layer.node, drift + shift[start:end] * scale)
            start = end
        write_shared(layers, first, seconds)


def _refusal(layer: Layer) -> str | None:
    node, shape = layer.node, layer.shape
    if layer.unsafe is not None:
        return layer.unsafe
    if layer.op_type == "MatMul" and len(shape) != 2:
        return "its weight is a batch of matrices, each of its own"
    if layer.op_type == "MatMul" and layer.uses[0].index == 0 and len(layer.uses) > 1:
        return "a left side of MatMul that several nodes share"
    if layer.groups > 1:
        outputs = shape[0] if layer.op_type == "Conv" else shape[1] * layer.groups
        if layer.groups == outputs:
            return "a depthwise convolution has no channels to share"
        return f"a convolution in {layer.groups} groups is of low rank already"
    if layer.op_type == "Gemm" and is_scaled_gemm(node) and layer.uses[1:]:
        return "a scaled Gemm that several nodes share"
    matrix = layer.read()
    if min(matrix.shape) <= _SMALL:
        return f"a weight of {matrix.shape[0]}x{matrix.shape[1]} is too small to gain"
    if not np.isfinite(matrix).all():
        return "its weight holds NaN or infinity"
    if not matrix.any():
        return "its weight is all zeros"
    return None


def _rows(context: Context, layer: Layer) -> float:
    """How often the weight is applied in one run; 1 where it was not observed."""
    moments = context.moments(layer)
    return 1.0 if moments is None else moments.rows_per_sample


def _most_rank(layer: Layer) -> int:
    """The highest rank whose two factors are smaller than the weight."""
    outputs, inputs = layer.read().shape
    return int((outputs * inputs - 1) // (outputs + inputs))


def _form_cost(layer: Layer, form: str, rank: int, input_rank: int) -> tuple[int, float]:
    """(numbers in a form's weights, multiply-adds for each output position).

    The factor that reads the input also works at the positions a stride skips.
    """
    outputs, inputs = layer.read().shape
    if form == "pair":
        numbers = rank * (outputs + inputs)
        return numbers, float(numbers)
    outputs, inputs, height, width = layer.shape
    node = layer.node
    strides = list(node.attributes["strides"].as_ints()) if "strides" in node.attributes else [1, 1]
    if form == "spatial":
        first, last = rank * inputs * height, outputs * rank * width
        return first + last, float(first * strides[1] + last)
    first, last = inputs * input_rank, rank * outputs
    core = input_rank * rank * height * width
    return first + core + last, float(first * strides[0] * strides[1] + core + last)


def _scale(context: Context, layer: Layer) -> float:
    """Root of the energy of a layer's outputs."""
    moments = context.moments(layer)
    gram = None if moments is None else moments.gram
    return math.sqrt(max(output_energy(layer.read(), gram), 1e-30))


def _up(wanted: float, quantum: int) -> int:
    return max(quantum, -int(-wanted // quantum) * quantum)


def _thinned(items: list[T], most: int = _MOST_RANKS) -> list[T]:
    if len(items) <= most:
        return items
    places = np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))
    return [items[place] for place in places]


def _frontier(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other beats in error, bytes and multiply-adds, the cheapest first."""
    kept: list[Candidate] = []
    for found in sorted(candidates, key=lambda c: (c.predicted_error, -c.saved_multiply_adds)):
        beaten = any(
            other.saved_multiply_adds >= found.saved_multiply_adds
            and other.saved_bytes >= found.saved_bytes
            for other in kept
        )
        if not beaten:
            kept.append(found)
    return tuple(sorted(kept, key=lambda c: (-c.saved_multiply_adds, -c.saved_bytes)))


def _shared_inputs(context: Context) -> list[list[Layer]]:
    """Layers of matrices that read the same tensor in the same graph."""
    groups: dict[tuple[int, int, ir.DataType], list[Layer]] = {}
    for layer in context.layers:
        node, use = layer.node, layer.uses[0]
        plain = layer.op_type == "MatMul" and use.index == 1 and len(layer.shape) == 2
        if layer.op_type == "Gemm":
            plain = not is_scaled_gemm(node) and not attribute(node, "transA", 0)
        if plain and len(layer.uses) == 1 and node.inputs[0] is not None:
            key = (id(node.inputs[0]), id(node.graph), layer.dtype)
            groups.setdefault(key, []).append(layer)
    return [layers for layers in groups.values() if len(layers) > 1]
