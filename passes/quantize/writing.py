"""Rewrite layers to their integer forms."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias
from onnxpress.contract import Context, Parameter, StoredWeight
from onnxpress.graph import (
    Names,
    add_initializer,
    drop_unused,
    insert_behind,
    replace_initializer,
    take_over,
)
from onnxpress.layers import Layer, to_matrix
from onnxpress.passes.quantize.absorbing import carried_over
from onnxpress.passes.quantize.equalizing import Smoothed, insert_smoothing
from onnxpress.passes.quantize.integer_rounding import Rounded
from onnxpress.passes.quantize.integers import (
    constant_bias,
    dynamic_integers,
    static_integers,
    weight_only_integers,
)
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.qdq_rules import input_of
from onnxpress.passes.quantize.storing import stored_integers
from onnxpress.passes.quantize.unpacking import write_packed_integers

__all__ = ["write_dynamic", "write_static", "write_stored", "write_weight_only"]

Parameters = Mapping[str, Parameter]
Integers = npt.NDArray[np.generic] | ir.Value
"""In the file, or computed when the model is loaded."""


def write_static(
    context: Context,
    layer: Layer,
    parameters: Parameters,
    input_scale: float,
    form: LowBitForm | None,
) -> None:
    """Integer weight and bias behind DequantizeLinear; the pairs around are `Pairs`' work.

    Args:
        context: of the rewrite.
        layer: with a kernel for integers.
        parameters: of its candidate.
        input_scale: of the pair it reads through.
        form: in which its weight lies in the file; `None`: in 8 bits.
    """
    graph, node = context.model.graph, layer.node
    rounded = static_integers(context, layer, parameters, input_scale, form)
    weight = rounded.weight
    scales = weight.scales if weight.axis is not None else weight.scales.reshape(())
    if rounded.offset is not None:
        shift_bias(context.names, graph, node, rounded.offset)
    moments = context.moments(layer)
    # What was observed of the rewritten network is of the shorter input already.
    if parameters.get("absorbed") and (moments is None or moments.cross is None):
        matrix = to_matrix(weight.dequantize(), layer.uses[0], layer.groups)
        strength = float(parameters.get("smoothing", 0.0))
        shift_bias(context.names, graph, node, carried_over(context, layer, matrix, strength))
    bias = constant_bias(layer)
    values: Integers = weight.values
    if rounded.low is not None:
        assert isinstance(node.graph, ir.Graph)
        values = write_packed_integers(context, node.graph, layer.name, rounded.low, weight)
    node.replace_input_with(
        layer.uses[0].index,
        _dequantize(
            context.names, node, layer.name, values, scales, weight.zero_point, weight.axis
        ),
    )
    if bias is not None:
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        bias_scales = np.maximum(bias_scales, np.finfo(np.float32).tiny)
        integers = np.clip(
            np.round(bias / bias_scales.astype(np.float64)), -(2.0**31), 2.0**31 - 1
        ).astype(np.int32)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        old = node.inputs[2]
        axis = 0 if bias_scales.ndim else None
        stem = f"{layer.name}_bias" if old is None else old.name
        name = context.names.free(f"{stem}_int32")
        node.replace_input_with(
            2, _dequantize(context.names, node, name, integers, bias_scales, 0, axis)
        )
        if old is not None:
            drop_unused(old)
    drop_unused(layer.weight)


def write_dynamic(
    context: Context, dynamic: Mapping[str, Parameters], forms: Mapping[str, LowBitForm]
) -> list[Smoothed]:
    """DynamicQuantizeLinear once for a tensor, then MatMulInteger, Cast and Mul for each layer.

    onnxruntime fuses these, and the Add behind, into one kernel.

    Args:
        context: of the rewrite.
        dynamic: parameters by layer.
        forms: in which weights lie in the file that have fewer than 8 bits there.

    Returns:
        What was smoothed.
    """
    graph = context.model.graph
    layers = [context.layer(site) for site in dynamic]
    # Before anything is inserted: the integers depend on who reads what.
    rounded = [
        dynamic_integers(context, layer, dynamic[layer.name], forms.get(layer.name))
        for layer in layers
    ]
    smoothed = insert_smoothing(context, layers, dynamic)
    quantized: dict[ir.Value, ir.Node] = {}
    for layer, found in zip(layers, rounded, strict=True):
        node = layer.node
        if found.offset is not None:
            shift_bias(context.names, graph, node, found.offset)
        value = input_of(layer)
        if value not in quantized:
            made = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3)
            made.name = f"{value.name}_DynamicQuantizeLinear"
            for output, part in zip(
                made.outputs, ("quantized", "scale", "zero_point"), strict=True
            ):
                output.name = context.names.free(f"{value.name}_{part}")
            insert_behind(value.graph or graph, value, [made])
            quantized[value] = made
        values, scale, zero_point = quantized[value].outputs
        weight = _product_weight(context, layer, found)
        scales = add_initializer(context.names, graph, f"{layer.name}_scale", found.weight.scales)
        none = add_initializer(
            context.names, graph, f"{layer.name}_zero_point", np.zeros((), np.int8)
        )
        stem = node.name or layer.name
        product = ir.Node("", "MatMulInteger", [values, weight, zero_point, none])
        cast_attribute = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        steps = [product, ir.Node("", "Cast", [product.outputs[0]], [cast_attribute])]
        steps.append(ir.Node("", "Mul", [scale, scales]))
        steps.append(ir.Node("", "Mul", [steps[1].outputs[0], steps[2].outputs[0]]))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            steps.append(ir.Node("", "Add", [steps[3].outputs[0], bias]))
        for number, step in enumerate(steps):
            step.name = f"{stem}_dynamic_{number}"
            step.outputs[0].name = context.names.free(f"{layer.name}_dynamic_{number}")
        assert isinstance(node.graph, ir.Graph)
        node.graph.insert_before(node, steps)
        take_over(node, steps[-1])
        drop_unused(layer.weight)
    return smoothed


def _product_weight(context: Context, layer: Layer, found: Rounded) -> ir.Value:
    """What MatMulInteger takes: `[in, out]`, whatever the Gemm had."""
    turned = found.weight.axis != 1
    if found.low is not None:
        assert isinstance(layer.node.graph, ir.Graph)
        return write_packed_integers(
            context, layer.node.graph, layer.name, found.low, found.weight, transposed=turned
        )
    values = found.weight.values
    integers = np.ascontiguousarray(values.T if turned else values)
    return add_initializer(context.names, context.model.graph, f"{layer.name}_quantized", integers)


def write_weight_only(context: Context, layer: Layer) -> None:
    """Integers behind Cast and Mul in place of the weight."""
    rounded = weight_only_integers(context, layer)
    weight = rounded.weight
    if rounded.offset is not None:
        shift_bias(context.names, context.model.graph, layer.node, rounded.offset)
    _expand(context, layer.weight, layer.graph, weight.values, weight.broadcast_scales())


def write_stored(context: Context, stored: StoredWeight) -> None:
    """The same for a weight that is no layer; all its readers see it."""
    found = stored_integers(context, stored)
    _expand(context, stored.weight, stored.graph, found.values, found.scales)


def _expand(
    context: Context,
    weight: ir.Value,
    home: ir.Graph,
    values: npt.NDArray[np.generic],
    scales: npt.NDArray[np.float32],
) -> None:
    """Put integers behind Cast and Mul in place of a constant of the graph `home`."""
    graph, name, kind = context.model.graph, weight.name or "", weight.dtype
    assert kind is not None
    # onnxruntime's CPU provider has no Mul for half types, so it would not fold one when it loads.
    wide = kind in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    dtype = ir.DataType.FLOAT if wide else kind
    integers = add_initializer(context.names, graph, f"{name}_quantized", values)
    typed = scales.astype(dtype.numpy())
    factor = add_initializer(context.names, graph, f"{name}_scale", typed, dtype)
    cast = ir.Node("", "Cast", [integers], [ir.AttrInt64("to", int(dtype))])
    scaled = ir.Node("", "Mul", [cast.outputs[0], factor])
    nodes = [cast, scaled]
    if wide:
        to = ir.AttrInt64("to", int(kind))
        nodes.append(ir.Node("", "Cast", [scaled.outputs[0]], [to]))
    for node, suffix in zip(nodes, ("Cast", "Mul", "Half"), strict=False):
        node.name = f"{name}_{suffix}"
        node.outputs[0].name = context.names.free(f"{name}_{suffix.lower()}")
        node.outputs[0].type = ir.TensorType(kind if suffix == "Half" else dtype)
        node.outputs[0].shape = ir.Shape(values.shape)
    replace_initializer(home, weight, nodes, nodes[-1].outputs[0])


def _dequantize(
    names: Names,
    user: ir.Node,
    stem: str,
    values: Integers,
    scales: npt.NDArray[np.float32],
    zero_point: int,
    axis: int | None,
) -> ir.Value:
    """Integers behind DequantizeLinear, as the first nodes of the graph that `user` is in.

    Those that are computed there already are constant once the model is loaded.

    onnxruntime fuses within one graph. Of weights it wants the constants there too: where it makes
    MatMulNBits of a MatMul (16-bit activations), those of an outer graph stop it from loading.
    """
    graph = user.graph
    assert isinstance(graph, ir.Graph)
    if isinstance(values, ir.Value):
        integers = values
    else:
        integers = add_initializer(names, graph, f"{stem}_quantized", values)
    assert integers.dtype is not None
    zeros = np.full(scales.shape, zero_point, integers.dtype.numpy())
    inputs = [
        integers,
        add_initializer(names, graph, f"{stem}_scale", scales),
        add_initializer(names, graph, f"{stem}_zero_point", zeros),
    ]
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", "DequantizeLinear", inputs, attributes, name=f"{stem}_DequantizeLinear")
    output = node.outputs[0]
    output.name = names.free(f"{stem}_dequantized")
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), integers.shape
    insert_behind(graph, integers, [node])
    return output
