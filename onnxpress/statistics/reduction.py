"""Tensors that runs give, added to the sums that are kept of them.

Layers that read one tensor alike share their sums. What is drawn of a tensor's rows follows from
the seed and its name alone, so that it is the same whatever is observed beside it, and in however
many blocks.
"""

import hashlib
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxpress.layers import Layer
from onnxpress.runtime import Array
from onnxpress.statistics.row_sums import RowSums
from onnxpress.statistics.rows import reading_of
from onnxpress.statistics.sampling import noise_between
from onnxpress.statistics.store import LayerStatistics, Statistics, TensorStatistics

__all__ = ["Reduction"]

ROWS_PER_INPUT = 4
"""Rows per layer over all samples, times the layer's inputs: a Gram matrix of full rank."""
FEWEST_ROWS, MOST_ROWS = 4096, 16_384
HISTOGRAM_TARGET = 1 << 20
"""Elements of a tensor over all samples that enter the histogram; extremes are always exact."""
HISTOGRAM_FEWEST = 1 << 12
HELD_BYTES = 131_072
"""Of one tensor, in several samples that are reduced together: calls cost more than small sums."""


class Reduction:
    """Tensors that wait, and the sums they are added to."""

    def __init__(
        self,
        tensors: Iterable[str],
        watched: Mapping[str, list[Layer]],
        samples: int,
        seed: int,
        *,
        gram: bool,
        in_halves: bool,
    ) -> None:
        """Nothing is added up yet.

        Args:
            tensors: whose range and histogram are wanted.
            watched: the layers that read a tensor.
            samples: how many will be run.
            seed: which rows of a layer are drawn.
            gram: whether Gram matrices are wanted.
            in_halves: whether sums of every other sample are kept on their own, too.
        """
        every = [layer for group in watched.values() for layer in group]
        self._watched = watched
        self._readers = {name: _alike_reading(group) for name, group in watched.items()}
        self._tensors = {name: TensorStatistics() for name in sorted(tensors)}
        self._halves = 2 if in_halves else 1
        self._sums = {
            (name, number): [RowSums(gram=gram, halves=not in_halves) for _ in range(self._halves)]
            for name, readers in self._readers.items()
            for number in range(len(readers))
        }
        self._limits = {layer.name: max(4, -(-_row_target(layer) // samples)) for layer in every}
        self._drawn = max(HISTOGRAM_FEWEST, HISTOGRAM_TARGET // samples)
        self._draws = {place: _generator(seed, place[0]) for place in self._sums}
        self._lookups = {
            layer.name: np.zeros(layer.shape[0], np.int64)
            for layer in every
            if layer.op_type == "Gather"
        }
        self._held: dict[tuple[str, int], list[_Held]] = {}
        self._waiting: dict[tuple[str, int], int] = {}

    def hold(
        self, name: str, arrays: Sequence[Array], others: Sequence[Array] | None, sample: int
    ) -> None:
        """Keep what a run on a sample gave of a tensor, beside what the reference gave."""
        place = name, sample % self._halves
        for array, beside in _paired(arrays, others):
            if array.dtype.kind == "i":
                self._count(name, array)
            if array.size and array.dtype.kind == "f":
                self._held.setdefault(place, []).append(
                    _Held(array, beside, len(arrays), sample % 2)
                )
                self._waiting[place] = self._waiting.get(place, 0) + array.nbytes
        if self._waiting.get(place, 0) > HELD_BYTES:
            self._reduce(*place)

    def _count(self, name: str, indices: Array) -> None:
        """Rows of embeddings that are looked up; negative ones count from the end."""
        for layer in self._watched.get(name, []):
            if layer.name in self._lookups:
                counts = self._lookups[layer.name]
                counts += np.bincount(indices.reshape(-1) % len(counts), minlength=len(counts))

    def _reduce(self, name: str, half: int) -> None:
        """Add what waits of a tensor."""
        self._waiting.pop((name, half), None)
        for same in _alike(self._held.pop((name, half), [])):
            arrays, times = [one.array for one in same], same[0].times
            halves = [one.half for one in same]
            if name in self._tensors:
                _update(self._tensors[name], arrays, -(-self._drawn // times))
            beside = [one.beside for one in same if one.beside is not None]
            for number, (layer, *_) in enumerate(self._readers.get(name, [])):
                draw = int(self._draws[name, number].integers(1 << 62))
                limit = -(-self._limits[layer.name] // times)
                sums = self._sums[name, number][half]
                sums.observe(layer, arrays, beside or None, limit, draw, halves)

    def finish(self, samples: int, lost: frozenset[str]) -> Statistics:
        """What was observed of some samples; `lost` names what turned out to be incomplete.

        Nothing can be added any more.
        """
        for place in list(self._held):
            self._reduce(*place)
        finished: dict[str, LayerStatistics] = {}
        for name, readers in self._readers.items():
            for number, alike in enumerate(readers):
                # Let go of one by one: wide layers have hundreds of MB of them.
                sums = self._sums.pop((name, number))
                one = _joined([half.finish(samples) for half in sums])
                finished |= {layer.name: one for layer in alike}
        gone = {layer.name for name in lost for layer in self._watched.get(name, [])}
        # A layer that gave no rows was not observed, which is not the same as inputs of zeros.
        layers = {name: one for name, one in finished.items() if one.rows and name not in gone}
        tensors = {name: one for name, one in self._tensors.items() if name not in lost}
        lookups = {
            name: counts
            for name, counts in self._lookups.items()
            if counts.any() and name not in gone
        }
        return Statistics(tensors, layers, samples, lookups)


def _alike_reading(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Layers that read one tensor, those together that read it alike."""
    found: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        found.setdefault(reading_of(layer), []).append(layer)
    return list(found.values())


def _joined(parts: Sequence[LayerStatistics]) -> LayerStatistics:
    """What was observed of a layer, in halves or not."""
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    if not first.rows or not second.rows:
        return first if first.rows else second
    whole = first.merged(second)
    per_sample = first.rows_per_sample + second.rows_per_sample
    noise = noise_between(first, second) or (None, None)
    return replace(
        whole,
        rows_per_sample=per_sample,
        half=first,
        noise=noise[0],
        centred_noise=noise[1],
    )


def _generator(seed: int, name: str) -> np.random.Generator:
    """What draws of one tensor, whatever is observed beside it."""
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
        half: of the samples, every other one.
    """

    array: Array
    beside: Array | None
    times: int
    half: int


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
