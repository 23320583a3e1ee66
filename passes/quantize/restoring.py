"""Take integers out of a model that is quantized already, so that it can be quantized anew.

Constants behind DequantizeLinear become float weights; QuantizeLinear and DequantizeLinear on
activations go, their rounding with them. Operators that compute on integers themselves
(QLinearConv, MatMulInteger) are left.
"""

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant
from onnxpress.recurrent import HIDDEN_WEIGHT, INPUT_WEIGHT, RECURRENT

__all__ = ["integer_weights", "restored"]

_LAYERS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(RECURRENT, (INPUT_WEIGHT, HIDDEN_WEIGHT)),
}
"""Operators, and which of their inputs may be the weight."""


def integer_weights(model: ir.Model) -> list[str]:
    """Names of the integer constants that layers read through DequantizeLinear."""
    found = []
    for node in model.graph.all_nodes():
        if node.op_type != "DequantizeLinear" or constant(node.inputs[0]) is None:
            continue
        weight = any(
            index in _LAYERS.get(user.op_type, ()) for user, index in node.outputs[0].uses()
        )
        if weight and node.inputs[0] is not None:
            found.append(node.inputs[0].name or "")
    return found


def restored(model: ir.Model) -> ir.Model:
    """A clone in float; the same model where it holds no DequantizeLinear."""
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.all_nodes()):
        return model
    clone = model.clone()
    graph = clone.graph
    names = Names(clone)
    for node in list(graph.all_nodes()):
        if node.op_type == "DequantizeLinear":
            _replace(names, graph, node)
    for node in reversed(list(graph.all_nodes())):
        used = any(output.uses() or output.is_graph_output() for output in node.outputs)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not used:
            assert isinstance(node.graph, ir.Graph)
            node.graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
    return clone


def _replace(names: Names, graph: ir.Graph, node: ir.Node) -> None:
    source, output = node.inputs[0], node.outputs[0]
    if source is None:
        return
    producer = source.producer()
    if constant(source) is not None and not output.is_graph_output():
        values = _dequantized(node)
        if values is not None:
            stem = (source.name or "weight").removesuffix("_quantized")
            kind = output.dtype if output.dtype is not None else ir.DataType.FLOAT
            typed = values.astype(kind.numpy())
            ir.convenience.replace_all_uses_with(output, add_initializer(names, graph, stem, typed))
    elif producer is not None and producer.op_type == "QuantizeLinear":
        before = producer.inputs[0]
        # A graph output keeps its name, so its pair stays.
        if before is not None and not output.is_graph_output():
            ir.convenience.replace_all_uses_with(output, before)


def _dequantized(node: ir.Node) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None":
    """(q − zero_point)·scale; `None` where these are no constants or scales run by block."""
    integers, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    blocked = attribute(node, "block_size", 0) != 0
    if integers is None or scale is None or blocked or (zero is None and len(node.inputs) > 2):
        return None
    shape = [1] * integers.ndim
    if scale.ndim:
        shape[attribute(node, "axis", 1)] = -1
    offset = np.zeros(()) if zero is None else zero.astype(np.float64)
    centred = integers.astype(np.float64) - (offset.reshape(shape) if offset.ndim else offset)
    factor = scale.astype(np.float64)
    return np.asarray(centred * (factor.reshape(shape) if factor.ndim else factor), np.float64)
