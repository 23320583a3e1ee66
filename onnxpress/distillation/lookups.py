"""Weights of few bits that a table expands when a model is loaded, as floats that are trained.

A byte of codes is the index of a row of a constant table, and the planes of a code are added (as
decision 034 writes them): level = Σ table[byte]. The level is trained as a float that is rounded
and cut to the levels there are in every step, straight through, and written back as the bytes whose
rows give it. What multiplies levels behind it, the steps of blocks, stays.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.blocks.extracting import Parts
from onnxpress.blocks.reading import constant_values
from onnxpress.graph import Names, add_initializer, attribute, constant, is_standard
from onnxpress.runtime import Session

__all__ = ["Lookup", "Plane", "encoded", "looked_up", "rounded_levels"]

_BYTE = 8
_MOVING = ("Cast", "Reshape", "Slice", "Add")
"""What stands between a table and its levels."""


@dataclass(frozen=True, slots=True)
class Plane:
    """A part of the codes.

    Attributes:
        name: of the bytes, uint8.
        shape: of them.
        table: `[256, parts]` what the parts of a byte stand for, int8.
    """

    name: str
    shape: tuple[int, ...]
    table: npt.NDArray[np.int8]

    @property
    def values(self) -> npt.NDArray[np.int8]:
        """What a part can stand for, by its code."""
        return self.table[: 2 ** (_BYTE // self.table.shape[1]), 0]

    def bytes_of(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The bytes that hold codes in their order, the first in the lowest bits."""
        parts = self.table.shape[1]
        rest = -len(codes) % parts
        filled = np.concatenate([codes, np.zeros(rest, np.uint8)]).reshape(-1, parts)
        shifts = np.arange(parts, dtype=np.uint8) * np.uint8(_BYTE // parts)
        found = np.bitwise_or.reduce(filled << shifts, axis=1, dtype=np.uint8)
        return np.asarray(found, np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class Lookup:
    """A weight's levels.

    Attributes:
        planes: of their codes.
        levels: whole numbers, in the shape in which the steps multiply them.
        value: of the graph that holds them.
    """

    planes: tuple[Plane, ...]
    levels: npt.NDArray[np.float32]
    value: ir.Value

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest level."""
        lows, highs = zip(*((p.values.min(), p.values.max()) for p in self.planes), strict=True)
        return float(sum(map(int, lows))), float(sum(map(int, highs)))


def encoded(
    planes: tuple[Plane, ...], levels: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.uint8]]:
    """The bytes of each plane whose rows give levels, by the name of its initializer."""
    whole = np.rint(levels.reshape(-1)).astype(np.int64)
    choices = itertools.product(*(range(len(plane.values)) for plane in planes))
    codes_of = {
        sum(int(p.values[c]) for p, c in zip(planes, choice, strict=True)): choice
        for choice in choices
    }
    low, high = min(codes_of), max(codes_of)
    known = np.zeros((high - low + 1, len(planes)), np.uint8)
    for level, choice in codes_of.items():
        known[level - low] = choice
    codes = known[np.clip(whole, low, high) - low]
    return {plane.name: plane.bytes_of(codes[:, place]) for place, plane in enumerate(planes)}


def looked_up(model: ir.Model) -> list[Lookup]:
    """The weights of the main graph that tables expand, where their bytes can be told back."""
    constants = constant_values(model.graph)
    found: dict[ir.Value, list[Plane]] = {}
    for node in model.graph:
        plane = _plane(node)
        if plane is not None:
            end = _levels(node.outputs[0], constants)
            if end is not None:
                found.setdefault(end, []).append(plane)
    if not found:
        return []
    parts = Parts(model)
    levels = Session(parts.part((), list(found)), threads=1, name="the levels of weights").run({})
    lookups = [
        Lookup(tuple(planes), levels[value.name or ""].astype(np.float32), value)
        for value, planes in found.items()
    ]
    return [lookup for lookup in lookups if _comes_back(model, lookup)]


def _plane(node: ir.Node) -> Plane | None:
    """The bytes and the table of a Gather, where it is one that expands codes."""
    if not is_standard(node) or node.op_type != "Gather" or attribute(node, "axis", 0):
        return None
    table, index = constant(node.inputs[0]), node.inputs[1]
    cast = None if index is None else index.producer()
    if table is None or table.dtype != np.int8 or len(table) != 2**_BYTE or cast is None:
        return None
    bytes_ = cast.inputs[0] if cast.op_type == "Cast" else None
    if bytes_ is None or bytes_.dtype != ir.DataType.UINT8 or bytes_.const_value is None:
        return None
    parts = table.size // 2**_BYTE
    if _BYTE % parts or len(list(bytes_.uses())) != 1:
        return None
    shape = tuple(int(size) for size in bytes_.const_value.shape.numpy())
    return Plane(bytes_.name or "", shape, table.astype(np.int8).reshape(-1, parts))


def _levels(value: ir.Value, constants: frozenset[ir.Value]) -> ir.Value | None:
    """Where what a Gather gives, its planes added, is multiplied or shifted."""
    current = value
    while True:
        uses = list(current.uses())
        if len(uses) != 1 or current.is_graph_output():
            return None
        reader = uses[0][0]
        if reader.op_type not in _MOVING:
            return current if current.dtype in (None, ir.DataType.FLOAT) else None
        if reader.outputs[0] not in constants:
            return None
        current = reader.outputs[0]


def _comes_back(model: ir.Model, lookup: Lookup) -> bool:
    """Whether the bytes that stand for the levels are those of the file."""
    if not np.array_equal(lookup.levels, np.rint(lookup.levels)):
        return False
    initializers = model.graph.initializers
    for name, own in encoded(lookup.planes, lookup.levels).items():
        stored = constant(initializers[name])
        count = lookup.levels.size
        plane = next(plane for plane in lookup.planes if plane.name == name)
        if stored is None or stored.size != own.size:
            return False
        one, other = (
            plane.table[array.reshape(-1).astype(np.uint8)].reshape(-1)[:count]
            for array in (stored, own)
        )
        if not np.array_equal(one, other):
            return False
    return True


def rounded_levels(names: Names, graph: ir.Graph, lookup: Lookup) -> ir.Value:
    """Let levels be rounded from floats in every step; the initializer that holds these.

    Args:
        names: what is free in the graph.
        graph: of the student; it is changed.
        lookup: the weight.
    """
    shadow = add_initializer(names, graph, f"{lookup.value.name}_float", lookup.levels)
    low, high = lookup.ends
    limits = [
        add_initializer(names, graph, f"distill_{what}", np.asarray(number, np.float32))
        for what, number in (("least", low), ("most", high))
    ]
    one = add_initializer(names, graph, "distill_one", np.ones((), np.float32))
    zero = add_initializer(names, graph, "distill_zero", np.zeros((), np.int8))
    cut = ir.Node("", "Clip", [shadow, *limits])
    rounding = ir.Node("", "QuantizeLinear", [cut.outputs[0], one, zero])
    back = ir.Node("", "DequantizeLinear", [rounding.outputs[0], one, zero])
    first = graph[0]
    for node in (cut, rounding, back):
        node.name = names.free(f"{lookup.value.name}_{node.op_type}")
        node.outputs[0].name = names.free(f"{node.name}_output")
        node.outputs[0].shape = shadow.shape
        kind = ir.DataType.INT8 if node is rounding else ir.DataType.FLOAT
        node.outputs[0].type = ir.TensorType(kind)
    graph.insert_before(first, [cut, rounding, back])
    lookup.value.replace_all_uses_with(back.outputs[0])
    return shadow
