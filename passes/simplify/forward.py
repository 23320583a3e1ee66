"""Fold a constant per channel into the Convs that alone read it.

Mul, then only Convs → their weights; Add, then only Convs without padding → their biases. Padding
adds zeros *behind* the Add, so there the Add stays; a Mul before it is moved through:
a·x + b = a·(x + b/a).
"""

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, constant, is_standard
from onnxpress.passes.simplify.activation_functions import split_constant
from onnxpress.passes.simplify.convolution import (
    Vector,
    by_input,
    convolution_readers,
    input_channels,
    input_vector,
    is_padded,
    replace_weights,
    weight_of,
)

__all__ = ["FoldAffineForward"]


class FoldAffineForward(ir.passes.InPlacePass):
    """Fold a constant Mul, Div, Add or Sub per channel into the Convs that alone read it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        folded, names = 0, Names(model)
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type in ("Mul", "Div", "Add", "Sub"):
                folded += _fold_forward(names, node)
        return ir.passes.PassResult(model, bool(folded))


def _fold_forward(names: Names, node: ir.Node) -> bool:
    parts = split_constant(node)
    if parts is None or not isinstance(node.graph, ir.Graph):
        return False
    x, operand = parts
    readers = convolution_readers(node.outputs[0])
    if readers:
        channels = input_channels(readers[0])
        vector = input_vector(operand, channels)
        if vector is None or any(input_channels(reader) != channels for reader in readers):
            return False
        if node.op_type in ("Mul", "Div"):
            return _fold_scale(names, node, x, vector, readers)
        return not any(map(is_padded, readers)) and _fold_offset(names, node, x, vector, readers)
    return node.op_type == "Mul" and _scale_behind_offset(names, node, x, operand)


def _fold_scale(
    names: Names, node: ir.Node, x: ir.Value, vector: Vector, readers: list[ir.Node]
) -> bool:
    if node.op_type == "Div":
        if not vector.all():
            return False
        vector = 1.0 / vector
    for conv in readers:
        replace_weights(names, conv, weight_of(conv) * by_input(conv, vector), None)
    _bypass(node, x)
    return True


def _fold_offset(
    names: Names, node: ir.Node, x: ir.Value, vector: Vector, readers: list[ir.Node]
) -> bool:
    if node.op_type == "Sub":
        vector = -vector
    for conv in readers:
        weight = weight_of(conv).astype(np.float64)
        moved = (weight * by_input(conv, vector)).reshape(len(weight), -1).sum(axis=1)
        bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
        base = 0.0 if bias is None else bias.astype(np.float64)
        replace_weights(names, conv, None, base + moved)
    _bypass(node, x)
    return True


def _scale_behind_offset(names: Names, mul: ir.Node, x: ir.Value, factor: ir.Value) -> bool:
    """a·x + b, read by padded Convs → x + b/a, and a into the Convs."""
    uses = list(mul.outputs[0].uses())
    if len(uses) != 1 or mul.outputs[0].is_graph_output():
        return False
    add = uses[0].node
    parts = split_constant(add)
    if not is_standard(add) or add.op_type != "Add" or parts is None or add.graph is not mul.graph:
        return False
    readers = convolution_readers(add.outputs[0])
    if not readers:
        return False
    channels = input_channels(readers[0])
    scale, offset = input_vector(factor, channels), input_vector(parts[1], channels)
    if scale is None or offset is None or not scale.all():
        return False
    if any(input_channels(reader) != channels for reader in readers):
        return False
    quotient = offset / scale
    kind = weight_of(readers[0]).dtype
    if not np.isfinite(quotient.astype(kind)).all():
        return False
    for conv in readers:
        replace_weights(names, conv, weight_of(conv) * by_input(conv, scale), None)
    home = parts[1].graph or add.graph
    assert isinstance(home, ir.Graph)
    both = [constant(value) for value in (factor, parts[1])]
    uniform = all(array is not None and array.size == 1 for array in both)
    stored = quotient[:1] if uniform else quotient.reshape(-1, 1, 1)
    add.replace_input_with(0, x)
    add.replace_input_with(
        1, add_initializer(names, home, f"{add.name}_offset", stored.astype(kind))
    )
    return True


def _bypass(node: ir.Node, x: ir.Value) -> None:
    assert isinstance(node.graph, ir.Graph)
    ir.convenience.replace_all_uses_with(node.outputs[0], x)
    node.graph.remove(node, safe=True)
