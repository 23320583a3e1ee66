"""Sums over the input rows of one layer, from however many runs."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxpress.graph import attribute
from onnxpress.layers import Layer
from onnxpress.recurrent import is_recurrent
from onnxpress.runtime import Array
from onnxpress.statistics.rows import drawn_places, input_rows, recurrent_rows
from onnxpress.statistics.sampling import Sketch
from onnxpress.statistics.store import LayerStatistics

__all__ = ["RowSums", "wide_note"]

GRAM_LIMIT = 4096
"""A wider Gram matrix takes more than 134 MB; of such layers diagonal blocks of it are kept."""
_MOST_TILES = 4
"""Times as many as are needed: smaller ones say too little of how inputs go together."""
BUFFER_ROWS = 1024
BUFFER_BYTES = 2_000_000
"""Of one layer: rows of wide depthwise layers are long, and there are many layers."""

_WIDE = 1e15
"""Products of larger numbers, as those that stand for what is missing (1e20, 9.97e36), are summed
in 64 bits: beyond 3.4e38 32 bits end."""

_Sums = npt.NDArray[np.float64]


class RowSums:
    """Sums over a layer's input rows; rows are buffered so that products are large."""

    def __init__(self, *, gram: bool, halves: bool) -> None:
        """Nothing is added up yet.

        Args:
            gram: whether the Gram matrix is wanted.
            halves: whether rows are of two halves of the samples, that are compared.
        """
        self._wants_gram, self._compares = gram, gram and halves
        self._buffer: list[npt.NDArray[np.float32]] = []
        self._halves: list[npt.NDArray[np.intp]] = []
        self._sketch: Sketch | None = None
        self._buffered = 0
        self._rows = 0
        self._applied = 0
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._squares: npt.NDArray[np.float64] | float = 0.0
        self._minimum: npt.NDArray[np.float64] | float = np.inf
        self._maximum: npt.NDArray[np.float64] | float = -np.inf
        self._gram: npt.NDArray[np.float64] | float = 0.0
        self._tiles: npt.NDArray[np.float64] | float = 0.0
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
        halves: Sequence[int],
    ) -> None:
        """Draw rows of the layer's inputs in several runs, and the same of the reference's.

        Args:
            layer: whose inputs they are.
            arrays: of one shape.
            references: likewise, or `None`.
            limit: rows of one array.
            seed: which rows.
            halves: of the samples, for each array the one it is of.
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
        # Those of one array, which may be that of all samples.
        several = len(halves) // len(arrays)
        for number, array in enumerate(arrays):
            rows, applied = _rows(layer, array, limit, seed + number)
            own = None if beside is None else _rows(layer, beside[number], limit, seed + number)[0]
            of_rows = None
            if self._compares and len(rows):
                places = drawn_places(applied, limit, np.random.default_rng(seed + number))
                of_rows = np.asarray(halves)[number * several + places * several // applied]
            self.add(rows, applied, own, of_rows)

    def add(
        self,
        rows: npt.NDArray[np.float32],
        applied: int,
        references: npt.NDArray[np.float32] | None = None,
        halves: npt.NDArray[np.intp] | None = None,
    ) -> None:
        """Add rows `[rows, groups, in]`, how often the weight was applied, and the reference's.

        `halves` are those of the samples that rows are of; `None`: all are of one.
        """
        self._shape = rows.shape[1:]
        self._applied += applied
        if len(rows) == 0:
            return
        self._buffer.append(rows)
        if halves is not None:
            self._halves.append(halves)
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
        low, high = rows.min(axis=0), rows.max(axis=0)
        self._minimum = np.minimum(self._minimum, low)
        self._maximum = np.maximum(self._maximum, high)
        if max(-low.min(), high.max()) > _WIDE:
            rows = rows.astype(np.float64)
        grouped = rows.transpose(1, 0, 2)
        whole = self._wants_gram and self._shape[1] <= GRAM_LIMIT
        tiles = _tiles(*self._shape) if self._wants_gram and not whole else 0
        parts = rows.reshape(len(rows), tiles, -1) if tiles else rows
        if self._compares and (whole or tiles):
            if self._sketch is None:
                self._sketch = Sketch(*parts.shape[1:])
            self._sketch.add(parts[np.concatenate(self._halves) == 0])
        self._halves = []
        if whole:
            gram = grouped.transpose(0, 2, 1) @ grouped
            self._gram = _added(self._gram, gram)
        else:
            self._squares = self._squares + np.square(rows, dtype=np.float64).sum(axis=0)
            if tiles:
                parts = parts.transpose(1, 0, 2)
                self._tiles = _added(self._tiles, parts.transpose(0, 2, 1) @ parts)
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
        """The moments of all rows added, made of the sums in place: nothing can be added after."""
        self._reduce()
        rows = max(self._rows, 1)
        empty = np.zeros(self._shape)
        gram, cross, tiles = (_over(sums, rows) for sums in (self._gram, self._cross, self._tiles))
        noise = None
        sketched = gram if tiles is None else tiles
        if self._sketch is not None and sketched is not None:
            mean = np.asarray(self._sum / rows).reshape(sketched.shape[:2])
            noise = self._sketch.noise(self._rows, mean, sketched)
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
            cross=cross,
            tiles=tiles,
            noise=None if noise is None else noise[0],
            centred_noise=None if noise is None else noise[1],
        )


def _over(sums: _Sums | float, rows: int) -> _Sums | None:
    """Sums over how many rows there were, in place; `None` where nothing was added up."""
    if isinstance(sums, float):
        return None
    sums /= rows
    return sums


def wide_note(wide: int, tiled: int) -> str:
    """What is not known of layers whose Gram matrices would be too wide; nothing of none.

    Args:
        wide: how many there are.
        tiled: of how many of them there are tiles.
    """
    if not wide:
        return ""
    layers = "one layer has" if wide == 1 else f"{wide} layers have"
    within = "not" if not tiled else "only within blocks"
    some = f" of {tiled} of them" if 0 < tiled < wide else ""
    return (
        f"{layers} more than {GRAM_LIMIT:,} inputs: how large each input is was observed, how they "
        f"go together {within}{some}"
    )


def _tiles(groups: int, inputs: int) -> int:
    """How many diagonal blocks of one size a wide Gram matrix is kept in; 0: it cannot be."""
    fewest = -(-inputs // GRAM_LIMIT)
    numbers = range(fewest, _MOST_TILES * fewest + 1) if groups == 1 else ()
    return next((number for number in numbers if inputs % number == 0), 0)


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
    elif is_recurrent(layer.node):
        rows = recurrent_rows(layer, array.astype(np.float32, copy=False))
        found = [f(rows, axis=0) for f in (np.min, np.max)]
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


def _rows(
    layer: Layer, tensor: npt.NDArray[np.generic], limit: int, seed: int
) -> tuple[npt.NDArray[np.float32], int]:
    return input_rows(
        layer, tensor.astype(np.float32, copy=False), limit, np.random.default_rng(seed)
    )
