"""Rewrite layers to their integer forms, and put QDQ pairs around what computes in integers."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias
from onnxpress.graph import (
    Layer,
    add_initializer,
    drop_unused,
    insert_behind,
    prepend,
    take_over,
    unique_name,
)
from onnxpress.opset import standard_opset
from onnxpress.passes.quantize.activations import scale_keepers
from onnxpress.passes.quantize.equalizing import Smoothed, insert_smoothing
from onnxpress.passes.quantize.integers import (
    constant_bias,
    dynamic_integers,
    static_integers,
    weight_only_integers,
)
from onnxpress.passes.quantize.placement import (
    fused_output,
    input_of,
    operator_inputs,
)
from onnxpress.plan import Context, Parameter

__all__ = ["SIXTEEN_BIT_OPSET", "Pairs", "write_dynamic", "write_static", "write_weight_only"]

Parameters = Mapping[str, Parameter]

SIXTEEN_BIT_OPSET = 21


def write_static(context: Context, layer: Layer, parameters: Parameters) -> None:
    """Integer weight and bias behind DequantizeLinear; the pairs around are `Pairs`' work."""
    graph, node = context.model.graph, layer.node
    input_scale = float(parameters["input_scale"])
    rounded = static_integers(context, layer, parameters)
    weight = rounded.weight
    scales = weight.scales if weight.axis is not None else weight.scales.reshape(())
    if rounded.offset is not None:
        shift_bias(graph, node, rounded.offset)
    bias = constant_bias(layer)
    node.replace_input_with(
        layer.uses[0].index,
        _dequantize(node, layer.name, weight.values, scales, weight.zero_point, weight.axis),
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
        name = unique_name(graph, f"{stem}_int32")
        node.replace_input_with(2, _dequantize(node, name, integers, bias_scales, 0, axis))
        if old is not None:
            drop_unused(old)
    drop_unused(layer.weight)


def write_dynamic(context: Context, dynamic: Mapping[str, Parameters]) -> list[Smoothed]:
    """DynamicQuantizeLinear once for a tensor, then MatMulInteger, Cast and Mul for each layer.

    onnxruntime fuses these, and the Add behind, into one kernel. Returns what was smoothed.
    """
    graph = context.model.graph
    layers = [context.layer(site) for site in dynamic]
    # Before anything is inserted: the integers depend on who reads what.
    rounded = [dynamic_integers(context, layer, dynamic[layer.name]) for layer in layers]
    smoothed = insert_smoothing(context, layers, dynamic)
    quantized: dict[ir.Value, ir.Node] = {}
    for layer, found in zip(layers, rounded, strict=True):
        node = layer.node
        if found.offset is not None:
            shift_bias(graph, node, found.offset)
        value = input_of(layer)
        if value not in quantized:
            made = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3)
            made.name = f"{value.name}_DynamicQuantizeLinear"
            for output, part in zip(
                made.outputs, ("quantized", "scale", "zero_point"), strict=True
            ):
                output.name = unique_name(graph, f"{value.name}_{part}")
            insert_behind(value.graph or graph, value, [made])
            quantized[value] = made
        values, scale, zero_point = quantized[value].outputs
        # MatMulInteger takes [in, out], whatever the Gemm had.
        axis = found.weight.axis
        integers = found.weight.values if axis == 1 else found.weight.values.T
        weight = add_initializer(graph, f"{layer.name}_quantized", np.ascontiguousarray(integers))
        scales = add_initializer(graph, f"{layer.name}_scale", found.weight.scales)
        none = add_initializer(graph, f"{layer.name}_zero_point", np.zeros((), np.int8))
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
            step.outputs[0].name = unique_name(graph, f"{layer.name}_dynamic_{number}")
        assert isinstance(node.graph, ir.Graph)
        node.graph.insert_before(node, steps)
        take_over(node, steps[-1])
        drop_unused(layer.weight)
    return smoothed


