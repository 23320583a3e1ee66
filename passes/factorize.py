"""Replace a Gemm or MatMul by two of low rank whose product approximates its weight.

The best rank-r replacement for the outputs keeps their r principal components:
W·H_c·Wᵀ = UΛUᵀ, first factor U_rᵀW, second U_r, and the bias takes up what is lost of the mean
(`reconstruction.low_rank`; DRONE, NeurIPS 2021; SVD-LLM, arXiv 2403.07378). Without
calibration data it is the plain truncated SVD, done only when asked for an energy or a rank.

A rank counts only where it saves bytes and multiply-adds: r·(in + out) < in·out. Ranks are
multiples of the target's quantum, since kernels take the time of the next multiple.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.errors import RecipeError, UsageError
from onnxpress.graph import Layer, add_initializer, constant, take_over, unique_name
from onnxpress.plan import Candidate, Context, Decision, Pass, Proposal, Skip, Stage
from onnxpress.reconstruction import LowRank, low_rank
from onnxpress.statistics import Observations

__all__ = ["Factorize"]

_MOST_RANKS = 10
_HOPELESS_ERROR = 0.3
_NODE_BYTES = 120


@dataclass(frozen=True)
class Factorize(Pass):
    """Two thin matrices instead of a wide one."""

    name: ClassVar[str] = "factorize"
    stage: ClassVar[Stage] = Stage.LOW_RANK
    rewrites_from_statistics: ClassVar[bool] = True

    energy: float = field(
        default=0.0,
        metadata={"help": "Keep this share of each layer's output energy; 0: the budget decides."},
    )
    rank: int = field(default=0, metadata={"help": "One rank for every layer; 0: chosen by layer."})

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 <= self.energy < 1:
            raise UsageError(
                f"factorize: energy is {self.energy:g}; expected a share below 1, or 0 for none"
            )
        if self.rank < 0:
            raise UsageError(f"factorize: rank is {self.rank}; expected a positive number, or 0")

    def observes(self, context: Context) -> Observations:
        """The Gram matrices of all layers that can be factorized."""
        names = frozenset(layer.name for layer in context.layers if _refusal(layer) is None)
        return Observations(layers=names, gram=True)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Ranks for every layer, the lowest first."""
        proposals: list[Proposal | Skip] = []
        for layer in context.layers:
            reason = _refusal(layer)
            if (
                reason is None
                and not self._observed(context, layer)
                and not (self.energy or self.rank)
            ):
                reason = "without calibration data its rank would be a guess; name an energy"
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
                continue
            components = _components(context, layer)
            candidates = tuple(
                _candidate(context, layer, components, rank)
                for rank in self._ranks(context, layer, components)
            )
            proposals.append(
                Proposal(layer.name, candidates)
                if candidates
                else Skip(layer.name, "no rank that saves multiply-adds keeps enough of its output")
            )
        return proposals

    def _observed(self, context: Context, layer: Layer) -> bool:
        return _gram(context, layer) is not None

    def _ranks(self, context: Context, layer: Layer, components: LowRank) -> list[int]:
        outputs, inputs = components.weights.shape
        most = (outputs * inputs - 1) // (outputs + inputs)
        if self.rank:
            return [self.rank] if self.rank <= most else []
        quantum = context.target.rank_quantum
        ranks = list(range(quantum, most + 1, quantum))
        if self.energy:
            return [rank for rank in ranks if components.error(rank) <= 1 - self.energy][:1]
        ranks = [rank for rank in ranks if components.error(rank) <= _HOPELESS_ERROR]
        if len(ranks) > _MOST_RANKS:
            places = np.unique(np.linspace(0, len(ranks) - 1, _MOST_RANKS).round().astype(int))
            ranks = [ranks[place] for place in places]
        return ranks

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Put two nodes in the place of every use of a decided layer."""
        for decision in decisions:
            layer = context.layer(decision.site)
            parameters = decision.candidate.parameters
            if parameters["from_statistics"] and _gram(context, layer) is None:
                raise RecipeError(
                    f"factorizing {layer.name!r} needs the calibration data it was planned with; "
                    "give it with --calibration"
                )
            _split(layer, _components(context, layer), int(parameters["rank"]))


def _refusal(layer: Layer) -> str | None:
    if layer.op_type not in ("Gemm", "MatMul"):
        return f"{layer.op_type} is not factorized, only Gemm and MatMul are"
    if layer.op_type == "MatMul" and (len(layer.shape) != 2 or layer.uses[0].index != 1):
        return "only a two-dimensional weight on the right of MatMul is factorized"
    if layer.unsafe is not None:
        return layer.unsafe
    matrix = layer.read()
    if not np.isfinite(matrix).all():
        return "its weight holds NaN or infinity"
    if not matrix.any():
        return "its weight is all zeros"
    return None


def _gram(context: Context, layer: Layer) -> npt.NDArray[np.float64] | None:
    if context.statistics is None or layer.name not in context.statistics.layers:
        return None
    return context.statistics.layers[layer.name].gram


def _can_centre(layer: Layer) -> bool:
    """Whether a bias can take up the mean: a Gemm whose bias is absent or one constant row."""
    for use in layer.uses:
        node = use.node
        if node.op_type != "Gemm":
            return False
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = constant(node.inputs[2])
            if bias is None or bias.size not in (1, layer.read().shape[0]):
                return False
    return True


def _components(context: Context, layer: Layer) -> LowRank:
    gram = _gram(context, layer)
    mean = None
    if gram is not None and _can_centre(layer):
        assert context.statistics is not None
        mean = context.statistics.layers[layer.name].mean[0]
    return low_rank(layer.read(), None if gram is None else gram[0], mean)


def _candidate(context: Context, layer: Layer, components: LowRank, rank: int) -> Candidate:
    outputs, inputs = components.weights.shape
    saved = outputs * inputs - rank * (outputs + inputs)
    rows = 1.0
    if context.statistics is not None and layer.name in context.statistics.layers:
        rows = context.statistics.layers[layer.name].rows_per_sample
    return Candidate(
        {"rank": rank, "from_statistics": _gram(context, layer) is not None},
        predicted_error=components.error(rank),
        saved_bytes=saved * layer.nbytes // (outputs * inputs) - _NODE_BYTES,
        saved_multiply_adds=saved * rows,
    )


def _split(layer: Layer, components: LowRank, rank: int) -> None:
    first, second = components.factors(rank)
    shift = components.bias_shift(rank)
    stored = layer.weight.const_value
    assert stored is not None
    dtype = stored.numpy().dtype
    first_value = add_initializer(layer.graph, f"{layer.name}_factor_in", first.T.astype(dtype))
    second_value = add_initializer(layer.graph, f"{layer.name}_factor_out", second.T.astype(dtype))
    for use in layer.uses:
        node = use.node
        graph, data, output = node.graph, node.inputs[0], node.outputs[0]
        assert isinstance(graph, ir.Graph)
        assert data is not None
        stem = node.name or output.name
        attributes: list[ir.Attr] = []
        if node.op_type == "Gemm":
            attributes = [
                attr for name, attr in node.attributes.items() if name in ("alpha", "transA")
            ]
        inner = ir.Node("", node.op_type, [data, first_value], attributes, name=f"{stem}_in")
        inner.outputs[0].name = unique_name(layer.graph, f"{output.name}_low_rank")
        inner.outputs[0].type = output.type
        last = [inner.outputs[0], second_value]
        if node.op_type == "Gemm":
            bias = _shifted_bias(layer, node, shift, dtype)
            last += [bias] if bias is not None else []
        outer = ir.Node(
            "",
            node.op_type,
            last,
            [attr for name, attr in node.attributes.items() if name == "beta"],
            name=f"{stem}_out",
        )
        graph.insert_before(node, [inner, outer])
        take_over(node, outer)
    del layer.graph.initializers[layer.name]


def _shifted_bias(
    layer: Layer, node: ir.Node, shift: npt.NDArray[np.float64], dtype: np.dtype[np.generic]
) -> ir.Value | None:
    present = node.inputs[2] if len(node.inputs) > 2 else None
    if not shift.any():
        return present
    beta = node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0
    base = constant(present)
    old = np.zeros(len(shift)) if base is None else np.asarray(base, np.float64).reshape(-1)
    stem = present.name if present is not None else f"{layer.name}_bias"
    return add_initializer(
        layer.graph, f"{stem}_shifted", (old + shift / (beta or 1.0)).astype(dtype)
    )
