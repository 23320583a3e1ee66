"""Walk a graph, ask every operator's rule, and follow shapes that are computed.

A rule reads the axes of a node's inputs and gives those of its outputs, uniting and blocking atoms
on the way; an operator without a rule blocks whatever it reads. Shapes (Shape, Gather, Concat →
Reshape) are followed element by element: an element is a number, or the axis whose size it is,
which then follows by itself when the axis gets shorter.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxpress.graph import attribute, constant, is_standard, node_label
from onnxpress.passes.prune.coupling import Atoms, Axes, Coupling, Dynamic, fixed, still

__all__ = [
    "Element",
    "Reader",
    "Rule",
    "bounds",
    "integers",
    "registering",
    "spatial",
    "unchanging",
]

Element = int | Atoms | Dynamic
"""Of a shape: a number, or the axis whose size it is."""

_MOST_AXES = 64
_SHAPE_OPERATORS = frozenset(
    ["Shape", "Gather", "Slice", "Concat", "Cast", "Squeeze", "Unsqueeze", "Identity"]
)


class Reader:
    """Walks a graph and fills in a coupling."""

    def __init__(self, rules: "Mapping[str, Rule]", opset: int = 13) -> None:
        self._rules = rules
        self.opset = opset
        self.coupling = Coupling()
        self.shapes: dict[ir.Value, list[Element]] = {}
        """Elements of tensors that hold shapes."""
        self.needs_all: set[ir.Node] = set()
        """Nodes that run on all channels, the removed ones put back as zeros (LRN)."""
        self.summed: list[Atoms] = []
        """Axes that are summed over without weights of their own."""

    # What is known of a value

    def axes(self, value: ir.Value | None) -> Axes | None:
        """The axes of a tensor, or `None` where not even their number is known."""
        if value is None:
            return None
        known = self.coupling.axes.get(value)
        if known is not None:
            return known
        array = constant(value)
        if array is None:
            return None
        axes: Axes = [self.coupling.stated(size) for size in array.shape]
        self.coupling.axes[value] = self.coupling.constants[value] = axes
        return axes

    def adopt(self, value: ir.Value | None, axes: Axes, reason: str) -> None:
        """Say what the axes of a tensor are, trailing ones of size one being broadcast."""
        if value is None:
            return
        known = self.axes(value)
        if known is None:
            if value.const_value is None or value.is_graph_input():
                self.coupling.block_all(axes, reason)
            return
        for mine, other in zip(known[::-1], axes[::-1], strict=False):
            self.coupling.relate(mine, other, reason)

    def vanishes(self, value: ir.Value | None) -> bool:
        """Whether the tensor is zero where the constants of a unit are."""
        if value is None:
            return True
        known = self.coupling.vanishes.get(value)
        if known is not None:
            return known
        array = constant(value)
        if array is None or array.dtype.kind not in "fiub":
            return False
        return any(size > 1 for size in array.shape) or not array.any()

    def vanishes_in(self, value: ir.Value | None, result: Axes) -> bool:
        """`vanishes` for an operand that may be broadcast: what has no such axis stays as it is."""
        array = constant(value)
        if array is not None and not array.any():
            return True
        axes = self.axes(value)
        if axes is None or not self.vanishes(value):
            return False
        padded = [fixed(1)] * (len(result) - len(axes)) + axes
        return all(
            isinstance(whole, Dynamic)
            or not (whole >= 0).any()
            or (not isinstance(mine, Dynamic) and len(mine) == len(whole))
            for mine, whole in zip(padded, result, strict=True)
        )

    def elements(self, value: ir.Value | None) -> list[Element] | None:
        """A shape element by element, or `None` where it is not known how it comes about."""
        if value is None:
            return None
        if value in self.shapes:
            return self.shapes[value]
        array = constant(value)
        if array is None or array.dtype.kind not in "iu" or array.ndim > 1:
            return None
        return [int(number) for number in array.reshape(-1)]

    # The walk

    def graph(self, graph: ir.Graph, *, body_of: ir.Node | None = None) -> None:
        """Read a graph, and the bodies inside it."""
        for value in graph.inputs:
            given = f"they are the model's input {value.name!r}"
            if body_of is not None:
                given = f"{node_label(body_of)} hands them to its body"
            self.given(value, given)
        for node in graph:
            self.node(node)
        owner = "the model" if body_of is None else node_label(body_of)
        for value in graph.outputs:
            axes = self.axes(value)
            self._use_of_shape(value, "is given out")
            if axes is not None:
                self.coupling.block_all(axes, f"they are the output {value.name!r} of {owner}")

    def given(self, value: ir.Value, reason: str) -> None:
        """A tensor that comes from elsewhere: its axes have to stay."""
        if value.shape is None:
            return
        axes: Axes = [
            self.coupling.stated(dim) if isinstance(dim, int) else Dynamic() for dim in value.shape
        ]
        self.coupling.block_all(axes, reason)
        self.coupling.axes[value] = axes

    def node(self, node: ir.Node) -> None:
        """Read one node."""
        bodies = [
            body
            for attr in node.attributes.values()
            for body in (
                [attr.as_graph()]
                if attr.type == ir.AttributeType.GRAPH
                else attr.as_graphs()
                if attr.type == ir.AttributeType.GRAPHS
                else []
            )
        ]
        for body in bodies:
            self.graph(body, body_of=node)
        if node.op_type in _SHAPE_OPERATORS and self._shape_operator(node):
            return
        rule = self._rules.get(node.op_type) if is_standard(node) and not bodies else None
        outputs = None
        if rule is not None and any(self.axes(value) is not None for value in node.inputs):
            outputs = rule(self, node)
        if outputs is None:
            self._refuse(node)
            return
        for value, axes in zip(node.outputs, outputs, strict=False):
            if axes is not None:
                self.coupling.axes[value] = axes

    def _refuse(self, node: ir.Node) -> None:
        reason = f"{node_label(node)} does not say which of them belong together"
        for value in node.inputs:
            if value is None:
                continue
            axes = self.axes(value)
            if axes is not None:
                self.coupling.block_all(axes, reason)
            self._use_of_shape(value, f"{node_label(node)} computes with their number")
        for value in node.outputs:
            self.given(value, reason)

    def _use_of_shape(self, value: ir.Value, reason: str) -> None:
        """A size that is used in a way that is not followed has to stay."""
        for element in self.shapes.get(value, []):
            if isinstance(element, np.ndarray):
                self.coupling.block(element, reason)

    def _shape_operator(self, node: ir.Node) -> bool:
        """Follow a shape; whether the node is about shapes."""
        source = node.inputs[0] if node.inputs else None
        output = node.outputs[0]
        if node.op_type == "Shape":
            axes = self.axes(source)
            if axes is None:
                return True
            start, end = attribute(node, "start", 0), attribute(node, "end", len(axes))
            self.shapes[output] = list(axes[start:end])
            return True
        if node.op_type == "Concat":
            if not any(value in self.shapes for value in node.inputs if value is not None):
                return False
            pieces = [self.elements(value) for value in node.inputs]
            # A piece of unknown origin is one number, or nobody knows which place is which.
            self.shapes[output] = [
                element
                for piece, value in zip(pieces, node.inputs, strict=True)
                for element in (piece if piece is not None else _unknown(value))
            ]
            return True
        if source not in self.shapes:
            return False
        elements = self.shapes[source]
        picked: list[Element] | None = elements
        if node.op_type == "Gather":
            indices = constant(node.inputs[1])
            picked = None
            if indices is not None:
                picked = [elements[int(index)] for index in indices.reshape(-1)]
        elif node.op_type == "Slice":
            found = bounds(node)
            picked = None
            if found is not None and len(found) == 1 and found[0][0] in (0, -1):
                _, start, end, step = found[0]
                picked = elements[start:end:step]
        if picked is None:
            self._use_of_shape(source, f"{node_label(node)} computes with their number")
            return True
        self.shapes[output] = picked
        return True


def _unknown(value: ir.Value | None) -> list[Element]:
    size = 1
    if value is not None and value.shape is not None and len(value.shape) == 1:
        dim = value.shape[0]
        size = min(dim, _MOST_AXES) if isinstance(dim, int) else 1
    return [Dynamic() for _ in range(size)]


Rule = Callable[[Reader, ir.Node], "list[Axes | None] | None"]
"""Gives the axes of each output; `None` for a node that is not understood."""


def registering(rules: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that takes names of operators and enters a rule for them."""

    def of(*operators: str) -> Callable[[Rule], Rule]:
        def register(rule: Rule) -> Rule:
            rules.update(dict.fromkeys(operators, rule))
            return rule

        return register

    return of


