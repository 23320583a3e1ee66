"""Integers of a layer's weight whose errors cancel, and what is lost by them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.bias import takes_bias
from onnxpress.contract import Context, LayerStatistics, memoised
from onnxpress.layers import Layer, from_matrix, to_matrix
from onnxpress.passes.quantize.goals import PRUNED_SHARE, goal_of, judged
from onnxpress.passes.quantize.low_bits import LowBits
from onnxpress.passes.quantize.rounding import Compensation, round_compensated
from onnxpress.passes.quantize.tiles import gram_of, tiled, untiled
from onnxpress.passes.quantize.weights import QuantizedWeight
from onnxpress.pieces import row_blocks

__all__ = ["Rounded", "judged_integers", "rounded_by_rows", "rounded_to"]

_AT_A_TIME = 1 << 22
"""Elements of a large weight, together: in double precision 34 MB, a few times."""


@dataclass(frozen=True)
class Rounded:
    """A layer's weight in integers.

    Attributes:
        weight: of the smoothed weight, where the input is smoothed.
        offset: `[out]` what the bias has to take up (ΔW·μ; arXiv 1906.04721), or `None`.
        error: power of the output's change, by weights alone, over that of the output.
        low: the codes that are unpacked to these integers, in units of their scales; `None`: the
            integers are in the file.
    """

    weight: QuantizedWeight
    offset: npt.NDArray[np.float64] | None
    error: float
    low: LowBits | None = None


@memoised
def _compensated(
    context: Context,
    layer: Layer,
    highest: int,
    scales: npt.NDArray[np.float64],
    factors: npt.NDArray[np.float64],
) -> npt.NDArray[np.int8]:
    """`[out, in]` integers whose errors cancel; forms mostly have the same scales.

    Args:
        context: with statistics of the layer.
        layer: whose weight it is.
        highest: integer.
        scales: `[out]`.
        factors: `[out, in]` of the smoothing, or a single 1.
    """
    goal = goal_of(context, layer)
    gram = goal.gram
    assert gram is not None
    if factors.size > 1:
        # All rows of a group have the factors of the group.
        rows = tiled(factors, goal.tiles)
        of_group = rows[:: len(rows) // len(gram)]
        gram = gram / (of_group[:, :, None] * of_group[:, None, :])
    found = round_compensated(
        tiled(goal.weights * factors, goal.tiles),
        np.tile(scales, goal.tiles),
        gram,
        highest,
        keep_zeros=goal.keeps_zeros,
    )
    return untiled(found, goal.tiles).astype(np.int8)


def rounded_to(
    context: Context,
    layer: Layer,
    weight: QuantizedWeight,
    factors: npt.NDArray[np.floating] | None = None,
) -> Rounded:
    """Round so that errors cancel, where the layer's inputs were observed.

    Args:
        context: with statistics, or without for nearest rounding.
        layer: whose weight it is.
        weight: rounded to the nearest.
        factors: `[out, in]` the smoothing that is in `weight` already.
    """
    goal = goal_of(context, layer)
    one = np.ones(1) if factors is None else np.asarray(factors, np.float64)
    found = weight
    if goal.gram is not None and weight.axes and not context.draft:
        # Copies in double precision are what takes most memory here.
        scales = np.asarray(_row_scales(layer, weight), np.float64)
        integers = _compensated(context, layer, weight.highest, scales, one)
        stored = from_matrix(integers, layer.shape, layer.uses[0], layer.groups)  # type: ignore[arg-type] # which only moves them
        values: npt.NDArray[np.int8] | npt.NDArray[np.uint8] = np.asarray(stored, np.int8)
        if weight.zero_point:
            values = (stored.astype(np.int16) + weight.zero_point).astype(np.uint8)
        found = replace(weight, values=values)
    return judged_integers(context, layer, found, factors)


def judged_integers(
    context: Context,
    layer: Layer,
    found: QuantizedWeight,
    factors: npt.NDArray[np.floating] | None,
    low: LowBits | None = None,
) -> Rounded:
    """With the bias that takes up what the rounding changes, and the error that is left."""
    goal = goal_of(context, layer)
    delta = _matrix(layer, found.dequantize())
    if factors is not None:
        delta = delta / factors
    delta -= goal.weights
    return Rounded(found, *judged(context, layer, goal, delta), low)


def _row_scales(layer: Layer, weight: QuantizedWeight) -> npt.NDArray[np.floating]:
    """`[out]` without a copy of the weight's size."""
    scales = np.broadcast_to(weight.broadcast_scales(), weight.values.shape)
    return _matrix(layer, scales)[:, 0]  # type: ignore[arg-type] # which only moves them


def rounded_by_rows(
    context: Context, layer: Layer, weight: QuantizedWeight, moments: LayerStatistics
) -> Rounded:
    """As `_rounded`, some outputs at a time: what gives a score to each word is the largest layer.

    Outputs do not depend on each other, but for the order in which products are summed.
    """
    biased = takes_bias(layer)
    gram, tiles = gram_of(moments, centred=biased)
    raw, _ = gram_of(moments, centred=False)
    assert gram is not None
    assert raw is not None
    assert weight.zero_point == 0
    matrix = layer.read()
    nearest = _matrix(layer, weight.values)  # type: ignore[arg-type] # which only moves them
    steps = _row_scales(layer, weight)
    zeros = sum(int((matrix[rows] == 0).sum()) for rows in row_blocks(matrix))
    keep_zeros = zeros > PRUNED_SHARE * matrix.size
    # For errors, which are added up and compared, single precision is enough, of numbers near 1.
    size = max(float(moments.second_moment.mean()), float(np.finfo(np.float64).tiny))
    single, inputs = (np.asarray(g / size, np.float32) for g in (gram, raw))
    compensation = None if context.draft else Compensation.of(gram)
    integers = np.empty(matrix.shape, np.int8)
    offset = np.zeros(len(matrix))
    lost = energy = 0.0
    for rows in row_blocks(matrix, _AT_A_TIME):
        w, scales = matrix[rows].astype(np.float64), steps[rows].astype(np.float64)
        found = np.asarray(nearest[rows], np.float64)
        if compensation is not None:
            parts = compensation.rounded(
                tiled(w, tiles), np.tile(scales, tiles), weight.highest, keep_zeros=keep_zeros
            )
            found = np.asarray(untiled(parts, tiles), np.float64)
        integers[rows] = found
        delta = found * scales[:, None] - w
        offset[rows] = -(delta @ moments.mean[0])
        lost += _energy(tiled(delta, tiles), single)
        energy += _energy(tiled(w, tiles), inputs)
    stored = from_matrix(integers, layer.shape, layer.uses[0], layer.groups)  # type: ignore[arg-type] # likewise
    values = np.asarray(stored, np.int8)
    error = max(lost, 0.0) / energy if energy > 0 else 0.0
    return Rounded(replace(weight, values=values), offset if biased else None, error)


def _energy(rows: npt.NDArray[np.floating], gram: npt.NDArray[np.float32]) -> float:
    """As `output_energy`, in single precision."""
    r = rows.astype(np.float32).reshape(len(gram), -1, rows.shape[1])
    return float(np.einsum("goi,goi->", r @ gram, r, dtype=np.float64))


def _matrix(layer: Layer, array: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """An array of the weight's shape as `[out, in]`."""
    return to_matrix(array, layer.uses[0], layer.groups)
