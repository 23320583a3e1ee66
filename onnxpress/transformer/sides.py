"""What queries, keys and values were made of: projections, rotations, caches.

Between a projection and a product lie reshapes, scales, norms of queries and keys, rotations, heads
that are repeated, and what is put behind a cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from onnxpress.transformer.norms import Norm
from onnxpress.transformer.projections import Projection, products
from onnxpress.transformer.tensors import Tensors

__all__ = ["BATCHED", "OPERATORS", "Side", "Sides"]

OPERATORS = frozenset(
    [
        *("Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"),
        *("DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "PagedAttention"),
        *("PackedAttention", "PackedMultiHeadAttention", "SparseAttention"),
    ]
)
_MOVES = frozenset(
    [
        *("Cast", "Concat", "DequantizeLinear", "DynamicQuantizeLinear", "Expand", "Gather"),
        *("Identity", "Pad", "QuantizeLinear", "Reshape", "ScatterElements", "ScatterND"),
        *("Slice", "Split", "Squeeze", "TensorScatter", "Tile", "Transpose", "Unsqueeze"),
        *("Where", "GatherND"),
    ]
)
"""That keys and values undergo after a cache."""
_OUTWARD = frozenset(
    ["Cast", "Concat", "Identity", "QuantizeLinear", "Reshape", "Slice", "Transpose", "Unsqueeze"]
)
_REPEATS = frozenset(["Expand", "Tile"])
"""That let several heads of queries share one of keys."""
_TURNING = frozenset(["Neg", "Sub"])
_HALVES = frozenset(["Gather", "Slice", "Split"])
BATCHED = 3
"""Axes of a tensor whose heads have not been parted."""


@dataclass(slots=True)
class Side:
    """What queries, keys or values were made of.

    Attributes:
        value: the tensor that is multiplied.
        projections: linear layers that made it.
        nodes: between them and the tensor, the nearest first.
        inputs: of the model, where it was made of those.
    """

    value: ir.Value
    projections: list[Projection] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)
    inputs: list[ir.Value] = field(default_factory=list)

    @property
    def rotary(self) -> bool:
        """Whether it was rotated by positions."""
        kinds = {node.op_type for node in self.nodes}
        if kinds & {"RotaryEmbedding", "Cos", "Sin"}:
            return True
        joined = bool(kinds & {"Concat", "ScatterND", "ScatterElements", "Unsqueeze"})
        return bool(kinds & _TURNING and kinds & _HALVES and "Mul" in kinds and joined)


class Sides:
    """Follows queries, keys and values of a model upwards."""

    def __init__(
        self,
        tensors: Tensors,
        projections: dict[ir.Node, Projection],
        norms: dict[ir.Value, Norm],
    ) -> None:
        self.tensors, self.projections, self.norms = tensors, projections, norms

    def __call__(self, value: ir.Value) -> Side:
        """Follow one tensor."""
        side = Side(value)
        for current, node in self.tensors.upward(value, self._passes):
            if node is None:
                side.inputs.append(current)
                continue
            if node in self.projections:
                side.projections.append(self.projections[node])
            side.nodes.append(node)
        return side

    def _passes(self, node: ir.Node) -> bool:
        stops = node in self.projections or products(self.tensors, node) is not None
        return not stops and node.op_type not in (*OPERATORS, "Cos", "Sin", "Softmax")

    def kind(self, query: Side, key: Side) -> Literal["self", "cross"]:
        """Whether queries and keys come of one sequence."""
        mine, other = self._origins(query), self._origins(key)
        return "self" if mine & other or (not (mine and other) and not key.inputs) else "cross"

    def _origins(self, side: Side) -> set[ir.Value]:
        """What its projections read, before norms and constants that are added."""
        found = set()
        for projection in side.projections:
            value = projection.source
            while True:
                norm = self.norms.get(value)
                node = value.producer()
                if norm is not None and norm.input is not None:
                    value = self.tensors.root(norm.input)
                    continue
                inner = [] if node is None else self.tensors.activations(node)
                if node is None or node.op_type != "Add" or len(inner) != 1:
                    break
                value = self.tensors.root(inner[0])
            found.add(value)
        return found

    def heads(self, side: Side, width: int | None, others: tuple[Side, Side]) -> int | None:
        """How many heads of a width a side has."""
        if not width:
            return None
        shared = any(one in other.projections for one in side.projections for other in others)
        if side.projections and not shared:
            return sum(one.outputs for one in side.projections) // width
        third = self.third(side.value)
        if third is not None and not any(node.op_type in _REPEATS for node in side.nodes):
            return third
        for node in reversed(side.nodes):
            sizes = self.tensors.sizes(node.outputs[0]) if node.op_type == "Reshape" else None
            if not sizes or len(sizes) <= BATCHED or sizes[-1] != width or not sizes[-2]:
                continue
            # It may be a length instead: several heads share what it is of, if it is heads.
            if third is None or third % sizes[-2] == 0:
                return sizes[-2]
        whole = side.projections[0].outputs if len(side.projections) == 1 else None
        alike = all(other.projections == side.projections for other in others)
        return whole // (3 * width) if whole and alike else third

    def share(self, query: Side, others: tuple[Side, Side]) -> int | None:
        """The width of a head, by what the projections make together."""
        heads = self.third(query.value)
        if heads is None or len(query.projections) != 1:
            return None
        whole = query.projections[0].outputs
        if all(other.projections == query.projections for other in others):
            return whole // (3 * heads)
        return whole // heads

    def third(self, value: ir.Value) -> int | None:
        """Heads of a tensor [batch, heads, length, width], or keys turned round."""
        sizes = self.tensors.sizes(value)
        return sizes[-3] if sizes and len(sizes) > BATCHED else None

    def last(self, value: ir.Value) -> int | None:
        """The last size."""
        sizes = self.tensors.sizes(value)
        return sizes[-1] if sizes else None

    def last_but_one(self, value: ir.Value) -> int | None:
        """The size before the last."""
        sizes = self.tensors.sizes(value)
        return sizes[-2] if sizes and len(sizes) > 1 else None

    def _moved(self, side: Side) -> Iterator[tuple[ir.Value, ir.Node | None]]:
        return self.tensors.upward(side.value, self._moves)

    def _moves(self, node: ir.Node) -> bool:
        # Keys may be scaled by a number; a rotation multiplies by what depends on positions.
        if node.op_type in ("Mul", "Div"):
            return any(value is not None and self.tensors.is_number(value) for value in node.inputs)
        return node.op_type in _MOVES

    def past(self, *sides: Side) -> tuple[str, ...]:
        """Inputs of the model that keys and values are joined with."""
        return self.fed(
            [value for side in sides for value, node in self._moved(side) if node is None]
        )

    def fed(self, values: list[ir.Value]) -> tuple[str, ...]:
        """Inputs of the model that tensors were moved from."""
        roots = [self.tensors.root(value) for value in values]
        return tuple(dict.fromkeys(value.name or "" for value in roots if value.is_graph_input()))

    def present(self, *sides: Side) -> tuple[str, ...]:
        """Outputs of the model that hold keys and values."""
        moved = [value for side in sides for value, _ in self._moved(side)]
        return tuple(dict.fromkeys(self.outputs(moved)))

    def outputs(self, values: Sequence[ir.Value]) -> Iterator[str]:
        """Outputs of the model that tensors are moved into."""
        waiting = [value for value in values if value is not None and not value.is_graph_input()]
        seen = set(waiting)
        for value in waiting:
            if value.is_graph_output():
                yield value.name or ""
            for user, _ in value.uses():
                made = user.outputs[0]
                if user.op_type in _OUTWARD and made not in seen:
                    seen.add(made)
                    waiting.append(made)
