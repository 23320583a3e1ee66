"""Write Convs in a row as one, and an offset between two Convs as a Conv of its own."""

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant, is_standard
from onnxpress.passes.simplify.activation_functions import split_constant
from onnxpress.passes.simplify.convolution import (
    convolution_readers,
    input_channels,
    input_vector,
    is_padded,
    replace_weights,
    weight_of,
)

__all__ = ["MergeConvolutions", "OffsetsAsConvolutions"]

_POINTWISE = ("Relu", "Clip", "HardSigmoid", "Mul", "Sigmoid", "LeakyRelu")


class MergeConvolutions(ir.passes.InPlacePass):
    """Write a 1×1 Conv and the Conv that alone reads it as one, where that has no more weights.

    Both are linear: W = W₂·W₁ for every tap of the second, b = W₂·b₁ + b₂. A first Conv with a
    bias is merged only into a second without padding.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        merged, names = 0, Names(model)
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type == "Conv" and node.graph is not None:
                merged += _merge(names, node)
        return ir.passes.PassResult(model, bool(merged))


def _merge(names: Names, first: ir.Node) -> bool:
    x = first.inputs[0]
    uses = list(first.outputs[0].uses())
    readers = convolution_readers(first.outputs[0])
    if len(uses) != 1 or not readers or x is None or not _is_pointwise(first):
        return False
    second = readers[0]
    if second.graph is not first.graph or attribute(second, "group", 1) != 1:
        return False
    inner = weight_of(first).astype(np.float64)
    outer = weight_of(second).astype(np.float64)
    offset = constant(first.inputs[2]) if len(first.inputs) > 2 else None
    if offset is None and len(first.inputs) > 2 and first.inputs[2] is not None:
        return False
    if offset is not None and offset.any() and is_padded(second):
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
    replace_weights(names, second, weight, bias)
    second.replace_input_with(0, x)
    assert isinstance(first.graph, ir.Graph)
    first.graph.remove(first, safe=True)
    return True


def _is_pointwise(conv: ir.Node) -> bool:
    weight = constant(conv.inputs[1])
    if weight is None or any(size != 1 for size in weight.shape[2:]) or is_padded(conv):
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
        changed, names = 0, Names(model)
        for node in list(model.graph.all_nodes()):
            if is_standard(node) and node.op_type == "Add":
                changed += _offset_as_convolution(names, node)
        return ir.passes.PassResult(model, bool(changed))


def _offset_as_convolution(names: Names, add: ir.Node) -> bool:
    parts = split_constant(add)
    readers = convolution_readers(add.outputs[0])
    if parts is None or not readers or not isinstance(add.graph, ir.Graph):
        return False
    channels = input_channels(readers[0])
    vector = input_vector(parts[1], channels)
    if vector is None or not _behind_convolution(parts[0]):
        return False
    kind = weight_of(readers[0]).dtype
    rank = weight_of(readers[0]).ndim
    ones = np.ones((channels, 1) + (1,) * (rank - 2), kind)
    graph = add.graph
    inputs = [
        parts[0],
        add_initializer(names, graph, f"{add.name}_ones", ones),
        add_initializer(names, graph, f"{add.name}_offsets", vector.astype(kind)),
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


def _behind_convolution(value: ir.Value) -> bool:
    """Whether a Conv computes the value, but for activation functions."""
    producer = value.producer()
    while producer is not None and producer.op_type in _POINTWISE:
        source = producer.inputs[0]
        producer = None if source is None else source.producer()
    return producer is not None and producer.op_type == "Conv"
