"""The boxes of a model's graphs: nodes, inputs and outputs, and the tensors that join them.

Constants and what is computed from constants alone are no boxes: they belong to the nodes that
read them, as files that compute the same differ in them most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnxpress.graph import RANDOM_OPERATORS, bodies, is_standard

__all__ = ["Box", "Constant", "Net", "Picture", "pictures_of", "root", "with_shapes"]

_DRAWN_AT_RANDOM = RANDOM_OPERATORS | {"Dropout"}
_COPIES = ("Identity", "Cast", "Dropout")


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant that a node reads.

    Attributes:
        value: as the node reads it.
        holder: the largest of the constants that it is computed from, maybe itself.
        tensor: what that holds; `None` where it is not at hand.
        through: operators that compute it, the last one last.
    """

    value: ir.Value
    holder: ir.Value
    tensor: ir.TensorProtocol | None
    through: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A node, or what comes into a graph or leaves it.

    Attributes:
        kind: `node`, `input`, `output`, or `outer`: a tensor of the graph around a body.
        node: of a node.
        value: of anything else.
        reads: of a node, each input that is no constant, by its place.
        constants: of a node, each input that is, by its place.
    """

    kind: str
    node: ir.Node | None = None
    value: ir.Value | None = None
    reads: dict[int, ir.Value] = field(default_factory=dict)
    constants: dict[int, Constant] = field(default_factory=dict)

    @property
    def op_type(self) -> str:
        """Of a node; its kind for anything else."""
        return self.kind if self.node is None else self.node.op_type

    @property
    def gives(self) -> tuple[ir.Value, ...]:
        """The tensors that come from it."""
        if self.node is not None:
            return tuple(self.node.outputs)
        return () if self.kind == "output" or self.value is None else (self.value,)


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """A tensor on its way: from which box to which, by their places."""

    value: ir.Value
    source: int
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One graph of a model.

    Attributes:
        title: what it is.
        boxes: in the order of computation.
        nets: the tensors that go from box to box.
        inner: pictures of bodies and functions by (place of the box, name of the attribute, or
            empty for a function).
    """

    title: str
    boxes: tuple[Box, ...]
    nets: tuple[Net, ...]
    inner: dict[tuple[int, str], "Picture"]

    def all(self) -> Iterator["Picture"]:
        """This one and all inside, each once."""
        seen: dict[Picture, None] = {self: None}
        for picture in tuple(seen):
            yield picture
            for inner in picture.inner.values():
                for found in inner.all():
                    if found not in seen:
                        seen[found] = None
                        yield found


def with_shapes(model: ir.Model) -> ir.Model:
    """A copy with the shapes that can be worked out, or as it is where these contradict."""
    copy = model.clone()
    try:
        return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(copy).model
    except (ValueError, RuntimeError, ir.passes.PassError):
        return copy


def pictures_of(model: ir.Model) -> Picture:
    """The main graph, and inside it those of bodies and functions."""
    return _Reader(model).picture(model.graph, "the graph", set())


class _Reader:
    """What is known of a model while it is read."""

    def __init__(self, model: ir.Model) -> None:
        self.functions = model.functions
        self.read: dict[ir.OperatorIdentifier, Picture] = {}

    def picture(
        self, graph: ir.Graph | ir.Function, title: str, outer_constants: set[ir.Value]
    ) -> Picture:
        constants = set(outer_constants)
        if isinstance(graph, ir.Graph):
            given = set(graph.inputs)
            constants.update(v for v in graph.initializers.values() if v not in given)
        boxes = [Box("input", value=value) for value in graph.inputs if value not in constants]
        made = {value: place for place, box in enumerate(boxes) for value in box.gives}
        inner: dict[tuple[int, str], Picture] = {}
        for node in graph:
            if _is_constant(node, constants):
                constants.update(node.outputs)
                continue
            reads = {i: v for i, v in enumerate(node.inputs) if v is not None}
            box = Box(
                "node",
                node=node,
                reads={i: v for i, v in reads.items() if v not in constants},
                constants={i: _constant(v) for i, v in reads.items() if v in constants},
            )
            for value in (*box.reads.values(), *_captured(node)):
                if value not in made and value not in constants:
                    made[value] = len(boxes)
                    boxes.append(Box("outer", value=value))
            made.update((value, len(boxes)) for value in node.outputs)
            for name, picture in self._inside(node, constants):
                inner[len(boxes), name] = picture
            boxes.append(box)
        boxes += [Box("output", value=value) for value in graph.outputs if value is not None]
        return Picture(title, tuple(boxes), _nets(boxes, made), inner)

    def _inside(self, node: ir.Node, constants: set[ir.Value]) -> Iterator[tuple[str, Picture]]:
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                yield name, self.picture(attribute.as_graph(), name, constants)
        identifier = node.op_identifier()
        if identifier in self.functions:
            if identifier not in self.read:
                title = f"function {node.domain}::{node.op_type}"
                # A function that calls itself is refused where models are read.
                self.read[identifier] = self.picture(self.functions[identifier], title, set())
            yield "", self.read[identifier]


