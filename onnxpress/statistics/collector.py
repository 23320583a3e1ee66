"""Collect statistics in one streaming run of the model over the samples.

Intermediate tensors are made graph outputs of a copy. What a run returns is reduced at once;
when the tensors of one sample exceed the memory limit, they are fetched in several runs of
that sample, so memory grows with neither the samples nor the model's depth.

A rewritten model can be observed beside the one it came from: then the same rows are drawn from
both, and E[x·x̂ᵀ] says how far what a layer is fed has moved.

What is drawn of a layer follows from the seed, its name and its own inputs alone, so that it is the
same whatever is observed beside it, and in however many blocks.
"""

import hashlib
import itertools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxpress.layers import Layer
from onnxpress.runtime import Array, Feed
from onnxpress.statistics.exposing import Observer, input_key
from onnxpress.statistics.row_sums import RowSums
from onnxpress.statistics.store import Statistics, TensorStatistics

__all__ = ["FEWEST_SAMPLES", "RUN_BYTES", "Observations", "chunks_of", "collect"]

logger = logging.getLogger(__name__)

ROWS_PER_INPUT = 4
"""Rows per layer over all samples, times the layer's inputs: a Gram matrix of full rank."""
FEWEST_ROWS, MOST_ROWS = 4096, 16_384
HISTOGRAM_TARGET = 1 << 20
"""Elements of a tensor over all samples that enter the histogram; extremes are always exact."""
HISTOGRAM_FEWEST = 1 << 12
FEWEST_SAMPLES = 8
"""That are observed although no time is left: ranges of fewer say nothing."""
RUN_BYTES = 192_000_000
"""Of tensors of one run that are held at a time, about."""
HELD_BYTES = 131_072
"""Of one tensor, in several samples that are reduced together: calls cost more than small sums."""
FEWEST_FETCHED = 16
"""Tensors of a run while nothing is known of their sizes."""


class Feeds(Protocol):
    """What to run a model on, a feed a sample; it is gone through once."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[Feed]:
        """In order."""


@dataclass(frozen=True, slots=True)
class Observations:
    """What a pass wants to see of a model.

    Attributes:
        tensors: names of tensors whose range and histogram are wanted.
        layers: names of layers whose input rows are wanted.
        gram: whether the layers' Gram matrices are wanted too.
    """

    tensors: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    gram: bool = False

    @classmethod
    def union(cls, wanted: "Iterable[Observations]") -> "Observations":
        """All that several passes want to see."""
        found = list(wanted)
        return cls(
            frozenset().union(*(one.tensors for one in found)),
            frozenset().union(*(one.layers for one in found)),
            gram=any(one.gram for one in found),
        )

    def covers(self, other: "Observations") -> bool:
        """Whether all that another one names is seen with this one."""
        return (
            self.tensors >= other.tensors
            and self.layers >= other.layers
            and (self.gram or not other.gram)
        )


def collect(
    model: ir.Model,
    layers: Sequence[Layer],
    samples: Feeds,
    wanted: Observations,
    *,
    reference: ir.Model | None = None,
    reference_samples: Feeds | None = None,
    seed: int = 0,
    threads: int = 0,
    optimize: bool = True,
    over: Callable[[], bool] = lambda: False,
) -> Statistics:
    """Run `model` over `samples` and reduce what `wanted` names.

    Args:
        model: not changed.
        layers: the layers (`layers.find_layers`) of the model, or of `reference`.
        samples: calibration samples.
        wanted: what cannot be observed (`exposing.observable`) is left out.
        reference: the model that `model` was rewritten from; layers whose input it has under
            the same name are compared row by row.
        reference_samples: what to run it on, where that is not what `model` is run on.
        seed: which rows of a layer are drawn.
        threads: of onnxruntime.
        optimize: whether onnxruntime may fuse nodes (`Observer`).
        over: asked after each sample from the eighth on: whether to end with what was seen.
    """
    read = {layer.name: input_key(layer) for layer in layers if layer.name in wanted.layers}
    observer = Observer(
        model, sorted({*wanted.tensors, *read.values()}), threads=threads, optimize=optimize
    )
    watched: dict[str, list[Layer]] = {}
    for layer in layers:
        if read.get(layer.name) in observer.names:
            watched.setdefault(read[layer.name], []).append(layer)
    names = sorted(observer.names)
    other = (
        None
        if reference is None
        else Observer(reference, names, threads=threads, optimize=optimize)
    )
    reduction = _Reduction(wanted, observer.names, watched, len(samples), seed)
    chunks: list[list[str]] = []
    done = 0
    feeds = zip(samples, reference_samples or samples, strict=True)
    for done, (feed, beside) in enumerate(feeds, 1):
        sizes: dict[str, int] = {}
        for chunk in chunks or _growing_chunks(names, sizes):
            arrays = observer.run(feed, chunk)
            theirs = {} if other is None else other.run(beside, chunk)
            for name in chunk:
                given = arrays.get(name, [])
                sizes[name] = sum(array.nbytes for array in given)
                reduction.hold(name, given, theirs.get(name))
        chunks = chunks or chunks_of(names, sizes, RUN_BYTES)
        if FEWEST_SAMPLES <= done < len(samples) and over():
            logger.warning("time is short: statistics are of %d of %d samples", done, len(samples))
            break
    return reduction.finish(done, observer.lost)


class _Reduction:
    """Tensors that wait, and the sums they are added to."""

    def __init__(
        self,
        wanted: Observations,
        given: frozenset[str],
        watched: Mapping[str, list[Layer]],
        samples: int,
        seed: int,
    ) -> None:
        every = [layer for group in watched.values() for layer in group]
        self._watched = watched
        self._tensors = {name: TensorStatistics() for name in sorted(wanted.tensors & given)}
        self._sums = {layer.name: RowSums(gram=wanted.gram) for layer in every}
        self._limits = {layer.name: max(4, -(-_row_target(layer) // samples)) for layer in every}
        self._drawn = max(HISTOGRAM_FEWEST, HISTOGRAM_TARGET // samples)
        self._draws = {layer.name: _generator(seed, layer.name) for layer in every}
        self._held: dict[str, list[_Held]] = {}
        self._waiting: dict[str, int] = {}

    def hold(self, name: str, arrays: Sequence[Array], others: Sequence[Array] | None) -> None:
        """Keep what a run gave of a tensor, beside what the reference gave."""
        for array, beside in _paired(arrays, others):
            if array.size and array.dtype.kind == "f":
                self._held.setdefault(name, []).append(_Held(array, beside, len(arrays)))
                self._waiting[name] = self._waiting.get(name, 0) + array.nbytes
        if self._waiting.get(name, 0) > HELD_BYTES:
            self._reduce(name)

    def _reduce(self, name: str) -> None:
        """Add what waits of a tensor."""
        self._waiting.pop(name, None)
        for same in _alike(self._held.pop(name, [])):
            arrays, times = [one.array for one in same], same[0].times
            if name in self._tensors:
                _update(self._tensors[name], arrays, -(-self._drawn // times))
            beside = [one.beside for one in same if one.beside is not None]
            for layer in self._watched.get(name, []):
                draw = int(self._draws[layer.name].integers(1 << 62))
                limit = -(-self._limits[layer.name] // times)
                self._sums[layer.name].observe(layer, arrays, beside or None, limit, draw)

    def finish(self, samples: int, lost: frozenset[str]) -> Statistics:
        """What was observed of some samples; `lost` names what turned out to be incomplete."""
        for name in list(self._held):
            self._reduce(name)
        finished = {name: sums.finish(samples) for name, sums in self._sums.items()}
        gone = {layer.name for name in lost for layer in self._watched.get(name, [])}
        # A layer that gave no rows was not observed, which is not the same as inputs of zeros.
        layers = {name: one for name, one in finished.items() if one.rows and name not in gone}
        tensors = {name: one for name, one in self._tensors.items() if name not in lost}
        return Statistics(tensors, layers, samples)


def _generator(seed: int, name: str) -> np.random.Generator:
    """What draws for one layer, whatever is observed beside it."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng((seed, int.from_bytes(digest, "big")))


