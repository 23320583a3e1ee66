"""The pass itself: how many channels, heads and blocks go, and what their readers become.

Sites are groups of coupled units (`coupling.py`) and residual blocks (`blocks.py`). Which units of
a group go follows from what their readers can make up for (`importance.py`); how many of which
group from what that costs at the model's outputs and what it saves by the clock. The readers'
weights and biases are solved for anew, then once more, level after level, for what the narrower
network feeds them. Channels that are zero, or copies of another, go without any loss
(`redundant.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
    TimingSubgraph,
)
from onnxpress.errors import RecipeError, UsageError
from onnxpress.graph import constant
from onnxpress.layers import Layer
from onnxpress.passes.prune.blocks import Block, find_blocks, remove_block
from onnxpress.passes.prune.coupling import Group
from onnxpress.passes.prune.cut import remove
from onnxpress.passes.prune.importance import (
    Reading,
    magnitude_order,
    removal_order,
    solve_kept,
)
from onnxpress.passes.prune.layout import Layout, Side
from onnxpress.passes.prune.redundant import Redundancy, find_redundant, merge_copies
from onnxpress.passes.prune.subgraphs import gone, narrower
from onnxpress.reconstruction import damped_gram, output_energy
from onnxpress.registry import nearest
from onnxpress.statistics import LayerStatistics, Observations

__all__ = ["Prune"]

_MOST_COUNTS = 8
"""Candidates of a group: each is timed."""
_HOPELESS_ERROR = 0.5
"""Of a group's readers, by prediction: beyond it nothing is left to build on."""

