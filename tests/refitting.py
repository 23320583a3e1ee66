"""Refit as it was before there were blocks: both networks run from the start for every level."""

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.contract import Context, Decision, Layer
from onnxpress.data import Samples
from onnxpress.levels import levels_of
from onnxpress.pool import Pool
from onnxpress.refinement import Rewrite
from onnxpress.search.allocation import strongest
from onnxpress.statistics import Observations, Statistics, collect

__all__ = ["from_the_start", "refined_decisions", "rewriting"]


def refined_decisions(pool: Pool, context: Context) -> tuple[Decision, ...]:
    """The strongest of every site, to be fitted again."""
    chosen = strongest(pool, context, pool.offer(context))
    return tuple(replace(d, candidate=replace(d.candidate, refined=True)) for d in chosen)


def rewriting(
    pool: Pool, context: Context, decisions: Sequence[Decision]
) -> tuple[list[Layer], Rewrite]:
    """The layers that decisions change, and what carries them out with some statistics."""
    names = {name for decision in decisions for name in decision.layers}
    layers = [layer for layer in context.layers if layer.name in names]

    def rewrite(
        seen: Statistics, *, observed: bool, idle: frozenset[str] = frozenset()
    ) -> ir.Model:
        given = replace(context, statistics=seen, observed=observed, idle=idle)
        return pool.rewrite(given, decisions)

    return layers, rewrite


def from_the_start(
    context: Context,
    layers: Sequence[Layer],
    samples: Samples,
    rewrite: Rewrite,
) -> ir.Model:
    """A run over all samples and the whole of both networks for each level."""
    assert context.statistics is not None
    statistics = context.statistics
    model = rewrite(statistics, observed=True)
    for level in levels_of(context.model.graph, layers):
        found = collect(
            model,
            level,
            samples,
            Observations(layers=frozenset(layer.name for layer in level), gram=True),
            reference=context.model,
            seed=context.seed,
            threads=1,
            optimize=False,
        )
        statistics = replace(statistics, layers={**statistics.layers, **found.layers})
        model = rewrite(statistics, observed=True)
    return rewrite(statistics, observed=False)
