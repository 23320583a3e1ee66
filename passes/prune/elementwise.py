"""What operators that act element by element say of their axes, by the ONNX specifications."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.graph import attribute, constant, node_label
from onnxpress.passes.prune.coupling import Axes, Dynamic, fixed
from onnxpress.passes.prune.reader import Reader, Rule, registering

__all__ = ["ELEMENTWISE", "broadcast"]

ELEMENTWISE: dict[str, Rule] = {}

_rule = registering(ELEMENTWISE)

_KEEPS_ZERO = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Tanh",
        "Erf",
        "Abs",
        "Neg",
        "Sqrt",
        "HardSwish",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Mish",
        "Softsign",
        "Sin",
        "Tan",
        "Asin",
        "Atan",
        "Sinh",
        "Asinh",
        "Identity",
        "Cast",
        "CastLike",
        "Dropout",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "ThresholdedRelu",
        "QuantizeLinear",
        "DequantizeLinear",
        "Swish",
    ]
)
_UNARY = _KEEPS_ZERO | frozenset(
    [
        "Sigmoid",
        "HardSigmoid",
        "Exp",
        "Log",
        "Softplus",
        "Cos",
        "Cosh",
        "Acos",
        "Reciprocal",
        "Not",
        "IsNaN",
        "IsInf",
        "Clip",
    ]
)
_ELEMENTWISE = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Sum",
        "Max",
        "Min",
        "Mean",
        "Pow",
        "Where",
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "And",
        "Or",
        "Xor",
        "Mod",
        "PRelu",
        "Clip",
        "Dropout",
    ]
)


def broadcast(reader: Reader, operands: Sequence[Axes], reason: str) -> Axes:
    """The axes of an element by element result, right-aligned."""
    rank = max(len(axes) for axes in operands)
    result: Axes = []
    for place in range(rank):
        facing = [axes[place - rank] for axes in operands if len(axes) >= rank - place]
        sized = [axis for axis in facing if not isinstance(axis, Dynamic) and len(axis) > 1]
        dynamic = [axis for axis in facing if isinstance(axis, Dynamic)]
        for axis in sized[1:]:
            reader.coupling.relate(sized[0], axis, reason)
        if dynamic and sized:
            # Broadcasting may hide here: the size is then not one of the two for sure.
            reader.coupling.block(sized[0], reason)
        result.append(sized[0] if sized else dynamic[0] if dynamic else facing[0])
    return result


@_rule(*(_ELEMENTWISE | _UNARY))
def _elementwise(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    label = node_label(node)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _quantize(reader, node)
    operands = []
    for value in node.inputs:
        axes = reader.axes(value)
        if axes is not None:
            operands.append(axes)
        elif value is not None:
            return None
    outputs = [broadcast(reader, operands, f"{label} computes with them")]
    given = [value for value in node.inputs if value is not None]
    zeros = [reader.vanishes_in(value, outputs[0]) for value in given]
    reader.coupling.vanishes[node.outputs[0]] = _gives_zero(node, zeros)
    return [outputs[0] for _ in node.outputs]


def _gives_zero(node: ir.Node, zeros: list[bool]) -> bool:
    """Whether the result is zero where those operands are that `zeros` says."""
    if node.op_type == "Mul":
        return any(zeros)
    if node.op_type == "Div":
        return zeros[0]
    if node.op_type == "Pow":
        power = constant(node.inputs[1])
        return zeros[0] and power is not None and bool((power.astype(np.float64) > 0).all())
    if node.op_type in ("Equal", "GreaterOrEqual", "LessOrEqual", "Where"):
        return False
    if node.op_type == "Clip":
        return zeros[0] and _clip_keeps_zero(node)
    if node.op_type in _UNARY:
        return node.op_type in _KEEPS_ZERO and zeros[0]
    return all(zeros)


def _clip_keeps_zero(node: ir.Node) -> bool:
    for index, name, sign in ((1, "min", -1), (2, "max", 1)):
        if name in node.attributes:
            bound: float | None = node.attributes[name].as_float()
        elif index < len(node.inputs) and node.inputs[index] is not None:
            array = constant(node.inputs[index])
            bound = None if array is None else float(array.reshape(-1)[0])
        else:
            continue
        if bound is None or bound * sign < 0:
            return False
    return True


def _quantize(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    along = axes[attribute(node, "axis", 1) if len(axes) > 1 else 0] if axes else fixed(1)
    reason = f"{node_label(node)} has a scale for each"
    if attribute(node, "block_size", 0):
        return None
    for value in node.inputs[1:]:
        found = reader.axes(value)
        if found is None or len(found) > 1:
            return None
        if found and not isinstance(found[0], Dynamic) and len(found[0]) > 1:
            reader.coupling.relate(found[0], along, reason)
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [list(axes)]