_CONSTANT = 1e-12
"""Of the inputs' power: what varies less than float32 resolves does not vary."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prune(Pass):
    """Fewer channels, heads and blocks in a model that runs as before."""

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.STRUCTURE
    rewrites_from_statistics: ClassVar[bool] = True

    structure: str = field(
        default="all",
        metadata={"help": "What to remove: channel, head, block (residual blocks), or all."},
    )
    ratio: float = field(
        default=0.0,
        metadata={"help": "Keep this share of the model's multiply-adds; 0: the budget decides."},
    )
    importance: str = field(
        default="auto",
        metadata={
            "help": "What decides which go: reconstruction (what the others cannot make up for; "
            "needs calibration data), magnitude, or auto: reconstruction where possible."
        },
    )
    reconstruction: bool = field(
        default=True,
        metadata={"help": "Solve for the weights of the layers that read what is left."},
    )
    refinement: bool = field(
        default=True,
        metadata={"help": "Solve for them again on what the narrower network feeds them."},
    )
    multiple: int = field(
        default=0,
        metadata={"help": "Channels are kept in multiples of this; 0: what the target likes."},
    )
    layers: str = field(
        default="",
        metadata={"help": "Only what these layers produce, separated by commas; empty: all."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 <= self.ratio < 1:
            raise UsageError(
                f"prune: ratio is {self.ratio:g}; expected the share of multiply-adds to keep, "
                "above 0 and below 1, or 0 to let the budget decide"
            )
        if self.multiple < 0:
            raise UsageError(f"prune: multiple is {self.multiple}; expected 0 or more")
        choices = {
            "structure": ("all", "channel", "head", "block"),
            "importance": ("auto", "reconstruction", "magnitude"),
        }
        for setting, allowed in choices.items():
            if getattr(self, setting) not in allowed:
                raise UsageError(
                    f"prune: {setting} is {getattr(self, setting)!r}; expected one of "
                    f"{', '.join(allowed)}"
                )

    @property
    def refines(self) -> bool:
        """Only what is solved for can be solved for again."""
        return self.refinement and self.reconstruction

    def observes(self, context: Context) -> Observations:
        """The Gram matrices of all layers."""
        return Observations(layers=frozenset(layer.name for layer in context.layers), gram=True)

    def quota(self, context: Context) -> Quota | None:
        """The multiply-adds to save for the wanted ratio."""
        return context.quota_of(self.ratio)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Counts for every group, the fewest units first, and every residual block."""
        layout = _layout(context)
        proposals = [self._group(context, layout, group) for group in self._chosen(layout)]
        if self.structure in ("all", "block") and not self.layers:
            proposals += [_block(context, block) for block in _blocks(context, layout)]
        return proposals

    def _chosen(self, layout: Layout) -> list[Group]:
        groups = [
            group
            for group in layout.groups.values()
            if self.structure in ("all", group.kind) and len(group.units) > 1
        ]
        if not self.layers:
            return groups
        wanted = [name.strip() for name in self.layers.split(",")]
        for name in wanted:
            if name not in layout.sides:
                raise UsageError(
                    f"prune: there is no layer {name!r}{nearest(name, list(layout.sides))} "
                    "(onnxpress inspect lists them)"
                )
        return [group for group in groups if set(layout.makers(group)) & set(wanted)]

    def _group(self, context: Context, layout: Layout, group: Group) -> Proposal | Skip:
        if group.blocked is not None:
            return Skip(group.name, f"all {len(group.units)} have to stay: {group.blocked}")
        readings = self._readings(context, layout, group)
        spare = _redundancy(context, layout, group).removed
        by_magnitude = self.importance == "magnitude" or not readings
        reason = "no number that kernels like keeps enough of what they carry"
        candidates = []
        if by_magnitude and not (self.ratio or self.importance == "magnitude"):
            reason = "without calibration data what may go would be a guess; name a ratio"
            if context.statistics is not None:
                reason = "no layer that reads them was observed"
        else:
            order, errors = context.cached(
                ("order", group.name, by_magnitude),
                [context.layer(name) for name in layout.readers(group)],
                lambda: (
                    _by_magnitude(context, layout, group)
                    if by_magnitude
                    else removal_order(readings)
                ),
            )
            for kept in self._counts(context, group):
                gone = order[: len(group.units) - kept]
                if len(gone) > len(spare) and (
                    by_magnitude or errors[len(gone)] <= _HOPELESS_ERROR
                ):
                    candidates.append(
                        self._removal(context, layout, group, gone, errors[len(gone)])
                    )
        if spare:
            candidates.append(self._removal(context, layout, group, spare, 0.0, exact=True))
        if not candidates:
            return Skip(group.name, reason)
        return Proposal(group.name, tuple(candidates))

    def _removal(
        self,
        context: Context,
        layout: Layout,
        group: Group,
        gone: Sequence[int],
        error: float,
        *,
        exact: bool = False,
    ) -> Candidate:
        units = [group.units[index] for index in gone]
        saved = sum(
            context.multiply_adds(layer) * (1 - layout.sides[layer.name].share(units))
            for layer in context.layers
        )
        return Candidate(
            {
                "removed": _ranges(sorted(gone)),
                "kept": len(group.units) - len(gone),
                "exact": exact,
                "members": "\n".join(layout.readers(group)),
            },
            predicted_error=error,
            saved_bytes=_saved_bytes(context, layout, units),
            saved_multiply_adds=saved,
            # What is free is taken whatever the clock says of so small a layer.
            keeps_kernels=exact,
        )

    def _counts(self, context: Context, group: Group) -> list[int]:
        """How many units may be left, the fewest first."""
        count = len(group.units)
        if group.kind == "head":
            step = 1
        else:
            step = self.multiple or context.target.channel_quantum
            # Narrow layers have no sixteen to spare: half a step still fills a vector.
            step = step if self.multiple or count >= 4 * step else max(step // 2, 1)
        counts = list(range(step, count, step))
        if len(counts) > _MOST_COUNTS:
            picked = np.linspace(0, len(counts) - 1, _MOST_COUNTS).round().astype(int)
            counts = [counts[index] for index in sorted(set(picked.tolist()))]
        return counts

    def _readings(self, context: Context, layout: Layout, group: Group) -> list[Reading]:
        found = []
        for name in layout.readers(group):
            layer = context.layer(name)
            moments = context.moments(layer)
            if moments is None or moments.gram is None:
                continue
            w = np.asarray(layer.read(), np.float64)
            gram = moments.centred_gram if takes_bias(layer) else moments.gram
            if gram is None or output_energy(w, gram) <= _CONSTANT * output_energy(w, moments.gram):
                # Inputs that never vary: what the bias cannot take up on other data.
                gram = moments.gram
            if not output_energy(w, gram) > 0:
                continue
            side = layout.sides[name]
            features = tuple(np.flatnonzero(side.inputs == unit) for unit in group.units)
            found.append(
                Reading(w.reshape(len(gram), -1, w.shape[1]), gram, moments.rows, features)
            )
        return found

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Solve for the readers, then take the units and blocks out."""
        layout = _layout(context)
        removal: dict[str, list[int]] = {}
        blocks = []
        for decision in decisions:
            if decision.site.startswith("block:"):
                blocks.append(decision.site)
                continue
            group = layout.groups.get(decision.site)
            removed = _indices(str(decision.candidate.parameters["removed"]))
            if group is None or group.blocked or max(removed) >= len(group.units):
                raise RecipeError(
                    f"the plan names the group {decision.site!r} with units {removed}, which this "
                    "model does not have; the recipe was made for another model or another "
                    "version of onnxpress"
                )
            removal[decision.site] = removed
        units = {
            layout.groups[name].units[index] for name, some in removal.items() for index in some
        }
        constants = _constants(context.model)
        for decision in decisions:
            if decision.candidate.parameters.get("exact"):
                group = layout.groups[decision.site]
                merge_copies(layout, group, _redundancy(context, layout, group), constants)
        if self.reconstruction:
            members = {
                name
                for decision in decisions
                if not decision.candidate.parameters.get("exact")
                for name in _members(decision)
            }
            for layer in context.layers:
                if layer.name in members:
                    _solve(context, layer, layout.sides[layer.name], units)
        if units:
            # Numbers of atoms differ from model to model; places in groups do not.
            fresh = Layout(context.model, context.layers)
            remove(
                context.model,
                fresh.reader,
                {fresh.groups[name].units[i] for name, some in removal.items() for i in some},
            )
        for name in blocks:
            remove_block(context.model, name)
        if decisions:
            RemoveUnusedNodesPass()(context.model)

    def timing_subgraphs(
        self, context: Context, proposal: Proposal, candidate: Candidate
    ) -> list[TimingSubgraph] | None:
        """Every layer that gets narrower or goes, before and after."""
        layout = _layout(context)
        found = []
        for block in _blocks(context, layout):
            if block.name == proposal.site:
                inside = [context.layer(name) for name in block.inside]
                found = [gone(layer, context.moments(layer)) for layer in inside]
        if proposal.site in layout.groups:
            group = layout.groups[proposal.site]
            units = [group.units[i] for i in _indices(str(candidate.parameters["removed"]))]
            found = [
                narrower(layer, layout.sides[layer.name], units, context.moments(layer))
                for layer in context.layers
            ]
        return [subgraph for subgraph in found if subgraph is not None]

    def saving(self, context: Context, decisions: Sequence[Decision], unit: str) -> float:
        """What decisions save together: a layer cut on both sides saves less than twice."""
        if unit != "saved_multiply_adds":
            return super().saving(context, decisions, unit)
        layout = _layout(context)
        units = [
            layout.groups[decision.site].units[index]
            for decision in decisions
            if not decision.site.startswith("block:")
            for index in _indices(str(decision.candidate.parameters["removed"]))
        ]
        sites = {decision.site for decision in decisions}
        dead = {n for b in _blocks(context, layout) if b.name in sites for n in b.inside}
        return sum(
            context.multiply_adds(layer)
            * (1 - (0 if layer.name in dead else layout.sides[layer.name].share(units)))
            for layer in context.layers
        )


def _members(decision: Decision) -> list[str]:
    return str(decision.candidate.parameters.get("members", "")).split("\n")


def _constants(model: ir.Model) -> dict[str, ir.Value]:
    graphs = [model.graph, *model.graph.subgraphs()]
    return {name: value for graph in graphs for name, value in graph.initializers.items()}


def _layout(context: Context) -> Layout:
    return context.cached("layout", [], lambda: Layout(context.model, context.layers))


def _blocks(context: Context, layout: Layout) -> list[Block]:
    return context.cached(
        "blocks", [], lambda: find_blocks(context.model, context.layers, layout.reader)
    )


def _saved_bytes(context: Context, layout: Layout, units: Sequence[int]) -> int:
    return round(
        sum(layer.nbytes * (1 - layout.sides[layer.name].share(units)) for layer in context.layers)
    )


def _block(context: Context, block: Block) -> Proposal | Skip:
    inside = [context.layer(name) for name in block.inside]
    last = None if block.last is None else context.layer(block.last)
    moments = None if last is None else context.moments(last)
    readers = [context.moments(context.layer(name)) for name in block.readers]
    seen = [found for found in readers if found is not None]
    if last is None or moments is None or moments.gram is None or not seen:
        return Skip(block.name, "what the block adds was not observed")
    added = output_energy(last.read(), moments.gram)
    # A receptive field holds every channel as often as the kernel has places.
    layer = context.layer(block.readers[readers.index(seen[0])])
    kernel = int(np.prod(layer.shape[2:])) if layer.op_type == "Conv" else 1
    power = float(seen[0].second_moment.sum()) / kernel
    return Proposal(
        block.name,
        (
            Candidate(
                {"members": "\n".join(block.readers)},
                predicted_error=added / power if power > 0 else 1.0,
                saved_bytes=sum(layer.nbytes for layer in inside),
                saved_multiply_adds=sum(context.multiply_adds(layer) for layer in inside),
            ),
        ),
    )


def _redundancy(context: Context, layout: Layout, group: Group) -> Redundancy:
    return context.cached(
        ("redundant", group.name), [], lambda: find_redundant(layout, group, context.layers)
    )


def _by_magnitude(context: Context, layout: Layout, group: Group) -> tuple[list[int], list[float]]:
    """Units by the norm of their rows in all layers that make them (L2, Li et al. 2017)."""
    norms, total = np.zeros(len(group.units)), 0.0
    for name in layout.makers(group):
        layer = context.layer(name)
        w = np.square(np.asarray(layer.read(), np.float64)).sum(axis=1)
        outputs = layout.sides[name].outputs
        bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
        offset = constant(bias)
        if offset is not None and offset.size == len(w):
            w = w + np.square(offset.reshape(-1).astype(np.float64))
        norms += [w[outputs == unit].sum() for unit in group.units]
        total += float(w.sum())
    order = magnitude_order(norms)
    shares = np.concatenate([[0.0], np.cumsum(norms[order])]) / max(total, 1e-30)
    return order, shares.tolist()


def _solve(context: Context, layer: Layer, side: Side, units: set[int]) -> None:
    """Let a layer's remaining inputs stand for all, as far as calibration data says how."""
    moments = context.moments(layer)
    if moments is None or moments.gram is None or len(layer.uses) != 1 or layer.unsafe:
        return
    kept = np.flatnonzero(~np.isin(side.inputs, sorted(units)))
    if not len(kept):
        return
    biased = takes_bias(layer)
    w = np.asarray(layer.read(), np.float64)
    grouped = w.reshape(len(moments.gram), -1, w.shape[1])
    # What a layer becomes is asked for again at every level of the refinement.
    key = ("solved", kept.tobytes(), w.tobytes())
    if moments.cross is None:
        found = context.cached(
            key, [layer], lambda: _one_shot(grouped, moments, kept, biased=biased)
        )
        context.cache[(*key, layer.name)] = found
        mean, reference = moments.mean[:, kept], moments.mean
    else:
        start = context.cache.get((*key, layer.name), grouped[:, :, kept])
        found = context.cached(
            key, [layer], lambda: _drifted(grouped, start, moments, biased=biased)
        )
        assert moments.reference_mean is not None
        mean, reference = moments.mean, moments.reference_mean
    if not np.isfinite(found).all():
        return
    whole = np.zeros_like(grouped)
    whole[:, :, kept] = found
    layer.write(whole.reshape(w.shape))
    if biased:
        offset = grouped @ reference[:, :, None] - found @ mean[:, :, None]
        shift_bias(layer.graph, layer.node, offset.reshape(-1))


def _one_shot(
    weights: Float64, moments: LayerStatistics, kept: npt.NDArray[np.int64], *, biased: bool
) -> Float64:
    if len(kept) == weights.shape[2]:
        return weights
    gram = moments.centred_gram if biased else moments.gram
    assert gram is not None
    return solve_kept(weights, gram, kept, moments.rows)


def _drifted(
    weights: Float64, start: Float64, moments: LayerStatistics, *, biased: bool
) -> Float64:
    """`start` refitted to x̂, what the narrower network gives: W·C·Ĥ⁻¹, damped towards `start`.

    Args:
        weights: `[groups, out, in]` W of the layer before.
        start: `[groups, out, kept]`.
        moments: of x̂, with `cross` `[groups, in, kept]`.
        biased: whether a bias takes up the means.
    """
    own = moments.centred_gram if biased else moments.gram
    cross = moments.centred_cross if biased else moments.cross
    assert own is not None
    assert cross is not None
    step = weights @ cross - start @ own
    damped = damped_gram(own, moments.rows)
    return start + np.linalg.solve(damped, step.swapaxes(1, 2)).swapaxes(1, 2)


def _ranges(indices: Sequence[int]) -> str:
    """`[0, 1, 2, 5]` as `0-2,5`."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _indices(text: str) -> list[int]:
    found: list[int] = []
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            found += range(int(low), int(high or low) + 1)
    except ValueError as error:
        raise RecipeError(
            f"the plan removes {text!r}; expected numbers and ranges such as 0-2,5"
        ) from error
    return found
