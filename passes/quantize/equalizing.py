"""Which inputs are divided by smoothing scales, and where the division goes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Context, LayerStatistics, Parameter, memoised_of_model
from onnxpress.graph import Names, add_initializer, drop_unused, insert_behind
from onnxpress.layers import Layer, find_layers
from onnxpress.passes.quantize.activations import integer_type
from onnxpress.passes.quantize.folding import divide, divisible
from onnxpress.passes.quantize.qdq_rules import input_of, static_refusal
from onnxpress.passes.quantize.ranges import ActivationRange
from onnxpress.passes.quantize.smoothing import Smoothing, choose_smoothing, smoothing_scales

__all__ = [
    "Smoothed",
    "channels_of",
    "fold_smoothing",
    "insert_smoothing",
    "scales_of",
    "smoothing_factors",
    "smoothing_of",
]


@memoised_of_model
def _base_layers(context: Context) -> dict[str, Layer]:
    """Of the model before the rewrite, which changes what layers read."""
    return {layer.name: layer for layer in find_layers(context.base)}


def _readers(context: Context, layer: Layer) -> list[tuple[Layer, LayerStatistics]]:
    """All observed layers that could compute in integers and read what `layer` reads.

    Args:
        context: whose base the layer belongs to.
        layer: of `_base_layers`.
    """
    value = input_of(layer)
    operators = context.target.quantized_operators
    return [
        (other, moments)
        for other in _base_layers(context).values()
        if (other.op_type == "Conv") == (layer.op_type == "Conv")
        and static_refusal(other, operators) is None
        and input_of(other) is value
        and (moments := context.base_moments(other)) is not None
    ]


def channels_of(layer: Layer) -> npt.NDArray[np.intp]:
    """`[groups, in]`: which channel of its input tensor each input of a row is."""
    inputs = int(layer.read().shape[1])
    if layer.op_type != "Conv":
        return np.arange(inputs)[None]
    per_group = layer.shape[1]
    within = np.repeat(np.arange(per_group), inputs // per_group)
    return np.asarray(within + per_group * np.arange(layer.groups)[:, None], np.intp)


def _channel_axis(layer: Layer) -> int:
    return 1 if layer.op_type == "Conv" else -1


def smoothing_of(
    context: Context, layer: Layer, plain: ActivationRange, form: str = "static"
) -> Smoothing | None:
    """How the layer's input is smoothed, the same for all that read it."""
    if form == "static" and not context.target.per_channel:
        return None
    value, is_conv = input_of(layer), layer.op_type == "Conv"
    # One division, and one choice, for all that read the tensor.
    first = next(
        name
        for name, other in _base_layers(context).items()
        if (other.op_type == "Conv") == is_conv
        and other.op_type in ("Conv", "Gemm", "MatMul")
        and input_of(other).name == value.name
    )
    return _chosen_smoothing(context, first, plain, form)


@memoised_of_model
def _chosen_smoothing(
    context: Context, name: str, plain: ActivationRange, form: str
) -> Smoothing | None:
    layer = _base_layers(context)[name]
    readers = _readers(context, layer)
    value = input_of(layer)
    # What is kept goes on reading the tensor as it is.
    changed = {reader.node for reader, _ in readers if reader.name not in context.kept}
    everyone = changed >= set(value.consumers())
    free = everyone and divisible(value, _channel_axis(layer), context.kept)
    if not readers or not (free or layer.op_type != "Conv"):
        # Between convolutions a Mul would cost more than it saves.
        return None
    signed, bits = (False, 8) if form == "dynamic" else integer_type(context)
    return choose_smoothing(
        [reader.read() for reader, _ in readers],
        [moments for _, moments in readers],
        plain,
        signed=signed,
        bits=bits,
        channels=[channels_of(reader) for reader, _ in readers],
        free=free,
    )


def scales_of(context: Context, layer: Layer, strength: float) -> npt.NDArray[np.float32]:
    """`[channels]` of the layer's input; a rewrite may have changed what the layer reads since."""
    return _scales(context, layer.name, strength)


@memoised_of_model
def _scales(context: Context, name: str, strength: float) -> npt.NDArray[np.float32]:
    readers = _readers(context, _base_layers(context)[name])
    return smoothing_scales(
        [reader.read() for reader, _ in readers],
        [moments for _, moments in readers],
        strength,
        [channels_of(reader) for reader, _ in readers],
    )


def smoothing_factors(context: Context, layer: Layer, strength: float) -> npt.NDArray[np.float32]:
    """`[out, in]` what the layer's matrix is multiplied with where its input is smoothed."""
    channels = channels_of(layer)
    rows = layer.read().shape[0] // len(channels)
    return np.repeat(scales_of(context, layer, strength)[channels], rows, axis=0)


@dataclass(frozen=True)
class Smoothed:
    """A tensor that is divided by scales for the layers that read it.

    Attributes:
        value: the tensor.
        node: the Mul behind it.
        axis: of its channels.
        scales: `[channels]`.
    """

    value: ir.Value
    node: ir.Node
    axis: int
    scales: npt.NDArray[np.float32]


def insert_smoothing(
    context: Context, layers: Sequence[Layer], chosen: Mapping[str, Mapping[str, Parameter]]
) -> list[Smoothed]:
    """Divide inputs by their smoothing scales, once for all layers that read a tensor."""
    graph = context.model.graph
    smoothed = [layer for layer in layers if chosen[layer.name].get("smoothing")]
    found = {
        layer.name: scales_of(context, layer, float(chosen[layer.name]["smoothing"]))
        for layer in smoothed
    }
    made: dict[ir.Value, Smoothed] = {}
    for layer in smoothed:
        value = input_of(layer)
        if value not in made:
            stem = value.name or "tensor"
            scales, axis = found[layer.name], _channel_axis(layer)
            inverse = (1.0 / scales.astype(np.float64)).astype(np.float32)
            if axis == 1:
                inverse = inverse.reshape(-1, *[1] * (len(layer.shape) - 2))
            factor = add_initializer(context.names, graph, f"{stem}_smoothing", inverse)
            node = ir.Node("", "Mul", [value, factor], name=f"{factor.name}_Mul")
            node.outputs[0].name = context.names.free(f"{stem}_smoothed")
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            insert_behind(value.graph or graph, value, [node])
            made[value] = Smoothed(value, node, axis, scales)
        use = layer.uses[0]
        index = 1 - use.index if layer.op_type == "MatMul" else 0
        use.node.replace_input_with(index, made[value].node.outputs[0])
    return list(made.values())


def fold_smoothing(
    names: Names,
    smoothed: Sequence[Smoothed],
    quantized: Collection[ir.Value] = (),
    kept: Collection[str] = (),
) -> dict[ir.Value, ir.Value]:
    """Fold what can be folded; from the Mul outputs that are gone to the tensors in their place.

    Args:
        names: that are free in the model.
        smoothed: as inserted.
        quantized: tensors with a pair, whose ranges stay.
        kept: names of weights that must stay as they are.
    """
    moved: dict[ir.Value, ir.Value] = {}
    for found in smoothed:
        alone = list(found.value.consumers()) == [found.node]
        if found.value in quantized and found.node.outputs[0] not in quantized:
            continue
        if not alone or not divide(names, found.value, found.axis, found.scales, quantized, kept):
            continue
        output, factor = found.node.outputs[0], found.node.inputs[1]
        ir.convenience.replace_all_uses_with(output, found.value)
        assert isinstance(found.node.graph, ir.Graph)
        found.node.graph.remove(found.node, safe=True)
        assert factor is not None
        drop_unused(factor)
        moved[output] = found.value
    return moved
