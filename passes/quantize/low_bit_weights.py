"""The codes of a weight in few bits, with the error they cause.

Steps come first, by block (`low_bits`). Of layers whose inputs were observed the codes are then
chosen column by column, so that their errors cancel (`rounding`), whatever block a column is in.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxpress.contract import (
    Context,
    LayerStatistics,
    StoredWeight,
    memoised,
)
from onnxpress.graph import standard_opset
from onnxpress.layers import Layer
from onnxpress.passes.quantize.codebooks import refitted_levels
from onnxpress.passes.quantize.goals import Goal, compensable, goal_of, judged
from onnxpress.passes.quantize.levels import LevelGrid
from onnxpress.passes.quantize.low_bits import (
    Blocks,
    LowBitForm,
    LowBits,
    OftenRows,
    nearest_codes,
    put_codes,
)
from onnxpress.passes.quantize.rounding import Compensation, Grid
from onnxpress.passes.quantize.steps import int8_rows, power_above, without_codes
from onnxpress.passes.quantize.tiles import gram_of, tiled, untiled
from onnxpress.passes.quantize.weights import quantize_weight
from onnxpress.pieces import row_blocks
from onnxpress.reconstruction import output_energy

__all__ = [
    "LowBitRounded",
    "blocks_of",
    "low_bit_weight",
    "often_rows",
]

Float64 = npt.NDArray[np.float64]

_LARGE = 1 << 25
"""Elements: in double precision, and what is computed of them, 0.8 GB."""
_AT_A_TIME = 1 << 22
"""Elements that are rounded together: in double precision 34 MB, a few times."""
_DAMPINGS = (0.0, 0.1, 0.5)
"""Shares of the mean diagonal of the Gram matrix, beside the usual 0.01, that are tried."""
_OUTPUTS = 128
"""Of a layer, evenly spread, that the damping is chosen by."""
_OFTEN = 32
"""Of so many rows one, at most, that is looked up often: an eighth of a bit a weight."""
_NO_ROWS = np.zeros(0, np.int64)
_SCATTER_OPSET = 11
_FITTED = ("codebook", "row_codebook")
"""Kinds of levels that are fitted again once the codes are chosen."""
_MOST_WORK = 1 << 35
"""Multiply-adds of a fit: a table of a larger weight is fitted by some of its rows."""
_INPUTS_LAST = ("gemm_out_in", "out_in", "directions_out_in")


@dataclass(frozen=True, slots=True)
class LowBitRounded:
    """A weight in few bits.

    Attributes:
        weight: codes and steps.
        offset: `[out]` what the bias has to take up, or `None`.
        error: power of the output's change over that of the output; without observed inputs,
            of the weight.
    """

    weight: LowBits
    offset: Float64 | None
    error: float


def blocks_of(weight: Layer | StoredWeight, form: LowBitForm) -> Blocks:
    """How a weight is cut, by its shape alone.

    Along the inputs of a layer; an embedding along its words, what is no layer along its last axis.
    """
    size = math.prod(weight.shape)
    if isinstance(weight, StoredWeight) or weight.op_type == "Gather":
        last = weight.shape[-1]
        return Blocks.of(size // last, last, form)
    use, groups = weight.uses[0], weight.groups
    if weight.op_type == "Conv":
        return Blocks.of(weight.shape[0], size // weight.shape[0], form)
    if weight.op_type == "ConvTranspose":
        inputs = weight.shape[0] // groups
        return Blocks.of(size // inputs, inputs, form, groups, swapped=True)
    if use.layout in _INPUTS_LAST:
        return Blocks.of(size // weight.shape[-1], weight.shape[-1], form)
    inputs = weight.shape[-2]
    return Blocks.of(size // inputs, inputs, form, groups, swapped=True)


def low_bit_weight(
    context: Context, weight: Layer | StoredWeight, form: LowBitForm
) -> LowBitRounded:
    """The weight in a form, rounded as well as what is known of its inputs allows."""
    if isinstance(weight, StoredWeight) or not _compensated_by_columns(weight):
        blocks = blocks_of(weight, form)
        often = often_rows(context, weight) if form.layout == "packed" else _NO_ROWS
        return _of_array(context, weight.weight.const_value, blocks, form, often)
    return _of_layer(context, weight, form)


def often_rows(context: Context, weight: Layer | StoredWeight) -> npt.NDArray[np.int64]:
    """Rows of an embedding that the samples look up most, as few as cost little in 8 bits.

    What a text is made of mostly is a few hundred words; on samples of others than these the rest
    is as good as without.
    """
    known = context.base_statistics
    counts = None
    if isinstance(weight, Layer) and known is not None:
        counts = known.lookups.get(weight.name)
    if counts is None or standard_opset(context.model) < _SCATTER_OPSET:
        return _NO_ROWS
    most = len(counts) // _OFTEN
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(order[counts[order] > 0]).astype(np.int64)


def _compensated_by_columns(layer: Layer) -> bool:
    """Very large weights are rounded to the nearest, some rows at a time."""
    return compensable(layer) and math.prod(layer.shape) <= _LARGE


@memoised
def _of_array(
    context: Context,
    tensor: object,
    blocks: Blocks,
    form: LowBitForm,
    often: npt.NDArray[np.int64],
) -> LowBitRounded:
    """By its numbers alone."""
    array: npt.NDArray[np.floating] = tensor.numpy()  # type: ignore[attr-defined]
    matrix = blocks.matrix(array)
    found = without_codes(matrix, form, blocks, None, thorough=not context.draft)
    for rows in row_blocks(matrix, _AT_A_TIME):
        put_codes(found, rows, nearest_codes(found, rows, matrix[rows]))
    if len(often):
        found = replace(found, often=OftenRows(often, quantize_weight(matrix[often], 0)))
    return LowBitRounded(found, None, _relative_error(matrix, found))


@memoised
def _of_layer(context: Context, layer: Layer, form: LowBitForm) -> LowBitRounded:
    """So that errors cancel at the layer's output, where its inputs were observed."""
    goal, blocks = goal_of(context, layer), blocks_of(layer, form)
    importance = None
    if goal.gram is not None:
        # Of a wide layer each tile has inputs of its own.
        groups = len(goal.gram) // goal.tiles
        importance = np.einsum("gii->gi", goal.gram).reshape(groups, -1)
    found = _to_the_nearest(goal, form, blocks, importance, thorough=not context.draft)
    if goal.gram is not None and not context.draft:
        share = _damping(context.moments(layer), goal, found)
        compensation = Compensation.of(goal.gram, share)
        _put_compensated(found, compensation, goal)
        if form.kind in _FITTED:
            again = _with_refitted_tables(found, goal)
            _put_compensated(again, compensation, goal)
            found = min(found, again, key=lambda low: _lost(low, goal))
    delta = found.dequantize() - goal.weights
    return LowBitRounded(found, *judged(context, layer, goal, delta))


