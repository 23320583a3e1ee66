"""Half arithmetic on a processor that has none: a float32 model that rounds after every operator.

Where a provider has no half kernel onnxruntime puts float32 ones between Casts and may leave those
out in between, so a run of a half model shows what its provider does, not what another would. Here
every half tensor is a float32 tensor with a Cast to half and back behind what gives it, run without
optimizations: overflow is infinite, small numbers lose bits, and each operator rounds once. What a
kernel adds up inside is float32, as GPUs and ARM processors have it for products.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, bodies, graphs_of, insert_behind

__all__ = ["emulated"]

_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
_MOVES = frozenset(
    [
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
        *("Unsqueeze", "Relu", "Max", "Min", "MaxPool", "Abs", "Neg"),
    ]
)
"""Operators that give no number that they do not read, or its negative: nothing to round."""


def emulated(model: ir.Model) -> ir.Model:
    """A copy of a model with half tensors that computes them in float32 and rounds each.

    Args:
        model: with the types of its half tensors; not changed. Inputs and outputs stay as they are.
    """
    copy = model.clone()
    names = Names(copy)
    graphs = graphs_of(copy.graph)
    main = {id(value) for value in copy.graph.inputs}
    rounded = [value for graph in graphs for node in graph for value in _to_round(node)]
    for graph in graphs:
        for node in graph:
            _widen_attributes(node)
        for value in (*graph.inputs, *graph.initializers.values(), *_outputs(graph)):
            if id(value) not in main or not _is_half(value):
                _widen(value)
    for value in copy.graph.inputs:
        if _is_half(value):
            _put_behind(names, copy.graph, value, (_FLOAT,))
    for value in rounded:
        owner = value.graph
        assert owner is not None
        _put_behind(names, owner, value, (_HALF, _FLOAT))
    for index, value in enumerate(model.graph.outputs):
        if _is_half(value):
            _as_half_again(names, copy.graph, index)
    return copy


def _to_round(node: ir.Node) -> list[ir.Value]:
    """What an operator gives in half, but for what bodies give and what is only moved."""
    if bodies(node) or (node.op_type in _MOVES and all(_fits(v) for v in node.inputs)):
        return []
    return [value for value in node.outputs if _is_half(value)]


def _fits(value: ir.Value | None) -> bool:
    return value is None or value.dtype != _FLOAT


def _is_half(value: ir.Value) -> bool:
    return value.dtype == _HALF and isinstance(value.type, ir.TensorType)


def _outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


def _widen(value: ir.Value) -> None:
    if value.dtype != _HALF:
        return
    tensor = value.const_value
    if tensor is not None:
        value.const_value = ir.Tensor(tensor.numpy().astype(np.float32), name=value.name)
    value.type = ir.TensorType(_FLOAT)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _HALF:
            array = attribute.as_tensor().numpy().astype(np.float32)
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
        elif name in ("to", "dtype", "output_datatype") and attribute.as_int() == _HALF:
            node.attributes[name] = ir.AttrInt64(name, _FLOAT)


def _put_behind(
    names: Names, graph: ir.Graph, value: ir.Value, types: tuple[ir.DataType, ...]
) -> None:
    """Casts behind a tensor, which all that read it read instead."""
    uses, last, nodes = value.uses(), value, []
    for kind in types:
        node = ir.node("Cast", [last], {"to": kind}, name=names.free(f"{value.name}_rounding"))
        last = node.outputs[0]
        last.name, last.shape = names.free(f"{value.name}_rounded"), value.shape
        last.type = ir.TensorType(kind)
        nodes.append(node)
    for use in uses:
        use.node.replace_input_with(use.idx, last)
    insert_behind(graph, value, nodes)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = last
            if last.name != value.name and value.producer() is not None:
                value.name, last.name = last.name, value.name


def _as_half_again(names: Names, graph: ir.Graph, index: int) -> None:
    """An output of the model in half, as it was."""
    value = graph.outputs[index]
    if value.dtype == _HALF:
        return
    node = ir.node("Cast", [value], {"to": _HALF}, name=names.free(f"{value.name}_as_half"))
    made = node.outputs[0]
    made.type, made.shape = ir.TensorType(_HALF), value.shape
    made.name = names.free(f"{value.name}_half")
    value.name, made.name = made.name, value.name
    graph.outputs[index] = made
    insert_behind(graph, value, [node])
