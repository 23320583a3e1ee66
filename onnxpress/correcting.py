"""Correct a model as it is rewritten, where it is too large to be rewritten again and again.

Level after level (`levels`), what the model gives the layers with all before them rewritten is
observed beside what the original gives them, and the decisions about them are carried out with
that, each once. So statistics of one level are held at a time, and as much of both networks is
open as lies between two levels. Only decisions that change one layer between its input and its
output can be taken one by one like this; of others (whole channels, integer activations) what one
does reaches into the next. A weight that several nodes share is corrected with the first of them,
as if others of its level were not rewritten yet.

What the rewritten network feeds is what GPTAQ (2504.02692) and Qronos (2505.11695) round for, block
by block as GPTQ (2210.17323) walks large models.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxpress.blocks import Cut
from onnxpress.codes import split
from onnxpress.context import Context
from onnxpress.contract import Decision, Stage
from onnxpress.data import Samples
from onnxpress.errors import ModelError
from onnxpress.freed import give_back_freed
from onnxpress.layers import Layer
from onnxpress.levels import boundaries, levels_of
from onnxpress.memory import Memory
from onnxpress.pool import Pool
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.refinement import Networks
from onnxpress.statistics import LayerStatistics

__all__ = ["Correction", "corrected", "refined"]

_REMEMBERED_BYTES = 64_000_000
"""Of what passes have worked out of one level."""


@dataclass(frozen=True)
class Correction:
    """What a model is corrected by.

    Attributes:
        samples: to run both networks on.
        cut: makes blocks of a model.
        held_bytes: of activations that wait in memory.
        threads: of onnxruntime.
        progress: told how far it is.
        over: asked before each level; once it says yes, the rest is rewritten without.
        notes: what to say of it, which grows.
    """

    samples: Samples
    cut: Callable[[ir.Model], Cut]
    held_bytes: int
    threads: int = 0
    progress: Tell = unheard
    over: Callable[[], bool] = lambda: False
    notes: list[str] = field(default_factory=list)


def refined(pool: Pool, decisions: Sequence[Decision]) -> tuple[Decision, ...] | None:
    """The decisions, marked as corrected; `None` where some cannot be, or passes do not want it."""
    low_rank = pool.stage == Stage.LOW_RANK
    alone = (
        len(decision.layers) == 1 and (low_rank or decision.candidate.keeps_kernels)
        for decision in decisions
    )
    if not (decisions and pool.refines and all(alone)):
        return None
    return tuple(replace(d, candidate=replace(d.candidate, refined=True)) for d in decisions)


def corrected(
    pool: Pool, context: Context, decisions: Sequence[Decision], by: Correction
) -> tuple[ir.Model, tuple[Decision, ...]]:
    """A new model with decisions carried out that each change one layer (`refined`).

    Those that are not marked, and the rest where time is over or onnxruntime cannot run a part of
    a network (which is said), are carried out with the statistics that there are.

    Args:
        pool: the passes.
        context: of the model before, with its statistics; not changed.
        decisions: about layers, or about weights that are none, which are carried out first.
        by: the samples, and what may be taken for them.

    Returns:
        The model, and the decisions as they were carried out: marked where they were corrected, so
        that a recipe gives the same model again.

    Raises:
        OutputError: the disk is full.
        PassError: a pass fails.
    """
    statistics = context.statistics
    assert statistics is not None
    by_site = {decision.site: decision for decision in decisions}
    layers = [layer for layer in context.layers if layer.name in by_site]
    names = {layer.name for layer in layers}
    first = [decision for decision in decisions if decision.site not in names]
    model = pool.rewrite(context, first) if first else context.model.clone()

    def carried_out(model: ir.Model, level: Sequence[Layer], found: _Found) -> ir.Model:
        known = {
            layer.name: statistics.layers[layer.name]
            for layer in level
            if layer.name in statistics.layers
        }
        given = replace(
            context,
            model=model,
            layers=(),
            statistics=replace(statistics, layers=known | dict(found)),
            memory=Memory(_REMEMBERED_BYTES),
        )
        return pool.rewrite(given, [by_site[layer.name] for layer in level])

    levels = levels_of(context.base.graph, layers)
    blocks = by.cut(context.base)
    at = boundaries(context.base.graph, levels, blocks)
    networks = Networks(context, layers, by.samples, blocks, model, by.threads, by.held_bytes)
    runs = True
    without: set[str] = set()
    try:
        for number, level in enumerate(levels):
            by.progress(Progress(f"{pool.names}: correcting, level by level", number, len(levels)))
            found: _Found = {}
            wanted = any(by_site[layer.name].candidate.refined for layer in level)
            if wanted and runs and by.over():
                runs = False
                _note(by, f"{_from(pool, level)} [L010]")
            if wanted and runs:
                later = [layer for rest in levels[number + 1 :] for layer in rest]
                try:
                    found = networks.observed(level, later, *at[number])
                except ModelError as error:
                    runs = False
                    _note(by, f"{_from(pool, level)}: {split(str(error))[0]} [W015]")
            if not found:
                without.update(layer.name for layer in level)
            # Sessions and what they ran go before the weights are worked on.
            give_back_freed(sum(layer.nbytes for layer in level), circles=True)
            model = carried_out(model, level, found)
            networks.rewritten(model)
    finally:
        networks.close()
    return model, tuple(_unmarked(d) if d.site in without else d for d in decisions)


def _from(pool: Pool, level: Sequence[Layer]) -> str:
    return f"{pool.names}: layers from {level[0].name} on are not corrected"


def _note(by: Correction, text: str) -> None:
    if text not in by.notes:
        by.notes.append(text)


def _unmarked(decision: Decision) -> Decision:
    return replace(decision, candidate=replace(decision.candidate, refined=False))


_Found = Mapping[str, LayerStatistics]
