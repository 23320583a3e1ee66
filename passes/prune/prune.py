"""The pass itself: how many channels, heads and blocks go, and what their readers become.

Sites are groups of coupled units (`coupling.py`) and residual blocks (`blocks.py`). Which units of
a group go follows from what their readers can make up for (`importance.py`); how many of which
group from what that costs at the model's outputs and what it saves by the clock. The readers'
weights and biases are solved for anew, then once more, level after level, for what the narrower
network feeds them. Channels that are zero, or copies of another, go without any loss
(`redundant.py`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxpress.contract import (
    OUT_OF_TIME,
    Candidate,
    Context,
    Decision,
    Observations,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
    TimingSubgraph,
    setting,
)
from onnxpress.errors import RecipeError, UsageError, nearest
from onnxpress.passes.prune.blocks import Block, remove_block
from onnxpress.passes.prune.coupling import Group
from onnxpress.passes.prune.cut import remove
from onnxpress.passes.prune.layout import Layout
from onnxpress.passes.prune.ranges import indices_of, text_of
from onnxpress.passes.prune.redundant import merge_copies
from onnxpress.passes.prune.solving import (
    blocks_of,
    constants_of,
    layout_of,
    order_of,
    readings_of,
    redundancy_of,
    solve_readers,
)
from onnxpress.passes.prune.subgraphs import gone, narrower
from onnxpress.pieces import is_finite
from onnxpress.reconstruction import output_energy

__all__ = ["Prune"]

_MOST_COUNTS = 8
"""Candidates of a group: each is timed."""
_HOPELESS_ERROR = 0.5
"""Of a group's readers, by prediction: beyond it nothing is left to build on."""
_EXACT = "exact"
"""The family of removals that lose nothing."""


