"""Residual streams: what blocks read from and add to, x ← x + f(x).

An addition is one of a stream where one operand is what the other was computed from, through
weights or attention. Norms before what a block computes leave the stream as it is (pre-norm);
where the sum itself is normalized the stream continues behind the norm (post-norm).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxpress.transformer.attention import Attention
from onnxpress.transformer.mlp import MLP
from onnxpress.transformer.norms import SKIP_NORMS, Norm
from onnxpress.transformer.projections import Projection
from onnxpress.transformer.tensors import Tensors

__all__ = ["Addition", "Stream", "find_streams"]

_WEIGHTED = frozenset(["Conv", "ConvTranspose", "FusedConv", "QLinearConv", "LSTM", "GRU", "RNN"])
_SUMS = frozenset(["Add", "Sum", *SKIP_NORMS])
_TAIL = frozenset(
    [
        *("Add", "Cast", "Concat", "DequantizeLinear", "Div", "Dropout", "Gather", "Identity"),
        *("LayerNormalization", "Mul", "QuantizeLinear", "RMSNormalization", "Reshape"),
        *("SimplifiedLayerNormalization", "Slice", "Squeeze", "Sub", "Sum", "Transpose"),
        "Unsqueeze",
    ]
)
"""Between the last layer of a block and the addition: biases, scales, norms."""


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """x + f(x).

    Attributes:
        node: that adds.
        skip: x, before reshapes.
        branch: f(x).
        attentions: inside f.
        mlps: inside f.
        writers: the linear layers that f ends with.
    """

    node: ir.Node
    skip: ir.Value
    branch: ir.Value
    attentions: tuple[Attention, ...]
    mlps: tuple[MLP, ...]
    writers: tuple[Projection, ...]


@dataclass(slots=True, eq=False)
class Stream:
    """A chain of additions.

    Attributes:
        additions: in their order.
        norms: that read it, or that it runs through.
        width: numbers at a place, where known.
        post_norm: whether sums are normalized on their way to the next addition.
        outputs: outputs of the model that are the stream itself, or the norm of it.
    """

    additions: list[Addition] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    width: int | None = None
    post_norm: bool = False
    outputs: tuple[str, ...] = ()

    @property
    def origin(self) -> ir.Value:
        """What it begins with."""
        return self.additions[0].skip


def find_streams(
    tensors: Tensors,
    projections: dict[ir.Node, Projection],
    norms: dict[ir.Value, Norm],
    attentions: Sequence[Attention],
    mlps: Sequence[MLP],
) -> list[Stream]:
    """All of a model with an attention in one of their blocks, in its order."""
    additions = _additions(tensors, projections, attentions, mlps)
    of_node: dict[ir.Node, Stream] = {}
    streams: list[Stream] = []
    for addition in additions.values():
        before, normed = _previous(tensors, norms, additions, addition.skip)
        stream = None if before is None else of_node[before.node]
        if stream is None:
            stream = Stream()
            streams.append(stream)
        elif normed:
            stream.post_norm = True
        stream.additions.append(addition)
        of_node[addition.node] = stream
    kept = [one for one in streams if any(addition.attentions for addition in one.additions)]
    for stream in kept:
        _complete(tensors, norms, stream)
    return kept


def _additions(
    tensors: Tensors,
    projections: dict[ir.Node, Projection],
    attentions: Sequence[Attention],
    mlps: Iterable[MLP],
) -> dict[ir.Node, Addition]:
    of_node = {attention.node: attention for attention in attentions}
    ended = {mlp.down.node: mlp for mlp in mlps}
    ancestry = _Ancestry(tensors, {*projections, *of_node})
    scoring = {node for attention in attentions for node in attention.scoring}
    found: dict[ir.Node, Addition] = {}
    claimed: set[ir.Node] = set()
    for node in tensors.nodes:
        if node in scoring:
            continue
        for skip, branch in _operands(tensors, node):
            inside = ancestry.between(tensors.way(skip), branch)
            if not inside:
                continue
            fresh = [one for one in inside if one not in claimed]
            claimed.update(fresh)
            found[node] = Addition(
                node,
                tensors.root(skip),
                branch,
                tuple(of_node[one] for one in fresh if one in of_node),
                tuple(ended[one] for one in fresh if one in ended),
                tuple(_writers(tensors, projections, branch)),
            )
            break
    return found


def _operands(tensors: Tensors, node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Both ways to see a sum of two."""
    if node.op_type not in _SUMS:
        return
    given = [value for value in node.inputs[:2] if value is not None]
    if len(given) == 2 and not any(map(tensors.is_constant, given)):  # of two
        first, second = given
        yield first, second
        yield second, first


