"""Along which axes of a constant its readers want scales; through nodes that move elements.

A scale for each output channel, or row of a table, costs little and errs least. A stored form is
expanded before anything is computed with it, so any axes are valid and these are a matter of
precision alone. Layouts follow the ONNX operator specifications and, for `com.microsoft`,
onnxruntime's ContribOperators.md.
"""

import math
from collections.abc import Sequence

import onnx_ir as ir

from onnxpress.einsum import Equation
from onnxpress.graph import attribute, is_standard, static_shape

__all__ = ["Axes", "final_uses", "is_known_domain", "moves_elements", "preferred_axes"]

Axes = frozenset[int]

_SAME_AXES = ("Identity", "Cast", "Slice", "Split", "Concat", "Expand")
_REGROUPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_OF_SHAPE = ("Shape", "Size")
_LONGEST = 16
"""Nodes in a row that move elements; more do not occur."""
_TABLES = ("GatherElements", "GatherND")
_ALONG_FIRST = ("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv")
_RECURRENT = ("LSTM", "GRU", "RNN")
_LAST_OF_TWO = (
    "Attention",
    "PackedAttention",
    "DecoderMaskedSelfAttention",
    "LongformerAttention",
    "DecoderAttention",
)


def is_known_domain(node: ir.Node) -> bool:
    """Whether the operator is of ONNX or of onnxruntime itself."""
    return is_standard(node) or node.domain == "com.microsoft"


def moves_elements(node: ir.Node, index: int) -> bool:
    """Whether outputs only hold elements of the input in other places or another float type."""
    if not is_standard(node):
        return False
    if node.op_type == "Cast":
        to = node.attributes.get("to")
        return to is not None and ir.DataType(to.as_int()).is_floating_point()
    if node.op_type == "Concat":
        return True
    return index == 0 and node.op_type in (*_SAME_AXES, *_REGROUPING, "Transpose")


def final_uses(value: ir.Value, depth: int = 0) -> list[tuple[ir.Node, int]]:
    """Nodes that compute with a value's elements, and at which input; each once."""
    found: dict[tuple[ir.Node, int], None] = {}
    for node, index in value.uses():
        if is_standard(node) and node.op_type in _OF_SHAPE:
            continue
        if depth < _LONGEST and moves_elements(node, index):
            for output in node.outputs:
                found.update(dict.fromkeys(final_uses(output, depth + 1)))
        else:
            found[node, index] = None
    return list(found)


def preferred_axes(value: ir.Value, shape: Sequence[int], depth: int = 0) -> list[Axes]:
    """Sets of axes that readers of a value want scales along, each set once.

    Args:
        value: a constant, or what is made of one by moving elements.
        shape: of it.
        depth: of the search.
    """
    found: dict[Axes, None] = {}
    for node, index in value.uses():
        if depth < _LONGEST and moves_elements(node, index):
            for output in node.outputs:
                made = static_shape(output)
                if made is not None:
                    behind = preferred_axes(output, made, depth + 1)
                    found.update(dict.fromkeys(_before(node, shape, made, axes) for axes in behind))
        else:
            axes = _wanted(node, index, len(shape))
            if axes is not None:
                found[axes] = None
    return [axes for axes in found if axes]


def _before(node: ir.Node, shape: Sequence[int], made: Sequence[int], axes: Axes) -> Axes:
    """Axes of a node's output as those of its input."""
    if node.op_type == "Transpose":
        given = node.attributes.get("perm")
        order = list(range(len(shape)))[::-1] if given is None else list(given.as_ints())
        return frozenset(order[axis] for axis in axes)
    if node.op_type in _REGROUPING:
        return _regrouped(shape, made, axes)
    # Expand may add axes in front.
    lead = len(made) - len(shape)
    return frozenset(axis - lead for axis in axes if axis >= lead)


def _regrouped(shape: Sequence[int], made: Sequence[int], axes: Axes) -> Axes:
    """Through a reshape: runs of axes of one product; a part of a run's axes cannot be told."""
    found: set[int] = set()
    start, begin = 0, 0
    while start < len(shape) and begin < len(made):
        stop, end = start + 1, begin + 1
        while math.prod(shape[start:stop]) != math.prod(made[begin:end]):
            if math.prod(shape[start:stop]) < math.prod(made[begin:end]) and stop < len(shape):
                stop += 1
            elif end < len(made):
                end += 1
            else:
                return frozenset()
        if all(axis in axes for axis in range(begin, end) if made[axis] > 1):
            found.update(axis for axis in range(start, stop) if shape[axis] > 1)
        start, begin = stop, end
    return frozenset(found)


def _wanted(node: ir.Node, index: int, rank: int) -> Axes | None:
    """The axes of an input along which the outputs of a node run; `None` where nothing is known."""
    if not is_known_domain(node):
        return None
    kind, every = node.op_type, frozenset(range(rank))
    if kind == "Gather" and index == 0:
        return frozenset({attribute(node, "axis", 0) % rank})
    if kind in _TABLES and index == 0:
        return frozenset({0})
    if kind in ("MatMul", "FusedMatMul", "TransposeMatMul") and rank > 1:
        turned = attribute(node, "transB" if index else "transA", 0)
        summed = rank - 1 if bool(turned) == bool(index) else rank - 2
        return every - {summed}
    if kind in ("Gemm", "FusedGemm", "GemmFastGelu") and rank == 2 and index < 2:
        turned = attribute(node, "transB" if index else "transA", 0)
        return frozenset({0 if bool(turned) == bool(index) else 1})
    if kind in _ALONG_FIRST and index == 1:
        return frozenset({0})
    if kind == "ConvTranspose" and index == 1:
        return frozenset({1} if attribute(node, "group", 1) == 1 else {0, 1})
    if kind == "Einsum":
        equation = Equation.of(node)
        return None if equation is None else equation.kept_axes(index, rank)
    return _of_models(kind, index, rank)


def _of_models(kind: str, index: int, rank: int) -> Axes | None:
    """Of operators that hold a whole part of a network."""
    if kind in _LAST_OF_TWO and rank == 2:
        return frozenset({1})
    if kind == "EmbedLayerNormalization" and rank == 2:
        return frozenset({0})
    if kind in _RECURRENT and rank == 3 and index in (1, 2):
        return frozenset({0, 1})
    if kind == "MoE" and rank == 3:
        return frozenset({0, 1})
    return None