@dataclass(frozen=True)
class Prune(Pass):
    """Fewer channels, heads and blocks in a model that runs as before."""

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.STRUCTURE
    families: ClassVar[tuple[str, ...]] = (_EXACT, "channel", "head", "block")
    rewrites_from_statistics: ClassVar[bool] = True

    structure: Literal["all", "channel", "head", "block"] = setting(
        "all", "What to remove; block means residual blocks."
    )
    ratio: Annotated[float, Interval(gt=0, lt=1)] | None = setting(
        None, "Keep this share of the model's multiply-adds. Without: the budget decides."
    )
    importance: Literal["auto", "reconstruction", "magnitude"] = setting(
        "auto",
        "What decides which go: reconstruction (what the others cannot make up for; needs "
        "calibration data), magnitude, or auto: reconstruction where possible.",
    )
    reconstruction: bool = setting(
        default=True, help="Solve for the weights of the layers that read what is left."
    )
    refinement: bool = setting(
        default=True, help="Solve for them again on what the narrower network feeds them."
    )
    multiple: Annotated[int, Ge(1)] | None = setting(
        None, "Channels are kept in multiples of this. Without: what the target likes."
    )
    layers: tuple[str, ...] = setting(
        (), "Only what this layer produces, by name; may be repeated. Without: all."
    )

    @property
    def refines(self) -> bool:
        """Only what is solved for can be solved for again."""
        return self.refinement and self.reconstruction

    def observes(self, context: Context) -> Observations:
        """The Gram matrices of all layers."""
        return Observations(layers=frozenset(layer.name for layer in context.layers), gram=True)

    def changes(self, context: Context, decision: Decision) -> Collection[str]:
        """Layers that get narrower, go, or are solved for anew."""
        layout = layout_of(context)
        changed = set(decision.candidate.members)
        for block in blocks_of(context):
            if block.name == decision.site:
                changed.update(block.inside)
        if decision.site in layout.groups:
            group = layout.groups[decision.site]
            changed.update(layout.makers(group), layout.readers(group))
        return sorted(changed)

    def quota(self, context: Context) -> Quota | None:
        """The multiply-adds to save for the wanted ratio."""
        return Quota.of_ratio(context, self.ratio)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Counts for every group, the fewest units first, and every residual block."""
        layout = layout_of(context)
        read = () if context.shapes_only else context.layers
        spoiled = [layer.name for layer in read if not is_finite(layer.array)]
        proposals: list[Proposal | Skip] = []
        for group in self._chosen(layout):
            if context.out_of_time():
                proposals.append(Skip(group.name, OUT_OF_TIME))
                continue
            near = _first(spoiled, (*layout.makers(group), *layout.readers(group)))
            skip = Skip(group.name, f"the weight of {near} holds NaN or infinity [L001]")
            proposals.append(skip if near else self._group(context, layout, group))
        if self.structure in ("all", "block") and not self.layers:
            known = {layer.name for layer in context.layers}
            for block in () if context.out_of_time() else blocks_of(context):
                every = (*block.inside, *block.readers)
                near = _first(spoiled, every)
                unknown = next((name for name in every if name not in known), None)
                if near:
                    reason = f"the weight of {near} holds NaN or infinity [L001]"
                    proposals.append(Skip(block.name, reason))
                elif unknown:
                    proposals.append(
                        Skip(block.name, f"it holds {unknown}, which is left alone [P008]")
                    )
                else:
                    proposals.append(_block(context, block))
        return proposals + _unanswered(context, layout, proposals)

    def _chosen(self, layout: Layout) -> list[Group]:
        groups = [
            group
            for group in layout.groups.values()
            if self.structure in ("all", group.kind) and len(group.units) > 1
        ]
        if not self.layers:
            return groups
        for name in self.layers:
            if name not in layout.sides:
                raise UsageError(
                    f"prune: there is no layer {name!r}{nearest(name, list(layout.sides))} "
                    "(onnxpress inspect lists them) [U001]"
                )
        return [group for group in groups if set(layout.makers(group)) & set(self.layers)]

    def _group(self, context: Context, layout: Layout, group: Group) -> Proposal | Skip:
        if group.blocked is not None:
            what = f"its {len(group.units)} {group.kind}s cannot be pruned"
            return Skip(group.name, f"{what}: {group.blocked} [P001]")
        readings = readings_of(context, group.name)
        spare = [] if context.shapes_only else redundancy_of(context, group.name).removed
        by_magnitude = self.importance == "magnitude" or not readings
        reason = "no number that kernels like keeps enough of what they carry [P002]"
        candidates = []
        if by_magnitude and not (self.ratio is not None or self.importance == "magnitude"):
            reason = "without calibration data what may go would be a guess; name a ratio [P006]"
            if context.statistics is not None:
                reason = (
                    "no layer that reads them was observed, or they are too large together [P007]"
                )
        else:
            order, errors = order_of(context, group.name, "magnitude" if by_magnitude else "")
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
        units = layout.marked([group.units[index] for index in gone])
        saved = sum(
            context.multiply_adds(layer) * (1 - layout.sides[layer.name].share(units))
            for layer in context.layers
        )
        return Candidate(
            {"removed": text_of(sorted(gone)), "kept": len(group.units) - len(gone)},
            predicted_error=error,
            saved_bytes=_saved_bytes(context, layout, units),
            saved_multiply_adds=saved,
            family=_EXACT if exact else group.kind,
            members=tuple(layout.readers(group)),
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

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Solve for the readers, then take the units and blocks out."""
        layout = layout_of(context)
        removal: dict[str, list[int]] = {}
        blocks = []
        for decision in decisions:
            if decision.site.startswith("block:"):
                blocks.append(decision.site)
                continue
            group = layout.groups.get(decision.site)
            removed = indices_of(str(decision.candidate.parameters["removed"]))
            if group is None or group.blocked or max(removed) >= len(group.units):
                raise RecipeError(
                    f"the plan names the group {decision.site!r} with units {removed}, which this "
                    "model does not have; the recipe was made for another model or another "
                    "version of onnxpress [R001]"
                )
            removal[decision.site] = removed
        units = {
            layout.groups[name].units[index] for name, some in removal.items() for index in some
        }
        constants = constants_of(context.model)
        for decision in decisions:
            if decision.candidate.family == _EXACT:
                group = layout.groups[decision.site]
                merge_copies(layout, group, redundancy_of(context, group.name), constants)
        if self.reconstruction:
            members = {
                name
                for decision in decisions
                if decision.candidate.family != _EXACT
                for name in decision.candidate.members
            }
            for layer in context.layers:
                if layer.name in members:
                    solve_readers(context, layer, layout.sides[layer.name], units)
        if units:
            # Numbers of atoms differ from model to model; places in groups do not.
            fresh = Layout(context.model, context.layers)
            remove(
                context.names,
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
        layout = layout_of(context)
        found = []
        for block in blocks_of(context):
            if block.name == proposal.site:
                inside = [context.layer(name) for name in block.inside]
                found = [gone(layer, context.moments(layer)) for layer in inside]
        if proposal.site in layout.groups:
            group = layout.groups[proposal.site]
            units = [group.units[i] for i in indices_of(str(candidate.parameters["removed"]))]
            found = [
                narrower(layer, layout.sides[layer.name], units, context.moments(layer))
                for layer in context.layers
            ]
        return [subgraph for subgraph in found if subgraph is not None]

    def saving(self, context: Context, decisions: Sequence[Decision], unit: str) -> float:
        """What decisions save together: a layer cut on both sides saves less than twice."""
        if unit != "saved_multiply_adds":
            return super().saving(context, decisions, unit)
        layout = layout_of(context)
        units = [
            layout.groups[decision.site].units[index]
            for decision in decisions
            if not decision.site.startswith("block:")
            for index in indices_of(str(decision.candidate.parameters["removed"]))
        ]
        marked = layout.marked(units)
        sites = {decision.site for decision in decisions}
        dead = {n for b in blocks_of(context) if b.name in sites for n in b.inside}
        return sum(
            context.multiply_adds(layer)
            * (1 - (0 if layer.name in dead else layout.sides[layer.name].share(marked)))
            for layer in context.layers
        )


def _first(wanted: Sequence[str], names: Sequence[str]) -> str:
    """The first of some names that is among others; empty where none is."""
    return next((name for name in names if name in wanted), "")


def _saved_bytes(context: Context, layout: Layout, gone: npt.NDArray[np.bool_]) -> int:
    return round(
        sum(layer.nbytes * (1 - layout.sides[layer.name].share(gone)) for layer in context.layers)
    )


def _block(context: Context, block: Block) -> Proposal | Skip:
    inside = [context.layer(name) for name in block.inside]
    last = None if block.last is None else context.layer(block.last)
    moments = None if last is None else context.moments(last)
    readers = [context.moments(context.layer(name)) for name in block.readers]
    seen = [found for found in readers if found is not None]
    if last is None or moments is None or moments.gram is None or not seen:
        reason = "what the residual block adds is unknown without calibration data [P003]"
        return Skip(block.name, reason)
    added = output_energy(last.read(), moments.gram)
    # A receptive field holds every channel as often as the kernel has places.
    layer = context.layer(block.readers[readers.index(seen[0])])
    kernel = int(np.prod(layer.shape[2:])) if layer.op_type == "Conv" else 1
    power = float(seen[0].second_moment.sum()) / kernel
    return Proposal(
        block.name,
        (
            Candidate(
                predicted_error=added / power if power > 0 else 1.0,
                saved_bytes=sum(layer.nbytes for layer in inside),
                saved_multiply_adds=sum(context.multiply_adds(layer) for layer in inside),
                family="block",
                members=tuple(block.readers),
            ),
        ),
    )


def _unanswered(
    context: Context, layout: Layout, proposals: Sequence[Proposal | Skip]
) -> list[Skip]:
    """What is to be said of layers that no group or block is named after."""
    named = {item.site for item in proposals}
    for item in proposals:
        if isinstance(item, Proposal):
            named.update(name for c in item.candidates for name in c.members)
    made = {name: group for group in layout.groups.values() for name in layout.makers(group)}
    found = []
    for layer in context.layers:
        if layer.name in named:
            continue
        group = made.get(layer.name)
        reason = "its channels are an input or output of the model, or cannot be told apart [P004]"
        if group is not None:
            reason = "its channels stay or go with those of other layers [P005]"
        found.append(Skip(layer.name, reason))
    return found