def unchanging(value: ir.Value, axis: int, rank: int) -> Atoms | Dynamic:
    """An axis of an output along which nothing is ever removed (height, width)."""
    if value.shape is not None and len(value.shape) == rank:
        dim = value.shape[axis]
        if isinstance(dim, int):
            return still(dim)
    return Dynamic()


def integers(node: ir.Node, name: str, index: int) -> list[int] | None:
    """Integers that are an attribute in older opsets and a constant input in newer ones."""
    found = node.attributes.get(name)
    if found is not None:
        return [found.as_int()] if found.type == ir.AttributeType.INT else list(found.as_ints())
    if index < len(node.inputs) and node.inputs[index] is not None:
        array = constant(node.inputs[index])
        return None if array is None else [int(number) for number in array.reshape(-1)]
    return []


def spatial(node: ir.Node, axes: Axes) -> Axes:
    """The axes behind the channels of a node's output."""
    output = node.outputs[0]
    return [unchanging(output, axis, len(axes)) for axis in range(2, len(axes))]


def bounds(node: ir.Node) -> list[tuple[int, int, int, int]] | None:
    """`(axis, start, end, step)` of a Slice; `None` where they are computed."""
    found = [
        integers(node, n, i) for n, i in (("starts", 1), ("ends", 2), ("axes", 3), ("steps", 4))
    ]
    starts, ends, axes, steps = found
    if starts is None or ends is None or axes is None or steps is None:
        return None
    axes = axes or list(range(len(starts)))
    return list(zip(axes, starts, ends, steps or [1] * len(starts), strict=True))