def _to_the_nearest(
    goal: Goal, form: LowBitForm, blocks: Blocks, importance: Float64 | None, *, thorough: bool
) -> LowBits:
    """The nearest codes; of a codebook with a level at 0 and one without, the one that errs less.

    By the inputs that were observed: without, or where zeros were made on purpose, with.
    """
    free = form.kind in _FITTED and goal.gram is not None and not goal.keeps_zeros
    tried = []
    for zero in (True, False) if free else (True,):
        low = without_codes(goal.weights, form, blocks, importance, thorough=thorough, zero=zero)
        for rows in row_blocks(goal.weights, _AT_A_TIME):
            put_codes(low, rows, nearest_codes(low, rows, goal.weights[rows]))
        tried.append(low)
    return min(tried, key=lambda low: _lost(low, goal)) if free else tried[0]


def _put_compensated(low: LowBits, compensation: Compensation, goal: Goal) -> None:
    """Codes whose errors cancel, in place."""
    alone = len(compensation.gram) == goal.tiles
    every = row_blocks(goal.weights, _AT_A_TIME) if alone else [slice(0, low.blocks.rows)]
    for rows in every:
        put_codes(low, rows, _compensated(low, rows, compensation, goal))


def _lost(low: LowBits, goal: Goal) -> float:
    """Power of the error at the layer's output."""
    return output_energy(tiled(low.dequantize() - goal.weights, goal.tiles), goal.gram)


