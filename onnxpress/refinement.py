"""Layers fitted again to what the rewritten network really feeds them, in one walk through it.

Both networks, the one before and the rewritten one, go over all calibration samples block by block
(`blocks`), and within a block level after level: what the rewritten network gives a level's layers
is observed beside what the network before gives them, and the decisions are carried out anew with
these statistics. What was observed is held for every sample, and so are the tensors that cross the
boundary of a block, as far as what follows needs them. So both networks are run once, from where
they stand to the next level.

What a level is fed follows from the layers before it alone, and what is drawn of it from the seed
and the layers' names. onnxruntime runs nodes as they stand, integers between their QuantizeLinear
and DequantizeLinear in float: what it fuses would depend on where a block begins, and rounding
makes much of little. So the bytes are the same for blocks of any size.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import onnx_ir as ir

from onnxpress.blocks import (
    Cut,
    PartFeeds,
    Parts,
    Walk,
    cut,
    first_nan,
    has_nan,
    observed_bytes,
)
from onnxpress.contract import Context
from onnxpress.data import Samples
from onnxpress.errors import ModelError
from onnxpress.layers import Layer
from onnxpress.levels import boundaries, levels_of
from onnxpress.runtime import Array, Feed
from onnxpress.statistics import (
    LayerStatistics,
    Observations,
    Statistics,
    collect,
    input_key,
    outermost,
)

__all__ = ["Networks", "Rewrite", "UnfinishedError", "refitted"]

logger = logging.getLogger(__name__)

HELD_BYTES = 256_000_000
"""In memory, of the activations of both networks between two blocks; more goes to files."""


PART_BYTES = 64_000_000
"""Of weights that are run at once between two levels, by both networks; more is run by blocks."""


class UnfinishedError(Exception):
    """The time was over before every layer was fitted again."""


class Rewrite(Protocol):
    """Carries decisions out."""

    def __call__(
        self, statistics: Statistics, /, *, observed: bool, idle: frozenset[str] = frozenset()
    ) -> ir.Model:
        """A new model, by some statistics; `observed` and `idle`: as `Context` says."""


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
        over: asked before each level and each of its samples, whether to give up.

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
    networks = Networks(context, layers, samples, blocks, model, threads, held_bytes, over)
    at = boundaries(context.model.graph, levels, blocks)
    try:
        for number, level in enumerate(levels):
            if over():
                raise UnfinishedError
            later = [layer for rest in levels[number + 1 :] for layer in rest]
            found = networks.observed(level, later, *at[number])
            statistics = replace(statistics, layers={**statistics.layers, **found})
            if later:
                idle = networks.idle(levels[number + 1], *at[number + 1])
                networks.rewritten(rewrite(statistics, observed=True, idle=idle))
    except ModelError as error:
        logger.warning("layers are not fitted again: %s", error)
        return rewrite(context.statistics, observed=False)
    finally:
        networks.close()
    return rewrite(statistics, observed=False)


class _Hurried:
    """Samples that are not given any more once time is over."""

    def __init__(self, feeds: PartFeeds, over: Callable[[], bool]) -> None:
        self._feeds, self._over = feeds, over

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feed]:
        for feed in self._feeds:
            if self._over():
                raise UnfinishedError
            yield feed


class _Side:
    """One of both networks on its way.

    Attributes:
        walk: what is held of it.
        parts: of it as it is now.
        sources: by the keys of layers, the tensors that have to be reached to observe them.
    """

    def __init__(self, model: ir.Model, layers: Sequence[Layer], walk: Walk) -> None:
        self.walk, self.parts = walk, Parts(model)
        self.sources = outermost(model, [input_key(layer) for layer in layers])

    def advance(self, names: Iterable[str], later: Sequence[Layer]) -> str:
        """To a boundary, as `Walk` does."""
        return self.walk.advance(self.parts, names, self._named(map(input_key, later)))

    def needed(self, names: Iterable[str], later: Sequence[Layer]) -> frozenset[str]:
        """What has to be held for later layers, of what is and of some tensors."""
        return self.walk.needed(self.parts, names, self._named(map(input_key, later)))

    def part(self, keys: Iterable[str], names: Iterable[str]) -> tuple[ir.Model, PartFeeds]:
        """What gives the inputs of some layers, and some tensors; and what to run it on."""
        return self.walk.part(self.parts, sorted({*self._named(keys), *names}))

    def _named(self, keys: Iterable[str]) -> list[str]:
        return sorted({self.sources[key] for key in keys if key in self.sources})


class Networks:
    """Both networks on their way."""

    def __init__(
        self,
        context: Context,
        layers: Sequence[Layer],
        samples: Samples,
        blocks: Cut,
        after: ir.Model,
        threads: int,
        held_bytes: int,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._over = over
        self._seed, self._threads = context.seed, threads
        walks = [
            Walk(samples.feeds, threads=threads, limit_bytes=held_bytes // 2) for _ in range(2)
        ]
        self._before = _Side(blocks.typed, layers, walks[0])
        self._after = _Side(after, layers, walks[1])
        self._blocks, self._passed = blocks.blocks, 0
        self._told = False
        named = (value.name for node in blocks.typed.graph.all_nodes() for value in node.outputs)
        self._tensors = frozenset(name for name in named if name)

    def _weight_bytes(self, end: int) -> int:
        return sum(block.weight_bytes for block in self._blocks[self._passed : end])

    def idle(self, level: Sequence[Layer], end: int, final: frozenset[str]) -> frozenset[str]:
        """Names of tensors that are not computed on the way to a level, as for `observed`."""
        before = self._before
        crossing = {name for block in self._blocks[self._passed : end] for name in block.outputs}
        reached = {before.sources.get(input_key(layer)) for layer in level}
        wanted = [before.parts.values[name] for name in (crossing & final) | reached if name]
        return self._tensors - before.parts.computed(self._after.walk.held.names(), wanted)

    def rewritten(self, model: ir.Model) -> None:
        """Go on with another model, which computes the same up to where it stands."""
        self._after.parts = Parts(model)

    def observed(
        self, level: Sequence[Layer], later: Sequence[Layer], end: int, final: frozenset[str]
    ) -> dict[str, LayerStatistics]:
        """Of what the rewritten network feeds a level, beside what the one before does.

        A layer that is fed NaN is left out, and so keeps the statistics it had.

        Args:
            level: of layers.
            later: layers behind, which will be observed.
            end: how many blocks have no layer left that is to be fitted.
            final: names of tensors that depend on no such layer, and so may be held.

        Raises:
            UnfinishedError: the time is over.
        """
        while self._passed < end and self._weight_bytes(end) > PART_BYTES:
            names = self._blocks[self._passed].outputs
            self._passed += 1
            for side in (self._before, self._after):
                self._tell(side.advance(names, [*level, *later]), self._passed)
        keys = {input_key(layer) for layer in level} & self._after.sources.keys()
        sides = (self._after, self._before)
        here = {key for key in keys if self._before.sources.get(key) == key}
        offered = sorted(final & {*here, *(self._blocks[end - 1].outputs if end else ())})
        needed = [side.needed(offered, later) for side in sides]
        new = [own - side.walk.held.names() for side, own in zip(sides, needed, strict=True)]
        after, before = (side.part(keys, own) for side, own in zip(sides, new, strict=True))
        broken = False

        def hold(name: str, *arrays: Array | None) -> None:
            nonlocal broken
            for side, own, array in zip(sides, new, arrays, strict=True):
                if name in own:
                    assert array is not None
                    side.walk.held.add(name, array)
                    broken = broken or has_nan(array)

        found = collect(
            after[0],
            level,
            _Hurried(after[1], self._over),
            Observations(layers=frozenset(layer.name for layer in level), gram=True),
            reference=before[0],
            reference_samples=before[1],
            seed=self._seed,
            threads=self._threads,
            optimize=False,
            passing=new[0] | new[1],
            take=hold,
        ).layers
        finite = {name: one for name, one in found.items() if one.is_finite}
        if broken or len(finite) < len(found):
            for model, feeds in (before, after):
                self._tell(first_nan(model, feeds, threads=self._threads), self._passed + 1)
        for side, own in zip(sides, needed, strict=True):
            side.walk.keep(own)
        self._passed = max(self._passed, end)
        return finite

    def close(self) -> None:
        """Free what is held."""
        self._before.walk.held.close()
        self._after.walk.held.close()

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
