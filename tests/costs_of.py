"""Small models and tables made by hand, for tests of predicted latency."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.costs import CostTable, Machine, NodeKey, Row, node_keys, sizes_of

MACHINE = Machine("made up", 1, "0")


def model_of(text: str) -> ir.Model:
    """Of ONNX's text form, after `agraph (…) => (…) { … }`."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text}')
    found = ir.from_proto(model)
    for number, node in enumerate(found.graph.all_nodes()):
        node.name = node.name or f"{node.op_type}{number}"
    return found


def keys_of(model: ir.Model, given: Mapping[str, Sequence[int]] | None = None) -> list[NodeKey]:
    """Of all its nodes."""
    return node_keys(model, sizes_of(model, given))


def row_of(key: NodeKey, microseconds: float) -> Row:
    """A measurement of just that node."""
    return Row(
        key.operator,
        key.contexts,
        key.sizes,
        key.multiply_adds,
        key.nbytes,
        microseconds,
        key.integer,
    )


def table_of(keys: Sequence[NodeKey], microseconds: Sequence[float]) -> CostTable:
    """A table of these rows, as they are: not on the grid."""
    rows = [row_of(*pair) for pair in zip(keys, microseconds, strict=True)]
    return CostTable(MACHINE, {row.key: row for row in rows})


def mlp(hidden: int = 128, batch: str = "N") -> ir.Model:
    """Two products and an activation between them, the weights zero."""
    text = f"""
    mlp (float[{batch}, 64] x, float[64, {hidden}] w, float[{hidden}, 16] v)
        => (float[{batch}, 16] y) {{
        h = MatMul(x, w)
        r = Relu(h)
        y = MatMul(r, v)
    }}
    """
    model = model_of(text)
    for value in list(model.graph.inputs[1:]):
        shape = [dim for dim in value.shape or () if isinstance(dim, int)]
        value.const_value = ir.Tensor(np.zeros(shape, np.float32), name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model