def _with_refitted_tables(low: LowBits, goal: Goal) -> LowBits:
    """The levels of a codebook by least squares for the codes that it has; one of all from some."""
    gram, tables, blocks = goal.gram, low.tables, low.blocks
    assert gram is not None
    assert tables is not None
    groups, tiles = len(gram), goal.tiles
    work = goal.weights.size * (blocks.columns // tiles) << low.form.bits
    alone = len(tables) == 1
    by = max(1, -(-work // _MOST_WORK))
    if by > 1 and (not alone or groups > tiles):
        return replace(low, codes=low.codes.copy())
    rows = slice(0, None, by)

    def cut(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        parts = tiled(array, tiles)
        return parts.reshape(groups, -1, parts.shape[1])

    scales = np.asarray(blocks.spread(low.scales(rows)), np.float64)
    units = np.abs(scales).max()
    codes = low.codes[rows].reshape(len(scales), -1)[:, : blocks.columns]
    own = np.zeros(len(scales), np.int64) if alone else np.arange(len(scales))
    found = refitted_levels(
        cut(codes),
        cut(scales / units),
        cut(goal.weights[rows] / units),
        gram,
        tables,
        cut(np.broadcast_to(own[:, None], codes.shape))[:, :, :1],
    )
    # They may have changed places, so that all codes are chosen anew.
    found, found_units = np.sort(found, axis=1), low.units
    if not alone:
        found, more = int8_rows(found)
        found_units = low.units * (power_above(more) if low.form.shifts else more)
    return replace(low, codes=np.zeros_like(low.codes), tables=found, units=found_units)


def _damping(moments: LayerStatistics | None, goal: Goal, low: LowBits) -> float:
    """What serves half of the samples best where the other half says how to round.

    Of some outputs; without halves, or of layers with groups, as usual.
    """
    if moments is None or moments.half is None or goal.gram is None or len(goal.gram) > 1:
        return _DAMPINGS[0]
    halves = moments.half, moments.without(moments.half)
    grams = [gram_of(half, centred=goal.biased)[0] for half in halves]
    rows = slice(0, None, -(-low.blocks.rows // _OUTPUTS))
    wanted = goal.weights[rows]
    best, least = _DAMPINGS[0], np.inf
    for share in _DAMPINGS:
        lost = 0.0
        for own, other in (grams, grams[::-1]):
            if own is None or other is None:
                return _DAMPINGS[0]
            whole = _compensated(low, rows, Compensation.of(own, share), goal)
            scales = low.blocks.spread(low.scales(rows))
            lost += output_energy(whole * scales - wanted, other)
        if lost < least:
            best, least = share, lost
    return best


def _compensated(low: LowBits, rows: slice, compensation: Compensation, goal: Goal) -> Float64:
    """Whole numbers `[r, in]`, 0 for 0, of some rows."""
    blocks, form, tiles = low.blocks, low.form, goal.tiles
    groups = len(compensation.gram)
    steps = np.asarray(blocks.spread(low.scales(rows)), np.float64)
    # Squares of very small weights would underflow.
    units = np.abs(steps).max(axis=1, keepdims=True)

    def cut(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        parts = tiled(array, tiles)
        return parts.reshape(groups, -1, parts.shape[1])

    lowest: float | npt.NDArray[np.float32] = -float(form.middle)
    highest: float | npt.NDArray[np.float32] = lowest + form.levels
    if low.zeros is not None:
        lowest = -cut(blocks.spread(low.zeros[rows]).astype(np.float32)).astype(np.float32)
        highest = lowest + np.float32(form.levels)
    relative = steps / units
    grid: Grid | LevelGrid = Grid(lowest, highest, cut(relative).astype(np.float32))
    tables = low.tables_of(rows)
    if tables is not None:
        own = np.arange(len(steps)) if len(tables) > 1 else np.zeros(len(steps), np.int64)
        which = cut(np.broadcast_to(own[:, None], steps.shape))[:, :, :1]
        grid = LevelGrid(tables, which, cut(relative).astype(np.float32))
    target = tiled(np.asarray(goal.weights[rows], np.float64) / units, tiles)
    found = compensation.fitted(np.asarray(target, np.float64), grid, keep_zeros=goal.keeps_zeros)
    numbers = untiled(found, tiles) / relative
    return np.asarray(numbers if tables is not None else np.round(numbers), np.float64)


def _relative_error(rows: npt.NDArray[np.floating], low: LowBits) -> float:
    """Power of the weight's change over that of the weight."""
    noise = power = 0.0
    for some in row_blocks(rows):
        wanted = rows[some].astype(np.float64)
        noise += float(np.square(low.dequantize(some) - wanted).sum())
        power += float(np.square(wanted).sum())
    return noise / power if power > 0 else 0.0
