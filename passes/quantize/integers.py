"""The integers of a layer's weight in each form, with the error they cause."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.bias import takes_bias
from onnxpress.contract import Context, LayerStatistics, Parameter, memoised
from onnxpress.graph import constant
from onnxpress.layers import Layer, from_matrix, output_channel_axis, to_matrix
from onnxpress.passes.quantize.equalizing import smoothing_factors
from onnxpress.passes.quantize.goals import PRUNED_SHARE, compensable, goal_of, judged
from onnxpress.passes.quantize.rounding import Compensation, round_compensated
from onnxpress.passes.quantize.tiles import gram_of, tiled, untiled
from onnxpress.passes.quantize.weights import QuantizedWeight, quantize_weight
from onnxpress.pieces import row_blocks
from onnxpress.recurrent import is_recurrent

__all__ = [
    "Rounded",
    "constant_bias",
    "dynamic_integers",
    "nearest_bytes",
    "static_integers",
    "weight_only_integers",
]

Parameters = Mapping[str, Parameter]

_BIAS_LIMIT = 2.0**30
_LARGE = 1 << 24
"""Elements of a weight that is rounded some outputs at a time."""
_AT_A_TIME = 1 << 22
"""Elements then: in double precision 34 MB, a few times."""
_SCALE_BYTES = 4
"""float32."""


@dataclass(frozen=True)
class Rounded:
    """A layer's weight in integers.

    Attributes:
        weight: of the smoothed weight, where the input is smoothed.
        offset: `[out]` what the bias has to take up (ΔW·μ; arXiv 1906.04721), or `None`.
        error: power of the output's change, by weights alone, over that of the output.
    """

    weight: QuantizedWeight
    offset: npt.NDArray[np.float64] | None
    error: float


def static_integers(
    context: Context, layer: Layer, parameters: Parameters, input_scale: float
) -> Rounded:
    """The weight for an integer kernel, its scales large enough for an int32 bias."""
    strength = float(parameters.get("smoothing", 0.0))
    return _static_rounded(context, layer, input_scale, strength)


@memoised
def _static_rounded(context: Context, layer: Layer, input_scale: float, strength: float) -> Rounded:
    target = context.target
    bias = constant_bias(layer)
    least: npt.NDArray[np.float64] | float = 0.0
    if bias is not None:
        least = np.abs(bias) / (input_scale * _BIAS_LIMIT)
        if not target.per_channel:
            least = float(least.max())
    stored, factors = _smoothed_weight(context, layer, strength)
    weight = quantize_weight(
        stored,
        output_channel_axis(layer) if target.per_channel else None,
        bits=target.weight_bits,
        unsigned=target.weight_type == "uint8",
        least_scales=least,
    )
    return _rounded(context, layer, weight, factors)


def dynamic_integers(context: Context, layer: Layer, parameters: Parameters) -> Rounded:
    """The weight for MatMulInteger, of the smoothed weight where `parameters` say so."""
    return _dynamic_rounded(context, layer, float(parameters.get("smoothing", 0.0)))


@memoised
def _dynamic_rounded(context: Context, layer: Layer, strength: float) -> Rounded:
    stored, factors = _smoothed_weight(context, layer, strength)
    bits = context.target.weight_bits
    weight = quantize_weight(stored, _output_axes(layer), bits=bits)
    return _rounded(context, layer, weight, factors)


@memoised
def weight_only_integers(context: Context, layer: Layer) -> Rounded:
    """The weight in integers that the runtime expands when it loads the model."""
    weight = quantize_weight(layer.array, _stored_axes(layer))
    observed = _output_axes(layer) is not None and compensable(layer)
    moments = context.moments(layer) if observed else None
    if moments is None:
        return _nearest(layer, weight)
    whole = moments.gram is not None and len(moments.gram) == 1
    known = (whole or moments.tiles is not None) and moments.rows
    if known and layer.array.size > _LARGE:
        # What the quantized network feeds it says how to round, but a fit would need it whole.
        return _rounded_by_rows(context, layer, weight, replace(moments, cross=None, half=None))
    return _rounded(context, layer, weight)


def nearest_bytes(layer: Layer) -> int:
    """What integers and scales of `weight_only_integers` take; its numbers are not read."""
    axes = _stored_axes(layer)
    scales = math.prod(layer.shape[at] for at in (axes if isinstance(axes, tuple) else (axes,)))
    return math.prod(layer.shape) + _SCALE_BYTES * scales


def _stored_axes(layer: Layer) -> int | tuple[int, ...]:
    """Along which the scales of the weight alone run."""
    # An embedding's rows are words of very different norms: a scale each.
    axes = 0 if layer.op_type == "Gather" else _output_axes(layer)
    return 0 if axes is None else axes


def _output_axes(layer: Layer) -> int | tuple[int, ...] | None:
    """As `output_channel_axis`; of recurrent operators directions and gates."""
    return (0, 1) if is_recurrent(layer.node) else output_channel_axis(layer)


def _nearest(layer: Layer, weight: QuantizedWeight) -> Rounded:
    """By rows, a few at a time: embeddings are the largest of all weights."""
    noise = power = 0.0
    for rows in row_blocks(layer.array):
        found = weight.values[rows].astype(np.float64) * weight.scales_of(rows)
        wanted = layer.array[rows].astype(np.float64)
        noise += float(np.square(found - wanted).sum())
        power += float(np.square(wanted).sum())
    return Rounded(weight, None, noise / power if power > 0 else 0.0)


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


def _rounded(
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
    delta = _matrix(layer, found.dequantize()) / one
    delta -= goal.weights
    return Rounded(found, *judged(context, layer, goal, delta))


def _row_scales(layer: Layer, weight: QuantizedWeight) -> npt.NDArray[np.floating]:
    """`[out]` without a copy of the weight's size."""
    scales = np.broadcast_to(weight.broadcast_scales(), weight.values.shape)
    return _matrix(layer, scales)[:, 0]  # type: ignore[arg-type] # which only moves them


def _rounded_by_rows(
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


def _smoothed_weight(
    context: Context, layer: Layer, strength: float
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.float32] | None]:
    """The weight as stored, times smoothing scales, and those `[out, in]`; `None` at strength 0."""
    assert layer.weight.const_value is not None
    stored = layer.weight.const_value.numpy()
    if not strength:
        return stored, None
    factors = smoothing_factors(context, layer, strength)
    matrix = np.asarray(layer.read() * factors, stored.dtype)
    return from_matrix(matrix, layer.shape, layer.uses[0], layer.groups), factors


def constant_bias(layer: Layer) -> npt.NDArray[np.float64] | None:
    """`[out]` the layer's bias; `None` where it has none or computes it."""
    inputs = layer.node.inputs
    values = constant(inputs[2]) if len(inputs) > 2 else None
    if values is None:
        return None
    outputs = layer.read().shape[0]
    return np.broadcast_to(np.asarray(values, np.float64).reshape(-1), (outputs,))


def _matrix(layer: Layer, array: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """An array of the weight's shape as `[out, in]`."""
    return to_matrix(array, layer.uses[0], layer.groups)
