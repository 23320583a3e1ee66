"""Collect statistics in one streaming run of the model over the samples.

Intermediate tensors are made graph outputs of a copy. What a run returns is reduced at once;
when the tensors of one sample exceed the memory limit, they are fetched in several runs of
that sample, so memory grows with neither the samples nor the model's depth.

A rewritten model can be observed beside the one it came from: then the same rows are drawn from
both, and E[x·x̂ᵀ] says how far what a layer is fed has moved.
"""

import itertools
import logging
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.data import Samples
from onnxpress.graph import attribute
from onnxpress.layers import Layer
from onnxpress.runtime import Array
from onnxpress.statistics.exposing import Observer, input_key
from onnxpress.statistics.rows import input_rows
from onnxpress.statistics.store import LayerStatistics, Statistics, TensorStatistics

__all__ = ["Observations", "collect"]

logger = logging.getLogger(__name__)

GRAM_LIMIT = 4096
"""A wider Gram matrix takes more than 134 MB; such layers are observed without."""
ROWS_PER_INPUT = 4
"""Rows per layer over all samples, times the layer's inputs: a Gram matrix of full rank."""
FEWEST_ROWS, MOST_ROWS = 4096, 16_384
HISTOGRAM_TARGET = 1 << 20
"""Elements of a tensor over all samples that enter the histogram; extremes are always exact."""
HISTOGRAM_FEWEST = 1 << 12
BUFFER_ROWS = 1024
BUFFER_BYTES = 2_000_000
"""Of one layer: rows of wide depthwise layers are long, and there are many layers."""
HELD_BYTES = 32_000_000
"""Of tensors that wait to be reduced together: for small ones calls cost more than sums."""


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


_Sums = npt.NDArray[np.float64]


