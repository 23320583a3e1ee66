"""Attention: softmax(q·kᵀ·scale + mask)·v, in products and a Softmax or as one operator.

(1706.03762; grouped queries: 2305.13245; rotary positions: 2104.09864.) Operators: ONNX's
`Attention` from opset 23; com.microsoft's Attention, MultiHeadAttention, GroupQueryAttention and
their kin. What stands between a projection and a product is walked over: reshapes, scales, norms of
queries and keys, rotations, repeated heads, what is put behind a cache.
"""

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxpress.graph import attribute
from onnxpress.transformer.norms import Norm
from onnxpress.transformer.projections import Projection, products
from onnxpress.transformer.sides import BATCHED, OPERATORS, Side, Sides
from onnxpress.transformer.tensors import Tensors

__all__ = ["SOFTMAXES", "Attention", "find_attentions"]

SOFTMAXES = frozenset(["QLinearSoftmax", "Softmax"])
_PACKED_WEIGHTS = frozenset(
    ["QAttention", "PackedAttention", "DecoderMaskedSelfAttention", "Attention"]
)
"""Operators of com.microsoft that hold the projections' weights."""
_PAST = {"Attention": (4, 5), "MultiHeadAttention": (6, 7), "GroupQueryAttention": (3, 4)}
_PAST |= {"DecoderMaskedMultiHeadAttention": (5, 6)}
_SCORES = frozenset(
    [
        *("Add", "Cast", "Clip", "Concat", "DequantizeLinear", "Div", "Dropout", "Expand"),
        *("GatherElements", "Identity", "Max", "Min", "Mul", "QuantizeLinear", "Reshape"),
        *("Slice", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where", "ScatterND"),
    ]
)
"""Between a product and the Softmax: scales, masks, caps."""
_FARTHEST = 24
"""Tensors between the Softmax and the values."""
_PROBABILITIES = frozenset(
    [
        *("Cast", "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear", "Expand"),
        *("Identity", "Mul", "QuantizeLinear", "Reshape", "Slice", "Squeeze", "Transpose"),
        *("Unsqueeze", "Where"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """One attention.

    Attributes:
        node: its Softmax, or the operator.
        kind: what it attends to: the sequence itself, or another.
        heads: of queries, where known.
        key_heads: of keys and values: fewer where several heads of queries share one.
        head_width: numbers of a head of queries.
        value_width: numbers of a head of values.
        rotary: whether queries and keys are rotated by their positions.
        query: the projections that make queries; `key`, `value` likewise. One that makes several
            is in each.
        past: inputs of the model that hold earlier keys and values.
        present: outputs of the model that hold them for later.
        result: the tensor of all heads' answers.
        scoring: nodes between the product of queries and keys and the Softmax: scales, masks.
    """

    node: ir.Node
    kind: Literal["self", "cross"]
    heads: int | None
    key_heads: int | None
    head_width: int | None
    value_width: int | None
    rotary: bool
    query: tuple[Projection, ...]
    key: tuple[Projection, ...]
    value: tuple[Projection, ...]
    past: tuple[str, ...]
    present: tuple[str, ...]
    result: ir.Value
    scoring: tuple[ir.Node, ...] = ()

    @property
    def bias(self) -> bool:
        """Whether any of its projections adds a constant."""
        operator = len(self.node.inputs) > BATCHED and self.node.op_type == "MultiHeadAttention"
        fused = operator and self.node.inputs[3] is not None
        return fused or any(one.bias for one in (*self.query, *self.key, *self.value))


class _Finder:
    def __init__(self, sides: Sides) -> None:
        self.sides, self.tensors = sides, sides.tensors

    # In products

    def around(self, node: ir.Node) -> Attention | None:
        """The attention of a Softmax."""
        scores, context = self._scores(node), self._context(node)
        if node.inputs[0] is None or scores is None or context is None:
            return None
        (product, values), (multiplied, scoring) = context, scores
        query, key = (self.sides(one) for one in multiplied)
        value = self.sides(values)
        width = self.sides.last(multiplied[0])
        if width is None:
            width = self.sides.last_but_one(multiplied[1])
        value_width = self.sides.last(values)
        if width is None:
            width = self.sides.share(query, (key, value))
        heads = self.sides.heads(query, width, (key, value))
        key_heads = self.sides.heads(key, width, (query, value))
        if value_width is None:
            alone = value.projections != key.projections and len(value.projections) == 1
            value_width = (
                value.projections[0].outputs // key_heads if alone and key_heads else width
            )
        return Attention(
            node,
            self.sides.kind(query, key),
            heads,
            key_heads,
            width,
            value_width,
            query.rotary,
            tuple(query.projections),
            tuple(key.projections),
            tuple(value.projections),
            past=self.sides.past(key, value),
            present=self.sides.present(key, value),
            result=product.outputs[0],
            scoring=tuple(scoring),
        )

    def _scores(self, node: ir.Node) -> tuple[tuple[ir.Value, ir.Value], list[ir.Node]] | None:
        """What is multiplied before the Softmax, queries and keys, and what lies between."""
        start = node.inputs[0]
        if start is None:
            return None
        between: list[ir.Node] = []
        for _, above in self.tensors.upward(start, lambda one: one.op_type in _SCORES):
            found = None if above is None else products(self.tensors, above)
            if found is not None:
                return found, between
            if above is not None:
                between.append(above)
        return None

    def _context(self, node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
        """Where the probabilities are multiplied with the values."""
        waiting = [node.outputs[0]]
        for value in waiting:
            for user, index in value.uses():
                found = products(self.tensors, user)
                if found is not None and value in found:
                    return user, found[1] if value is found[0] else found[0]
                first = index == 0 or user.op_type in ("Mul", "Where")
                if user.op_type in _PROBABILITIES and first and len(waiting) < _FARTHEST:
                    waiting.append(user.outputs[0])
        return None

    # As an operator

    def operator(self, node: ir.Node) -> Attention | None:
        """The attention that is one operator."""
        if node.op_type in _PACKED_WEIGHTS and node.domain not in ("", "ai.onnx"):
            return self._packed(node)
        given = [value for value in node.inputs[:3] if value is not None]
        if not given:
            return None
        sides = [self.sides(value) for value in given]
        query = sides[0]
        key, value = (sides[1], sides[2]) if len(sides) == BATCHED else (query, query)
        heads = self._attribute(node, "q_num_heads", "num_heads")
        key_heads = self._attribute(node, "kv_num_heads") or heads
        rank = len(self.tensors.sizes(given[0]) or [])
        if heads is None and rank > BATCHED:
            heads, key_heads = self.sides.third(given[0]), self.sides.third(given[1])
        width = self.sides.last(given[0]) if rank > BATCHED else None
        if width is None and heads:
            made = self._made(query, key, value, heads, key_heads or heads)
            width = None if made is None else made // heads
        return Attention(
            node,
            self.sides.kind(query, key),
            heads,
            key_heads,
            width,
            width,
            attribute(node, "do_rotary", 0) == 1 or query.rotary,
            tuple(query.projections),
            tuple(key.projections),
            tuple(value.projections),
            past=self._past_inputs(node) or self.sides.past(key, value),
            present=tuple(self.sides.outputs(node.outputs[1:3])) or self.sides.present(key, value),
            result=node.outputs[0],
        )

    def _packed(self, node: ir.Node) -> Attention | None:
        source, weight = node.inputs[0], node.inputs[1]
        sizes = self.tensors.sizes(weight)
        if source is None or weight is None or not sizes or len(sizes) < 2 or None in sizes:
            return None
        inputs, outputs = (int(size or 0) for size in sizes[-2:])
        stored = self.tensors.stored(weight)
        has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
        made = Projection(
            node, stored.name or "", self.tensors.root(source), inputs, outputs, bias=has_bias
        )
        given = node.attributes.get("qkv_hidden_sizes")
        shares = list(given.as_ints()) if given is not None else [outputs // 3] * 3
        heads = attribute(node, "num_heads", 1)
        past = node.inputs[4:5] if node.op_type == "Attention" else ()
        return Attention(
            node,
            "self",
            heads,
            heads,
            shares[0] // heads,
            shares[2] // heads,
            attribute(node, "do_rotary", 0) == 1,
            (made,),
            (made,),
            (made,),
            past=tuple(v.name or "" for v in past if v is not None and v.is_graph_input()),
            present=tuple(self.sides.outputs(node.outputs[1:2])),
            result=node.outputs[0],
        )

    def _attribute(self, node: ir.Node, *names: str) -> int | None:
        found = (attribute(node, name, 0) for name in names)
        return next((number for number in found if number), None)

    def _made(self, query: Side, key: Side, value: Side, heads: int, key_heads: int) -> int | None:
        """Numbers that all queries have together."""
        last = self.sides.last(query.value)
        if last is None and len(query.projections) == 1:
            last = query.projections[0].outputs
        if last is not None and query is key and key is value:
            last = last * heads // (heads + 2 * key_heads)
        return last

    def _past_inputs(self, node: ir.Node) -> tuple[str, ...]:
        places = _PAST.get(node.op_type, ())
        given = [node.inputs[at] for at in places if len(node.inputs) > at]
        return self.sides.fed([value for value in given if value is not None])


def find_attentions(
    tensors: Tensors,
    projections: dict[ir.Node, Projection],
    norms: dict[ir.Value, Norm],
) -> list[Attention]:
    """All of a model, in its order."""
    finder = _Finder(Sides(tensors, projections, norms))
    found = []
    for node in tensors.nodes:
        made = None
        if node.op_type in SOFTMAXES:
            made = finder.around(node)
        elif node.op_type in OPERATORS:
            made = finder.operator(node)
        if made is not None:
            found.append(made)
    return found
