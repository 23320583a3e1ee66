"""Take integers out of a model that is quantized already, so that it can be quantized anew.

Operators that compute on integers themselves (QLinearConv, MatMulInteger) are written in float
first (`integer_operators`). Constants behind DequantizeLinear become float weights; QuantizeLinear
and DequantizeLinear on activations go, their rounding with them. Where the integers could hold
nothing below zero, a quantizer has dropped a Relu or Clip, which comes back.
"""

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant, insert_behind
from onnxpress.layers import INTEGER_WEIGHTS
from onnxpress.passes.quantize.integer_operators import write_in_float
from onnxpress.recurrent import HIDDEN_WEIGHT, INPUT_WEIGHT, RECURRENT

__all__ = ["integer_weights", "restored"]

_LAYERS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(RECURRENT, (INPUT_WEIGHT, HIDDEN_WEIGHT)),
}
"""Operators, and which of their inputs may be the weight."""
_CONVERTING = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("MatMulInteger", "ConvInteger", "Cast", "Mul"),
)
"""What is left without a reader."""
_NEVER_NEGATIVE = ("Relu", "Clip", "Sigmoid", "HardSigmoid", "Softmax")
_SIX = 6.0
"""Of Relu6."""


def integer_weights(model: ir.Model) -> list[str]:
    """Names of the integer constants that layers read, mostly through DequantizeLinear."""
    found: list[str] = []
    for node in model.graph.all_nodes():
        if node.op_type in INTEGER_WEIGHTS:
            weight = node.inputs[INTEGER_WEIGHTS[node.op_type]]
            if weight is not None and constant(weight) is not None:
                found.append(weight.name or "")
            continue
        if node.op_type != "DequantizeLinear" or constant(node.inputs[0]) is None:
            continue
        layer = any(
            index in _LAYERS.get(user.op_type, ()) for user, index in node.outputs[0].uses()
        )
        if layer and node.inputs[0] is not None:
            found.append(node.inputs[0].name or "")
    return list(dict.fromkeys(found))


def restored(model: ir.Model) -> ir.Model:
    """A clone in float; the same model where it holds no integers of this kind."""
    kinds = {"DequantizeLinear", *INTEGER_WEIGHTS}
    if not any(node.op_type in kinds for node in model.graph.all_nodes()):
        return model
    clone = model.clone()
    graph = clone.graph
    names = Names(clone)
    write_in_float(names, graph)
    before: dict[ir.Node, ir.Value] = {}
    for node in list(graph.all_nodes()):
        if node.op_type == "DequantizeLinear":
            _replace(names, graph, node, before)
    for node in reversed(list(graph.all_nodes())):
        used = any(output.uses() or output.is_graph_output() for output in node.outputs)
        if node.op_type in _CONVERTING and not used:
            assert isinstance(node.graph, ir.Graph)
            node.graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
    return clone


def _replace(names: Names, graph: ir.Graph, node: ir.Node, before: dict[ir.Node, ir.Value]) -> None:
    """Let readers have the real values; `before` remembers those of QuantizeLinear nodes."""
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
        return
    if producer is None or producer.op_type != "QuantizeLinear" or producer.inputs[0] is None:
        return
    # A graph output keeps its name, so its pair stays.
    if not output.is_graph_output():
        if producer not in before:
            before[producer] = _clipped(names, producer)
        ir.convenience.replace_all_uses_with(output, before[producer])


def _clipped(names: Names, node: ir.Node) -> ir.Value:
    """What a QuantizeLinear rounds, without what its integers cannot hold below zero."""
    value = node.inputs[0]
    assert value is not None
    producer, scale = value.producer(), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1, np.uint8)
    if producer is None or producer.op_type in _NEVER_NEGATIVE or scale is None or zero is None:
        return value
    if zero.size != 1 or zero.dtype not in (np.uint8, np.int8):
        return value
    if int(zero.reshape(-1)[0]) != (0 if zero.dtype == np.uint8 else -128):
        return value
    highest = float(scale.reshape(-1)[0]) * 255
    stem, graph = f"{value.name}_clipped", node.graph
    assert isinstance(graph, ir.Graph)
    inputs = [value]
    if abs(highest - _SIX) < float(scale.reshape(-1)[0]):
        for suffix, bound in (("low", 0.0), ("high", _SIX)):
            number = np.asarray(bound, np.float32)
            inputs.append(add_initializer(names, graph, f"{stem}_{suffix}", number))
    made = ir.Node("", "Relu" if len(inputs) == 1 else "Clip", inputs, name=names.free(stem))
    made.outputs[0].name = names.free(f"{stem}_output")
    made.outputs[0].type, made.outputs[0].shape = value.type, value.shape
    insert_behind(graph, value, [made])
    return made.outputs[0]


def _dequantized(node: ir.Node) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None":
    """(q − zero_point)·scale; `None` where these are no constants or scales run by block."""
    integers, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    blocked = attribute(node, "block_size", 0) != 0
    if integers is None or scale is None or blocked or (zero is None and len(node.inputs) > 2):
        return None
    # A single number means the whole tensor, whatever axis a row of one would run along.
    scale = scale.reshape(()) if scale.size == 1 else scale
    zero = zero.reshape(()) if zero is not None and zero.size == 1 else zero
    shape = [1] * integers.ndim
    if scale.ndim:
        shape[attribute(node, "axis", 1)] = -1
    offset = np.zeros(()) if zero is None else zero.astype(np.float64)
    centred = integers.astype(np.float64) - (offset.reshape(shape) if offset.ndim else offset)
    factor = scale.astype(np.float64)
    return np.asarray(centred * (factor.reshape(shape) if factor.ndim else factor), np.float64)
