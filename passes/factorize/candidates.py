"""What a layer alone may become: forms and ranks that pay, with the error that is predicted.

A rank counts only where it saves bytes or multiply-adds. Ranks are multiples of the target's
quantum, since kernels take the time of the next multiple. Of the forms a convolution has, those
are offered that no other beats in both error and multiply-adds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from onnxpress.contract import Candidate, Context, Layer, Parameter
from onnxpress.layers import is_scaled_gemm
from onnxpress.passes.factorize.decompose import Effort
from onnxpress.passes.factorize.fitting import components_of, factored
from onnxpress.pieces import is_finite, pieces
from onnxpress.recurrent import HIDDEN_WEIGHT, is_recurrent

__all__ = [
    "HOPELESS_ERROR",
    "NODE_BYTES",
    "Wanted",
    "layer_candidates",
    "no_rank",
    "observed",
    "refusal",
    "thinned",
]

T = TypeVar("T")

HOPELESS_ERROR = 0.3
NODE_BYTES = 120
_MOST_RANKS = 8
_MOST_SPLITS = 5
"""Of each form of a convolution: their factors take a second each to fit."""
_FRACTIONS = (0.25, 0.375, 0.5, 0.625, 0.75)
"""Of a convolution's channels that Tucker's core may keep."""
_ADDED_KERNELS = {"pair": 1, "spatial": 1, "tucker": 2}
_SMALL = 16
"""Sides: below the smallest rank quantum there is nothing to gain."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask for.

    Attributes:
        energy: share of the layer's output energy to keep, or `None`.
        rank: of every layer, or `None`.
        weighting: what is kept: `outputs`, `inputs` or `weights`.
        ratio: share of the model's multiply-adds to keep, or `None`.
    """

    energy: float | None
    rank: int | None
    weighting: str
    ratio: float | None = None

    @property
    def needs_data(self) -> bool:
        """Whether nothing but statistics says what a rank costs."""
        return not (self.energy or self.rank or self.ratio)

    @property
    def most_error(self) -> float:
        """Beyond which a form is not offered."""
        return 1 - self.energy if self.energy else HOPELESS_ERROR


def refusal(context: Context, layer: Layer, wanted: Wanted) -> str | None:
    """Why a layer is left alone before any rank is tried, as a sentence for people."""
    reason = _unfit(layer)
    if reason is None and not context.shapes_only:
        reason = _spoiled(layer)
    return reason or _unknown(context, layer, wanted)


def _unfit(layer: Layer) -> str | None:
    node, shape = layer.node, layer.shape
    if layer.unsafe is not None:
        return layer.unsafe
    if layer.op_type == "MatMul" and len(shape) != 2:
        return "its weight is a batch of matrices, each of its own [F003]"
    if layer.op_type == "MatMul" and layer.uses[0].index == 0 and len(layer.uses) > 1:
        return "a left side of MatMul that several nodes share [F003]"
    if any(is_recurrent(use.node) for use in layer.uses):
        if any(use.index == HIDDEN_WEIGHT for use in layer.uses):
            return (
                "it multiplies hidden states inside the operator, where no factor can stand [F004]"
            )
    elif layer.groups > 1:
        outputs = shape[0] if layer.op_type == "Conv" else shape[1] * layer.groups
        if layer.groups == outputs:
            return "a depthwise convolution has no channels to share [F005]"
        return f"a convolution in {layer.groups} groups is of low rank already [F005]"
    if layer.op_type == "Gemm" and is_scaled_gemm(node) and layer.uses[1:]:
        return "a scaled Gemm that several nodes share [F003]"
    outputs, inputs = layer.read().shape
    if min(outputs, inputs) <= _SMALL:
        return f"a weight of {outputs}x{inputs} is too small to gain [F006]"
    return None


def _spoiled(layer: Layer) -> str | None:
    if not is_finite(layer.array):
        return "its weight holds NaN or infinity [L001]"
    if not any(piece.any() for piece in pieces(layer.array)):
        return "its weight is all zeros [F007]"
    return None


def _unknown(context: Context, layer: Layer, wanted: Wanted) -> str | None:
    """What calibration data would have to say of the layer, or `None`."""
    if not wanted.needs_data:
        return None
    guess = (
        "without calibration data its rank would be a guess; name an energy, ratio or rank [F001]"
    )
    if layer.op_type == "Gather":
        # Random indices read rows that real ones hardly meet.
        return guess if context.statistics is None else None
    moments = context.moments(layer)
    if moments is not None and moments.rows and moments.gram is None:
        inputs = layer.read().shape[1]
        return (
            f"how its {inputs:,} inputs go together takes too much memory; name a "
            "rank or ratio [F008]"
        )
    if moments is None or moments.gram is None:
        return guess
    centred = moments.centred_gram
    assert centred is not None
    if not np.einsum("gii->", centred) > 1e-12 * np.einsum("gii->", moments.gram):
        return "its inputs are the same for all calibration data, so no rank is known to do [F009]"
    return None


def no_rank(layer: Layer, wanted: Wanted) -> str:
    """Why a layer without candidates has none."""
    if wanted.rank:
        most = _most_rank(layer)
        return f"rank {wanted.rank} saves nothing; it would have to be at most {most} [F002]"
    return "no rank that saves multiply-adds keeps enough of its output [F002]"


def observed(context: Context, layer: Layer, weighting: str) -> bool:
    """Whether the factors follow from statistics."""
    moments = context.moments(layer)
    return weighting != "weights" and moments is not None and moments.gram is not None


def layer_candidates(context: Context, layer: Layer, wanted: Wanted) -> tuple[Candidate, ...]:
    """Forms and ranks for a layer, the cheapest first."""
    if context.shapes_only:
        return (Candidate(family="pair"),) if _most_rank(layer) >= 1 else ()
    found = [_pair(context, layer, rank, wanted) for rank in _ranks(context, layer, wanted)]
    if layer.op_type == "Conv" and min(layer.shape[2:]) > 1 and len(layer.shape) == 4:
        found += _splits(context, layer, wanted)
    found = [c for c in found if c.saved_bytes > 0 or c.saved_multiply_adds > 0]
    if wanted.energy:
        # Each form's least rank is here already: the cheapest form is wanted.
        found = sorted(found, key=lambda c: -c.saved_multiply_adds)[:1]
    return _frontier(found)


def _ranks(context: Context, layer: Layer, wanted: Wanted) -> list[int]:
    most = _most_rank(layer)
    if wanted.rank:
        return [wanted.rank] if wanted.rank <= most else []
    components = components_of(context, layer, wanted.weighting)
    quantum = context.target.rank_quantum
    ranks = range(quantum, most + 1, quantum)
    fitting = [rank for rank in ranks if components.error(rank) <= wanted.most_error]
    return fitting[:1] if wanted.energy else thinned(fitting)


def _splits(context: Context, layer: Layer, wanted: Wanted) -> list[Candidate]:
    """Spatial and Tucker forms of a convolution."""
    candidates = []
    for form, sizes in _split_sizes(context, layer, wanted).items():
        for rank, input_rank in thinned(sizes, _MOST_SPLITS):
            size = (form, rank, input_rank)
            # An asked-for energy is kept by the factors that are written, no sooner.
            effort: Effort = "best" if wanted.energy else "quick"
            error = factored(context, layer, *size, wanted.weighting, effort=effort).error
            if wanted.rank or error <= wanted.most_error:
                candidates.append(_candidate(context, layer, size, error, wanted))
                if wanted.energy:
                    break
    return candidates


def _split_sizes(
    context: Context, layer: Layer, wanted: Wanted
) -> dict[str, list[tuple[int, int]]]:
    """(rank, input rank) by form, of those that save a tenth of the multiply-adds."""
    outputs, inputs = layer.shape[:2]
    quantum = context.target.rank_quantum
    ranks = [wanted.rank] if wanted.rank else range(quantum, max(inputs, outputs) + 1, quantum)
    cuts = [(_up(inputs * f, quantum), _up(outputs * f, quantum)) for f in _FRACTIONS]
    cuts = [(wanted.rank, wanted.rank)] if wanted.rank else sorted(set(cuts))
    tucker = [
        (rank, cut)
        for cut, rank in cuts
        if cut <= inputs and rank <= outputs and (cut, rank) != (inputs, outputs)
    ]
    sizes = {"spatial": [(rank, 0) for rank in ranks], "tucker": tucker}
    most = 0.9 * math.prod(layer.shape)
    return {
        form: [size for size in found if _form_cost(layer, form, *size)[1] < most]
        for form, found in sizes.items()
    }


def _pair(context: Context, layer: Layer, rank: int, wanted: Wanted) -> Candidate:
    error = components_of(context, layer, wanted.weighting).error(rank)
    return _candidate(context, layer, ("pair", rank, 0), error, wanted)


def _candidate(
    context: Context, layer: Layer, size: tuple[str, int, int], error: float, wanted: Wanted
) -> Candidate:
    """Of a size (form, rank, input rank; 0: there is none)."""
    form, rank, input_rank = size
    whole = math.prod(layer.shape)
    numbers, cost = _form_cost(layer, form, rank, input_rank)
    parameters: dict[str, Parameter] = {"rank": rank}
    if input_rank:
        parameters["input_rank"] = input_rank
    parameters["from_statistics"] = observed(context, layer, wanted.weighting)
    number_bytes = layer.nbytes // max(whole, 1)
    return Candidate(
        parameters,
        predicted_error=error,
        saved_bytes=(whole - numbers) * number_bytes - NODE_BYTES,
        saved_multiply_adds=context.multiply_adds(layer) * (1 - cost / whole),
        added_kernels=_ADDED_KERNELS[form],
        family=form,
    )


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


def _up(wanted: float, quantum: int) -> int:
    return max(quantum, -int(-wanted // quantum) * quantum)


def thinned(items: list[T], most: int = _MOST_RANKS) -> list[T]:
    """At most so many, evenly spread from the first to the last."""
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