def write_weight_only(context: Context, layer: Layer) -> None:
    """Integers behind Cast and Mul in place of the weight."""
    graph = context.model.graph
    rounded = weight_only_integers(context, layer)
    weight = rounded.weight
    if rounded.offset is not None:
        shift_bias(graph, layer.node, rounded.offset)
    stored = layer.weight.const_value
    assert stored is not None
    scales = weight.broadcast_scales().astype(stored.numpy().dtype)
    integers = add_initializer(graph, f"{layer.name}_quantized", weight.values)
    factor = add_initializer(graph, f"{layer.name}_scale", scales, layer.dtype)
    cast = ir.Node(
        "",
        "Cast",
        [integers],
        [ir.AttrInt64("to", int(layer.dtype))],
        name=f"{layer.name}_Cast",
    )
    cast.outputs[0].name = unique_name(graph, f"{layer.name}_cast")
    scaled = ir.Node("", "Mul", [cast.outputs[0], factor], name=f"{layer.name}_Mul")
    for node in (cast, scaled):
        node.outputs[0].type = ir.TensorType(layer.dtype)
        node.outputs[0].shape = ir.Shape(layer.shape)
    prepend(layer.graph, [cast, scaled])
    ir.convenience.replace_all_uses_with(layer.weight, scaled.outputs[0])
    del layer.graph.initializers[layer.name]
    scaled.outputs[0].name = layer.name


def _dequantize(
    user: ir.Node,
    stem: str,
    values: npt.NDArray[np.generic],
    scales: npt.NDArray[np.float32],
    zero_point: int,
    axis: int | None,
) -> ir.Value:
    """Integers behind DequantizeLinear, as the first nodes of the graph that `user` is in.

    onnxruntime fuses within one graph. Of weights it wants the constants there too: where it makes
    MatMulNBits of a MatMul (16-bit activations), those of an outer graph stop it from loading.
    """
    graph = user.graph
    assert isinstance(graph, ir.Graph)
    inputs = [
        add_initializer(graph, f"{stem}_quantized", values),
        add_initializer(graph, f"{stem}_scale", scales),
    ]
    zeros = np.full(scales.shape, zero_point, values.dtype)
    inputs.append(add_initializer(graph, f"{stem}_zero_point", zeros))
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", "DequantizeLinear", inputs, attributes, name=f"{stem}_DequantizeLinear")
    output = node.outputs[0]
    output.name = unique_name(graph, f"{stem}_dequantized")
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(values.shape)
    prepend(graph, [node])
    return output


