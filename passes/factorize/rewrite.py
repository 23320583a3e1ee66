"""The nodes that take a factorized layer's place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias
from onnxpress.graph import Names, add_initializer, take_over
from onnxpress.layers import Layer

__all__ = ["write_convolutions", "write_embedding", "write_pair", "write_recurrent", "write_shared"]

Floats = npt.NDArray[np.floating]

_SPATIAL = ("kernel_shape", "strides", "dilations", "pads")


def write_pair(names: Names, layer: Layer, first: Floats, second: Floats, offset: Floats) -> None:
    """Two Gemm or MatMul nodes for one: `first` `[rank, in]`, then `second` `[out, rank]`."""
    on_left = layer.op_type == "MatMul" and layer.uses[0].index == 0
    inner_weight = _weight(names, layer, "in", first if on_left else first.T)
    outer_weight = _weight(names, layer, "out", second if on_left else second.T)
    for use in layer.uses:
        if on_left:
            _write_before(names, layer, use.node, inner_weight, outer_weight)
        else:
            _write_behind(names, layer, use.node, inner_weight, outer_weight, offset)
    del layer.graph.initializers[layer.name]


def _write_before(
    names: Names, layer: Layer, node: ir.Node, inner_weight: ir.Value, outer_weight: ir.Value
) -> None:
    """The weight is the left side: what it multiplies stays on the right."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    inner = _node(names, layer, node, "MatMul", [inner_weight, node.inputs[1]], "in")
    outer = ir.Node("", "MatMul", [outer_weight, inner.outputs[0]], name=f"{_stem(node)}_out")
    graph.insert_before(node, [inner, outer])
    take_over(node, outer)


def _write_behind(
    names: Names,
    layer: Layer,
    node: ir.Node,
    inner_weight: ir.Value,
    outer_weight: ir.Value,
    offset: Floats,
) -> None:
    graph, data = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph)
    assert data is not None
    shift_bias(names, layer.graph, node, offset)
    inner = _node(names, layer, node, node.op_type, [data, inner_weight], "in")
    if "transA" in node.attributes:
        inner.attributes.add(node.attributes["transA"])
    outer_inputs = [inner.outputs[0], outer_weight, *node.inputs[2:]]
    outer = ir.Node("", node.op_type, outer_inputs, name=f"{_stem(node)}_out")
    for name, value in node.attributes.items():
        if name in ("alpha", "beta"):
            outer.attributes.add(value)
    graph.insert_before(node, [inner, outer])
    take_over(node, outer)


def write_shared(
    names: Names, layers: Sequence[Layer], first: Floats, seconds: Sequence[Floats]
) -> None:
    """One factor `[rank, in]` that all layers share, then one `[out, rank]` for each."""
    inner_weight = _weight(names, layers[0], "shared", first.T)
    node = layers[0].uses[0].node
    graph, data = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph)
    assert data is not None
    inner = _node(names, layers[0], node, "MatMul", [data, inner_weight], "shared")
    earliest = min((layer.uses[0].node for layer in layers), key=list(graph).index)
    graph.insert_before(earliest, [inner])
    for layer, second in zip(layers, seconds, strict=True):
        old = layer.uses[0].node
        weight = _weight(names, layer, "out", second.T)
        new = ir.Node(
            "", old.op_type, [inner.outputs[0], weight, *old.inputs[2:]], name=f"{_stem(old)}_out"
        )
        graph.insert_before(old, [new])
        take_over(old, new)
        del layer.graph.initializers[layer.name]


def write_embedding(names: Names, layer: Layer, first: Floats, second: Floats) -> None:
    """Rows of `rank` numbers are looked up, and MatMul makes them whole."""
    rows = _weight(names, layer, "in", first.T)
    columns = _weight(names, layer, "out", second.T)
    for use in layer.uses:
        node = use.node
        graph, indices = node.graph, node.inputs[1]
        assert isinstance(graph, ir.Graph)
        inner = _node(names, layer, node, "Gather", [rows, indices], "in")
        outer = ir.Node("", "MatMul", [inner.outputs[0], columns], name=f"{_stem(node)}_out")
        graph.insert_before(node, [inner, outer])
        take_over(node, outer)
    del layer.graph.initializers[layer.name]


