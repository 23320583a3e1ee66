"""Why a provider would not take a unit: each question of its rules, and the answer as a reason."""

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.graph import constant, is_standard, node_label
from onnxpress.targets import LAYOUTS, OperatorRule, Target
from onnxpress.targets.static_rules.units import DEQUANTIZE, QUANTIZE, Unit, is_constant
from onnxpress.targets.words import one_of

__all__ = ["Refusal", "refusal_of"]

_ACTIVATIONS = ("Relu", "Clip")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node is not taken.

    Attributes:
        node: its label.
        kind: `operator`, `type`, `version`, `dynamic`, `computed`, `attribute`, `shape`,
            `activation` or `layout`.
        reason: a sentence without a full stop.
    """

    node: str
    kind: str
    reason: str


def refusal_of(unit: Unit, target: Target, opset: int) -> Refusal | None:
    """Why `target` would not take a unit of a model of this opset; `None`: it would."""
    found = _why_not(unit, target, opset)
    return None if found is None else Refusal(node_label(unit.node), *found)


def _why_not(unit: Unit, target: Target, opset: int) -> tuple[str, str] | None:
    """(kind, reason) or `None`."""
    node = unit.node
    operator = node.op_type if is_standard(node) else f"{node.domain}:{node.op_type}"
    rule = target.operators.get(operator)
    if rule is None:
        return "operator", f"{target.name} does not take {operator}"
    version = _version(node, opset)
    newest = rule.newest or target.maximum_opset
    if version > newest:
        return "version", (
            f"{operator} of opset {version} is newer than the {newest} that {target.name} knows"
        )
    return (
        _shape_refusal(unit, rule, target)
        or _type_refusal(unit, rule, target)
        or _input_refusal(unit, rule, target)
        or _attribute_refusal(node, rule, target)
        or (_layout_refusal(unit, rule, target) if unit.quantized else _behind(node, rule))
    )


def _version(node: ir.Node, opset: int) -> int:
    """The opset that last changed the operator; 0 for operators of other domains."""
    if not is_standard(node):
        return 0
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, "").since_version)
    except onnx.defs.SchemaError:
        return opset


def _shape_refusal(unit: Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    if target.static_shapes:
        for value in (*unit.node.inputs, *unit.node.outputs):
            if value is None or value.name == "" or is_constant(value):
                continue
            if value.shape is None or not value.shape.is_static():
                return "dynamic", f"its sizes are not all known: {_shape(value)}"
    first = unit.node.inputs[0] if unit.node.inputs else None
    if first is None:
        return None
    if (rule.ranks or rule.known) and first.shape is None:
        return "dynamic", "the rank of its input is not known"
    if first.shape is None:
        return None
    rank = len(first.shape)
    if rule.ranks and rank not in rule.ranks:
        wanted = " or ".join(str(item) for item in rule.ranks)
        return "shape", f"its input has {rank} dimensions, {target.name} takes {wanted}"
    if rank > target.maximum_rank:
        return (
            "shape",
            f"its input has {rank} dimensions, at most {target.maximum_rank} are taken",
        )
    for axis in rule.known:
        if axis < rank and not isinstance(first.shape[axis], int):
            return "dynamic", f"axis {axis} of its input is not known: {_shape(first)}"
    return None


def _shape(value: ir.Value) -> str:
    if value.shape is None:
        return "not even its rank"
    dims = (str(dim) if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape)
    return f"[{', '.join(dims)}]"


def _type_refusal(unit: Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    node = unit.node
    if not node.inputs or node.inputs[0] is None or unit.quantized:
        return None
    value = node.inputs[0]
    if value.dtype is None:
        return None
    name = value.dtype.name.lower()
    if node.op_type in (QUANTIZE, DEQUANTIZE):
        side = value if node.op_type == DEQUANTIZE else node.outputs[0]
        inner = "" if side.dtype is None else side.dtype.name.lower()
        if rule.integers and inner not in rule.integers:
            return (
                "layout",
                f"its integers are {inner}, {target.name} takes {one_of(rule.integers)}",
            )
        return None
    allowed = (*target.types, *rule.types)
    if name not in allowed:
        return "type", f"its input is {name}, {target.name} takes {one_of(allowed)}"
    return None


def _input_refusal(unit: Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    node = unit.node
    for index in rule.constant:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.name == "" or is_constant(value):
            continue
        producer = value.producer()
        stored = producer is not None and producer.op_type == DEQUANTIZE
        if producer is not None and stored and is_constant(producer.inputs[0]):
            if unit.quantized:
                continue
            return "activation", _lone(node)
        return "computed", f"input {index} is computed at run time"
    if rule.outputs and sum(bool(value.name) for value in node.outputs) > rule.outputs:
        return "shape", f"it has more than {rule.outputs} output"
    return None


def _lone(node: ir.Node) -> str:
    """Why an operator with an integer weight is no Q/DQ unit."""
    for use in node.outputs[0].uses():
        if use.node.op_type in _ACTIVATIONS:
            return (
                f"{use.node.op_type} stands between it and its QuantizeLinear, so that it is "
                "computed in float with a weight that is not constant"
            )
    return "its weight is in integers, but it is not between Q and DQ on all sides"


def _attribute_refusal(node: ir.Node, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    for name, allowed in rule.attributes.items():
        found = node.attributes.get(name)
        if found is None or found.is_ref():
            continue
        value = found.value
        if value not in allowed:
            wanted = one_of([str(item) for item in allowed])
            return "attribute", f"{name} is {value}, {target.name} takes {wanted}"
    return None


def _behind(node: ir.Node, rule: OperatorRule) -> tuple[str, str] | None:
    if not rule.behind:
        return None
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None or producer.op_type not in rule.behind:
        return "operator", f"it is taken only behind {one_of(rule.behind)} in float"
    return None


def _layout_refusal(unit: Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    node = unit.node
    allowed = rule.quantized
    if allowed is None:
        if target.quantizes_any and not target.layouts:
            # Without integer kernels every layout is computed in float.
            return None
        allowed = target.layouts if target.quantizes_any else ()
    if not allowed:
        return "layout", f"{target.name} takes {node.op_type} in float only, not between Q and DQ"
    inputs = [value.producer() for value in node.inputs if value is not None]
    dequantize = [n for n in inputs if n is not None and n.op_type == DEQUANTIZE]
    activations = _integer_type(dequantize[0])
    weights = [n for n in dequantize[1:2] if is_constant(n.inputs[0])]
    fitting = [
        name
        for name in allowed
        if LAYOUTS[name].activation_type == activations
        and all(LAYOUTS[name].weight_type == _integer_type(n) for n in weights)
    ]
    if not fitting:
        found = " with ".join([activations, *(f"weights of {_integer_type(n)}" for n in weights)])
        return "layout", f"it has {found}, {target.name} takes {one_of(allowed)}"
    per_channel = (
        target.per_channel_layouts if rule.per_channel_layouts is None else rule.per_channel_layouts
    )
    if any(_scales(n) > 1 for n in weights) and not set(fitting) & set(per_channel):
        return "layout", (
            f"its weight has a scale per channel, {target.name} takes one per tensor with "
            f"{one_of(fitting)}"
        )
    quantize = [n for n in unit.members if n.op_type == QUANTIZE]
    if rule.quantized_output and not quantize:
        return "layout", "its output is not quantized"
    if rule.same_scale and quantize and not _same_scale(dequantize[0], quantize[0]):
        return "layout", f"{target.name} wants the scale of the input at the output too"
    return None


def _integer_type(node: ir.Node) -> str:
    value = node.inputs[0]
    return "" if value is None or value.dtype is None else value.dtype.name.lower()


def _scales(node: ir.Node) -> int:
    value = node.inputs[1]
    shape = None if value is None else value.shape
    return math.prod(dim for dim in shape if isinstance(dim, int)) if shape else 1


def _same_scale(before: ir.Node, after: ir.Node) -> bool:
    pairs = [(constant(before.inputs[i]), constant(after.inputs[i])) for i in (1, 2)]
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)