class _RowSums:
    """Sums over a layer's input rows; rows are buffered so that products are large."""

    def __init__(self, *, gram: bool) -> None:
        self._wants_gram = gram
        self._buffer: list[npt.NDArray[np.float32]] = []
        self._buffered = 0
        self._rows = 0
        self._applied = 0
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._squares: npt.NDArray[np.float64] | float = 0.0
        self._minimum: npt.NDArray[np.float64] | float = np.inf
        self._maximum: npt.NDArray[np.float64] | float = -np.inf
        self._gram: npt.NDArray[np.float64] | float = 0.0
        self._shape: tuple[int, int] = (0, 0)
        self._references: list[npt.NDArray[np.float32]] = []
        self._reference_sum: npt.NDArray[np.float64] | None = None
        self._cross: npt.NDArray[np.float64] | float = 0.0
        self.input_shape: tuple[int, ...] = ()

    def observe(
        self,
        layer: Layer,
        arrays: Sequence[Array],
        references: Sequence[Array] | None,
        limit: int,
        seed: int,
    ) -> None:
        """Draw rows of the layer's inputs in several runs, and the same of the reference's.

        Args:
            layer: whose inputs they are.
            arrays: of one shape.
            references: likewise, or `None`.
            limit: rows of one array.
            seed: which rows.
        """
        self.input_shape = arrays[-1].shape
        beside = references
        if references is not None and not _row_by_row(layer, references[0].shape, arrays[0].shape):
            beside = None
        if _by_samples(layer, arrays[0]):
            limit *= len(arrays)
            arrays = [_stacked(arrays)]
            low, high = _extremes(layer, arrays[0])
            self._minimum = np.minimum(self._minimum, low)
            self._maximum = np.maximum(self._maximum, high)
            beside = None if beside is None else [_stacked(beside)]
        for number, array in enumerate(arrays):
            rows, applied = _rows(layer, array, limit, seed + number)
            own = None if beside is None else _rows(layer, beside[number], limit, seed + number)[0]
            self.add(rows, applied, own)

    def add(
        self,
        rows: npt.NDArray[np.float32],
        applied: int,
        references: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._shape = rows.shape[1:]
        self._applied += applied
        if len(rows) == 0:
            return
        self._buffer.append(rows)
        if references is not None:
            self._references.append(references)
        self._buffered += len(rows)
        held = self._buffered * rows[0].nbytes
        if self._buffered >= BUFFER_ROWS or held >= BUFFER_BYTES:
            self._reduce()

    def _reduce(self) -> None:
        if not self._buffer:
            return
        rows = np.concatenate(self._buffer)
        self._buffer, self._buffered = [], 0
        self._rows += len(rows)
        self._sum = self._sum + _total(rows)
        # Of the padding, too, which the tensor itself does not hold.
        self._minimum = np.minimum(self._minimum, rows.min(axis=0))
        self._maximum = np.maximum(self._maximum, rows.max(axis=0))
        grouped = rows.transpose(1, 0, 2)
        if self._wants_gram and self._shape[1] <= GRAM_LIMIT:
            gram = grouped.transpose(0, 2, 1) @ grouped
            self._gram = _added(self._gram, gram)
        else:
            self._squares = self._squares + np.square(rows, dtype=np.float64).sum(axis=0)
        if self._references:
            references = np.concatenate(self._references)
            self._references = []
            total = _total(references)
            before = self._reference_sum
            self._reference_sum = total if before is None else before + total
            if self._shape[1] <= GRAM_LIMIT:
                theirs = references.transpose(1, 2, 0)
                self._cross = _added(self._cross, theirs @ grouped)

    def finish(self, samples: int) -> LayerStatistics:
        self._reduce()
        rows = max(self._rows, 1)
        empty = np.zeros(self._shape)
        gram = None
        if self._wants_gram and self._rows and self._shape[1] <= GRAM_LIMIT:
            gram = np.asarray(self._gram) / rows
        second_moment = self._squares / rows if gram is None else np.einsum("gii->gi", gram)
        return LayerStatistics(
            rows=self._rows,
            rows_per_sample=self._applied / max(samples, 1),
            mean=empty + self._sum / rows,
            minimum=empty + (self._minimum if self._rows else 0.0),
            maximum=empty + (self._maximum if self._rows else 0.0),
            second_moment=empty + second_moment,
            gram=gram,
            input_shape=self.input_shape,
            reference_mean=None if self._reference_sum is None else self._reference_sum / rows,
            cross=None if np.ndim(self._cross) == 0 else np.asarray(self._cross) / rows,
        )


def _total(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The sum of a buffer's rows; by BLAS, as their products are."""
    flat = np.ones(len(rows), np.float32) @ rows.reshape(len(rows), -1)
    return flat.astype(np.float64).reshape(rows.shape[1:])


def _added(total: npt.NDArray[np.float64] | float, more: npt.NDArray[np.float32]) -> _Sums:
    """`total + more` in float64, in place where there is a place."""
    if isinstance(total, float):
        return more.astype(np.float64)
    total += more
    return total


def _extremes(layer: Layer, array: Array) -> tuple[npt.NDArray[np.float32], ...]:
    """`[groups, in]` lowest and highest number of each input over the whole tensor."""
    if layer.op_type in ("Conv", "ConvTranspose"):
        rows = array.reshape(*array.shape[:2], -1)
        # Every place of the kernel sees nearly every number of its channel.
        kernel = math.prod(layer.shape[2:]) if layer.op_type == "Conv" else 1
        found = [np.repeat(f(f(rows, axis=2), axis=0), kernel) for f in (np.min, np.max)]
    else:
        rows = array.reshape(-1, array.shape[-1])
        found = [rows.min(axis=0), rows.max(axis=0)]
    return tuple(np.asarray(ends.reshape(layer.groups, -1), np.float32) for ends in found)


def _by_samples(layer: Layer, array: Array) -> bool:
    """Whether inputs of several runs may be joined along their first axis, as one batch."""
    if len(layer.shape) > 2 and layer.op_type == "MatMul":
        return False
    if layer.op_type == "Gather":
        return False
    if layer.op_type == "Gemm":
        return not attribute(layer.node, "transA", 0)
    if layer.op_type == "MatMul":
        return array.ndim > 1 and layer.uses[0].index == 1
    return True


def _stacked(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _row_by_row(layer: Layer, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two inputs of a layer have the same rows, of other lengths perhaps.

    A model with channels removed feeds a layer fewer inputs at as many places.
    """
    if first == second:
        return True
    different = sum(a != b for a, b in zip(first, second, strict=False))
    return len(first) == len(second) and different == 1 and layer.groups == 1


def collect(
    model: ir.Model,
    layers: Sequence[Layer],
    samples: Samples,
    wanted: Observations,
    *,
    reference: ir.Model | None = None,
    seed: int = 0,
    threads: int = 0,
    memory_bytes: int = 192_000_000,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Run `model` over `samples` and reduce what `wanted` names.

    Args:
        model: not changed.
        layers: the layers (`graph.find_layers`) of the model, or of `reference`.
        samples: calibration samples.
        wanted: what cannot be observed (`exposing.observable`) is left out.
        reference: the model that `model` was rewritten from; layers whose input it has under
            the same name are compared row by row.
        seed: which rows of a layer are drawn.
        threads: of onnxruntime.
        memory_bytes: about how much of the tensors of one run are held at a time.
        progress: called with (samples done, all samples).
    """
    read = {layer.name: input_key(layer) for layer in layers if layer.name in wanted.layers}
    observer = Observer(model, sorted({*wanted.tensors, *read.values()}), threads=threads)
    names = sorted(observer.names)
    tensors = sorted(wanted.tensors & observer.names)
    watched: dict[str, list[Layer]] = {}
    for layer in layers:
        if read.get(layer.name) in observer.names:
            watched.setdefault(read[layer.name], []).append(layer)
    other = None if reference is None else Observer(reference, names, threads=threads)

    result = Statistics(samples=len(samples))
    result.tensors = {name: TensorStatistics() for name in tensors}
    sums = {layer.name: _RowSums(gram=wanted.gram) for group in watched.values() for layer in group}
    rng = np.random.default_rng(seed)
    row_limits = {
        layer.name: max(4, -(-_row_target(layer) // len(samples)))
        for group in watched.values()
        for layer in group
    }
    drawn = max(HISTOGRAM_FEWEST, HISTOGRAM_TARGET // len(samples))
    held: dict[str, list[_Held]] = {}

    def reduce_held() -> None:
        for name, waiting_arrays in held.items():
            for same in _alike(waiting_arrays):
                arrays, times = [one.array for one in same], same[0].times
                if name in result.tensors:
                    _update(result.tensors[name], arrays, -(-drawn // times))
                beside = [one.beside for one in same if one.beside is not None]
                for layer in watched.get(name, []):
                    # Drawn anew for each layer, so that both models give the same rows.
                    draw = int(rng.integers(1 << 62))
                    limit = -(-row_limits[layer.name] // times)
                    sums[layer.name].observe(layer, arrays, beside or None, limit, draw)
        held.clear()

    chunks = [names[start : start + 16] for start in range(0, len(names), 16)]
    sizes: dict[str, int] = {}
    waiting = 0
    for done, feed in enumerate(samples, 1):
        for chunk in chunks:
            arrays = observer.run(feed, chunk)
            theirs = {} if other is None else other.run(feed, chunk)
            for name in chunk:
                given = arrays.get(name, [])
                sizes[name] = sum(array.nbytes for array in given)
                for array, beside in _paired(given, theirs.get(name)):
                    if array.size and array.dtype.kind == "f":
                        held.setdefault(name, []).append(_Held(array, beside, len(given)))
                        waiting += array.nbytes
            if waiting > HELD_BYTES:
                reduce_held()
                waiting = 0
        if done == 1:
            chunks = _chunks(names, sizes, memory_bytes)
        if progress is not None:
            progress(done, len(samples))
    reduce_held()
    finished = {name: row_sums.finish(len(samples)) for name, row_sums in sums.items()}
    lost = {layer.name for name in observer.lost for layer in watched.get(name, [])}
    # A layer that gave no rows was not observed, which is not the same as inputs of zeros.
    result.layers = {
        name: layer for name, layer in finished.items() if layer.rows and name not in lost
    }
    for name in observer.lost & result.tensors.keys():
        del result.tensors[name]
    return result


def _paired(
    arrays: Sequence[Array], others: Sequence[Array] | None
) -> Iterator[tuple[Array, Array | None]]:
    """Each time a tensor was computed, beside the same time of the reference."""
    same = others is not None and len(arrays) == len(others)
    return zip(arrays, others if others is not None and same else [None] * len(arrays), strict=True)


def _rows(
    layer: Layer, tensor: npt.NDArray[np.generic], limit: int, seed: int
) -> tuple[npt.NDArray[np.float32], int]:
    return input_rows(
        layer, tensor.astype(np.float32, copy=False), limit, np.random.default_rng(seed)
    )


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


def _chunks(names: Sequence[str], sizes: dict[str, int], limit: int) -> list[list[str]]:
    chunks: list[list[str]] = [[]]
    held = 0
    for name in names:
        if chunks[-1] and held + sizes[name] > limit:
            chunks.append([])
            held = 0
        chunks[-1].append(name)
        held += sizes[name]
    return chunks
