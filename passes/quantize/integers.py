"""The integers of a layer's weight in each form, with the error they cause."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Context, Parameter, memoised
from onnxpress.graph import constant
from onnxpress.layers import Layer, from_matrix, output_channel_axis
from onnxpress.passes.quantize.equalizing import smoothing_factors
from onnxpress.passes.quantize.goals import compensable
from onnxpress.passes.quantize.integer_rounding import (
    Rounded,
    judged_integers,
    rounded_by_rows,
    rounded_to,
)
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.packed_integers import packed_integers
from onnxpress.passes.quantize.weights import QuantizedWeight, quantize_weight
from onnxpress.pieces import row_blocks
from onnxpress.recurrent import is_recurrent

__all__ = [
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
_SCALE_BYTES = 4
"""float32."""


def static_integers(
    context: Context,
    layer: Layer,
    parameters: Parameters,
    input_scale: float,
    form: LowBitForm | None = None,
) -> Rounded:
    """The weight for an integer kernel, its scales large enough for an int32 bias.

    Args:
        context: of the layer.
        layer: whose weight it is.
        parameters: of its candidate.
        input_scale: of the pair it reads through.
        form: in which the weight lies in the file; `None`: as it is.
    """
    strength = float(parameters.get("smoothing", 0.0))
    return _static_rounded(context, layer, input_scale, strength, form)


@memoised
def _static_rounded(
    context: Context, layer: Layer, input_scale: float, strength: float, form: LowBitForm | None
) -> Rounded:
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
    return _in_form(context, layer, weight, factors, form)


def dynamic_integers(
    context: Context, layer: Layer, parameters: Parameters, form: LowBitForm | None = None
) -> Rounded:
    """The weight for MatMulInteger, of the smoothed weight where `parameters` say so.

    Args:
        context: of the layer.
        layer: whose weight it is.
        parameters: of its candidate.
        form: in which the weight lies in the file; `None`: as it is.
    """
    return _dynamic_rounded(context, layer, float(parameters.get("smoothing", 0.0)), form)


@memoised
def _dynamic_rounded(
    context: Context, layer: Layer, strength: float, form: LowBitForm | None
) -> Rounded:
    stored, factors = _smoothed_weight(context, layer, strength)
    bits = context.target.weight_bits
    weight = quantize_weight(stored, _output_axes(layer), bits=bits)
    return _in_form(context, layer, weight, factors, form)


def _in_form(
    context: Context,
    layer: Layer,
    weight: QuantizedWeight,
    factors: npt.NDArray[np.float32] | None,
    form: LowBitForm | None,
) -> Rounded:
    """Rounded to 8 bits, or to what codes of few bits are unpacked to."""
    if form is None:
        return rounded_to(context, layer, weight, factors)
    low, found = packed_integers(context, layer, form, weight, factors)
    return judged_integers(context, layer, found, factors, low)


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
        return rounded_by_rows(context, layer, weight, replace(moments, cross=None, half=None))
    return rounded_to(context, layer, weight)


def nearest_bytes(layer: Layer) -> int:
    """What integers and scales of `weight_only_integers` take; its numbers are not read."""
    axes = _stored_axes(layer)
    scales = math.prod(layer.shape[at] for at in (axes if isinstance(axes, tuple) else (axes,)))
    wide = layer.dtype == ir.DataType.DOUBLE
    return math.prod(layer.shape) + (2 if wide else 1) * _SCALE_BYTES * scales


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
