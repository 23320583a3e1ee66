"""Move constant scales and offsets per channel into the convolutions around them.

- backward: Conv or Gemm, then Add/Sub/Mul/Div → one Conv or Gemm (so that a BatchNormalization
  behind a separate bias is reached too);
- forward: Mul, then only Convs → their weights; Add, then only Convs without padding → their
  biases. Padding adds zeros *behind* the Add, so there the Add stays; a Mul before it is moved
  through: a·x + b = a·(x + b/a).
- two Convs in a row, the first 1×1, with nothing between → one, where that has no more weights.
"""

from typing import cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import add_initializer, attribute, constant, is_standard
from onnxpress.layers import is_scaled_gemm
from onnxpress.passes.simplify.activations import split_constant

__all__ = ["FoldAffine", "FoldAffineForward", "MergeConvolutions", "OffsetsAsConvolutions"]

Vector = npt.NDArray[np.float64]


class FoldAffine(ir.passes.InPlacePass):
    """Fold a constant per-channel Add/Sub/Mul/Div into the Conv or Gemm before it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        folded = 0
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type in ("Conv", "Gemm"):
                folded += _fold_follower(node)
        return ir.passes.PassResult(model, bool(folded))


def _fold_follower(node: ir.Node) -> bool:
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
    _rewrite_weights(node, np.asarray(new_weight, np.float64), new_bias)
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


class FoldAffineForward(ir.passes.InPlacePass):
    """Fold a constant Mul, Div, Add or Sub per channel into the Convs that alone read it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        folded = 0
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type in ("Mul", "Div", "Add", "Sub"):
                folded += _fold_forward(node)
        return ir.passes.PassResult(model, bool(folded))


def _fold_forward(node: ir.Node) -> bool:
    parts = split_constant(node)
    if parts is None or not isinstance(node.graph, ir.Graph):
        return False
    x, operand = parts
    readers = _convolutions(node.outputs[0])
    if readers:
        channels = _input_channels(readers[0])
        vector = _input_vector(operand, channels)
        if vector is None or any(_input_channels(reader) != channels for reader in readers):
            return False
        if node.op_type in ("Mul", "Div"):
            return _fold_scale(node, x, vector, readers)
        return not any(map(_pads, readers)) and _fold_offset(node, x, vector, readers)
    return node.op_type == "Mul" and _scale_behind_offset(node, x, operand)


def _convolutions(value: ir.Value) -> list[ir.Node]:
    """The Convs that read a value, each with weights of its own; empty if anything else does."""
    if value.is_graph_output():
        return []
    readers = []
    for node, index in value.uses():
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        fits = (
            is_standard(node)
            and node.op_type == "Conv"
            and index == 0
            and weight is not None
            and constant(weight) is not None
            and len(weight.uses()) == 1
            and (bias is None or constant(bias) is not None)
        )
        if not fits:
            return []
        readers.append(node)
    return readers


def _weight(conv: ir.Node) -> npt.NDArray[np.floating]:
    weight = constant(conv.inputs[1])
    assert weight is not None
    assert np.issubdtype(weight.dtype, np.floating)
    return cast("npt.NDArray[np.floating]", weight)


def _input_channels(conv: ir.Node) -> int:
    return int(_weight(conv).shape[1]) * attribute(conv, "group", 1)


def _pads(conv: ir.Node) -> bool:
    mode = conv.attributes.get("auto_pad")
    if mode is not None and mode.as_string() not in ("NOTSET", "VALID"):
        return True
    pads = conv.attributes.get("pads")
    return pads is not None and any(pads.as_ints())


def _input_vector(operand: ir.Value, channels: int) -> Vector | None:
    """`[channels]` when a constant is one finite number, or one per channel of axis 1."""
    values = constant(operand)
    if values is None or values.dtype.kind != "f" or not np.isfinite(values).all():
        return None
    array = np.asarray(values, np.float64)
    if array.size == 1:
        # More axes than the tensor has would add axes to it.
        return np.full(channels, array.reshape(-1)[0]) if array.ndim <= 3 else None
    if array.ndim < 3 or array.size != channels:
        return None
    fits = array.shape[-1] == array.shape[-2] == 1 and array.ndim <= 4
    return array.reshape(-1) if fits and array.shape[-3] == channels else None