def _is_constant(node: ir.Node, constants: set[ir.Value]) -> bool:
    if bodies(node) or (is_standard(node) and node.op_type in _DRAWN_AT_RANDOM):
        return False
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return False
    given = [value for value in node.inputs if value is not None]
    if not given:
        return is_standard(node) and node.op_type == "Constant"
    return is_standard(node) and all(value in constants for value in given)


def _constant(value: ir.Value) -> Constant:
    through: list[str] = []
    found: ir.TensorProtocol | None = None
    holder = value
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop()
        tensor = current.const_value
        node = current.producer()
        if tensor is None and node is not None and node.op_type == "Constant":
            attribute = node.attributes.get("value")
            tensor = attribute.as_tensor() if attribute is not None else _listed(node)
        elif tensor is None and node is not None:
            through.append(node.op_type)
            new = [v for v in node.inputs if v is not None and v not in seen]
            seen.update(new)
            waiting += new
        if tensor is not None and (found is None or tensor.size > found.size):
            found, holder = tensor, current
    return Constant(value, holder, found, tuple(reversed(through)))


def _listed(node: ir.Node) -> ir.TensorProtocol | None:
    """Of a Constant that gives numbers or words instead of a tensor."""
    kinds = {
        "value_float": ir.DataType.FLOAT,
        "value_floats": ir.DataType.FLOAT,
        "value_int": ir.DataType.INT64,
        "value_ints": ir.DataType.INT64,
    }
    for name, dtype in kinds.items():
        if name in node.attributes:
            return ir.tensor(node.attributes[name].value, dtype=dtype)
    return None


def _captured(node: ir.Node) -> list[ir.Value]:
    """What bodies of a node read that is not of their own."""
    found: dict[ir.Value, None] = {}
    for body in bodies(node):
        own: set[ir.Value] = {*body.inputs, *body.initializers.values()}
        for inside in body.all_nodes():
            own.update(inside.outputs)
            for inner in bodies(inside):
                own.update((*inner.inputs, *inner.initializers.values()))
        for inside in body.all_nodes():
            found.update((v, None) for v in inside.inputs if v is not None and v not in own)
        found.update((v, None) for v in body.outputs if v is not None and v not in own)
    return list(found)


def _nets(boxes: Sequence[Box], made: dict[ir.Value, int]) -> tuple[Net, ...]:
    targets: dict[ir.Value, dict[int, None]] = {}
    for place, box in enumerate(boxes):
        read: tuple[ir.Value, ...] = tuple(box.reads.values())
        if box.node is not None:
            read += tuple(_captured(box.node))
        elif box.kind == "output" and box.value is not None:
            read = (box.value,)
        for value in read:
            if value in made:
                targets.setdefault(value, {})[place] = None
    return tuple(Net(value, made[value], tuple(to)) for value, to in targets.items())


def root(value: ir.Value) -> ir.Value:
    """The tensor that one repeats: behind Identity, Cast and integers there and back."""
    while (node := value.producer()) is not None and is_standard(node) and node.inputs:
        source = node.inputs[0]
        if node.op_type == "DequantizeLinear" and source is not None:
            before = source.producer()
            if before is None or before.op_type != "QuantizeLinear":
                break
            source = before.inputs[0]
        elif node.op_type not in _COPIES:
            break
        if source is None or value is not node.outputs[0]:
            break
        value = source
    return value