class _Ancestry:
    """What tensors depend on: nodes with weights, attentions, tensors with several readers."""

    def __init__(self, tensors: Tensors, computing: set[ir.Node]) -> None:
        self._nodes: list[ir.Node | None] = []
        self._forks: dict[ir.Value, int] = {}
        self._behind: dict[ir.Value, int] = {}
        for node in tensors.nodes:
            mask = 0
            for value in node.inputs:
                mask |= self._entering(value)
            if node in computing or node.op_type in _WEIGHTED:
                mask |= self._bit(node)
            # What is normalized here goes on beside what is not: they part inside of the operator.
            parting = self._bit(None) if node.op_type in SKIP_NORMS else 0
            for value in node.outputs:
                self._behind[value] = mask | (parting or self._fork(value))
                if parting:
                    self._forks[value] = parting

    def _entering(self, value: ir.Value | None) -> int:
        if value is None:
            return 0
        if value not in self._behind and value.producer() is None and value.const_value is None:
            self._behind[value] = self._fork(value)
        return self._behind.get(value, 0)

    def _bit(self, node: ir.Node | None) -> int:
        self._nodes.append(node)
        return 1 << (len(self._nodes) - 1)

    def _fork(self, value: ir.Value) -> int:
        if len(list(value.uses())) < 2:  # nothing parts there
            return 0
        self._forks[value] = self._bit(None)
        return self._forks[value]

    def between(self, way: Iterable[ir.Value], branch: ir.Value) -> list[ir.Node]:
        """Nodes that the branch computes with after it left the skip; none if it never did.

        Args:
            way: the skip, and what it was moved from.
            branch: the other operand.
        """
        behind = self._behind.get(branch, 0)
        skip = next((value for value in way if self._forks.get(value, 0) & behind), None)
        if skip is None:
            return []
        rest = behind & ~self._behind.get(skip, 0)
        found = []
        while rest:
            low = rest & -rest
            node = self._nodes[low.bit_length() - 1]
            if node is not None:
                found.append(node)
            rest ^= low
        return found


def _writers(
    tensors: Tensors, projections: dict[ir.Node, Projection], branch: ir.Value
) -> Iterator[Projection]:
    def passes(node: ir.Node) -> bool:
        return node not in projections and node.op_type in _TAIL

    for _, node in tensors.upward(branch, passes):
        if node in projections:
            yield projections[node]


def _previous(
    tensors: Tensors,
    norms: dict[ir.Value, Norm],
    additions: dict[ir.Node, Addition],
    value: ir.Value,
) -> tuple[Addition | None, bool]:
    """The addition before a tensor of a stream, and whether a norm lies between."""
    normed = False
    while True:
        node, norm = value.producer(), norms.get(value)
        if node is not None and node in additions:
            return additions[node], normed or norm is not None
        if norm is not None and norm.input is not None:
            value, normed = tensors.root(norm.input), True
            continue
        inner = [] if node is None else tensors.activations(node)
        if node is None or node.op_type not in ("Add", "Mul") or len(inner) != 1:
            return None, False
        value = tensors.root(inner[0])


def _complete(tensors: Tensors, norms: dict[ir.Value, Norm], stream: Stream) -> None:
    """Find its norms, width and outputs."""
    nodes = {addition.node for addition in stream.additions}
    values = {stream.origin, *(value for node in nodes for value in node.outputs)}
    values |= {later for value in values for later in _biased(tensors, value)}
    for norm in norms.values():
        if norm.node in nodes or (norm.input is not None and tensors.root(norm.input) in values):
            stream.norms.append(norm)
        elif norm.output is stream.origin:
            stream.norms.insert(0, norm)
    stream.width = _width(tensors, stream)
    reached = dict.fromkeys([*values, *(norm.output for norm in stream.norms)])
    outputs = [value for value in reached if value.is_graph_output()]
    for value in reached:
        for user, _ in value.uses():
            made = user.outputs[0]
            if user.op_type in ("Cast", "Identity", "Reshape") and made.is_graph_output():
                outputs.append(made)
    stream.outputs = tuple(sorted(value.name or "" for value in outputs))


def _biased(tensors: Tensors, value: ir.Value) -> Iterator[ir.Value]:
    """The same tensor of a stream with the bias of what was added, where that comes last."""
    for user, index in value.uses():
        other = user.inputs[1 - index] if user.op_type == "Add" else None
        if other is not None and tensors.is_constant(other):
            yield user.outputs[0]
            yield from _biased(tensors, user.outputs[0])


def _width(tensors: Tensors, stream: Stream) -> int | None:
    for addition in stream.additions:
        if addition.writers:
            return addition.writers[0].outputs
    widths = [norm.width for norm in stream.norms if norm.width]
    sizes = tensors.sizes(stream.additions[0].node.outputs[0])
    return widths[0] if widths else sizes[-1] if sizes else None
