"""Put factors of low rank in the place of layers: which, as the plan decided or a setting says.

What a layer may become is in `candidates`, layers that read the same tensor in `sharing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval

from onnxpress.bias import shift_bias
from onnxpress.contract import (
    OUT_OF_TIME,
    Context,
    Decision,
    Layer,
    Observations,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
    setting,
)
from onnxpress.errors import RecipeError
from onnxpress.passes.factorize.candidates import Wanted, layer_candidates, no_rank, refusal
from onnxpress.passes.factorize.decompose import Effort
from onnxpress.passes.factorize.fitting import (
    Floats,
    biased_in,
    components_of,
    drift_of,
    energy_scale,
    factored,
    joint_components,
    wanted_of,
)
from onnxpress.passes.factorize.rewrite import (
    write_convolutions,
    write_embedding,
    write_pair,
    write_recurrent,
    write_shared,
)
from onnxpress.passes.factorize.sharing import shared_inputs, shared_proposal
from onnxpress.recurrent import is_recurrent

__all__ = ["Factorize"]

Share = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True)
class Factorize(Pass):
    """Thin matrices instead of a wide one."""

    name: ClassVar[str] = "factorize"
    stage: ClassVar[Stage] = Stage.LOW_RANK
    families: ClassVar[tuple[str, ...]] = ("pair", "spatial", "tucker", "shared")
    rewrites_from_statistics: ClassVar[bool] = True

    energy: Share | None = setting(
        None, "Keep this share of each layer's output energy. Without: the budget decides."
    )
    ratio: Share | None = setting(
        None, "Keep this share of the model's multiply-adds. Without: the budget decides."
    )
    rank: Annotated[int, Ge(1)] | None = setting(
        None, "One rank for every layer. Without: chosen by layer."
    )
    weighting: Literal["outputs", "inputs", "weights"] = setting(
        "outputs",
        "What is kept: outputs (needs calibration data), inputs (each input weighed by its size, "
        "FWSVD's form), or weights (plain SVD).",
    )
    refinement: bool = setting(
        default=True, help="Fit each layer again to what the factorized network feeds it."
    )

    def conflict(self) -> str | None:
        """Three ways to say how much is kept."""
        if sum(value is not None for value in (self.energy, self.ratio, self.rank)) > 1:
            return "energy, ratio and rank exclude each other; give one"
        return None

    @property
    def refines(self) -> bool:
        """Refinement fits outputs, so it needs that weighting."""
        return self.refinement and self.weighting == "outputs"

    def observes(self, context: Context) -> Observations:
        """The Gram matrices of all layers, for what the others cost counts in a ratio."""
        return Observations(layers=frozenset(layer.name for layer in context.layers), gram=True)

    def quota(self, context: Context) -> Quota | None:
        """The multiply-adds to save for the wanted ratio."""
        return Quota.of_ratio(context, self.ratio)

    @property
    def _wanted(self) -> Wanted:
        return Wanted(self.energy, self.rank, self.weighting, self.ratio)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Forms and ranks for every layer, the cheapest first."""
        proposals: list[Proposal | Skip] = []
        taken: set[str] = set()
        for layers in () if context.shapes_only else shared_inputs(context):
            if context.out_of_time():
                break
            shared = shared_proposal(context, layers, self._wanted)
            if shared is not None:
                proposals.append(shared)
                taken |= {layer.name for layer in layers}
        proposals += [
            Skip(layer.name, OUT_OF_TIME)
            if context.out_of_time()
            else _proposal(context, layer, self._wanted)
            for layer in context.layers
            if layer.name not in taken
        ]
        order = {layer.name: index for index, layer in enumerate(context.layers)}
        return sorted(proposals, key=lambda item: order[item.site])

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
                    "give it with --calibration [R002]"
                )
            self._write(context, layer, decision)

    def _write(self, context: Context, layer: Layer, decision: Decision) -> None:
        parameters, form = decision.candidate.parameters, decision.candidate.family
        rank, input_rank = int(parameters["rank"]), int(parameters.get("input_rank", 0))
        if form == "shared":
            members = [context.layer(name) for name in decision.layers]
            _write_shared(context, members, rank, self.weighting)
        elif form == "pair":
            _write_pair(context, layer, rank, self.weighting)
        else:
            _write_split(context, layer, (form, rank, input_rank), self.weighting)


def _proposal(context: Context, layer: Layer, wanted: Wanted) -> Proposal | Skip:
    reason = refusal(context, layer, wanted)
    if reason is not None:
        return Skip(layer.name, reason)
    candidates = layer_candidates(context, layer, wanted)
    if not candidates:
        return Skip(layer.name, no_rank(layer, wanted))
    return Proposal(layer.name, candidates)


def _write_split(
    context: Context, layer: Layer, size: tuple[str, int, int], weighting: str
) -> None:
    """A convolution in several; `size`: form, rank, input rank."""
    effort: Effort = "form" if context.draft else "best"
    found = factored(context, layer, *size, weighting, effort=effort)
    moments = context.moments(layer)
    offset = np.zeros(layer.shape[0])
    if biased_in(layer, weighting) and moments is not None:
        weights, offset = wanted_of(context, layer, weighting)
        offset = offset + (weights - found.product) @ moments.mean[0]
    write_convolutions(context.names, layer, found.factors, offset)


def _write_pair(context: Context, layer: Layer, rank: int, weighting: str) -> None:
    components = components_of(context, layer, weighting)
    first, second = components.factors(rank)
    offset = np.zeros(len(second))
    if biased_in(layer, weighting):
        offset = drift_of(context, layer, weighting) + components.bias_shift(first, second)
    kernel = layer.shape[2:]
    if layer.op_type == "Conv":
        ones = (1,) * len(kernel)
        factors = (
            first.reshape(rank, layer.shape[1], *kernel),
            second.reshape(-1, rank, *ones),
        )
        write_convolutions(context.names, layer, factors, offset)
    elif layer.op_type == "ConvTranspose":
        inward = first.reshape(rank, -1, *(1,) * len(kernel))
        outward = second.T.reshape(rank, layer.shape[1], *kernel)
        write_convolutions(context.names, layer, (inward, outward), np.zeros(layer.shape[1]))
    elif is_recurrent(layer.node):
        write_recurrent(context.names, layer, first, second, offset)
    elif layer.op_type == "Gather":
        write_embedding(context.names, layer, first, second)
    else:
        write_pair(context.names, layer, first, second, offset)


def _write_shared(context: Context, layers: Sequence[Layer], rank: int, weighting: str) -> None:
    components = joint_components(context, layers, weighting)
    first, second = components.factors(rank)
    shift = components.bias_shift(first, second)
    biased = all(biased_in(layer, weighting) for layer in layers)
    seconds: list[Floats] = []
    start = 0
    for layer in layers:
        end = start + layer.read().shape[0]
        scale = energy_scale(context, layer)
        seconds.append(second[start:end] * scale)
        if biased:
            drift = drift_of(context, layer, weighting)
            shift_bias(context.names, layer.graph, layer.node, drift + shift[start:end] * scale)
        start = end
    write_shared(context.names, layers, first, seconds)
