"""Weights of 2 to 7 bits in blocks, each with a step of its own.

A block is a stretch of a row of the weight's matrix `[out, in]`, along its inputs; of a table or of
what is no layer, of its last axis. Blocks of a row are equally long, so that as little as possible
is filled up where the row is no multiple of them. Symmetric codes use every level: the largest
weight of a block, whatever its sign, is on the lowest one, where a step may be negative (as in
llama.cpp's Q4_0). Steps are those of least squares for the codes that a few first guesses give,
weighed by E[x²] where that is known (clipping is one of the guesses). Of several blocks in a row
they are int8 times a number of the row, which costs 0.01 dB against half precision and half the
bytes, and has the range of float32.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxpress.passes.quantize.packing import planes
from onnxpress.passes.quantize.weights import QuantizedWeight
from onnxpress.pieces import row_blocks

__all__ = [
    "Blocks",
    "LowBitForm",
    "LowBits",
    "OftenRows",
    "nearest_codes",
    "put_codes",
    "without_codes",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_GUESSES = np.linspace(1.1, 0.6, 11)
"""Times the step that holds the largest weight of a block."""
_GUESS = np.ones(1)
_HIGHEST_STEP = 127
_UNIT_BYTES = 4
"""float32."""
_IDLE = 1e-3
"""Of the mean, added to each input's power: other samples may have what never occurs in these."""
_AT_A_TIME = 1 << 19
"""Elements whose steps are searched together: what is computed of them stays in the cache."""


@dataclass(frozen=True, slots=True)
class LowBitForm:
    """How a weight is stored.

    Attributes:
        bits: of a code, 2 to 7.
        block_size: weights with one step, at most; 0: a whole row.
        symmetric: without zero points.
    """

    bits: int
    block_size: int = 32
    symmetric: bool = True

    @property
    def levels(self) -> int:
        """The highest code."""
        return int(2**self.bits - 1)

    @property
    def middle(self) -> int:
        """The code of 0 without zero points."""
        return int(2 ** (self.bits - 1))


