"""Which inputs are divided by smoothing scales, and where the division goes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Context, Parameter
from onnxpress.graph import add_initializer, drop_unused, insert_behind, unique_name
from onnxpress.layers import Layer
from onnxpress.passes.quantize.activations import integer_type
from onnxpress.passes.quantize.folding import divide, divisible
from onnxpress.passes.quantize.placement import input_of, static_refusal
from onnxpress.passes.quantize.ranges import ActivationRange
from onnxpress.passes.quantize.smoothing import Smoothing, choose_smoothing, smoothing_scales
from onnxpress.statistics import LayerStatistics

__all__ = [
    "Smoothed",
    "channels_of",
    "fold_smoothing",
    "insert_smoothing",
    "scales_of",
    "smoothing_factors",
    "smoothing_of",
]


def _readers(context: Context, layer: Layer) -> list[tuple[Layer, LayerStatistics]]:
    """All observed layers that could compute in integers and read what `layer` reads."""
    value = input_of(layer)
    operators = context.target.quantized_operators
    return [
        (other, moments)
        for other in context.layers
        if (other.op_type == "Conv") == (layer.op_type == "Conv")
        and static_refusal(other, operators) is None
        and input_of(other) is value
        and (moments := context.moments(other)) is not None
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
    key = ("smoothing", form, input_of(layer).name)
    if form == "static" and not context.target.per_channel:
        return None
    if key not in context.cache:
        readers = _readers(context, layer)
        value = input_of(layer)
        everyone = {reader.node for reader, _ in readers} >= set(value.consumers())
        free = everyone and divisible(value, _channel_axis(layer))
        signed, bits = (False, 8) if form == "dynamic" else integer_type(context)
        # Between convolutions a Mul would cost more than it saves.
        context.cache[key] = (
            choose_smoothing(
                [reader.read() for reader, _ in readers],
                [moments for _, moments in readers],
                plain,
                signed=signed,
                bits=bits,
                channels=[channels_of(reader) for reader, _ in readers],
                free=free,
            )
            if readers and (free or layer.op_type != "Conv")
            else None
        )
    return cast("Smoothing | None", context.cache[key])


def scales_of(context: Context, layer: Layer, strength: float) -> npt.NDArray[np.float32]:
    """`[channels]` of the layer's input."""
    # Kept by layer: a rewrite has changed what the layers read when it asks again.
    key = ("smoothing scales", layer.name, strength)
    if key not in context.cache:
        readers = _readers(context, layer)
        scales = smoothing_scales(
            [reader.read() for reader, _ in readers],
            [moments for _, moments in readers],
            strength,
            [channels_of(reader) for reader, _ in readers],
        )
        for reader, _ in readers:
            context.cache["smoothing scales", reader.name, strength] = scales
    return cast("npt.NDArray[np.float32]", context.cache[key])


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
            factor = add_initializer(graph, f"{stem}_smoothing", inverse)
            node = ir.Node("", "Mul", [value, factor], name=f"{factor.name}_Mul")
            node.outputs[0].name = unique_name(graph, f"{stem}_smoothed")
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            insert_behind(value.graph or graph, value, [node])
            made[value] = Smoothed(value, node, axis, scales)
        use = layer.uses[0]
        index = 1 - use.index if layer.op_type == "MatMul" else 0
        use.node.replace_input_with(index, made[value].node.outputs[0])
    return list(made.values())


def fold_smoothing(
    smoothed: Sequence[Smoothed], quantized: Collection[ir.Value] = ()
) -> dict[ir.Value, ir.Value]:
    """Fold what can be folded; from the Mul outputs that are gone to the tensors in their place.

    Args:
        smoothed: as inserted.
        quantized: tensors with a pair, whose ranges stay.
    """
    moved: dict[ir.Value, ir.Value] = {}
    for found in smoothed:
        alone = list(found.value.consumers()) == [found.node]
        if found.value in quantized and found.node.outputs[0] not in quantized:
            continue
        if not alone or not divide(found.value, found.axis, found.scales, quantized):
            continue
        output, factor = found.node.outputs[0], found.node.inputs[1]
        ir.convenience.replace_all_uses_with(output, found.value)
        assert isinstance(found.node.graph, ir.Graph)
        found.node.graph.remove(found.node, safe=True)
        assert factor is not None
        drop_unused(factor)
        moved[output] = found.value
    return moved
