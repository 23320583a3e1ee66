"""Where a constant per output can be added: bias inputs, and the Add behind a MatMul."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, constant, drop_unused, is_constant, is_standard
from onnxpress.layers import Layer, is_scaled_gemm
from onnxpress.recurrent import BIAS, INPUT_WEIGHT, is_recurrent

__all__ = ["shift_bias", "takes_bias"]


def takes_bias(layer: Layer) -> bool:
    """Whether every use of the weight can take up a constant per output.

    Gemm and Conv can when their bias is absent or constant; a MatMul when only an Add of a
    constant row reads it, as exporters write a linear layer. ConvTranspose cannot: several rows
    of its matrix add up to one output. Of a recurrent operator W has a half of B.
    """
    if any(is_recurrent(use.node) for use in layer.uses):
        return all(_takes_halves(use.node, use.index) for use in layer.uses)
    outputs = layer.read().shape[0]
    return all(_place(use.node, outputs) is not None for use in layer.uses)


def shift_bias(
    names: Names, graph: ir.Graph, node: ir.Node, offset: npt.NDArray[np.floating]
) -> None:
    """Add `offset` `[out]` to what `node` computes; an offset of zeros changes nothing.

    The new bias is an initializer of its own: other nodes may read the old one.

    Args:
        names: that are free in the model.
        graph: that holds initializers.
        node: for which `takes_bias` holds.
        offset: in float64.
    """
    if not offset.any():
        return
    if is_recurrent(node):
        _shift_halves(names, graph, node, offset)
        return
    place = _place(node, len(offset))
    assert place is not None
    user, index = place
    old = user.inputs[index] if index < len(user.inputs) else None
    base = constant(old)
    if base is None:
        weight = constant(user.inputs[1])
        assert weight is not None
        dtype, shape, start = weight.dtype, offset.shape, np.zeros(len(offset))
        stem = f"{node.name or node.outputs[0].name}_bias"
    else:
        # A Gemm's bias may be one number, or a row with a leading axis.
        shape = base.shape if base.size == len(offset) else offset.shape
        dtype, start = base.dtype, np.broadcast_to(base.reshape(-1), offset.shape)
        stem = f"{old.name if old is not None else node.name}_shifted"
    value = add_initializer(names, graph, stem, (start + offset).reshape(shape).astype(dtype))
    if index >= len(user.inputs):
        user.resize_inputs(index + 1)
    user.replace_input_with(index, value)
    if old is not None and old.is_initializer():
        drop_unused(old)


def _takes_halves(node: ir.Node, index: int) -> bool:
    """Whether a recurrent operator has a constant B or none, and the weight at `index` is W."""
    bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    return (
        is_recurrent(node)
        and index == INPUT_WEIGHT
        and (bias is None or constant(bias) is not None)
    )


def _shift_halves(
    names: Names, graph: ir.Graph, node: ir.Node, offset: npt.NDArray[np.floating]
) -> None:
    """Add `[directions·gates·hidden]` to W's half of B `[directions, 2·gates·hidden]`."""
    old = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    weight, base = constant(node.inputs[INPUT_WEIGHT]), constant(old)
    assert weight is not None
    directions, rows = weight.shape[:2]
    halves = np.zeros((directions, 2 * rows)) if base is None else base.astype(np.float64)
    halves[:, :rows] += offset.reshape(directions, rows)
    stem = f"{node.name or node.op_type}_bias" if old is None else f"{old.name}_shifted"
    if len(node.inputs) <= BIAS:
        node.resize_inputs(BIAS + 1)
    node.replace_input_with(BIAS, add_initializer(names, graph, stem, halves.astype(weight.dtype)))
    if old is not None and old.is_initializer():
        drop_unused(old)


def _place(node: ir.Node, outputs: int) -> tuple[ir.Node, int] | None:
    """The node and input where a constant of `outputs` numbers is added, or `None`."""
    if node.op_type in ("Gemm", "Conv"):
        if is_scaled_gemm(node):
            return None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        values = constant(bias)
        fits = values is not None and values.size in (1, outputs)
        return (node, 2) if bias is None or fits else None
    if node.op_type != "MatMul" or node.outputs[0].is_graph_output():
        return None
    if not is_constant(node.inputs[1]):
        # Behind a constant left side the outputs run along the last axis but one.
        return None
    uses = list(node.outputs[0].uses())
    if len(uses) != 1:
        return None
    user, index = uses[0]
    if user.op_type != "Add" or not is_standard(user) or user.graph is not node.graph:
        return None
    values = constant(user.inputs[1 - index])
    # Whatever else has that many numbers may run along another axis.
    if values is None or values.size != outputs or values.shape[-1:] != (outputs,):
        return None
    return user, 1 - index
