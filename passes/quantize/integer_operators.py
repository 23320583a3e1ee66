"""Operators that compute on integers themselves, as the float operators they stand for.

    QLinearConv(x, …)  →  QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), b))

and so on for ONNX's QLinearConv, QLinearMatMul, MatMulInteger, ConvInteger, and onnxruntime's
QGemm, QLinearAdd, … (ContribOperators.md). What only moves integers (MaxPool, Reshape, …) moves
floats afterwards. The pairs of nodes that this leaves are for `restoring` to take out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant, is_standard, take_over

__all__ = ["write_in_float"]

_MOVING = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity"}
)


@dataclass(frozen=True, slots=True)
class _Form:
    """How an operator on integers is written in float.

    Attributes:
        operator: that computes the same in float.
        triples: where value, scale and zero point of each operand begin.
        result: where scale and zero point of the result begin.
        weight_axis: of the second operand, along which its scales run.
        dropped: attributes that only the operator on integers has.
    """

    operator: str
    triples: tuple[int, ...]
    result: int
    weight_axis: Callable[[ir.Node], int] = field(default=lambda _: -1)
    dropped: tuple[str, ...] = ()


_FORMS = {
    "QLinearConv": _Form("Conv", (0, 3), 6, lambda _: 0),
    "QLinearMatMul": _Form("MatMul", (0, 3), 6),
    "QGemm": _Form("Gemm", (0, 3), 7, lambda node: 0 if attribute(node, "transB", 0) else 1),
    "QLinearAdd": _Form("Add", (0, 3), 6),
    "QLinearMul": _Form("Mul", (0, 3), 6),
    "QLinearSigmoid": _Form("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": _Form("LeakyRelu", (0,), 3),
    "QLinearSoftmax": _Form("Softmax", (0,), 3, dropped=("opset",)),
    "QLinearAveragePool": _Form("AveragePool", (0,), 3, dropped=("channels_last",)),
    "QLinearGlobalAveragePool": _Form("GlobalAveragePool", (0,), 3, dropped=("channels_last",)),
}
_BIAS_AT = {"QLinearConv": 8, "QGemm": 6}


def write_in_float(names: Names, graph: ir.Graph) -> None:
    """Replace operators on integers in a graph and its bodies; what cannot be is left."""
    for node in list(graph.all_nodes()):
        form = _FORMS.get(node.op_type)
        if form is not None:
            _write(names, node, form)
        elif node.op_type == "QLinearConcat":
            _write_concat(names, node)
        elif is_standard(node) and node.op_type in ("MatMulInteger", "ConvInteger"):
            _write_dynamic(names, node)
        elif is_standard(node) and node.op_type in _MOVING:
            _move(names, node)


def _at(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _write(names: Names, node: ir.Node, form: _Form) -> None:
    last, output = attribute(node, "channels_last", 0), node.outputs[0]
    if last or output.is_graph_output() or not isinstance(node.graph, ir.Graph):
        return
    if any(constant(_at(node, start + 1)) is None for start in form.triples):
        return
    operands = []
    for place, start in enumerate(form.triples):
        value = node.inputs[start]
        rank = 0 if value is None else len(value.shape or ())
        axis = form.weight_axis(node) if place else 0
        operands.append(_dequantized(names, node, start, axis % rank if rank else 0))
    bias = _bias(names, node, form)
    inputs = [made.outputs[0] for made in operands] + ([] if bias is None else [bias])
    kept = [a for a in node.attributes.values() if a.name not in form.dropped]
    made = ir.Node("", form.operator, inputs, kept, name=node.name)
    _finish(names, node, [*operands, made], form.result)


def _write_concat(names: Names, node: ir.Node) -> None:
    if node.outputs[0].is_graph_output() or not isinstance(node.graph, ir.Graph):
        return
    operands = [_dequantized(names, node, start, 0) for start in range(2, len(node.inputs), 3)]
    inputs = [made.outputs[0] for made in operands]
    made = ir.Node("", "Concat", inputs, list(node.attributes.values()), name=node.name)
    _finish(names, node, [*operands, made], 0)


def _dequantized(names: Names, node: ir.Node, start: int, axis: int) -> ir.Node:
    """DequantizeLinear of the operand that begins at an input."""
    value, scale, zero = (_at(node, start + offset) for offset in range(3))
    assert value is not None
    attributes = [ir.AttrInt64("axis", axis)] if scale is not None and scale.shape else []
    given = [value, scale] if zero is None else [value, scale, zero]
    made = ir.Node("", "DequantizeLinear", given, attributes)
    made.name = names.free(f"{value.name}_DequantizeLinear")
    made.outputs[0].name = names.free(f"{value.name}_dequantized")
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    return made


def _bias(names: Names, node: ir.Node, form: _Form) -> ir.Value | None:
    """An int32 bias stands for multiples of the product of both scales."""
    value = _at(node, _BIAS_AT.get(node.op_type, len(node.inputs)))
    stored = constant(value)
    if value is None or stored is None:
        return None
    scales = [constant(_at(node, start + 1)) for start in form.triples]
    factor = np.asarray(scales[0], np.float64).reshape(-1)
    factor = factor * np.asarray(scales[1], np.float64).reshape(-1)
    if node.op_type == "QGemm" and "alpha" in node.attributes:
        factor = factor * node.attributes["alpha"].as_float()
    real = (stored.astype(np.float64) * factor).astype(np.float32)
    assert isinstance(node.graph, ir.Graph)
    return add_initializer(names, node.graph, f"{value.name}_float", real)


def _finish(names: Names, node: ir.Node, steps: Sequence[ir.Node], result: int) -> None:
    """Put the steps in the node's place, and quantize what they give where the node did."""
    assert isinstance(node.graph, ir.Graph)
    made, output = steps[-1], node.outputs[0]
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), output.shape
    scale, zero = _at(node, result), _at(node, result + 1)
    last = made
    if scale is not None:
        given = [made.outputs[0], scale] if zero is None else [made.outputs[0], scale, zero]
        last = ir.Node("", "QuantizeLinear", given)
        last.name = names.free(f"{output.name}_QuantizeLinear")
        made.outputs[0].name = names.free(f"{output.name}_float")
        steps = [*steps, last]
    node.graph.insert_before(node, list(steps))
    take_over(node, last)


