"""Weights of 2 to 7 bits in blocks, each with a step of its own: how they are cut and kept.

A block is a stretch of a row of the weight's matrix `[out, in]`, along its inputs; of a table or of
what is no layer, of its last axis. Blocks of a row are equally long, so that as little as possible
is filled up where the row is no multiple of them. Of several blocks in a row the steps are int8
times a number of the row, which costs 0.01 dB against half precision and half the bytes, and has
the range of float32. A code stands for a whole number of steps, or for a number in a table
(`levels`): of the weight, or of each row.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxpress.passes.quantize.levels import Kind, Layout, nearest_index
from onnxpress.passes.quantize.packing import planes
from onnxpress.passes.quantize.weights import QuantizedWeight

__all__ = [
    "INPUTS_LAST",
    "Blocks",
    "LowBitForm",
    "LowBits",
    "OftenRows",
    "nearest_codes",
    "nearest_numbers",
    "put_codes",
    "usable",
]

Float32 = npt.NDArray[np.float32]

INPUTS_LAST = ("gemm_out_in", "out_in", "directions_out_in")
"""Layouts of weights whose last axis is that of the inputs."""
_UNIT_BYTES = 4
"""float32."""


@dataclass(frozen=True, slots=True)
class LowBitForm:
    """How a weight is stored.

    Attributes:
        bits: of a code, 2 to 7; 8 too in blocks for operators.
        block_size: weights with one step, at most; 0: a whole row.
        symmetric: without zero points.
        kind: how the numbers lie that codes stand for; all but the uniform ones are in a table.
        shifts: steps are powers of two.
        layout: what reads it: operators that unpack it at load, or those of `block_operators`.
        centred: codes are of what differs from the mean of all rows, which lies beside them.
    """

    bits: int
    block_size: int = 32
    symmetric: bool = True
    kind: Kind = "uniform"
    shifts: bool = False
    layout: Layout = "packed"
    centred: bool = False

    @property
    def levels(self) -> int:
        """The highest code."""
        return int(2**self.bits - 1)

    @property
    def middle(self) -> int:
        """The code of 0 without zero points."""
        return int(2 ** (self.bits - 1))

    @property
    def has_zeros(self) -> bool:
        """Whether there are zero points."""
        return not self.symmetric and self.kind == "uniform"

    @property
    def longest(self) -> int:
        """Weights with one step, at most; a table of each row has its steps in it."""
        return 0 if self.kind == "row_codebook" else self.block_size

    def tables_bytes(self, rows: int) -> int:
        """What the numbers take that codes stand for: float32, of each row's int8."""
        if self.kind == "uniform":
            return 0
        return (self.levels + 1) * (rows if self.kind == "row_codebook" else _UNIT_BYTES)


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
        if form.layout != "packed":
            # The last block of a row may be shorter in the file, or filled up.
            return cls(
                rows,
                columns,
                -(-columns // form.block_size),
                form.block_size,
                groups,
                swapped,
            )
        longest = form.longest or columns
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
        if form.layout != "packed":
            zeros = self.rows * -(-self.count * form.bits // 8) if form.has_zeros else 0
            return blocks * (self.size * form.bits // 8 + _UNIT_BYTES) + zeros
        zeros = -(-blocks * form.bits // 8) if form.has_zeros else 0
        steps = blocks if self.count > 1 else 0
        beside = steps + _UNIT_BYTES * self.rows + zeros + form.tables_bytes(self.rows)
        beside += _UNIT_BYTES * self.columns if form.centred else 0
        return blocks * self.size * form.bits // 8 + beside


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
        tables: `[1 or rows, 2^bits]` the numbers that codes stand for; `None`: whole ones from
            the code of 0.
        common: `[in]` what all rows have in common, that is added; `None`: nothing.
    """

    form: LowBitForm
    blocks: Blocks
    codes: npt.NDArray[np.uint8]
    units: Float32
    steps: npt.NDArray[np.int8] | None
    zeros: npt.NDArray[np.uint8] | None
    often: OftenRows | None = None
    tables: Float32 | None = None
    common: Float32 | None = None

    def tables_of(self, rows: slice) -> Float32 | None:
        """Of some rows; or the one of all."""
        return self.tables if self.tables is None or len(self.tables) == 1 else self.tables[rows]

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
        codes, tables = self.codes[rows], self.tables_of(rows)
        if tables is None:
            whole = codes.astype(np.float32) - self.points(rows)[:, :, None]
        elif len(tables) == 1:
            whole = tables[0][codes]
        else:
            whole = tables[np.arange(len(codes))[:, None, None], codes]
        whole *= self.scales(rows)[:, :, None]
        found = whole.reshape(len(whole), -1)[:, : self.blocks.columns]
        if self.common is not None:
            found += self.common
        if self.often is not None:
            wanted = np.arange(len(self.units))[rows]
            own = np.isin(self.often.rows, wanted)
            places = np.searchsorted(wanted, self.often.rows[own])
            found[places] = self.often.weight.dequantize()[own]
        return found


def nearest_codes(low: LowBits, rows: slice, matrix: npt.NDArray[np.floating]) -> Float32:
    """Numbers `[r, in]`, in units of the steps, nearest to some rows `[r, in]`."""
    scales, points = low.scales(rows), low.points(rows)
    filled = low.blocks.filled(matrix)
    found = nearest_numbers(filled, scales, points, low.form, low.tables_of(rows))
    return found.reshape(len(found), -1)[:, : low.blocks.columns]


def put_codes(low: LowBits, rows: slice, numbers: npt.NDArray[np.floating]) -> None:
    """Set the codes of some rows, of numbers `[r, in]` in units of the steps, in place."""
    filled, tables = low.blocks.filled(numbers), low.tables_of(rows)
    if tables is None:
        low.codes[rows] = filled + low.points(rows)[:, :, None]
    else:
        low.codes[rows] = nearest_index(filled, tables, own_table(tables, filled))


def nearest_numbers(
    w: Float32,
    scales: Float32,
    points: npt.NDArray[np.uint8],
    form: LowBitForm,
    tables: Float32 | None,
) -> Float32:
    """What may stand for weights `[r, count, size]`, in units of the scales `[r, count]`."""
    relative = w / usable(scales)[:, :, None]
    if tables is None:
        lowest = -points[:, :, None].astype(np.float32)
        whole = np.round(relative)
        return np.asarray(np.clip(whole, lowest, lowest + np.float32(form.levels)), np.float32)
    own = own_table(tables, w)
    index = nearest_index(relative, tables, own)
    return tables[0][index] if own is None else tables[own, index]


def own_table(tables: Float32, w: npt.NDArray[np.floating]) -> npt.NDArray[np.int64] | None:
    """Which of the tables each of `[r, ...]` weights has: all the one, or each row its own."""
    if len(tables) == 1:
        return None
    return np.arange(len(w)).reshape(-1, *[1] * (w.ndim - 1))


def usable(steps: Float32) -> Float32:
    """What may be divided by: blocks of zeros, or whose step underflows, become zeros."""
    large = np.abs(steps) > np.finfo(np.float32).tiny
    return np.where(large, steps, 1.0).astype(np.float32)
