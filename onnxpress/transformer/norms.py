"""LayerNorm and RMSNorm over the last axis, as one operator or in primitives.

LayerNorm (1607.06450): y = (x − mean x) / √(var x + ε)·g + b; RMSNorm (1910.07467): y =
x / √(mean x² + ε)·g. ONNX: LayerNormalization from opset 17, RMSNormalization from 23;
com.microsoft and earlier files: SimplifiedLayerNormalization, and the Skip forms, which add a
residual first. In primitives the root of a mean of squares is where they are recognized.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxpress.transformer.tensors import Tensors

__all__ = ["SKIP_NORMS", "Norm", "find_norms"]

SKIP_NORMS = {
    "SkipLayerNormalization": "layer",
    "SkipSimplifiedLayerNormalization": "rms",
}
"""Operators that add two tensors and normalize the sum, which may be their fourth output."""
_OPERATORS = {
    "LayerNormalization": "layer",
    "RMSNormalization": "rms",
    "SimplifiedLayerNormalization": "rms",
    "EmbedLayerNormalization": "layer",
    **SKIP_NORMS,
}
_PARAMETERS = {
    "EmbedLayerNormalization": (5, 6),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2, 9),
}
"""Which inputs are scale and offset; 1 and 2 for the others."""
_UNCHANGED = frozenset(["Cast", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
"""That a mean passes through: other types, and its axis, which JAX drops and puts back."""
_ROUNDED = 1e-3
"""How far a stored 1/n may be off in half precision."""


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A normalization.

    Attributes:
        kind: with a mean that is taken away, or without.
        node: the operator, or the root in primitives.
        input: what is normalized; of a Skip form, or one that adds embeddings, `None`.
        output: with scale and offset.
        scale: the stored constant, or `None`.
        offset: the stored constant, or `None`.
        width: numbers that are normalized together, where known.
        operator: whether it is one operator.
    """

    kind: Literal["layer", "rms"]
    node: ir.Node
    input: ir.Value | None
    output: ir.Value
    scale: ir.Value | None
    offset: ir.Value | None
    width: int | None
    operator: bool


def find_norms(tensors: Tensors) -> dict[ir.Value, Norm]:
    """All of a model, by the tensor they give."""
    found = {}
    for node in tensors.nodes:
        norm = _operator(tensors, node) or _primitives(tensors, node)
        if norm is not None:
            found[norm.output] = norm
    return found


def _operator(tensors: Tensors, node: ir.Node) -> Norm | None:
    kind = _OPERATORS.get(node.op_type)
    if kind is None:
        return None
    places = _PARAMETERS.get(node.op_type, (1, 2))
    scale, offset = (node.inputs[at] if len(node.inputs) > at else None for at in places)
    adds = node.op_type in _PARAMETERS
    return _norm(
        tensors, kind, node, None if adds else node.inputs[0], node.outputs[0], scale, offset
    )


def _norm(
    tensors: Tensors,
    kind: str,
    node: ir.Node,
    source: ir.Value | None,
    output: ir.Value,
    scale: ir.Value | None,
    offset: ir.Value | None,
) -> Norm:
    kept = [None if one is None else tensors.stored(one) for one in (scale, offset)]
    sizes = tensors.sizes(scale) or tensors.sizes(source)
    operator = node.op_type in _OPERATORS
    which: Literal["layer", "rms"] = "layer" if kind == "layer" else "rms"
    width = sizes[-1] if sizes else None
    return Norm(which, node, source, output, kept[0], kept[1], width, operator)


def _primitives(tensors: Tensors, node: ir.Node) -> Norm | None:
    """A norm around the root of a mean of squares, or of a variance."""
    if node.op_type == "Sqrt" or (node.op_type == "Pow" and tensors.number(node.inputs[1]) == -0.5):
        found = _power(tensors, node.inputs[0])
    else:
        return None
    if found is None:
        return None
    for output, scale, offset in _scaled_by(tensors, node.outputs[0], found):
        source = found.of if found.centred else tensors.root(found.of)
        kind = "layer" if found.centred else "rms"
        return _norm(tensors, kind, node, source, output, scale, offset)
    return None


@dataclass(frozen=True, slots=True)
class _Power:
    """A mean of squares over the last axis: of a tensor, or of what it is above its mean."""

    of: ir.Value
    centred: bool

    def is_divided(self, tensors: Tensors, value: ir.Value | None) -> bool:
        """Whether a tensor is what this is the power of."""
        return _same(_centred(tensors, value) if self.centred else value, self.of)


def _power(tensors: Tensors, value: ir.Value | None) -> _Power | None:
    """Of mean x² + ε, mean (x − mean x)² + ε, or mean x² − (mean x)² + ε."""
    node = _statistic(value)
    while node is not None and node.op_type in ("Add", "Max", "Relu", "Clip"):
        varying = [v for v in node.inputs if v is not None and not tensors.is_constant(v)]
        if len(varying) != 1:
            return None
        value = varying[0]
        node = _statistic(value)
    if node is None:
        return None
    if node.op_type == "Sub":
        first, second = node.inputs
        of = _mean_of_squares(tensors, first)
        if of is None or second is None or not _is_mean(tensors, _squared(tensors, second), of):
            return None
        return _Power(of, centred=True)
    squared = _mean_of_squares(tensors, value)
    if squared is None:
        return None
    source = _centred(tensors, squared)
    return _Power(squared if source is None else source, centred=source is not None)


