"""What the latency of a node depends on, as a key of the table.

onnxruntime fuses, folds and converts layouts, so that a node's time depends on those around it: a
Relu behind a Conv takes none, a Conv in front of a QuantizeLinear in another form than it also
brings its result back from a blocked layout. A node's *context* says its operator and types, and
those of the nodes up to two edges away, as the colours of Weisfeiler and Lehman do (1968):
colour₀ = (operator, types), colourₖ = (colourₖ₋₁, those of what it reads, in order, and of what
reads it, sorted). Attributes and sizes are those of the node itself alone.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.beyond_ir import PackedAttribute
from onnxpress.constants import Constants
from onnxpress.costs.sizes import Sizes
from onnxpress.graph import attribute, is_constant
from onnxpress.layers import INTEGER_WEIGHTS, multiply_adds
from onnxpress.runtime import is_integer_operator

__all__ = ["CONTEXTS", "NodeKey", "digest", "node_keys"]

HOPS = 2
"""Edges that a context reaches: what is fused or converted together is about as long."""
CONTEXTS = 1 + 2 * HOPS
"""Of a node: of 0 to `HOPS` edges without attributes, then of 1 to `HOPS` with its own."""
_LONG = 16
"""Values of an attribute that are told by their number alone."""
_UNTOLD = (
    ir.AttributeType.GRAPH,
    ir.AttributeType.GRAPHS,
    ir.AttributeType.TENSOR,
    ir.AttributeType.TENSORS,
)
"""Attributes whose values a key does not tell."""
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size")
"""Operators that move no data: onnxruntime gives back the buffer that it was given."""
_PICKING = ("Gather", "GatherElements", "GatherND", "Slice", "Split")
"""Operators that read no more than they write."""


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node and what its latency depends on.

    Attributes:
        node: its name.
        operator: type, with its domain where it is not ONNX's own.
        contexts: what is around it, the last the most precise (`CONTEXTS`).
        sizes: of what it reads and gives, as text.
        multiply_adds: of one run.
        nbytes: that it reads and writes.
        integer: whether what it computes with came out of integers, weights and activations.
        repeated: whether it stands in a body, which may run several times or not at all.
    """

    node: str
    operator: str
    contexts: tuple[str, ...]
    sizes: str
    multiply_adds: int
    nbytes: int
    integer: bool = False
    repeated: bool = False


def node_keys(model: ir.Model, sizes: Sizes) -> list[NodeKey]:
    """A key for every node that is run, in bodies too; what constants alone make is folded.

    Args:
        model: not changed.
        sizes: of its tensors.
    """
    constants = Constants(model)
    nodes = constants.nodes
    inside = {node: node.graph is not model.graph for node in nodes}
    colours = [{n: digest(_own(n, constants, inside=inside[n])) for n in nodes}]
    for _ in range(HOPS):
        before = colours[-1]
        colours.append({node: digest(_around(node, before)) for node in nodes})
    own = {node: _attributes(node) for node in nodes}
    colours += [{n: digest(own[n] + by_node[n]) for n in nodes} for by_node in colours[1:]]
    run = (node for node in nodes if not all(value in constants for value in node.outputs))
    return [
        NodeKey(
            node.name or "",
            f"{node.domain}:{node.op_type}" if node.domain else node.op_type,
            tuple(by_node[node] for by_node in colours),
            _sizes_text(node, sizes),
            _multiply_adds(node, sizes),
            _moved(node, sizes),
            _is_integer(node, constants),
            inside[node],
        )
        for node in run
    ]


def _own(node: ir.Node, constants: Constants, *, inside: bool) -> str:
    read = ",".join(
        "-" if value is None else f"{_type(value)}{'c' if value in constants else ''}"
        for value in node.inputs
    )
    given = ",".join(map(_type, node.outputs))
    group = node.attributes.get("group")
    grouped = "" if group is None else _text(group)
    return f"{'inside ' if inside else ''}{node.domain}:{node.op_type} {grouped} {read}>{given}"


def _attributes(node: ir.Node) -> str:
    return ";".join(f"{name}={_text(node.attributes[name])}" for name in sorted(node.attributes))


def _text(attribute: ir.Attr) -> str:
    if isinstance(attribute, PackedAttribute) or attribute.is_ref() or attribute.type in _UNTOLD:
        return "…"
    value = attribute.value
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return str(value)[:64]
    return ",".join(map(str, value)) if len(value) <= _LONG else f"{len(value)} values"


def _type(value: ir.Value) -> str:
    return "?" if value.dtype is None else value.dtype.name


def _around(node: ir.Node, colours: dict[ir.Node, str]) -> str:
    read = ",".join(
        "-" if value is None else colours.get(value.producer(), "c" if is_constant(value) else "in")  # type: ignore[arg-type]
        for value in node.inputs
    )
    readers = sorted(colours.get(user, "?") for value in node.outputs for user, _ in value.uses())
    ends = "out" if any(value.is_graph_output() for value in node.outputs) else ""
    return f"{colours[node]}<{read}>{','.join(readers)}{ends}"


def digest(text: str) -> str:
    """A short text for a long one."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _sizes_text(node: ir.Node, sizes: Sizes) -> str:
    read, given = (
        ",".join("-" if value is None else "x".join(map(str, sizes.of(value))) for value in values)
        for values in (node.inputs, node.outputs)
    )
    return f"{read}>{given}"


def _moved(node: ir.Node, sizes: Sizes) -> int:
    """Bytes read and written: of a table that is looked up in, the rows that are taken."""
    if node.op_type in _VIEWS:
        return 0
    given = sum(_nbytes(value, sizes) for value in node.outputs)
    if node.op_type in _PICKING:
        return 2 * given
    return given + sum(_nbytes(value, sizes) for value in node.inputs if value is not None)


def _nbytes(value: ir.Value, sizes: Sizes) -> int:
    bits = 32 if value.dtype is None or value.dtype == ir.DataType.STRING else value.dtype.bitwidth
    return math.prod(sizes.of(value)) * bits // 8


def _multiply_adds(node: ir.Node, sizes: Sizes) -> int:
    place = INTEGER_WEIGHTS.get(node.op_type)
    if node.op_type == "MatMulNBits":
        return math.prod(sizes.of(node.outputs[0])) * attribute(node, "K", 0)
    if place is None:
        return multiply_adds(node, sizes.of)
    weight = node.inputs[place] if len(node.inputs) > place else None
    if weight is None or not node.outputs:
        return 0
    shape, outputs = sizes.of(weight), math.prod(sizes.of(node.outputs[0]))
    if "Conv" in node.op_type:
        return outputs * math.prod(shape[1:])
    if node.op_type == "QGemm" and attribute(node, "transB", 0):
        return outputs * shape[-1]
    return outputs * shape[max(0, len(shape) - 2)] if shape else 0


def _is_integer(node: ir.Node, constants: Constants) -> bool:
    """Whether it reads what was an integer, and a weight, if any, that was one too."""
    if is_integer_operator(node.op_type):
        return True
    data = [value for value in node.inputs[:2] if value is not None]
    makers = [value.producer() for value in data]
    made = [maker is not None and maker.op_type == "DequantizeLinear" for maker in makers]
    return bool(made) and all(made) and any(value not in constants for value in data)
