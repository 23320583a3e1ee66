"""Weights that a file stores in half behind a Cast: float32 in between, then half again.

Passes look for weights where operators read them; behind a Cast they would only be stored data.
So such a model is opened with float32 weights, which are the same numbers, and what is float32 in
the end is stored in half again.
"""

import numpy as np
import onnx_ir as ir

from onnxpress.conversion.half_storage import stored_in_half
from onnxpress.graph import graphs_of

__all__ = ["stored_again", "with_float_weights"]

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_MARK = "onnxpress.half_weights"
"""In the graph's `meta`, which its clones share."""


def with_float_weights(model: ir.Model) -> ir.Model:
    """A copy with float32 weights where a Cast made them so; the same model where none did."""
    if not any(_unpacks(node) for node in model.graph.all_nodes()):
        return model
    copy = model.clone()
    copy.graph.meta[_MARK] = True
    for graph in graphs_of(copy.graph):
        for node in [node for node in graph if _unpacks(node)]:
            _unpack(graph, node)
    return copy


def stored_again(model: ir.Model) -> ir.Model:
    """A model that came with weights in half, with what is float32 in half."""
    if not model.graph.meta.get(_MARK):
        return model
    made, found = stored_in_half(model)
    return made if any(weight.form for weight in found) else model


def _unpacks(node: ir.Node) -> bool:
    """Whether a node is the Cast of a half weight to float32."""
    value = node.inputs[0] if node.op_type == "Cast" and node.inputs else None
    return (
        value is not None
        and value.const_value is not None
        and value.dtype in _HALVES
        and not value.is_graph_input()
        and node.attributes["to"].as_int() == ir.DataType.FLOAT
        and not node.outputs[0].is_graph_output()
    )


def _unpack(graph: ir.Graph, node: ir.Node) -> None:
    half, old = node.inputs[0], node.outputs[0]
    assert half is not None
    assert half.const_value is not None
    array = half.const_value.numpy().astype(np.float32)
    name = old.name
    weight = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(array, name=name),
    )
    ir.convenience.replace_all_uses_with(old, weight)
    graph.remove(node, safe=True)
    graph.register_initializer(weight)
    owner = half.graph
    if not half.uses() and not half.is_graph_output() and owner is not None:
        del owner.initializers[half.name or ""]