def _mean_of_squares(tensors: Tensors, value: ir.Value | None) -> ir.Value | None:
    """X of mean x²."""
    node = _statistic(value)
    squared = _averaged(tensors, node, total="ReduceSumSquare")
    return squared or _squared(tensors, _averaged(tensors, node))


def _averaged(tensors: Tensors, node: ir.Node | None, total: str = "ReduceSum") -> ir.Value | None:
    """X of mean x over the last axis: as one operator, or a total divided by its number (JAX)."""
    if node is not None and node.op_type == "ReduceMean" and total == "ReduceSum":
        return node.inputs[0]
    if node is None or node.op_type not in ("Div", "Mul"):
        return None
    for value, other in (node.inputs, reversed(node.inputs)):
        made, number = _statistic(value), tensors.number(other)
        if made is not None and made.op_type == total and number:
            sizes = tensors.sizes(made.inputs[0])
            width = number if node.op_type == "Div" else 1 / number
            alike = sizes and sizes[-1] and math.isclose(width, sizes[-1], rel_tol=_ROUNDED)
            return made.inputs[0] if alike else None
        if node.op_type == "Div":
            break
    return None


def _statistic(value: ir.Value | None) -> ir.Node | None:
    """What made a mean, or the root of one."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _UNCHANGED:
        above = node.inputs[0]
        node = None if above is None else above.producer()
    return node


def _squared(tensors: Tensors, value: ir.Value | None) -> ir.Value | None:
    """X of x²."""
    square = _producer(value)
    if square is None:
        return None
    first, second = (*square.inputs, None)[:2]
    if square.op_type == "Pow" and tensors.number(second) == 2:  # a square
        return first
    return first if square.op_type == "Mul" and first is second else None


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else _uncast(value).producer()


def _same(value: ir.Value | None, other: ir.Value) -> bool:
    """Whether both are one tensor, in whatever type."""
    return value is not None and _uncast(value) is _uncast(other)


def _uncast(value: ir.Value) -> ir.Value:
    while (node := value.producer()) is not None and node.op_type in ("Cast", "Identity"):
        above = node.inputs[0]
        if above is None:
            break
        value = above
    return value


def _centred(tensors: Tensors, value: ir.Value | None) -> ir.Value | None:
    """X of x − mean x."""
    node = _producer(value)
    if node is None or node.op_type != "Sub" or node.inputs[0] is None:
        return None
    return node.inputs[0] if _is_mean(tensors, node.inputs[1], node.inputs[0]) else None


def _is_mean(tensors: Tensors, value: ir.Value | None, of: ir.Value) -> bool:
    return _same(_averaged(tensors, _statistic(value)), of)


_Affine = tuple[ir.Value, ir.Value | None, ir.Value | None]
"""What a norm gives, its scale and its offset."""


def _scaled_by(
    tensors: Tensors, root: ir.Value, power: _Power, scale: ir.Value | None = None
) -> Iterator[_Affine]:
    """Where a tensor is divided by the root, or multiplied by its reciprocal.

    The scale may come first, g / √v, and the mean last: x·g / √v + (b − mean x·g / √v).
    """
    for user, index in root.uses():
        other = user.inputs[1 - index] if len(user.inputs) == 2 else None  # of a pair
        divides = user.op_type == "Div" and index == 1
        if (divides or user.op_type == "Mul") and power.is_divided(tensors, other):
            output, later, offset = _affine(tensors, user.outputs[0])
            yield output, later if scale is None else scale, offset
        elif (
            user.op_type == "Reciprocal"
            or (divides and tensors.number(other) == 1)
            or (user.op_type in _UNCHANGED and index == 0)
        ):
            yield from _scaled_by(tensors, user.outputs[0], power, scale)
        elif user.op_type == "Mul" and other is not None and tensors.is_constant(other):
            yield from _scaled_by(tensors, user.outputs[0], power, other)
        elif user.op_type == "Mul" and power.centred and _same(other, power.of):
            yield from _less_mean(tensors, user.outputs[0], root, power, scale)


def _less_mean(
    tensors: Tensors, value: ir.Value, factor: ir.Value, power: _Power, scale: ir.Value | None
) -> Iterator[_Affine]:
    """Where x·f becomes x·f + (b − mean x·f)."""
    for user, index in value.uses():
        rest = _producer(user.inputs[1 - index]) if user.op_type == "Add" else None
        if rest is None or rest.op_type != "Sub" or rest.inputs[0] is None:
            continue
        taken = _producer(rest.inputs[1])
        if taken is None or taken.op_type != "Mul" or not tensors.is_constant(rest.inputs[0]):
            continue
        mean = next((value for value in taken.inputs if value is not factor), None)
        if factor in taken.inputs and _is_mean(tensors, mean, power.of):
            yield user.outputs[0], scale, rest.inputs[0]


def _affine(tensors: Tensors, value: ir.Value) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
    """Behind a normalized tensor: (the result, the scale, the offset)."""
    scale = offset = None
    for operator in ("Mul", "Add"):
        current = value
        while len(uses := list(current.uses())) == 1 and uses[0].node.op_type == "Cast":
            current = uses[0].node.outputs[0]
        if len(uses) != 1 or uses[0].node.op_type != operator:
            continue
        other = uses[0].node.inputs[1 - uses[0].idx]
        if other is None or not tensors.is_constant(other):
            continue
        if operator == "Mul":
            scale = other
        else:
            offset = other
        value = uses[0].node.outputs[0]
    return value, scale, offset
