"""Move what a channel always exceeds into the next bias: high-bias absorption.

y = W₂·relu(h) + b₂, and relu(h) = relu(h − c) + c wherever h ≥ c ≥ 0. So b₁ −= c, b₂ += W₂·c leave
y as it was, and the tensor between reaches c less far (arXiv 1906.04721, section 4.1.3, which takes
c = max(0, β − 3γ) from batch normalization). Here c comes from what the calibration data showed of
each channel: a standard deviation below the least value, and three below the mean, whichever is
less. Where unseen data goes below all the same, relu(h) becomes c: an error of at most c − relu(h)
in that channel, as clipping at the other end of a range.

Exact only where zeros are not mixed in (no padding) and no one else reads the tensor.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.contract import Context, Parameter
from onnxpress.graph import is_standard
from onnxpress.layers import Layer
from onnxpress.passes.quantize.activations import integer_type
from onnxpress.passes.quantize.equalizing import channels_of, scales_of
from onnxpress.passes.quantize.qdq_rules import input_of
from onnxpress.passes.quantize.ranges import ActivationRange, range_between
from onnxpress.statistics import LayerStatistics

__all__ = ["absorb", "absorbable", "amounts", "carried_over", "shorter_range"]

Float64 = npt.NDArray[np.float64]
_DEVIATIONS = 3.0
_LEAST_GAIN = 1.05
"""In the noise of the range."""


def absorbable(layer: Layer, layers: Collection[Layer]) -> Layer | None:
    """The layer whose bias may be lowered for `layer` before which only a Relu stands, or `None`.

    Args:
        layer: Conv, Gemm or MatMul, whose own bias takes up the difference.
        layers: all of the model.
    """
    node, value = layer.node, input_of(layer)
    relu = value.producer()
    if len(list(value.uses())) != 1 or value.is_graph_output() or not takes_bias(layer):
        return None
    padding = node.attributes.get("auto_pad")
    pads = node.attributes.get("pads")
    if padding is not None and padding.as_string() not in ("NOTSET", "VALID"):
        return None
    if pads is not None and any(pads.as_ints()):
        return None
    if relu is None or relu.op_type != "Relu" or not is_standard(relu):
        return None
    before = relu.inputs[0]
    assert before is not None
    if len(list(before.uses())) != 1 or before.is_graph_output():
        return None
    source = before.producer()
    if source is not None and source.op_type == "Add":
        products = [value.producer() for value in source.inputs if value is not None]
        source = next((p for p in products if p is not None and p.op_type == "MatMul"), None)
    found = next((other for other in layers if other.node is source), None)
    return found if found is not None and takes_bias(found) else None


def amounts(moments: LayerStatistics, channels: npt.NDArray[np.intp]) -> Float64:
    """`[channels]` c of a tensor; 0 where the channel comes near zero.

    Args:
        moments: of the layer that reads it.
        channels: `[groups, in]` which channel each input of the layer's rows is.
    """
    deviation = np.sqrt(np.maximum(moments.second_moment - moments.mean**2, 0.0))
    lowest = np.minimum(moments.minimum - deviation, moments.mean - _DEVIATIONS * deviation)
    found = np.full(1 + int(channels.max()), np.inf)
    np.minimum.at(found, channels, lowest)
    return np.where(np.isfinite(found), np.maximum(found, 0.0), 0.0)


def carried_over(
    context: Context, layer: Layer, matrix: npt.NDArray[np.floating], strength: float
) -> Float64:
    """`[out]` W₂·c, what the bias of the layer takes up whose input is absorbed.

    Args:
        context: in which `shorter_range` was asked.
        layer: that reads the tensor.
        matrix: `[out, in]` what it multiplies the smoothed input with, rounded.
        strength: of the smoothing; 0 for none.
    """
    channels = channels_of(layer)
    absorbed = _kept(context, layer) / _scales(context, layer, strength)
    grouped = np.asarray(matrix, np.float64).reshape(len(channels), -1, channels.shape[1])
    return np.asarray((grouped @ absorbed[channels][:, :, None]).reshape(-1), np.float64)


def shorter_range(
    context: Context, layer: Layer, plain: ActivationRange, strength: float
) -> ActivationRange | None:
    """Of the layer's input without what can be absorbed; `None` where that gains nothing.

    Args:
        context: with the integer type of activations.
        layer: with a kernel for integers.
        plain: the range otherwise.
        strength: of the smoothing; 0 for none.
    """
    moments = context.moments(layer)
    if moments is None or absorbable(layer, _free(context)) is None:
        return None
    channels = channels_of(layer)
    absorbed = _kept(context, layer)
    if not absorbed.any():
        return None
    low, high = np.full((2, len(absorbed)), [[np.inf], [-np.inf]])
    np.minimum.at(low, channels, moments.minimum)
    np.maximum.at(high, channels, moments.maximum)
    scales = _scales(context, layer, strength)
    signed, bits = integer_type(context)
    found = range_between(
        float(((low - absorbed) / scales).min()),
        float(((high - absorbed) / scales).max()),
        signed=signed,
        bits=bits,
    )
    return found if found.noise * _LEAST_GAIN < plain.noise else None


def absorb(
    context: Context, layers: Sequence[Layer], chosen: Mapping[str, Mapping[str, Parameter]]
) -> None:
    """Lower the biases before the inputs that were chosen to be absorbed."""
    for layer in layers:
        before = absorbable(layer, _free(context)) if chosen[layer.name].get("absorbed") else None
        if before is not None:
            shift_bias(context.names, before.graph, before.node, -_kept(context, layer))


def _free(context: Context) -> list[Layer]:
    """Layers whose biases may be lowered."""
    return [layer for layer in context.layers if layer.name not in context.kept]


def _kept(context: Context, layer: Layer) -> Float64:
    """`amounts` of the layer's input in the model before the rewrite, which changes it."""
    moments = context.base_moments(layer)
    assert moments is not None
    return amounts(moments, channels_of(layer))


def _scales(context: Context, layer: Layer, strength: float) -> npt.NDArray[np.floating]:
    return scales_of(context, layer, strength) if strength else np.ones(len(_kept(context, layer)))
