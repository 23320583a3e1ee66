"""Make tensors between integer operators visible: behind each, dequantize and quantize again.

DequantizeLinear and QuantizeLinear with one scale and zero point give back the integers that went
in, so the model computes what it did; but now it holds the real values that the integers stand for,
which can be compared with the original's. Operators: QLinear* of ONNX and of onnxruntime.
"""

import onnx_ir as ir

from onnxpress.graph import Names, graphs_of

__all__ = ["show_real_values"]

_SCALE_AT = {
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
    "QLinearConcat": 0,
    "QLinearAveragePool": 3,
    "QLinearGlobalAveragePool": 3,
    "QLinearSigmoid": 3,
    "QLinearLeakyRelu": 3,
    "QLinearSoftmax": 3,
}
"""Which input is the scale of the output; the zero point follows it."""
_SUFFIX = "_quantized"
"""What onnxruntime's quantizer puts behind the original's name."""


def show_real_values(model: ir.Model) -> None:
    """Insert the pairs of nodes behind every integer operator, bodies included."""
    names = Names(model)
    for graph in graphs_of(model.graph):
        for node in list(graph):
            at = _SCALE_AT.get(node.op_type)
            value = node.outputs[0] if node.outputs else None
            if at is None or value is None or len(node.inputs) < at + 2:
                continue
            scale, point = node.inputs[at], node.inputs[at + 1]
            if scale is not None and point is not None and not value.is_graph_output():
                _insert(names, graph, node, scale, point)


def _insert(names: Names, graph: ir.Graph, node: ir.Node, scale: ir.Value, point: ir.Value) -> None:
    value = node.outputs[0]
    uses = tuple(value.uses())
    real = ir.Node("", "DequantizeLinear", [value, scale, point])
    again = ir.Node("", "QuantizeLinear", [real.outputs[0], scale, point])
    stem = value.name or node.op_type
    real.outputs[0].name = names.free(stem.removesuffix(_SUFFIX))
    real.outputs[0].type, real.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    again.outputs[0].name = names.free(f"{stem}_again")
    again.outputs[0].type, again.outputs[0].shape = value.type, value.shape
    graph.insert_after(node, [real, again])
    for user, index in uses:
        user.replace_input_with(index, again.outputs[0])