def _by_input(conv: ir.Node, vector: Vector) -> npt.NDArray[np.float64]:
    """A number per input channel in the shape of the weight, `[out, in of the group, 1, …]`."""
    weight = _weight(conv)
    groups = attribute(conv, "group", 1)
    rows = np.repeat(vector.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(rows.shape + (1,) * (weight.ndim - 2))


def _rewrite_weights(
    conv: ir.Node, weight: npt.NDArray[np.floating] | None, bias: npt.NDArray[np.floating] | None
) -> None:
    kind = _weight(conv).dtype
    old = conv.inputs[1]
    assert old is not None
    assert old.name is not None
    graph = old.graph or conv.graph
    assert isinstance(graph, ir.Graph)
    if weight is not None:
        conv.replace_input_with(
            1, add_initializer(graph, f"{old.name}_folded", weight.astype(kind))
        )
    if bias is not None:
        if len(conv.inputs) < 3:
            conv.resize_inputs(3)
        conv.replace_input_with(2, add_initializer(graph, f"{old.name}_bias", bias.astype(kind)))


def _fold_scale(node: ir.Node, x: ir.Value, vector: Vector, readers: list[ir.Node]) -> bool:
    if node.op_type == "Div":
        if not vector.all():
            return False
        vector = 1.0 / vector
    for conv in readers:
        _rewrite_weights(conv, _weight(conv) * _by_input(conv, vector), None)
    _bypass(node, x)
    return True


def _fold_offset(node: ir.Node, x: ir.Value, vector: Vector, readers: list[ir.Node]) -> bool:
    if node.op_type == "Sub":
        vector = -vector
    for conv in readers:
        weight = _weight(conv).astype(np.float64)
        moved = (weight * _by_input(conv, vector)).reshape(len(weight), -1).sum(axis=1)
        bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
        base = 0.0 if bias is None else bias.astype(np.float64)
        _rewrite_weights(conv, None, base + moved)
    _bypass(node, x)
    return True


def _scale_behind_offset(mul: ir.Node, x: ir.Value, factor: ir.Value) -> bool:
    """a·x + b, read by padded Convs → x + b/a, and a into the Convs."""
    uses = list(mul.outputs[0].uses())
    if len(uses) != 1 or mul.outputs[0].is_graph_output():
        return False
    add = uses[0].node
    parts = split_constant(add)
    if not is_standard(add) or add.op_type != "Add" or parts is None or add.graph is not mul.graph:
        return False
    readers = _convolutions(add.outputs[0])
    if not readers:
        return False
    channels = _input_channels(readers[0])
    scale, offset = _input_vector(factor, channels), _input_vector(parts[1], channels)
    if scale is None or offset is None or not scale.all():
        return False
    if any(_input_channels(reader) != channels for reader in readers):
        return False
    quotient = offset / scale
    kind = _weight(readers[0]).dtype
    if not np.isfinite(quotient.astype(kind)).all():
        return False
    for conv in readers:
        _rewrite_weights(conv, _weight(conv) * _by_input(conv, scale), None)
    home = parts[1].graph or add.graph
    assert isinstance(home, ir.Graph)
    both = [constant(value) for value in (factor, parts[1])]
    uniform = all(array is not None and array.size == 1 for array in both)
    stored = quotient[:1] if uniform else quotient.reshape(-1, 1, 1)
    add.replace_input_with(0, x)
    add.replace_input_with(1, add_initializer(home, f"{add.name}_offset", stored.astype(kind)))
    return True


def _bypass(node: ir.Node, x: ir.Value) -> None:
    assert isinstance(node.graph, ir.Graph)
    ir.convenience.replace_all_uses_with(node.outputs[0], x)
    node.graph.remove(node, safe=True)


class MergeConvolutions(ir.passes.InPlacePass):
    """Write a 1×1 Conv and the Conv that alone reads it as one, where that has no more weights.

    Both are linear: W = W₂·W₁ for every tap of the second, b = W₂·b₁ + b₂. A first Conv with a
    bias is merged only into a second without padding.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        merged = 0
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type == "Conv" and node.graph is not None:
                merged += _merge(node)
        return ir.passes.PassResult(model, bool(merged))


def _merge(first: ir.Node) -> bool:
    x = first.inputs[0]
    uses = list(first.outputs[0].uses())
    readers = _convolutions(first.outputs[0])
    if len(uses) != 1 or not readers or x is None or not _is_pointwise(first):
        return False
    second = readers[0]
    if second.graph is not first.graph or attribute(second, "group", 1) != 1:
        return False
    inner = _weight(first).astype(np.float64)
    outer = _weight(second).astype(np.float64)
    offset = constant(first.inputs[2]) if len(first.inputs) > 2 else None
    if offset is None and len(first.inputs) > 2 and first.inputs[2] is not None:
        return False
    if offset is not None and offset.any() and _pads(second):
        return False
    matrix = inner.reshape(inner.shape[:2])
    weight = np.einsum("oi...,ij->oj...", outer, matrix)
    if weight.size > inner.size + outer.size:
        return False
    bias = None
    if offset is not None:
        own = constant(second.inputs[2]) if len(second.inputs) > 2 else None
        moved = outer.reshape(*outer.shape[:2], -1).sum(axis=2) @ offset.astype(np.float64)
        bias = moved + (0.0 if own is None else own.astype(np.float64))
    _rewrite_weights(second, weight, bias)
    second.replace_input_with(0, x)
    assert isinstance(first.graph, ir.Graph)
    first.graph.remove(first, safe=True)
    return True


def _is_pointwise(conv: ir.Node) -> bool:
    weight = constant(conv.inputs[1])
    if weight is None or any(size != 1 for size in weight.shape[2:]) or _pads(conv):
        return False
    strides = conv.attributes.get("strides")
    return attribute(conv, "group", 1) == 1 and (
        strides is None or all(step == 1 for step in strides.as_ints())
    )


class OffsetsAsConvolutions(ir.passes.InPlacePass):
    """Write an Add per channel between two Convs as a depthwise 1×1 Conv.

    For runtimes that keep Convs in a blocked layout: an Add of a constant is computed outside
    of it, and the two conversions cost more than the sum (8% of a text-line recognizer).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        changed = 0
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type == "Add":
                changed += _offset_as_convolution(node)
        return ir.passes.PassResult(model, bool(changed))


def _offset_as_convolution(add: ir.Node) -> bool:
    parts = split_constant(add)
    readers = _convolutions(add.outputs[0])
    if parts is None or not readers or not isinstance(add.graph, ir.Graph):
        return False
    channels = _input_channels(readers[0])
    vector = _input_vector(parts[1], channels)
    if vector is None or not _behind_convolution(parts[0]):
        return False
    kind = _weight(readers[0]).dtype
    rank = _weight(readers[0]).ndim
    ones = np.ones((channels, 1) + (1,) * (rank - 2), kind)
    graph = add.graph
    inputs = [
        parts[0],
        add_initializer(graph, f"{add.name}_ones", ones),
        add_initializer(graph, f"{add.name}_offsets", vector.astype(kind)),
    ]
    attributes = [
        ir.AttrInt64("group", channels),
        ir.AttrInt64s("kernel_shape", [1] * (rank - 2)),
    ]
    conv = ir.Node("", "Conv", inputs, attributes, name=add.name)
    old = add.outputs[0]
    conv.outputs[0].type, conv.outputs[0].shape = old.type, old.shape
    graph.insert_after(add, conv)
    ir.convenience.replace_all_uses_with(old, conv.outputs[0])
    graph.remove(add, safe=True)
    conv.outputs[0].name = old.name
    return True


_POINTWISE = ("Relu", "Clip", "HardSigmoid", "Mul", "Sigmoid", "LeakyRelu")


def _behind_convolution(value: ir.Value) -> bool:
    """Whether a Conv computes the value, but for activation functions."""
    producer = value.producer()
    while producer is not None and producer.op_type in _POINTWISE:
        source = producer.inputs[0]
        producer = None if source is None else source.producer()
    return producer is not None and producer.op_type == "Conv"