def _paired(
    arrays: Sequence[Array], others: Sequence[Array] | None
) -> Iterator[tuple[Array, Array | None]]:
    """Each time a tensor was computed, beside the same time of the reference."""
    same = others is not None and len(arrays) == len(others)
    return zip(arrays, others if others is not None and same else [None] * len(arrays), strict=True)


def _row_target(layer: Layer) -> int:
    inputs = int(layer.read().shape[1])
    return min(max(FEWEST_ROWS, ROWS_PER_INPUT * inputs), MOST_ROWS)


@dataclass(frozen=True, slots=True)
class _Held:
    """A tensor that waits to be reduced.

    Attributes:
        array: what was computed.
        beside: the same of the reference, or `None`.
        times: how often the tensor was computed in that run, which share what is drawn of it.
    """

    array: Array
    beside: Array | None
    times: int


def _alike(arrays: Sequence[_Held]) -> Iterator[list[_Held]]:
    """Runs of arrays with the same shapes."""

    def shapes(one: _Held) -> Hashable:
        return one.array.shape, None if one.beside is None else one.beside.shape, one.times

    return (list(group) for _, group in itertools.groupby(arrays, shapes))


def _update(statistics: TensorStatistics, arrays: Sequence[Array], drawn: int) -> None:
    """Add tensors of one shape, `drawn` elements of each at most."""
    flat = np.asarray(arrays[0] if len(arrays) == 1 else np.stack(arrays), np.float32).reshape(-1)
    low, high = float(flat.min()), float(flat.max())
    if not np.isfinite((low, high)).all():
        statistics.minimum, statistics.maximum = -np.inf, np.inf
        return
    stride = -(-arrays[0].size // drawn)
    statistics.update(low, high, flat[::stride])


def _growing_chunks(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Chunks of a first sample: few tensors, then twice as many each time as far as memory goes.

    Args:
        names: in order.
        sizes: bytes of those that were fetched; it grows meanwhile.
    """
    start, count = 0, FEWEST_FETCHED
    while start < len(names):
        yield list(names[start : start + count])
        start += count
        mean = sum(sizes.values()) // max(len(sizes), 1)
        count = max(FEWEST_FETCHED, min(2 * count, RUN_BYTES // max(mean, 1)))


def chunks_of(names: Sequence[str], sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Names in groups of at most `limit` bytes, or of one tensor that is larger."""
    chunks: list[list[str]] = [[]]
    held = 0
    for name in names:
        if chunks[-1] and held + sizes[name] > limit:
            chunks.append([])
            held = 0
        chunks[-1].append(name)
        held += sizes[name]
    return chunks
