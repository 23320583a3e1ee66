"""Run a model that does not fit into memory: block by block, each over all samples.

    samples → block 1 → what crosses, held → block 2 → … → outputs

A session holds one block. What crosses to the next waits in memory up to a limit and beyond it in
files (`blocks`). On the way a model is observed, each layer while its block is open, or its outputs
are recorded, and the judge reads the record as it reads a session.
"""

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.blocks import Block, Cut, Held, Parts, Walk, cut, first_nan
from onnxpress.context import Context
from onnxpress.data import Samples
from onnxpress.errors import DataError, ModelError
from onnxpress.freed import give_back_freed
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.runtime import Array, Feed, Session
from onnxpress.statistics import (
    LayerStatistics,
    Observations,
    Statistics,
    TensorStatistics,
    collect,
    input_key,
    kept_on_disk,
    outermost,
    wide_note,
)

__all__ = ["Blockwise", "Recorded", "observed", "recorded"]

_SHARE = 8
"""Of the memory that may be taken a block's weights are this part: a session packs them anew, and a
layer's Gram matrix in double precision is twice its weight and more."""
_HELD_SHARE = 16
"""Of it for what crosses between two blocks; outputs that were recorded wait beside it."""
_HELD_BYTES = 128_000_000


@dataclass(frozen=True)
class Blockwise:
    """How models are run.

    Attributes:
        most_bytes: of memory that may be taken.
        threads: of onnxruntime.
        progress: told how many blocks are done.
    """

    most_bytes: int
    threads: int = 0
    progress: Tell = unheard

    @property
    def held_bytes(self) -> int:
        """Of activations that wait in memory."""
        return min(self.most_bytes // _HELD_SHARE, _HELD_BYTES)

    def blocks(self, model: ir.Model, networks: int = 1) -> Cut:
        """The blocks of a model; weights in half precision are computed with in single.

        Args:
            model: not changed.
            networks: how many like it are run side by side.
        """
        return cut(model, int(self.most_bytes / _SHARE / networks * _stored_share(model)))

    def refusal(self, model: ir.Model) -> str:
        """Why a model cannot be run by blocks, in words; empty where it can."""
        blocks = self.blocks(model).blocks
        largest = max(block.weight_bytes for block in blocks)
        if largest <= self.most_bytes:
            return ""
        return (
            f"{'the whole graph' if len(blocks) == 1 else 'a part of the graph'} with "
            f"{largest / 1e6:,.1f} MB of weights cannot be cut where little crosses, and more "
            f"than {self.most_bytes / 1e6:,.1f} MB may not be taken (--max-memory)"
        )

    def told(self, what: str, blocks: Sequence[Block]) -> Iterator[tuple[int, Block]]:
        """The blocks by number from 1 on, while it is told how far that is."""
        for number, block in enumerate(blocks, 1):
            self.progress(Progress(f"{what}, block by block", number - 1, len(blocks)))
            give_back_freed(block.weight_bytes, circles=True)
            yield number, block


def _stored_share(model: ir.Model) -> float:
    """Bytes of a model's weights over those in single precision."""
    stored = single = 1
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                stored += tensor.nbytes
                half = tensor.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
                single += tensor.nbytes * (2 if half else 1)
    return stored / single


def observed(
    context: Context, wanted: Observations, samples: Samples, means: Blockwise
) -> tuple[Statistics, tuple[str, ...]]:
    """Statistics of a model, of each layer while its block is open, and what to say of them.

    They are those of a run of the whole without what onnxruntime fuses: what is drawn of a layer
    follows from its name and inputs alone. Gram matrices go into a file.

    Args:
        context: of the model; not changed.
        wanted: what is to be observed.
        samples: of the model.
        means: how to run it.

    Raises:
        DataError: the model does not run on the samples.
        OutputError: the disk is full.
    """
    found = _Observing(context, wanted, samples, means)
    try:
        layers = kept_on_disk(found.layers())
    finally:
        found.walk.held.close()
    return Statistics(found.tensors, layers, len(samples), found.lookups), tuple(found.notes())


class _Observing:
    """A walk on which layers are observed."""

    def __init__(
        self, context: Context, wanted: Observations, samples: Samples, means: Blockwise
    ) -> None:
        self._context, self._wanted, self._samples, self._means = context, wanted, samples, means
        self._cut = means.blocks(context.model)
        self._parts = Parts(self._cut.typed)
        self.walk = Walk(samples.feeds, threads=means.threads, limit_bytes=means.held_bytes)
        self.tensors: dict[str, TensorStatistics] = {}
        self.lookups: dict[str, npt.NDArray[np.int64]] = {}
        self._nan, self._odd, self._wide, self._tiled = "", 0, 0, 0
        self._keys = {
            layer.name: input_key(layer) for layer in context.layers if layer.name in wanted.layers
        }
        # Of a tensor in a body, the node of the main graph that computes it.
        self._places = outermost(self._cut.typed, {*wanted.tensors, *self._keys.values()})

    def layers(self) -> Iterator[tuple[str, LayerStatistics]]:
        """Names and statistics of the layers, block by block; `tensors` fills meanwhile."""
        by_block = self._by_block()
        for number, block in self._means.told("statistics", self._cut.blocks):
            keys = by_block.pop(number, set())
            # Inputs of layers are held, so that a block runs once; all that has a range would be
            # too much, and what is in bodies is no tensor of the main graph.
            run = {key for key in keys if key in self._wanted.tensors or self._places[key] != key}
            names = [*block.outputs, *sorted(keys - run)]
            later = {self._places[key] for rest in by_block.values() for key in rest}
            with _running(self._samples, number, self._cut):
                yield from self._observed(number, run)
                origin = self.walk.advance(self._parts, names, sorted(later | (keys - run)))
                self._tell(number, origin)
                yield from self._observed(number, keys - run)
            for name in (keys - run).intersection(self.walk.held.names()) - set(block.outputs):
                self.walk.held.drop(name)

    def _tell(self, number: int, origin: str) -> None:
        """Where the first NaN comes from; what follows from it need not be said."""
        if origin and not self._nan:
            self._nan = f"block {number} of {len(self._cut.blocks)}: NaN comes out of {origin}"

    def notes(self) -> Iterator[str]:
        """What is not known, in sentences."""
        if self._nan:
            yield f"{self._nan} of the calibration data"
        if self._odd:
            yield (
                f"{self._odd} layers are fed numbers that are not finite by the calibration data: "
                "nothing is known of them"
            )
        if self._wide:
            yield wide_note(self._wide, self._tiled)

    def _by_block(self) -> dict[int, set[str]]:
        """Keys by the number of the block that computes them; inputs are with the first."""
        numbers: dict[str, int] = {}
        nodes = list(self._cut.typed.graph)
        for number, block in enumerate(self._cut.blocks, 1):
            for node in nodes[block.start : block.stop]:
                numbers.update((value.name or "", number) for value in node.outputs)
        found: dict[int, set[str]] = {}
        for key, place in self._places.items():
            found.setdefault(numbers.get(place, 1), set()).add(key)
        return found

    def _observed(self, number: int, keys: set[str]) -> Iterator[tuple[str, LayerStatistics]]:
        if not keys:
            return
        names = sorted({self._places[key] for key in keys})
        model, feeds = self.walk.part(self._parts, names)
        layers = [layer for layer in self._context.layers if self._keys.get(layer.name) in keys]
        found = collect(
            model,
            layers,
            feeds,
            Observations(
                self._wanted.tensors & keys,
                frozenset(layer.name for layer in layers),
                gram=self._wanted.gram,
            ),
            seed=self._context.seed,
            threads=self._means.threads,
            optimize=False,
        )
        self.tensors.update(found.tensors)
        self.lookups.update(found.lookups)
        odd = [name for name, one in found.layers.items() if not one.is_finite]
        if odd and not self._nan:
            self._tell(number, first_nan(model, feeds, threads=self._means.threads))
        self._odd += len(odd)
        for name, one in found.layers.items():
            self._wide += self._wanted.gram and one.gram is None
            self._tiled += one.tiles is not None
            if name not in odd:
                yield name, one


class Recorded:
    """What a model gives for the samples it was taken over; the judge runs it as a session."""

    def __init__(self, samples: Samples, names: Sequence[str], held: Held) -> None:
        self._numbers = {id(feed): number for number, feed in enumerate(samples.feeds)}
        self._samples, self._names, self._held = samples, names, held
        weakref.finalize(self, held.close)

    def run(self, feed: Feed, /) -> Mapping[str, Array]:
        """The outputs of one of the samples."""
        number = self._numbers[id(feed)]
        held = self._held.names()
        return {
            name: self._held.get(name, number) if name in held else feed[name]
            for name in self._names
        }


def recorded(what: str, model: ir.Model, samples: Samples, means: Blockwise) -> Recorded:
    """The outputs of a model for all samples, run block by block as onnxruntime fuses each.

    Args:
        what: the model is, for people.
        model: not changed.
        samples: of it.
        means: how to run it.

    Raises:
        DataError: the model does not run on the samples.
        OutputError: the disk is full.
    """
    blocks = means.blocks(model)
    parts = Parts(blocks.typed)
    names = [value.name or "" for value in blocks.typed.graph.outputs]
    walk = Walk(samples.feeds, threads=means.threads, limit_bytes=means.held_bytes, optimize=True)
    found = Recorded(samples, names, walk.held)
    for number, block in means.told(what, blocks.blocks):
        with _running(samples, number, blocks):
            walk.advance(parts, block.outputs, names)
    # What no block hands over: maps, initializers.
    inputs = {value.name for value in blocks.typed.graph.inputs}
    rest = [name for name in names if name not in walk.held.names() | inputs]
    if rest:
        with _running(samples, len(blocks.blocks), blocks):
            part, feeds = walk.part(parts, rest)
            session = Session(part, threads=means.threads, arena=False)
            for feed in feeds:
                for name, array in session.run(feed).items():
                    walk.held.add(name, array)
    return found


@contextlib.contextmanager
def _running(samples: Samples, number: int, blocks: Cut) -> Iterator[None]:
    """While a block runs, say on what and which where it does not."""
    try:
        yield
    except ModelError as error:
        raise DataError(
            f"{samples.source}: block {number} of {len(blocks.blocks)} of the model does not run "
            f"on them: {error} [D007]"
        ) from error
