"""Layers fitted again to what the rewritten network really feeds them, in one walk through it.

Both networks, the one before and the rewritten one, go over all calibration samples block by block
(`blocks`). Within a block, level after level: what the rewritten network gives a level's layers is
observed beside what the network before gives them, and the decisions are carried out anew with
these statistics. At the end of the block both are run up to the next boundary, where the tensors
that cross are held for every sample. So a level costs a run of its block, not of the network.

What a level is fed follows from the layers before it alone, and what is drawn of it from the seed
and the layers' names. onnxruntime runs nodes as they stand, integers between their QuantizeLinear
and DequantizeLinear in float: what it fuses would depend on where a block begins, and rounding
makes much of little. So the bytes are the same for blocks of any size.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import onnx_ir as ir

from onnxpress.blocks import Cut, Parts, Walk, cut, first_nan, observed_bytes
from onnxpress.contract import Context
from onnxpress.data import Samples
from onnxpress.errors import ModelError
from onnxpress.graph import bodies
from onnxpress.layers import Layer
from onnxpress.statistics import (
    LayerStatistics,
    Observations,
    Statistics,
    collect,
    input_key,
    outermost,
)

__all__ = ["Rewrite", "UnfinishedError", "levels_of", "refitted"]

logger = logging.getLogger(__name__)

HELD_BYTES = 256_000_000
"""In memory, of the activations of both networks between two blocks; more goes to files."""


class UnfinishedError(Exception):
    """The time was over before every layer was fitted again."""


class Rewrite(Protocol):
    """Carries decisions out."""

    def __call__(self, statistics: Statistics, /, *, observed: bool) -> ir.Model:
        """A new model, by some statistics; `observed`: as `Context` says."""


def refitted(
    context: Context,
    layers: Sequence[Layer],
    samples: Samples,
    rewrite: Rewrite,
    *,
    threads: int = 0,
    budget_bytes: int | None = None,
    held_bytes: int = HELD_BYTES,
    over: Callable[[], bool] = lambda: False,
) -> ir.Model:
    """What `rewrite` makes with statistics of what it feeds each layer itself.

    Where onnxruntime cannot run a part of a network, nothing is fitted again, which is said.

    Args:
        context: of the model before, with its statistics; not changed.
        layers: that are to be fitted again, of `context`.
        samples: to run both networks on.
        rewrite: carries out the decisions with some statistics. What comes before a layer may not
            depend on the statistics of that layer, or of those behind it.
        threads: of onnxruntime.
        budget_bytes: of weights in a block; `None`: what a level has on average.
        held_bytes: of activations that wait in memory.
        over: asked before each level, whether to give up.

    Raises:
        UnfinishedError: `over` says so.
        OutputError: the disk is full.
        PassError: a pass fails.
    """
    assert context.statistics is not None
    statistics = context.statistics
    if not layers:
        return rewrite(statistics, observed=False)
    model = rewrite(statistics, observed=True)
    levels = levels_of(context.model.graph, layers)
    if budget_bytes is None:
        budget_bytes = sum(layer.nbytes for layer in layers) // max(len(levels), 1)
    sizes = observed_bytes(context.model, samples.feeds[0], threads=threads)
    blocks = cut(context.model, budget_bytes, sizes=sizes)
    logger.debug("fitting %d layers again, in %d blocks", len(layers), len(blocks.blocks))
    if blocks.note:
        logger.debug("%s", blocks.note)
    networks = _Networks(context, layers, samples, blocks, model, threads, held_bytes)
    ends = _ends(context.model.graph, levels, blocks)
    try:
        for number, level in enumerate(levels):
            if over():
                raise UnfinishedError
            found = networks.observed(level)
            statistics = replace(statistics, layers={**statistics.layers, **found})
            later = [layer for rest in levels[number + 1 :] for layer in rest]
            if later:
                networks.after_parts = Parts(rewrite(statistics, observed=True))
                networks.advance(ends[number], later)
    except ModelError as error:
        logger.warning("layers are not fitted again: %s", error)
        return rewrite(context.statistics, observed=False)
    finally:
        networks.close()
    return rewrite(statistics, observed=False)


def _ends(graph: ir.Graph, levels: Sequence[Sequence[Layer]], blocks: Cut) -> list[int]:
    """After each level, how many blocks have no layer left that is still to be fitted."""
    places: dict[ir.Node, int] = {}

    def enter(nodes: Iterable[ir.Node], place: int) -> None:
        for node in nodes:
            places[node] = place
            for body in bodies(node):
                enter(body, place)

    for place, node in enumerate(graph):
        enter((node,), place)
    number = [n for n, block in enumerate(blocks.blocks) for _ in range(block.start, block.stop)]
    ends: list[int] = []
    nearest = len(blocks.blocks)
    for level in reversed(levels):
        ends.append(nearest)
        first = (places[use.node] for layer in level for use in layer.uses)
        nearest = min(nearest, number[min(first)])
    return ends[::-1]


class _Networks:
    """Both networks on their way.

    Attributes:
        after_parts: of the rewritten one as it is now.
    """

    def __init__(
        self,
        context: Context,
        layers: Sequence[Layer],
        samples: Samples,
        blocks: Cut,
        after: ir.Model,
        threads: int,
        held_bytes: int,
    ) -> None:
        self._seed, self._threads = context.seed, threads
        self._before = Walk(samples.feeds, threads=threads, limit_bytes=held_bytes // 2)
        self._after = Walk(samples.feeds, threads=threads, limit_bytes=held_bytes // 2)
        self._blocks, self._passed = blocks.blocks, 0
        self._before_parts, self.after_parts = Parts(blocks.typed), Parts(after)
        keys = [input_key(layer) for layer in layers]
        self._in_before, self._in_after = outermost(blocks.typed, keys), outermost(after, keys)
        self._told = False

    def observed(self, level: Sequence[Layer]) -> dict[str, LayerStatistics]:
        """Of what the rewritten network feeds a level, beside what the one before does.

        A layer that is fed NaN is left out, and so keeps the statistics it had.
        """
        keys = sorted({input_key(layer) for layer in level} & self._in_after.keys())
        model, feeds = self._after.part(self.after_parts, _named(self._in_after, keys))
        reference, beside = self._before.part(self._before_parts, _named(self._in_before, keys))
        wanted = Observations(layers=frozenset(layer.name for layer in level), gram=True)
        found = collect(
            model,
            level,
            feeds,
            wanted,
            reference=reference,
            reference_samples=beside,
            seed=self._seed,
            threads=self._threads,
            optimize=False,
        ).layers
        finite = {name: one for name, one in found.items() if one.is_finite}
        if len(finite) < len(found):
            self._tell(first_nan(model, feeds, threads=self._threads), self._passed + 1)
        return finite

    def advance(self, end: int, later: Sequence[Layer]) -> None:
        """Take both over the first blocks, as many as `end` says, with all that later layers need.

        Block by block, so that a session holds one.
        """
        keys = [input_key(layer) for layer in later]
        before, after = _named(self._in_before, keys), _named(self._in_after, keys)
        while self._passed < end:
            names = self._blocks[self._passed].outputs
            self._passed += 1
            self._tell(self._before.advance(self._before_parts, names, before), self._passed)
            self._tell(self._after.advance(self.after_parts, names, after), self._passed)

    def close(self) -> None:
        """Free what is held."""
        self._before.held.close()
        self._after.held.close()

    def _tell(self, origin: str, block: int) -> None:
        """Of the first NaN; what follows from it need not be said."""
        if origin and not self._told:
            self._told = True
            logger.warning(
                "block %d of %d: NaN comes out of %s of the calibration data; layers that are fed "
                "it are not fitted again",
                block,
                len(self._blocks),
                origin,
            )


def _named(sources: Mapping[str, str], keys: Iterable[str]) -> list[str]:
    return sorted({sources[key] for key in keys if key in sources})


def levels_of(graph: ir.Graph, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers by how many of them come before on the longest way.

    However many there are: of layers that feed each other and are fitted at once, each makes up for
    what the one before makes up for too, and nothing is left of the network.
    """
    depths: dict[ir.Value, int] = {}
    own = {use.node for layer in layers for use in layer.uses}
    found: dict[int, list[Layer]] = {}

    def deepest(values: Iterable[ir.Value | None]) -> int:
        return max((depths.get(value, 0) for value in values if value is not None), default=0)

    def descend(graph: ir.Graph) -> None:
        for node in graph:
            depth = deepest(node.inputs)
            for body in bodies(node):
                depths.update(dict.fromkeys(body.inputs, deepest(node.inputs)))
                descend(body)
                depth = max(depth, deepest(body.outputs))
            depths.update(dict.fromkeys(node.outputs, depth + (node in own)))

    descend(graph)
    for layer in layers:
        depth = min(depths.get(use.node.outputs[0], 0) for use in layer.uses)
        found.setdefault(depth, []).append(layer)
    return [found[depth] for depth in sorted(found)]
