"""A model as one whose operators have gradients: half precision in float32, MatMulNBits as MatMul.

Gradients in half are 0 or infinite. Names stay, so that what was trained is stored in half again
(mixed precision training, arXiv:1710.03740, section 3.1).
"""

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, graphs_of

__all__ = ["without_half", "without_packed_products"]

_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def without_half(model: ir.Model) -> ir.Model:
    """The same network in float32; the model itself where nothing of it is in half.

    Inputs keep their type and are cast; outputs are float32.
    """
    graphs = graphs_of(model.graph)
    values = [value for graph in graphs for value in graph.initializers.values()]
    values += [value for node in model.graph.all_nodes() for value in node.outputs]
    if not any(value.dtype == _HALF for value in (*values, *model.graph.inputs)):
        return model
    clone = model.clone()
    names = Names(clone)
    for value in clone.graph.inputs:
        if value.dtype == _HALF and not value.is_initializer():
            _cast(names, clone.graph, value)
    for graph in graphs_of(clone.graph):
        for value in graph.initializers.values():
            _widen_constant(value)
        for value in graph.inputs:
            if graph is not clone.graph:
                _widen(value)
        for node in graph:
            _widen_node(node)
            for value in node.outputs:
                _widen(value)
    return clone


def _cast(names: Names, graph: ir.Graph, value: ir.Value) -> None:
    """Let all that reads an input read it in float32."""
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", _FLOAT)])
    node.name = names.free(f"{value.name}_wide")
    wide = node.outputs[0]
    wide.name, wide.type, wide.shape = f"{node.name}_output", ir.TensorType(_FLOAT), value.shape
    readers = [(reader, place) for reader, place in value.uses() if reader is not node]
    for reader, place in readers:
        reader.replace_input_with(place, wide)
    graph.insert_before(graph[0], [node])


def _widen(value: ir.Value) -> None:
    if value.dtype == _HALF:
        value.type = ir.TensorType(_FLOAT)


def _widen_constant(value: ir.Value) -> None:
    if value.dtype == _HALF and value.const_value is not None:
        array = value.const_value.numpy().astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        value.type = ir.TensorType(_FLOAT)


def _widen_node(node: ir.Node) -> None:
    """Attributes that say the type of what comes out."""
    for name, given in list(node.attributes.items()):
        if given.is_ref():
            continue
        if name in ("to", "dtype") and given.value == int(_HALF):
            node.attributes[name] = ir.AttrInt64(name, _FLOAT)
        elif given.type == ir.AttributeType.TENSOR and given.value.dtype == _HALF:
            wide = ir.Tensor(given.value.numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, wide)


def without_packed_products(model: ir.Model) -> None:
    """Let MatMul compute what MatMulNBits does: its weight is what it makes of the unit matrix.

    Shapes are inferred behind it then. Weights in such blocks are not trained; what lies before
    them is.

    Args:
        model: it is changed.
    """
    names = Names(model)
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("com.microsoft", "MatMulNBits"):
            continue
        features, outputs = attribute(node, "K", 0), attribute(node, "N", 0)
        # Exact products: accuracy_level would round the ones.
        kept = [a for name, a in node.attributes.items() if name != "accuracy_level"]
        unit = np.eye(features, dtype=np.float32)
        identity = add_initializer(names, model.graph, f"{node.name}_unit", unit)
        weight = ir.Node(node.domain, node.op_type, [identity, *node.inputs[1:5]], kept)
        weight.name = names.free(f"{node.name}_weight")
        weight.outputs[0].name = f"{weight.name}_output"
        weight.outputs[0].type = ir.TensorType(_FLOAT)
        weight.outputs[0].shape = ir.Shape([features, outputs])
        product = ir.Node("", "MatMul", [node.inputs[0], weight.outputs[0]])
        product.name = names.free(f"{node.name}_product")
        last = product.outputs[0]
        last.name = names.free(f"{product.name}_output")
        made = [weight, product]
        if len(node.inputs) > 5 and node.inputs[5] is not None:
            made.append(ir.Node("", "Add", [last, node.inputs[5]], name=names.free("plain_bias")))
            last = made[-1].outputs[0]
            last.name = names.free("plain_bias_output")
        model.graph.insert_before(node, made)
        node.outputs[0].name, last.name = names.free("plain_packed"), node.outputs[0].name
        ir.convenience.replace_all_uses_with(node.outputs, [last], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
