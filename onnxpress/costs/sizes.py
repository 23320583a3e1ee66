"""A size for every dimension of a model's tensors: of the samples, or assumed.

Latency depends on sizes that many models leave open. They are bound at the inputs and followed
through the graph: first as the model says, then as ONNX's shape inference does. What stays unknown
counts as 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.blocks import without_weights
from onnxpress.costs.inferring import inferred_shapes
from onnxpress.growth import largest_made

__all__ = ["Sizes", "sizes_of"]

_IMAGE, _OTHER = 224, 64
"""Of a dimension that is left open: of the last two of four, and of others; the usual sizes of
pictures and of texts. The first dimension of an input is a batch of 1."""
_SAME_SHAPE = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Sigmoid", "Tanh", "Cast", "Identity")
)
"""Operators whose output has the shape of their first input."""
_NAMELESS = (None, "", "?", "-1", "None")
"""Dimensions that exporters leave open without a name: two of them are not the same."""
_MOST_MADE = 1 << 24
"""Elements that a node makes: shape inference would build them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the tensors of a model.

    Attributes:
        shapes: by value, where all of it is known.
        bound: sizes of what the model leaves open, by what messages call it.
        assumed: whether these are assumed, and not of samples.
    """

    shapes: Mapping[ir.Value, tuple[int, ...]]
    bound: Mapping[str, int]
    assumed: bool

    def of(self, value: ir.Value) -> tuple[int, ...]:
        """The shape; a dimension that is not known counts as 1."""
        known = self.shapes.get(value)
        if known is not None:
            return known
        return tuple(dim if isinstance(dim, int) and dim >= 0 else 1 for dim in value.shape or ())

    def __str__(self) -> str:
        return ", ".join(f"{name} = {size}" for name, size in self.bound.items())


def sizes_of(model: ir.Model, given: Mapping[str, Sequence[int]] | None = None) -> Sizes:
    """Bind what a model leaves open, and follow it.

    Args:
        model: not changed.
        given: shapes of inputs by name, as samples have them; `None`: sizes are assumed.
    """
    symbols, bound, inputs = _bound(model, given)
    shapes: dict[ir.Value, tuple[int, ...]] = dict(inputs)
    for value in _values(model):
        found = shapes.get(value) or _stated(value, symbols)
        if found is not None:
            shapes[value] = found
    _follow(model, shapes)
    values = {output for node in model.graph for output in node.outputs if output.name}
    missing = [value for value in values if value not in shapes]
    if missing:
        inferred = _inferred(model, inputs)
        for value in missing:
            if value.name in inferred:
                shapes[value] = inferred[value.name]
        _follow(model, shapes)
    return Sizes(shapes, bound, given is None)


def _bound(
    model: ir.Model, given: Mapping[str, Sequence[int]] | None
) -> tuple[dict[str, int], dict[str, int], dict[ir.Value, tuple[int, ...]]]:
    """Sizes of symbols; of all that is open, for people; shapes of inputs."""
    symbols: dict[str, int] = {}
    bound: dict[str, int] = {}
    inputs: dict[ir.Value, tuple[int, ...]] = {}
    for value in model.graph.inputs:
        if value.shape is None or value.name in model.graph.initializers:
            continue
        rank = len(value.shape)
        real = None if given is None else given.get(value.name or "")
        dims = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int) and dim >= 0:
                dims.append(dim)
                continue
            usual = 1 if axis == 0 else _IMAGE if rank == 4 and axis >= 2 else _OTHER
            size = int(real[axis]) if real is not None and len(real) == rank else usual
            name = None if isinstance(dim, int) else dim.value
            symbol = None if name in _NAMELESS else str(name)
            if symbol is not None:
                size = symbols.setdefault(symbol, size)
            bound[symbol or f"axis {axis} of {value.name}"] = size
            dims.append(size)
        inputs[value] = tuple(dims)
    return symbols, bound, inputs


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def _stated(value: ir.Value, symbols: Mapping[str, int]) -> tuple[int, ...] | None:
    """What the model says of a shape, its symbols bound."""
    tensor = value.const_value
    if tensor is not None and not value.is_graph_input():
        return tuple(tensor.shape.numpy())
    if value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else symbols.get(str(dim.value)) for dim in value.shape]
    found = tuple(dim for dim in dims if dim is not None and dim >= 0)
    return found if len(found) == len(dims) else None


def _follow(model: ir.Model, shapes: dict[ir.Value, tuple[int, ...]]) -> None:
    """Shapes that are those of an input."""
    for node in model.graph.all_nodes():
        if node.op_type in _SAME_SHAPE and node.outputs and node.outputs[0] not in shapes:
            source = node.inputs[0]
            if source is not None and source in shapes:
                shapes[node.outputs[0]] = shapes[source]


def _inferred(
    model: ir.Model, inputs: Mapping[ir.Value, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """What ONNX's shape inference makes of the inputs' shapes, by name."""
    made = largest_made(model)
    if made is not None and made[1] > _MOST_MADE:
        return {}
    proto = without_weights(model)
    by_name = {value.name: shape for value, shape in inputs.items()}
    for info in proto.graph.input:
        for dim, size in zip(
            info.type.tensor_type.shape.dim, by_name.get(info.name, ()), strict=False
        ):
            dim.dim_value = size
    # What the model says of open shapes would stand against what is worked out.
    del proto.graph.value_info[:]
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    return inferred_shapes(proto)
