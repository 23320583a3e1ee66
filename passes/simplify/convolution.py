"""Convs that read a value: their weights per input channel, and how those are replaced."""

from typing import cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant, is_standard

__all__ = [
    "Vector",
    "by_input",
    "convolution_readers",
    "input_channels",
    "input_vector",
    "is_padded",
    "replace_weights",
    "weight_of",
]

Vector = npt.NDArray[np.float64]


def convolution_readers(value: ir.Value) -> list[ir.Node]:
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


def weight_of(conv: ir.Node) -> npt.NDArray[np.floating]:
    """The weight `[out, in/group, *kernel]` of one of `convolution_readers`."""
    weight = constant(conv.inputs[1])
    assert weight is not None
    assert np.issubdtype(weight.dtype, np.floating)
    return cast("npt.NDArray[np.floating]", weight)


def input_channels(conv: ir.Node) -> int:
    """Of all groups."""
    return int(weight_of(conv).shape[1]) * attribute(conv, "group", 1)


def is_padded(conv: ir.Node) -> bool:
    """Whether zeros are, or may be, put around what the Conv reads."""
    mode = conv.attributes.get("auto_pad")
    if mode is not None and mode.as_string() not in ("NOTSET", "VALID"):
        return True
    pads = conv.attributes.get("pads")
    return pads is not None and any(pads.as_ints())


def input_vector(operand: ir.Value, channels: int) -> Vector | None:
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


def by_input(conv: ir.Node, vector: Vector) -> npt.NDArray[np.float64]:
    """A number per input channel in the shape of the weight, `[out, in of the group, 1, …]`."""
    weight = weight_of(conv)
    groups = attribute(conv, "group", 1)
    rows = np.repeat(vector.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(rows.shape + (1,) * (weight.ndim - 2))


def replace_weights(
    names: Names,
    conv: ir.Node,
    weight: npt.NDArray[np.floating] | None,
    bias: npt.NDArray[np.floating] | None,
) -> None:
    """Give a Conv or Gemm initializers of its own in the type of its weight; `None`: kept."""
    kind = weight_of(conv).dtype
    old = conv.inputs[1]
    assert old is not None
    assert old.name is not None
    graph = old.graph or conv.graph
    assert isinstance(graph, ir.Graph)
    if weight is not None:
        conv.replace_input_with(
            1, add_initializer(names, graph, f"{old.name}_folded", weight.astype(kind))
        )
    if bias is not None:
        if len(conv.inputs) < 3:
            conv.resize_inputs(3)
        conv.replace_input_with(
            2, add_initializer(names, graph, f"{old.name}_bias", bias.astype(kind))
        )
