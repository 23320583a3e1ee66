"""The steps of blocks of a weight in few bits, their zero points, and the tables of levels.

Symmetric codes use every level: the largest weight of a block, whatever its sign, is on the lowest
one, where a step may be negative (as in llama.cpp's Q4_0). Steps are those of least squares for the
codes that a few first guesses give, weighed by E[x²] where that is known (clipping is one of the
guesses). For shifts they are the powers of two beside the first guess that err least. A table is
chosen or fitted on some of the rows; then steps are searched for it.
"""

import numpy as np
import numpy.typing as npt

from onnxpress.passes.quantize.codebooks import kmeans
from onnxpress.passes.quantize.levels import (
    BASES,
    log_levels,
    power_sum_levels,
    uniform_levels,
)
from onnxpress.passes.quantize.low_bits import (
    Blocks,
    LowBitForm,
    LowBits,
    nearest_numbers,
    usable,
)
from onnxpress.pieces import row_blocks

__all__ = ["int8_rows", "power_above", "without_codes"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Points = npt.NDArray[np.uint8]

_GUESSES = np.linspace(1.1, 0.6, 11)
"""Times the step that holds the largest weight of a block."""
_GUESS = np.ones(1)
_POWERS = np.asarray([0.5, 1.0])
"""Times the power of two that holds the largest weight of a block."""
_HIGHEST_STEP = 127
_HIGHEST_SHIFT = 64
_IDLE = 1e-3
"""Of the mean, added to each input's power: other samples may have what never occurs in these."""
_AT_A_TIME = 1 << 19
"""Elements whose steps are searched together: what is computed of them stays in the cache."""
_FITTED = 1 << 18
"""Elements that a table of the whole weight is chosen by, of rows evenly spread."""
_ROUNDS = 2
"""Of steps for a codebook, and the codebook for the steps."""


def without_codes(
    matrix: npt.NDArray[np.floating],
    form: LowBitForm,
    blocks: Blocks,
    importance: Float64 | None,
    *,
    thorough: bool,
    zero: bool = True,
) -> LowBits:
    """Steps and zero points of all blocks, or a table beside steps; codes are 0.

    Args:
        matrix: `[rows, in]`, finite.
        form: how many levels, and of which kind.
        blocks: how rows are cut.
        importance: `[groups, in]` E[x²] by which errors count; `None`: all alike.
        thorough: more than one guess a block.
        zero: whether one of the levels of a codebook is 0.
    """
    if form.kind == "row_codebook":
        return _with_rows_tables(matrix, form, blocks, importance, zero=zero)
    guesses = _GUESSES if thorough else _GUESS
    tables = _table(matrix, form, blocks, importance, guesses, zero=zero)
    scales = np.empty((blocks.rows, blocks.count), np.float32)
    zeros = np.empty(scales.shape, np.uint8) if form.has_zeros else None
    for rows in row_blocks(matrix, _AT_A_TIME):
        weights = _weights(blocks, importance, np.arange(rows.start, rows.stop))
        own = blocks.filled(matrix[rows])
        scales[rows], points = _searched(own, weights, form, guesses, tables)
        if zeros is not None:
            zeros[rows] = points
    codes = np.zeros((*scales.shape, blocks.size), np.uint8)
    if blocks.count == 1:
        units = np.where(scales[:, 0] == 0, 1, scales[:, 0]).astype(np.float32)
        return LowBits(form, blocks, codes, units, None, zeros, tables=tables)
    highest = np.float32(_HIGHEST_SHIFT if form.shifts else _HIGHEST_STEP)
    largest = np.abs(scales).max(axis=1) / highest
    units = np.where(largest > np.finfo(np.float32).tiny, largest, 1).astype(np.float32)
    steps = np.round(scales / units[:, None])
    # A block that is nearly zero has the smallest step there is.
    steps = np.where(steps == 0, 1, steps).astype(np.int8)
    return LowBits(form, blocks, codes, units, steps, zeros, tables=tables)


def int8_rows(tables: Float32) -> tuple[Float32, Float32]:
    """Tables `[rows, 2^bits]` in whole numbers up to 127, and what they are counted in."""
    largest = np.abs(tables).max(axis=1) / np.float32(_HIGHEST_STEP)
    units = np.where(largest > np.finfo(np.float32).tiny, largest, 1).astype(np.float32)
    return np.round(tables / units[:, None]).astype(np.float32), units


def _weights(
    blocks: Blocks, importance: Float64 | None, rows: npt.NDArray[np.int64]
) -> Float32 | None:
    """`[r, count, size]` by which errors of some rows count."""
    if importance is None:
        return None
    own = importance[rows // (blocks.rows // len(importance))]
    mean = np.maximum(own.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return blocks.filled(own / mean + _IDLE)


def _table(
    matrix: npt.NDArray[np.floating],
    form: LowBitForm,
    blocks: Blocks,
    importance: Float64 | None,
    guesses: Float64,
    *,
    zero: bool,
) -> Float32 | None:
    """`[1, 2^bits]` the levels that err least on some rows; `None`: whole numbers."""
    if form.kind == "uniform":
        return None
    if form.kind == "power_sums":
        return power_sum_levels(form.bits)
    if form.kind == "log" and form.shifts:
        return log_levels(form.bits, 2.0)
    rows = np.arange(0, blocks.rows, max(1, -(-matrix.size // _FITTED)))
    w, weights = blocks.filled(matrix[rows]), _weights(blocks, importance, rows)
    if form.kind == "log":
        tables = [log_levels(form.bits, base) for base in BASES]
        return min(tables, key=lambda table: _lost(w, weights, form, _GUESS, table))
    table, middle = uniform_levels(form.bits), form.middle
    for _ in range(_ROUNDS):
        scales, _ = _searched(w, weights, form, guesses, table)
        x = np.asarray(w / usable(scales)[:, :, None], np.float64).reshape(1, -1) / middle
        counts = np.broadcast_to(np.square(scales, dtype=np.float64)[:, :, None], w.shape)
        counts = (counts if weights is None else counts * weights).reshape(1, -1)
        # Of very small steps the squares underflow.
        counts = counts / max(counts.max(), np.finfo(np.float64).tiny)
        table = kmeans(np.clip(x, -2, 2), counts, table / np.float64(middle), zero=zero) * middle
    return table


def _lost(
    w: Float32, weights: Float32 | None, form: LowBitForm, guesses: Float64, table: Float32
) -> float:
    """The weighed error of a table, in units of what it is of."""
    scales, points = _searched(w, weights, form, guesses, table)
    numbers = nearest_numbers(w, scales, points, form, table)
    # Squares of very large weights would be no numbers.
    unit = usable(np.abs(w).max(keepdims=True))
    errors = np.square(numbers * (scales[:, :, None] / unit) - w / unit)
    return float((errors if weights is None else errors * weights).sum(dtype=np.float64))


def _with_rows_tables(
    matrix: npt.NDArray[np.floating],
    form: LowBitForm,
    blocks: Blocks,
    importance: Float64 | None,
    *,
    zero: bool,
) -> LowBits:
    """A table for each row, fitted to it, in int8 times a number of the row."""
    tables = np.empty((blocks.rows, 2**form.bits), np.float32)
    units = np.empty(blocks.rows, np.float32)
    for rows in row_blocks(matrix, _AT_A_TIME):
        w = np.asarray(matrix[rows], np.float32)
        largest = usable(np.abs(w).max(axis=1))[:, None]
        weights = _weights(blocks, importance, np.arange(rows.start, rows.stop))
        counts = np.ones(w.shape) if weights is None else weights.reshape(len(w), -1)
        counts = np.asarray(counts[:, : blocks.columns], np.float64)
        x = np.asarray(w / largest, np.float64)
        ends = x.min(axis=1)[:, None], x.max(axis=1)[:, None]
        start = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, 2**form.bits)
        found, own = int8_rows(kmeans(x, counts, start, zero=zero))
        tables[rows], units[rows] = found, own * largest[:, 0]
    if form.shifts:
        whole = power_above(units)
        tables, units = np.round(tables * (units / whole)[:, None]), whole
    codes = np.zeros((blocks.rows, 1, blocks.size), np.uint8)
    return LowBits(form, blocks, codes, units, None, None, tables=tables.astype(np.float32))


def _searched(
    w: Float32,
    weights: Float32 | None,
    form: LowBitForm,
    guesses: Float64,
    tables: Float32 | None,
) -> tuple[Float32, Points]:
    """`[r, count]` the steps that err least, and the codes of 0."""
    if form.has_zeros:
        first, zeros = _asymmetric(w, form)
    else:
        first, zeros = _symmetric(w, form, -form.middle if tables is None else tables[0, 0])
    if form.shifts:
        guesses = _POWERS
    # In units of the first guess, as squares of very large or small weights are no numbers.
    unit = usable(first)
    if form.shifts:
        unit = np.sign(unit) * power_above(np.abs(unit))
        unit = unit.astype(np.float32)
    relative = w / unit[:, :, None]
    best = np.ones_like(unit)
    # Of the error, what the step decides: 2·s·Σ w·q − s²·Σ q², at best (Σ w·q)² / Σ q².
    most = np.full(unit.shape, -np.inf, np.float32)
    for guess in guesses:
        codes = nearest_numbers(relative, np.full_like(unit, guess), zeros, form, tables)
        weighed = codes if weights is None else codes * weights
        along = np.einsum("rcs,rcs->rc", weighed, relative)
        power = np.einsum("rcs,rcs->rc", weighed, codes)
        fitted = along / np.maximum(power, np.finfo(np.float32).tiny)
        step = np.full_like(unit, guess) if form.shifts else fitted
        gained = step * (2 * along - step * power) if form.shifts else along * fitted
        better = gained > most
        best = np.where(better, step, best)
        most = np.where(better, gained, most)
    return np.where(usable(first) == first, unit * best, 0).astype(np.float32), zeros


def power_above(numbers: Float32) -> Float32:
    """The least powers of two that are no less than numbers above 0."""
    fraction, exponent = np.frexp(numbers)
    return np.asarray(np.ldexp(1.0, exponent - (fraction == 0.5)), np.float32)


def _symmetric(w: Float32, form: LowBitForm, lowest: float) -> tuple[Float32, Points]:
    """Steps that put the largest weight on the lowest level."""
    high, low = w.max(axis=2), w.min(axis=2)
    extreme = np.where(high > -low, high, low)
    steps = extreme / np.float32(lowest)
    return steps, np.full(steps.shape, form.middle, np.uint8)


def _asymmetric(w: Float32, form: LowBitForm) -> tuple[Float32, Points]:
    """Steps that reach from the least weight, or 0, to the largest."""
    high, low = np.maximum(w.max(axis=2), 0), np.minimum(w.min(axis=2), 0)
    steps = high / np.float32(form.levels) - low / np.float32(form.levels)
    return steps, np.clip(np.round(-low / usable(steps)), 0, form.levels).astype(np.uint8)
