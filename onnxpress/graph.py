"""What every pass needs of a graph: constants, attributes, bodies, names that are free."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "add_initializer",
    "attribute",
    "bodies",
    "constant",
    "drop_unused",
    "insert_behind",
    "is_standard",
    "node_label",
    "prepend",
    "remembered_names",
    "standard_opset",
    "static_shape",
    "take_over",
    "unique_name",
]


def standard_opset(model: ir.Model) -> int:
    """The version of ONNX's own operator set that the model imports."""
    return int(model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1)))


def is_standard(node: ir.Node) -> bool:
    """Whether the node is of ONNX's own operator set."""
    return node.domain in ("", "ai.onnx")


def attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default in the operator specification."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.as_int()


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs inside an If, Loop or Scan."""
    found = (value for value in node.attributes.values() if not value.is_ref())
    return [value.as_graph() for value in found if value.type == ir.AttributeType.GRAPH]


def node_label(node: ir.Node) -> str:
    """How messages name a node."""
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array of a value that never changes, or `None`.

    An initializer that is a graph input too may be overridden by the caller: not constant.
    """
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape when every dimension is known, else `None`."""
    if value is None or value.shape is None:
        return None
    dims = [dim for dim in value.shape if isinstance(dim, int)]
    return tuple(dims) if len(dims) == len(value.shape) else None


_REMEMBERED: dict[int, set[str]] = {}


@contextmanager
def remembered_names(graph: ir.Graph) -> Iterator[None]:
    """Within it, `unique_name` looks the graph over once instead of at every call.

    For a rewrite that takes all new names from `unique_name`: a look costs milliseconds, and
    a rewrite makes thousands of names. Names are then unique in the graph and all its bodies,
    whichever of these is asked.
    """
    names = _names(graph)
    graphs = [graph, *graph.subgraphs()]
    _REMEMBERED.update((id(one), names) for one in graphs)
    try:
        yield
    finally:
        for one in graphs:
            del _REMEMBERED[id(one)]


def unique_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or with a number behind it when the graph or what is in it has that name."""
    remembered = _REMEMBERED.get(id(graph))
    taken = _names(graph) if remembered is None else remembered
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    if remembered is not None:
        remembered.add(name)
    return name


def add_initializer(
    graph: ir.Graph, wanted: str, array: npt.NDArray[np.generic], dtype: ir.DataType | None = None
) -> ir.Value:
    """Register `array` under `wanted`, or that name with a number behind it."""
    name = unique_name(graph, wanted)
    tensor = ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def take_over(old: ir.Node, new: ir.Node) -> None:
    """Let `new` stand for `old` in every place, its output name included; `old` is removed."""
    output = old.outputs[0]
    assert isinstance(old.graph, ir.Graph)
    new.outputs[0].type, new.outputs[0].shape = output.type, output.shape
    name = output.name
    ir.convenience.replace_all_uses_with(output, new.outputs[0], replace_graph_outputs=True)
    old.graph.remove(old, safe=True)
    new.outputs[0].name = name


def _names(graph: ir.Graph) -> set[str]:
    names = {value.name or "" for value in graph.inputs}
    names.update(graph.initializers)
    for node in graph.all_nodes():
        names.update(value.name or "" for value in node.outputs)
        if node.graph is not None and node.graph is not graph:
            names.update(node.graph.initializers)
            names.update(value.name or "" for value in node.graph.inputs)
    return names


def prepend(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Insert before everything else."""
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
    """After the node that computes a value, or first where none of this graph does."""
    producer = value.producer()
    if producer is None or producer.graph is not graph:
        prepend(graph, nodes)
    else:
        graph.insert_after(producer, nodes)


def drop_unused(value: ir.Value) -> None:
    """Remove an initializer that nothing reads any more."""
    if not value.uses() and value.graph is not None and not value.is_graph_output():
        del value.graph.initializers[value.name or ""]