def _move(names: Names, node: ir.Node) -> None:
    """Move floats, and quantize behind."""
    source, output = node.inputs[0], node.outputs[0]
    producer = None if source is None else source.producer()
    if producer is None or producer.op_type != "QuantizeLinear" or output.is_graph_output():
        return
    scale = producer.inputs[1]
    # Of scales along an axis the axis would move too.
    if len(node.outputs) > 1 or scale is None or scale.shape or not is_standard(producer):
        return
    assert isinstance(node.graph, ir.Graph)
    inputs = [producer.inputs[0], *node.inputs[1:]]
    made = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=node.name)
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), output.shape
    made.outputs[0].name = names.free(f"{output.name}_float")
    last = ir.Node("", "QuantizeLinear", [made.outputs[0], *producer.inputs[1:]])
    last.name = names.free(f"{output.name}_QuantizeLinear")
    node.graph.insert_before(node, [made, last])
    take_over(node, last)


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != op_type:
        return None
    return uses[0].node


def _write_dynamic(names: Names, node: ir.Node) -> None:
    """DynamicQuantizeLinear → MatMulInteger → Cast → Mul(input scale · weight scale)."""
    quantized = None if node.inputs[0] is None else node.inputs[0].producer()
    cast = _only_reader(node.outputs[0], "Cast")
    scaled = None if cast is None else _only_reader(cast.outputs[0], "Mul")
    weight, stored = node.inputs[1], constant(node.inputs[1])
    if quantized is None or quantized.op_type != "DynamicQuantizeLinear":
        return
    if cast is None or scaled is None or weight is None or stored is None:
        return
    other = next((v for v in scaled.inputs if v is not cast.outputs[0]), None)
    factor = None if other is None else other.producer()
    if factor is None or factor.op_type != "Mul" or quantized.outputs[1] not in factor.inputs:
        return
    scale = next((v for v in factor.inputs if v is not quantized.outputs[1]), None)
    scales, zero = constant(scale), constant(_at(node, 3))
    if scales is None or (zero is None and _at(node, 3) is not None):
        return
    shape = [1] * stored.ndim
    shape[0 if node.op_type == "ConvInteger" else -1] = -1
    offset = np.zeros(1) if zero is None else np.asarray(zero, np.float64).reshape(-1)
    centred = stored.astype(np.float64) - offset.reshape(shape)
    real = (centred * np.asarray(scales, np.float64).reshape(-1).reshape(shape)).astype(np.float32)
    assert isinstance(scaled.graph, ir.Graph)
    stem = (weight.name or "weight").removesuffix("_quantized")
    matrix = add_initializer(names, scaled.graph, stem, real)
    operator = node.op_type.removesuffix("Integer")
    attributes = list(node.attributes.values())
    made = ir.Node("", operator, [quantized.inputs[0], matrix], attributes, name=node.name)
    scaled.graph.insert_before(scaled, made)
    take_over(scaled, made)
