"""The codes of a weight in few bits, column by column, so that errors cancel at the output.

Steps are there already; whatever block a column is in, what it loses is made up for by others
(`rounding`), as far as the Gram matrix is no chance; where halves of the samples are kept, as one
half finds best with what the other says. Codebooks are fitted again to the codes, and the codes to
them.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxpress.contract import LayerStatistics
from onnxpress.passes.quantize.codebooks import refitted_levels
from onnxpress.passes.quantize.goals import Goal
from onnxpress.passes.quantize.levels import LevelGrid
from onnxpress.passes.quantize.low_bits import (
    Blocks,
    LowBitForm,
    LowBits,
    nearest_codes,
    put_codes,
)
from onnxpress.passes.quantize.rounding import Compensation, Grid
from onnxpress.passes.quantize.steps import int8_rows, power_above, without_codes
from onnxpress.passes.quantize.tiles import gram_of, tiled, untiled
from onnxpress.pieces import row_blocks
from onnxpress.reconstruction import output_energy

__all__ = ["AT_A_TIME", "low_bits_of"]

Float64 = npt.NDArray[np.float64]

AT_A_TIME = 1 << 22
"""Elements that are rounded together: in double precision 34 MB, a few times."""
_DAMPINGS = (0.0, 1.0, 3.0)
"""Times what chance asks for (`shrinkage`), that are tried."""
_OUTPUTS = 128
"""Of a layer, evenly spread, that the damping is chosen by."""
_FITTED = ("codebook", "row_codebook")
"""Kinds of levels that are fitted again once the codes are chosen."""
_MOST_WORK = 1 << 35
"""Multiply-adds of a fit: a table of a larger weight is fitted by some of its rows."""


def low_bits_of(
    goal: Goal,
    form: LowBitForm,
    blocks: Blocks,
    moments: LayerStatistics | None = None,
    factors: Float64 | None = None,
    *,
    draft: bool = False,
) -> LowBits:
    """Codes and steps that come near a goal.

    Args:
        goal: of the layer, in units of its factors.
        form: how it is stored.
        blocks: how it is cut.
        moments: of the layer's inputs, by halves of which the damping is chosen.
        factors: `[groups, in]` by which inputs were divided since these were observed.
        draft: to the nearest, of the first guess of the steps.
    """
    if form.centred:
        common = goal.weights.mean(axis=0).astype(np.float32)
        rest = replace(goal, weights=goal.weights - common)
        alone = low_bits_of(
            rest, replace(form, centred=False), blocks, moments, factors, draft=draft
        )
        return replace(alone, form=form, common=common)
    importance = None
    if goal.gram is not None:
        # Of a wide layer each tile has inputs of its own.
        groups = len(goal.gram) // goal.tiles
        importance = np.einsum("gii->gi", goal.gram).reshape(groups, -1)
    found = _to_the_nearest(goal, form, blocks, importance, thorough=not draft)
    if goal.gram is not None and not draft:
        shares = _damping(moments, goal, found, factors)
        compensation = Compensation.of(goal.gram, shares)
        _put_compensated(found, compensation, goal)
        if form.kind in _FITTED:
            again = _with_refitted_tables(found, goal)
            _put_compensated(again, compensation, goal)
            found = min(found, again, key=lambda low: _lost(low, goal))
    return found


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
        for rows in row_blocks(goal.weights, AT_A_TIME):
            put_codes(low, rows, nearest_codes(low, rows, goal.weights[rows]))
        tried.append(low)
    return min(tried, key=lambda low: _lost(low, goal)) if free else tried[0]


def _put_compensated(low: LowBits, compensation: Compensation, goal: Goal) -> None:
    """Codes whose errors cancel, in place."""
    alone = len(compensation.gram) == goal.tiles
    every = row_blocks(goal.weights, AT_A_TIME) if alone else [slice(0, low.blocks.rows)]
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


def _damping(
    moments: LayerStatistics | None, goal: Goal, low: LowBits, factors: Float64 | None
) -> Float64 | None:
    """By what chance asks for, or times what serves half of the samples best, by the other half.

    Of some outputs; without halves, or of layers with groups, by what chance asks for.
    """
    if goal.shares is None or goal.gram is None or len(goal.gram) > 1:
        return goal.shares
    if moments is None or moments.half is None:
        return goal.shares
    halves = moments.half, moments.without(moments.half)
    grams = [_divided(gram_of(half, centred=goal.biased)[0], factors) for half in halves]
    rows = slice(0, None, -(-low.blocks.rows // _OUTPUTS))
    wanted = goal.weights[rows]
    best, least = goal.shares, np.inf
    for times in _DAMPINGS:
        shares, lost = times * goal.shares, 0.0
        for own, other in (grams, grams[::-1]):
            if own is None or other is None:
                return goal.shares
            whole = _compensated(low, rows, Compensation.of(own, shares), goal)
            scales = low.blocks.spread(low.scales(rows))
            lost += output_energy(whole * scales - wanted, other)
        if lost < least:
            best, least = shares, lost
    return best


def _divided(gram: Float64 | None, factors: Float64 | None) -> Float64 | None:
    """Of inputs that are divided by factors."""
    if gram is None or factors is None:
        return gram
    of_tile = factors.reshape(len(gram), -1)
    return np.asarray(gram / (of_tile[:, :, None] * of_tile[:, None, :]), np.float64)


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
