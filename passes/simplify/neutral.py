"""x·1, x/1, x + 0 and x − 0 → x, for constants of any shape that provably stretch nothing."""

import onnx_ir as ir

from onnxpress.graph import constant, is_standard
from onnxpress.passes.simplify.activation_functions import split_constant

__all__ = ["RemoveNeutral"]

_NEUTRAL = {"Mul": 1, "Div": 1, "Add": 0, "Sub": 0}


class RemoveNeutral(ir.passes.InPlacePass):
    """Write an Identity, which is removed later, for arithmetic that changes nothing."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        changed = 0
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type in _NEUTRAL:
                changed += _remove(node)
        return ir.passes.PassResult(model, bool(changed))


def _fits(constant_shape: tuple[int, ...], shape: ir.Shape | None) -> bool:
    """Whether a constant provably broadcasts to a tensor without stretching it."""
    if not constant_shape:
        return True
    if shape is None or len(constant_shape) > len(shape):
        return False
    dims = list(shape)[len(shape) - len(constant_shape) :]
    return all(size in (1, dim) for size, dim in zip(constant_shape, dims, strict=True))


def _remove(node: ir.Node) -> bool:
    parts = split_constant(node)
    if parts is None or not isinstance(node.graph, ir.Graph):
        return False
    x, operand = parts
    array = constant(operand)
    if array is None or not array.size or not _fits(array.shape, x.shape):
        return False
    if operand.dtype == ir.DataType.STRING or (array != _NEUTRAL[node.op_type]).any():
        return False
    same = ir.Node("", "Identity", [x], name=node.name)
    old = node.outputs[0]
    same.outputs[0].type, same.outputs[0].shape = old.type, old.shape
    name = old.name
    node.graph.insert_before(node, same)
    ir.convenience.replace_all_uses_with(old, same.outputs[0], replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    same.outputs[0].name = name
    return True