def write_recurrent(
    names: Names, layer: Layer, first: Floats, second: Floats, offset: Floats
) -> None:
    """MatMul `[rank, in]` before LSTM, GRU or RNN, whose W becomes `[directions, gates, rank]`.

    The first factor is the same for both directions, which read the same input.
    """
    inward = _weight(names, layer, "in", first.T)
    outward = _weight(names, layer, "out", second.reshape(*layer.shape[:2], -1))
    for use in layer.uses:
        node = use.node
        graph, data = node.graph, node.inputs[0]
        assert isinstance(graph, ir.Graph)
        assert data is not None
        shift_bias(names, layer.graph, node, offset)
        made = _node(names, layer, node, "MatMul", [data, inward], "in")
        made.outputs[0].type = data.type
        graph.insert_before(node, [made])
        node.replace_input_with(0, made.outputs[0])
        node.replace_input_with(use.index, outward)
    del layer.graph.initializers[layer.name]


def write_convolutions(
    names: Names, layer: Layer, factors: Sequence[Floats], offset: Floats
) -> None:
    """Convolutions in a row; a factor that spans an axis takes that axis' strides and pads.

    Args:
        names: that are free in the model.
        layer: a Conv, or a ConvTranspose whose last factor is one too.
        factors: weights as the operator stores them, the first to act first.
        offset: `[out]` for the bias, which the last one gets.
    """
    parts = [f"{number}" for number in range(1, len(factors) + 1)]
    weights = [_weight(names, layer, n, f) for n, f in zip(parts, factors, strict=True)]
    for use in layer.uses:
        node = use.node
        graph, data = node.graph, node.inputs[0]
        assert isinstance(graph, ir.Graph)
        assert data is not None
        shift_bias(names, layer.graph, node, offset)
        new: list[ir.Node] = []
        for name, weight, factor in zip(parts, weights, factors, strict=True):
            last = weight is weights[-1]
            kind = node.op_type if last else "Conv"
            inputs = [data, weight, *(node.inputs[2:] if last else [])]
            part = _node(names, layer, node, kind, inputs, name)
            pointwise = all(size == 1 for f in factors for size in f.shape[2:])
            # The strides of a 1x1 convolution belong to the factor that acts first.
            kernel, own = layer.shape[2:], factor.shape[2:]
            _copy_spatial(node, part, kernel, own, first_takes_all=pointwise)
            new.append(part)
            data = part.outputs[0]
        graph.insert_before(node, new)
        take_over(node, new[-1])
    del layer.graph.initializers[layer.name]


def _copy_spatial(
    old: ir.Node,
    new: ir.Node,
    kernel: tuple[int, ...],
    part: tuple[int, ...],
    *,
    first_takes_all: bool,
) -> None:
    axes = len(kernel)
    is_first = old.inputs[0] is new.inputs[0]
    spans = [
        (size > 1 and part[axis] == size) or (size == 1 and is_first)
        for axis, size in enumerate(kernel)
    ]
    if old.op_type == "ConvTranspose":
        spans = [new.op_type == "ConvTranspose"] * axes
    elif first_takes_all:
        spans = [is_first] * axes
    new.attributes.add(ir.AttrInt64s("kernel_shape", list(part)))
    for name, default in (("strides", 1), ("dilations", 1)):
        if name in old.attributes:
            values = list(old.attributes[name].as_ints())
            kept = [v if span else default for v, span in zip(values, spans, strict=True)]
            new.attributes.add(ir.AttrInt64s(name, kept))
    if "pads" in old.attributes:
        values = list(old.attributes["pads"].as_ints())
        kept = [v if span else 0 for v, span in zip(values, [*spans, *spans], strict=True)]
        new.attributes.add(ir.AttrInt64s("pads", kept))
    for name, attribute in old.attributes.items():
        if name in (*_SPATIAL, "group") or (name == "auto_pad" and not any(spans)):
            continue
        if new.op_type == "ConvTranspose" or name == "auto_pad":
            new.attributes.add(attribute)


def _stem(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def _weight(names: Names, layer: Layer, which: str, array: Floats) -> ir.Value:
    stored = layer.weight.const_value
    assert stored is not None
    typed = np.ascontiguousarray(array, stored.numpy().dtype)
    return add_initializer(names, layer.graph, f"{layer.name}_factor_{which}", typed)


def _node(
    names: Names,
    layer: Layer,
    old: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    which: str,
) -> ir.Node:
    node = ir.Node("", op_type, inputs, name=f"{_stem(old)}_{which}")
    output = old.outputs[0]
    # The first output of a recurrent operator may not be asked for, and then has no name.
    node.outputs[0].name = names.free(f"{output.name or _stem(old)}_low_rank_{which}")
    node.outputs[0].type = output.type
    return node
