"""Fold a constant per channel into the Conv or Gemm before it: Conv, then Add → one Conv.

So that a BatchNormalization behind a separate bias is reached too. Add, Sub, Mul and Div.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import Names, attribute, constant, is_standard
from onnxpress.layers import is_scaled_gemm
from onnxpress.passes.simplify.convolution import replace_weights

__all__ = ["FoldAffine"]


class FoldAffine(ir.passes.InPlacePass):
    """Fold a constant per-channel Add/Sub/Mul/Div into the Conv or Gemm before it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        folded, names = 0, Names(model)
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type in ("Conv", "Gemm"):
                folded += _fold_follower(names, node)
        return ir.passes.PassResult(model, bool(folded))


def _fold_follower(names: Names, node: ir.Node) -> bool:
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or node.graph is None:
        return False
    follower, index = uses[0]
    swappable = follower.op_type in ("Add", "Mul")
    if (
        not is_standard(follower)
        or follower.op_type not in ("Add", "Sub", "Mul", "Div")
        or follower.graph is not node.graph
        or follower.outputs[0].is_graph_output()
        or (index == 1 and not swappable)
        or follower.inputs[0] is follower.inputs[1]
    ):
        return False
    if is_scaled_gemm(node):
        return False
    operand = constant(follower.inputs[1 - index])
    weight = constant(node.inputs[1])
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = constant(node.inputs[2]) if has_bias else None
    if operand is None or weight is None or (has_bias and bias is None):
        return False
    if weight.dtype.kind != "f" or operand.dtype != weight.dtype:
        return False
    by_row = node.op_type == "Conv" or attribute(node, "transB", 0) == 1
    channels = weight.shape[0 if by_row else 1]
    vector = _per_channel(operand, channels, weight.ndim if node.op_type == "Conv" else 2, node)
    if vector is None:
        return False
    base = np.zeros(channels) if bias is None else np.broadcast_to(bias.reshape(-1), (channels,))
    new_weight, new_bias = weight, base.astype(np.float64)
    if follower.op_type == "Add":
        new_bias = new_bias + vector
    elif follower.op_type == "Sub":
        new_bias = new_bias - vector
    else:
        if follower.op_type == "Div" and not vector.all():
            return False
        scale = vector if follower.op_type == "Mul" else 1.0 / vector
        shape = (-1,) + (1,) * (weight.ndim - 1) if by_row else (1, -1)
        new_weight = weight.astype(np.float64) * scale.reshape(shape)
        new_bias = new_bias * scale
    replace_weights(names, node, np.asarray(new_weight, np.float64), new_bias)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    ir.convenience.replace_all_uses_with(follower.outputs[0], output, replace_graph_outputs=True)
    graph.remove(follower, safe=True)
    return True


def _per_channel(
    operand: npt.NDArray[np.generic], channels: int, rank: int, node: ir.Node
) -> npt.NDArray[np.float64] | None:
    """`[channels]` when the operand is one number per channel of the node's output."""
    if operand.ndim > rank:
        return None
    values = np.asarray(operand, np.float64)
    if values.size == 1:
        return np.full(channels, values.reshape(-1)[0])
    shape = (1,) * (rank - values.ndim) + values.shape
    axis = 1 if node.op_type == "Conv" else rank - 1
    fits = all(size == (channels if at == axis else 1) for at, size in enumerate(shape))
    return values.reshape(-1) if fits else None