@dataclass(frozen=True, slots=True)
class Blocks:
    """How rows are cut.

    Attributes:
        rows: of the matrix.
        columns: of the matrix.
        count: of the blocks of a row.
        size: of each; together they may be longer than the row.
        groups: of matrices one below the other, where inputs come before outputs in the weight.
        swapped: whether they do.
    """

    rows: int
    columns: int
    count: int
    size: int
    groups: int = 1
    swapped: bool = False

    @classmethod
    def of(
        cls, rows: int, columns: int, form: LowBitForm, groups: int = 1, *, swapped: bool = False
    ) -> "Blocks":
        """As few as the form allows, and codes that fill whole bytes."""
        longest = form.block_size or columns
        count = max(1, -(-columns // longest))
        size = -(-columns // count)
        parts = 8 // min(width for width, _ in planes(form.bits))
        step = parts // math.gcd(rows * count, parts)
        return cls(rows, columns, count, -(-size // step) * step, groups, swapped)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of the codes in the order of the weight's elements; the axes of a block are 1, 2 of it.

        `[groups, count, size, outputs]`, or `[rows, count, size]`.
        """
        if self.swapped:
            return (self.groups, self.count, self.size, self.rows // self.groups)
        return (self.rows, self.count, self.size)

    @property
    def steps_shape(self) -> tuple[int, ...]:
        """Of one number for each block, that broadcasts with the codes."""
        first, count, _, *outputs = self.stored_shape
        return (first, count, 1, *outputs)

    def matrix(self, array: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """A weight as `[rows, columns]`."""
        if not self.swapped:
            return array.reshape(self.rows, self.columns)
        grouped = array.reshape(self.groups, self.columns, -1)
        return grouped.swapaxes(1, 2).reshape(self.rows, self.columns)

    def stored(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """`[rows, count, n]`, a number of each block or of each weight, in that order."""
        if not self.swapped:
            return array
        grouped = array.reshape(self.groups, -1, *array.shape[1:])
        return np.ascontiguousarray(np.moveaxis(grouped, 1, -1))

    def filled(self, matrix: npt.NDArray[np.floating]) -> Float32:
        """Some rows `[r, in]` cut `[r, count, size]`, with zeros behind the last input."""
        found = np.zeros((len(matrix), self.count * self.size), np.float32)
        found[:, : self.columns] = matrix
        return found.reshape(len(matrix), self.count, self.size)

    def spread(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`[r, count]` numbers of blocks as `[r, in]`."""
        return np.repeat(numbers, self.size, axis=1)[:, : self.columns]

    def nbytes(self, form: LowBitForm) -> int:
        """What codes, steps and zero points take."""
        blocks = self.rows * self.count
        zeros = 0 if form.symmetric else -(-blocks * form.bits // 8)
        steps = blocks if self.count > 1 else 0
        return blocks * self.size * form.bits // 8 + steps + _UNIT_BYTES * self.rows + zeros


@dataclass(frozen=True, slots=True)
class OftenRows:
    """Rows of an embedding that the samples look up, in 8 bits.

    Attributes:
        rows: `[r]` which, rising.
        weight: their integers `[r, columns]`, with a scale each.
    """

    rows: npt.NDArray[np.int64]
    weight: QuantizedWeight


@dataclass(frozen=True, slots=True)
class LowBits:
    """A weight in few bits.

    Attributes:
        form: how it is stored.
        blocks: how it is cut.
        codes: `[rows, count, size]`, 0 to `form.levels`.
        units: `[rows]` what steps are counted in.
        steps: `[rows, count]`, not 0; `None`: 1, of the one block that each row is.
        zeros: `[rows, count]` the codes of 0; `None`: `form.middle`.
        often: rows that are stored in 8 bits beside; `None`: none.
    """

    form: LowBitForm
    blocks: Blocks
    codes: npt.NDArray[np.uint8]
    units: Float32
    steps: npt.NDArray[np.int8] | None
    zeros: npt.NDArray[np.uint8] | None
    often: OftenRows | None = None

    def scales(self, rows: slice = slice(None)) -> Float32:
        """`[r, count]` of some rows: what a code is worth in each block."""
        units = self.units[rows, None]
        return units if self.steps is None else self.steps[rows].astype(np.float32) * units

    def points(self, rows: slice = slice(None)) -> npt.NDArray[np.uint8]:
        """`[r, count]` the codes of 0 of some rows."""
        if self.zeros is not None:
            return self.zeros[rows]
        return np.full((len(self.units[rows]), self.blocks.count), self.form.middle, np.uint8)

    def dequantize(self, rows: slice = slice(None)) -> Float32:
        """What some rows stand for, `[r, in]`."""
        whole = self.codes[rows].astype(np.float32) - self.points(rows)[:, :, None]
        whole *= self.scales(rows)[:, :, None]
        found = whole.reshape(len(whole), -1)[:, : self.blocks.columns]
        if self.often is not None:
            wanted = np.arange(len(self.units))[rows]
            own = np.isin(self.often.rows, wanted)
            places = np.searchsorted(wanted, self.often.rows[own])
            found[places] = self.often.weight.dequantize()[own]
        return found


def without_codes(
    matrix: npt.NDArray[np.floating],
    form: LowBitForm,
    blocks: Blocks,
    importance: Float64 | None,
    *,
    thorough: bool,
) -> LowBits:
    """Steps and zero points of all blocks, whose codes are 0.

    Args:
        matrix: `[rows, in]`, finite.
        form: how many levels.
        blocks: how rows are cut.
        importance: `[groups, in]` E[x²] by which errors count; `None`: all alike.
        thorough: more than one guess a block.
    """
    scales = np.empty((blocks.rows, blocks.count), np.float32)
    zeros = None if form.symmetric else np.empty(scales.shape, np.uint8)
    guesses = _GUESSES if thorough else _GUESS
    of_group = 0 if importance is None else blocks.rows // len(importance)
    for rows in row_blocks(matrix, _AT_A_TIME):
        weights: Float32 | None = None
        if importance is not None:
            own = importance[np.arange(rows.start, rows.stop) // of_group]
            mean = np.maximum(own.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            weights = blocks.filled(own / mean + _IDLE)
        scales[rows], points = _searched(blocks.filled(matrix[rows]), weights, form, guesses)
        if zeros is not None:
            zeros[rows] = points
    codes = np.zeros((*scales.shape, blocks.size), np.uint8)
    if blocks.count == 1:
        units = np.where(scales[:, 0] == 0, 1, scales[:, 0]).astype(np.float32)
        return LowBits(form, blocks, codes, units, None, zeros)
    largest = np.abs(scales).max(axis=1) / np.float32(_HIGHEST_STEP)
    units = np.where(largest > np.finfo(np.float32).tiny, largest, 1).astype(np.float32)
    steps = np.round(scales / units[:, None])
    # A block that is nearly zero has the smallest step there is.
    steps = np.where(steps == 0, 1, steps).astype(np.int8)
    return LowBits(form, blocks, codes, units, steps, zeros)


def _searched(
    w: Float32, weights: Float32 | None, form: LowBitForm, guesses: Float64
) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """`[r, count]` the steps that err least, and the codes of 0."""
    first, zeros = _symmetric(w, form) if form.symmetric else _asymmetric(w, form)
    # In units of the first guess, as squares of very large or small weights are no numbers.
    unit = _usable(first)
    relative = w / unit[:, :, None]
    best = np.ones_like(unit)
    # Of the error, what the step decides: (Σ w·q)² / Σ q².
    most = np.full(unit.shape, -np.inf, np.float32)
    for guess in guesses:
        codes = _nearest(relative, np.full_like(unit, guess), zeros, form)
        weighed = codes if weights is None else codes * weights
        along = np.einsum("rcs,rcs->rc", weighed, relative)
        power = np.einsum("rcs,rcs->rc", weighed, codes)
        fitted = along / np.maximum(power, np.finfo(np.float32).tiny)
        better = along * fitted > most
        best = np.where(better, fitted, best)
        most = np.where(better, along * fitted, most)
    return np.where(first == unit, unit * best, 0).astype(np.float32), zeros


def _symmetric(w: Float32, form: LowBitForm) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """Steps that put the largest weight on the lowest code."""
    high, low = w.max(axis=2), w.min(axis=2)
    extreme = np.where(high > -low, high, low)
    steps = extreme / np.float32(-form.middle)
    return steps, np.full(steps.shape, form.middle, np.uint8)


def _asymmetric(w: Float32, form: LowBitForm) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """Steps that reach from the least weight, or 0, to the largest."""
    high, low = np.maximum(w.max(axis=2), 0), np.minimum(w.min(axis=2), 0)
    steps = high / np.float32(form.levels) - low / np.float32(form.levels)
    return steps, np.clip(np.round(-low / _usable(steps)), 0, form.levels).astype(np.uint8)


def _usable(steps: Float32) -> Float32:
    """What may be divided by: blocks of zeros, or whose step underflows, become zeros."""
    usable = np.abs(steps) > np.finfo(np.float32).tiny
    return np.where(usable, steps, 1.0).astype(np.float32)


def _nearest(
    w: Float32, scales: Float32, points: npt.NDArray[np.uint8], form: LowBitForm
) -> Float32:
    lowest = -points[:, :, None].astype(np.float32)
    whole = np.round(w / _usable(scales)[:, :, None])
    return np.asarray(np.clip(whole, lowest, lowest + np.float32(form.levels)), np.float32)


def nearest_codes(low: LowBits, rows: slice, matrix: npt.NDArray[np.floating]) -> Float32:
    """Whole numbers `[r, in]`, 0 for 0, nearest to some rows `[r, in]`."""
    found = _nearest(low.blocks.filled(matrix), low.scales(rows), low.points(rows), low.form)
    return found.reshape(len(found), -1)[:, : low.blocks.columns]


def put_codes(low: LowBits, rows: slice, whole: npt.NDArray[np.floating]) -> None:
    """Set the codes of some rows, of whole numbers `[r, in]` with 0 for 0, in place."""
    low.codes[rows] = low.blocks.filled(whole) + low.points(rows)[:, :, None]
