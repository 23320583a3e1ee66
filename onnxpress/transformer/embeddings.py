"""Tables that a residual stream begins with, and the layers that share them.

A table is looked up (Gather of a constant), or added whole or in part (positions). It is tied where
a linear layer reads the same numbers: the same constant, or one that an export has written twice,
mostly turned round.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress.transformer.projections import Projection
from onnxpress.transformer.streams import Stream
from onnxpress.transformer.tensors import MOVING, Tensors

__all__ = ["Table", "find_tables"]

_LOOKUPS = {"Gather": 0, "GatherBlockQuantized": 0}
_EMBED_NORM = "EmbedLayerNormalization"
_EMBED_TABLES = ((2, 0), (3, None), (4, 1))
"""Its tables, and which input each is looked up with."""
_SAME_INDICES = MOVING | {"Add", "Clip", "Max", "Min", "Mod", "Where"}
"""Operators that hand on indices, or wrap and clamp them as JAX does."""
_PEEKED = 16
"""Rows that are compared before whole tables are."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Vectors that are looked up or added.

    Attributes:
        value: the stored constant.
        rows: how many.
        width: numbers of each.
        input: the input of the model that it is looked up with; `None`: positions are computed.
        tied: names of weights of linear layers with the same numbers.
    """

    value: ir.Value
    rows: int
    width: int
    input: str | None
    tied: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.value.name,
            "rows": self.rows,
            "width": self.width,
            "input": self.input,
            "tied": list(self.tied),
        }


def find_tables(
    tensors: Tensors,
    projections: dict[ir.Node, Projection],
    streams: Sequence[Stream],
    *,
    read_weights: bool,
) -> list[Table]:
    """The tables of all streams, each once."""
    found: dict[ir.Value, Table] = {}
    for stream in streams:
        for constant, indices in _constants(tensors, projections, stream):
            value, sizes = tensors.stored(constant), tensors.sizes(constant)
            if value in found or not sizes or len(sizes) < 2 or None in sizes:
                continue
            *outer, width = (int(size or 0) for size in sizes)
            rows = int(np.prod(outer))
            if rows < 2 or (stream.width not in (None, width) and indices is None):  # a bias
                continue
            tied = _tied(tensors, projections, value, (rows, width), read_weights=read_weights)
            found[value] = Table(value, rows, width, _fed(tensors, indices), tied)
    return list(found.values())


def _fed(tensors: Tensors, indices: ir.Value | None) -> str | None:
    """The input that indices are, whatever brings them into their range."""
    if indices is None:
        return None
    fed = {
        value
        for value, _ in tensors.upward(indices, lambda node: node.op_type in _SAME_INDICES)
        if value.is_graph_input()
    }
    return fed.pop().name if len(fed) == 1 else None


def _constants(
    tensors: Tensors, projections: dict[ir.Node, Projection], stream: Stream
) -> Iterator[tuple[ir.Value, ir.Value | None]]:
    """Constants that the beginning of a stream is made of, with what they are looked up by."""

    def passes(node: ir.Node) -> bool:
        return node not in projections and "Conv" not in node.op_type

    for _, node in tensors.upward(stream.origin, passes):
        if node is None:
            continue
        if node.op_type == _EMBED_NORM:
            for at, by in _EMBED_TABLES:
                table = node.inputs[at] if len(node.inputs) > at else None
                if table is not None:
                    yield table, None if by is None else node.inputs[by]
            continue
        place = _LOOKUPS.get(node.op_type)
        if place is not None and node.inputs[place] is not None:
            table = node.inputs[place]
            if table is not None and tensors.is_constant(table):
                yield table, node.inputs[1]
                continue
        if node.op_type in ("Add", "Sum", "Slice", "Concat", "Reshape", "Expand"):
            for value in node.inputs[: 1 if node.op_type == "Slice" else 2]:
                if value is not None and tensors.is_constant(value):
                    yield value, None


def _tied(
    tensors: Tensors,
    projections: dict[ir.Node, Projection],
    value: ir.Value,
    shape: tuple[int, int],
    *,
    read_weights: bool,
) -> tuple[str, ...]:
    names = []
    for projection in projections.values():
        if {projection.inputs, projection.outputs} != set(shape) or projection.outputs != shape[0]:
            continue
        weight = next(
            one for one in projection.node.inputs if one is not None and tensors.is_constant(one)
        )
        other = tensors.stored(weight)
        if other is value or (read_weights and _same(tensors, value, other)):
            names.append(projection.name)
    return tuple(dict.fromkeys(names))


def _same(tensors: Tensors, one: ir.Value, other: ir.Value) -> bool:
    first, second = tensors.array(one), tensors.array(other)
    if (
        first is None or second is None or first.dtype != second.dtype or first.ndim != 2
    ):  # a matrix
        return False
    if second.ndim != 2 or first.shape not in (second.shape, second.shape[::-1]):  # a matrix
        return False
    for turned in (second, second.T):
        if turned.shape == first.shape and np.array_equal(first[:_PEEKED], turned[:_PEEKED]):
            return np.array_equal(first, turned)
    return False
