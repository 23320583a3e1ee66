"""What every pass needs of a graph: constants, attributes, bodies, names that are free."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.spill import kept

__all__ = [
    "Names",
    "add_initializer",
    "attribute",
    "bodies",
    "constant",
    "drop_unused",
    "graphs_of",
    "insert_behind",
    "is_constant",
    "is_standard",
    "name_nodes_apart",
    "node_label",
    "prepend",
    "standard_opset",
    "static_shape",
    "take_over",
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


RANDOM_OPERATORS = frozenset(
    [
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ]
)
"""Operators that draw other numbers in every run, unless they are given a seed."""


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs inside an If, Loop or Scan."""
    found = (value for value in node.attributes.values() if not value.is_ref())
    return [value.as_graph() for value in found if value.type == ir.AttributeType.GRAPH]


def graphs_of(graph: ir.Graph) -> list[ir.Graph]:
    """A graph and the bodies of its nodes at any depth, in the order of the nodes.

    As onnx-ir's `subgraphs`, which takes ten times as long: it makes an iterator for each node.
    """
    found = [graph]
    for node in graph:
        for attribute in node.attributes.data.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                found += graphs_of(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                found += (one for body in attribute.as_graphs() for one in graphs_of(body))
    return list(dict.fromkeys(found))


def node_label(node: ir.Node) -> str:
    """How messages name a node."""
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value never changes; nothing of it is read.

    An initializer that is a graph input too may be overridden by the caller: not constant.
    """
    return value is not None and value.const_value is not None and not value.is_graph_input()


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array of a value that never changes, or `None` (`is_constant`)."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return value.const_value.numpy()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape when every dimension is known, else `None`."""
    if value is None or value.shape is None:
        return None
    dims = [dim for dim in value.shape if isinstance(dim, int)]
    return tuple(dims) if len(dims) == len(value.shape) else None


class Names:
    """Names that no tensor and no node of a model has, in the main graph or in any body.

    A rewrite takes all its new names from one such register.

    Attributes:
        root: the main graph.
    """

    def __init__(self, model: ir.Model | ir.Graph) -> None:
        """Look a model over once; what is added otherwise afterwards is not known."""
        root = model.graph if isinstance(model, ir.Model) else model
        self._taken: set[str] = set()
        self.root = root
        for graph in graphs_of(root):
            self._taken.update(value.name or "" for value in graph.inputs)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.add(node.name or "")
                self._taken.update(value.name or "" for value in node.outputs)

    def free(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken; it is taken from now on."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def add_initializer(
    names: Names,
    graph: ir.Graph,
    wanted: str,
    array: npt.NDArray[np.generic],
    dtype: ir.DataType | None = None,
) -> ir.Value:
    """Register `array` under `wanted`, or that name with a number behind it."""
    name = names.free(wanted)
    tensor = ir.Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=kept(names.root, tensor),
    )
    graph.register_initializer(value)
    return value


def name_nodes_apart(model: ir.Model) -> None:
    """Give every node, in bodies too, a name of its own; those that have one keep it.

    Plans, reports and statistics refer to nodes by name, and onnxruntime refuses two of one name.
    """
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        stem = node.name or f"{node.op_type}_{node.outputs[0].name if node.outputs else ''}"
        name, number = stem, 1
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        if node.name != name:
            node.name = name


def take_over(old: ir.Node, new: ir.Node) -> None:
    """Let `new` stand for `old` in every place, its output name included; `old` is removed."""
    output = old.outputs[0]
    assert isinstance(old.graph, ir.Graph)
    new.outputs[0].type, new.outputs[0].shape = output.type, output.shape
    name = output.name
    ir.convenience.replace_all_uses_with(output, new.outputs[0], replace_graph_outputs=True)
    old.graph.remove(old, safe=True)
    new.outputs[0].name = name


def prepend(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Insert before everything else."""
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def replace_initializer(
    graph: ir.Graph, value: ir.Value, nodes: list[ir.Node], result: ir.Value
) -> None:
    """Let nodes compute a constant of the graph from now on; what they give takes its name."""
    name = value.name or ""
    prepend(graph, nodes)
    ir.convenience.replace_all_uses_with(value, result)
    del graph.initializers[name]
    result.name = name


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