class Pairs:
    """The QDQ pairs of a rewrite: gathered first, then inserted, one per tensor."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keepers = scale_keepers(context)
        self._ranges: dict[ir.Value, tuple[float, int]] = {}
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        self._integer: set[ir.Value] = set()
        self._computing: set[ir.Node] = set()

    def want_input(self, layer: Layer, parameters: Parameters) -> None:
        """The layer reads its input through a pair."""
        value = input_of(layer)
        self._ranges[value] = _scale(parameters, "input")
        self._readers.setdefault(value, []).append(layer.node)
        self._computing.add(layer.node)

    def want_output(self, node: ir.Node, parameters: Parameters) -> None:
        """Everyone reads the node's output, behind a fused activation, through a pair."""
        value = fused_output(node)
        self._ranges[value] = _scale(parameters, "output")
        self._integer.add(value)

    def join(self, node: ir.Node, parameters: Parameters) -> None:
        """An operator without weights computes in integers if all it reads is in integers."""
        inputs = operator_inputs(node)
        if inputs is not None and all(value in self._integer for value in inputs):
            self.want_output(node, parameters)
            self._computing.add(node)

    def fill_outputs(self, layers: list[Layer]) -> None:
        """Gemm and MatMul outputs that an integer kernel reads are integers themselves."""
        for layer in layers:
            output = fused_output(layer.node)
            if layer.op_type != "Conv" and output in self._readers:
                self._integer.add(output)

    @property
    def tensors(self) -> frozenset[ir.Value]:
        """All that get a pair."""
        return frozenset(self._ranges)

    def move(self, moved: Mapping[ir.Value, ir.Value]) -> None:
        """Pairs of tensors that are gone go to those in their place, with their ranges."""
        for old, new in moved.items():
            if old not in self._ranges:
                continue
            self._ranges[new] = self._ranges.pop(old)
            self._readers.setdefault(new, []).extend(self._readers.pop(old, []))

    def insert(self) -> None:
        """Put every pair into the graph."""
        for value, (scale, zero_point) in self._ranges.items():
            self._insert(value, scale, zero_point)

    def _insert(self, value: ir.Value, scale: float, zero_point: int) -> None:
        """QuantizeLinear where the value is, DequantizeLinear in each graph that computes with it.

        So a tensor that a body reads is quantized once, outside, and the runtime sees the other
        half of the pair in the graph of the operator.
        """
        graph = self._context.model.graph
        kind = np.dtype(self._context.target.activation_type)
        # Sixteen bits came to ONNX's own operators with opset 21, to onnxruntime's before.
        domain = ""
        if kind.itemsize > 1 and standard_opset(self._context.model) < SIXTEEN_BIT_OPSET:
            domain = "com.microsoft"
            graph.opset_imports.setdefault(domain, 1)
        stem = value.name or "tensor"
        factor = add_initializer(graph, f"{stem}_scale", np.asarray(scale, np.float32))
        zero = add_initializer(graph, f"{stem}_zero_point", np.asarray(zero_point, kind))
        is_output = value.is_graph_output()
        # Of a tensor computed in float only integer kernels read the rounded form.
        everyone = value in self._integer
        users = [usage for usage in value.uses() if everyone or usage.node in self._readers[value]]
        quantize = ir.Node(domain, "QuantizeLinear", [value, factor, zero])
        quantize.name = f"{stem}_QuantizeLinear"
        quantize.outputs[0].name = unique_name(graph, f"{stem}_quantized")
        quantize.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(kind))
        quantize.outputs[0].shape = value.shape
        home = value.graph or graph
        insert_behind(home, value, [quantize])
        results: dict[object, ir.Value] = {}

        def dequantized(place: object) -> ir.Value:
            if place not in results:
                results[place] = self._dequantize(quantize, value, place)
            return results[place]

        if is_output and everyone:
            self._replace_output(home, value, dequantized(home))
        computing = {node.graph for node, _ in users if node in self._computing}
        for node, index in users:
            place = node.graph if node.graph in computing else home
            node.replace_input_with(index, dequantized(place))

    def _dequantize(self, quantize: ir.Node, value: ir.Value, place: object) -> ir.Value:
        graph, stem = self._context.model.graph, value.name or "tensor"
        inputs = [quantize.outputs[0], *quantize.inputs[1:]]
        node = ir.Node(quantize.domain, "DequantizeLinear", inputs)
        result = node.outputs[0]
        result.name = unique_name(graph, f"{stem}_dequantized")
        result.type, result.shape = value.type, value.shape
        node.name = f"{result.name.removesuffix('_dequantized')}_DequantizeLinear"
        assert isinstance(place, ir.Graph)
        insert_behind(place, quantize.outputs[0], [node])
        return result

    def _replace_output(self, home: ir.Graph, value: ir.Value, result: ir.Value) -> None:
        graph = self._context.model.graph
        if home is graph:
            name = value.name or ""
            value.name = unique_name(graph, f"{name}_float")
            result.name = name
        for place, output in enumerate(home.outputs):
            if output is value:
                home.outputs[place] = result


def _scale(parameters: Parameters, which: str) -> tuple[float, int]:
    return float(parameters[f"{which}_scale"]), int(parameters[f"{which}_zero_point"])
