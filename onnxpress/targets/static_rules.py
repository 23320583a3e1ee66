"""Which nodes a provider that cannot run here would take, by the rules in its target's file.

The graph is judged as onnxruntime shows it to a provider, after the basic optimizations. An
operator with its DequantizeLinear and QuantizeLinear around it is one unit, as in onnxruntime's
node units. Units that are taken form partitions as in onnxruntime's `partitioning_utils.cc`: in
topological order a partition grows until only nodes are left that it feeds and cannot hold.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnxpress.errors import ModelError, UsageError
from onnxpress.graph import constant, is_standard, node_label, standard_opset
from onnxpress.layers import multiply_adds
from onnxpress.runtime import seen_by_providers
from onnxpress.targets import LAYOUTS, OperatorRule, Target

__all__ = ["Refusal", "StaticReport", "static_report"]

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_ACTIVATIONS = ("Relu", "Clip")
_MAY_END_IN_FLOAT = ("Gemm", "MatMul")
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


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


@dataclass(frozen=True, slots=True)
class StaticReport:
    """What the rules say; nothing was run.

    Attributes:
        target: name of the target.
        nodes: how many units compute at run time; an operator with the Q and DQ around it is one.
        taken: how many of them the provider would take.
        partitions: into how many connected pieces; nodes in `Target.passes_through` that stay
            with the CPU provider end none, and `advice` names them.
        multiply_add_share: of the multiply-adds of all convolutions and matrix products, the
            share in nodes that are taken; 1 where there are none and all are taken.
        refused: the label of each other node and why it is not taken.
        advice: what would help, in sentences.
    """

    target: str
    nodes: int
    taken: int
    partitions: int
    multiply_add_share: float
    refused: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    node: ir.Node
    members: tuple[ir.Node, ...]
    quantized: bool


def static_report(model: ir.Model, target: Target) -> StaticReport:
    """Judge every node of `model` by the rules of `target`.

    Args:
        model: it is not changed.
        target: one; of a common ground give its members, one after the other.

    Raises:
        UsageError: the target stands for several.
    """
    if len(target.members) > 1:
        raise UsageError(
            f"target {target.name!r} stands for {', '.join(target.members)}; ask about each"
        )
    seen = _seen(model)
    units = list(_units(seen.graph))
    opset = standard_opset(seen)
    refusals: dict[int, Refusal] = {}
    for index, unit in enumerate(units):
        refusal = None if target.placement == "all" else _refusal(unit, target, opset)
        if refusal is not None:
            refusals[index] = refusal
    work = [multiply_adds(unit.node) for unit in units]
    whole = sum(work)
    placed = sum(cost for index, cost in enumerate(work) if index not in refusals)
    partitions = _partitions(units, set(refusals), target)
    beside = [units[i].node for i in refusals if _passes_through(units[i].node, target)]
    return StaticReport(
        target=target.name,
        nodes=len(units),
        taken=len(units) - len(refusals),
        partitions=partitions,
        multiply_add_share=placed / whole if whole else float(not refusals),
        refused=tuple((refusal.node, refusal.reason) for refusal in refusals.values()),
        advice=tuple(_advice(seen, target, list(refusals.values()), beside, partitions)),
    )


def _seen(model: ir.Model) -> ir.Model:
    """What a provider is shown; of some models only nearly, by working out all shapes."""
    half = any(
        value.dtype == ir.DataType.FLOAT16
        for graph in model.graphs()
        for node in graph
        for value in node.outputs
    )
    if not half:
        try:
            return seen_by_providers(model)
        except ModelError:
            pass
    # A custom operator stops onnxruntime here, and for want of half kernels it puts casts around
    # nodes that other providers have kernels for.
    return ShapeInferencePass(data_prop=True)(model.clone()).model


def _units(graph: ir.Graph) -> Iterator[_Unit]:
    """Nodes in topological order, operators with the Q and DQ around them put together."""
    grouped: dict[ir.Node, _Unit] = {}
    owned: set[ir.Node] = set()
    for node in graph:
        if node.op_type not in (_QUANTIZE, _DEQUANTIZE, "Constant"):
            unit = _group(node)
            if unit is not None:
                grouped[node] = unit
                owned.update(member for member in unit.members if member is not node)
    for node in graph:
        if node.op_type == "Constant" or node in owned:
            continue
        folded = bool(node.inputs) and all(_is_constant(value) for value in node.inputs)
        if folded and node.op_type != _DEQUANTIZE:
            continue
        yield grouped.get(node, _Unit(node, (node,), quantized=False))


def _group(node: ir.Node) -> _Unit | None:
    """The unit of an operator whose inputs come from DQ and whose outputs go to Q only."""
    before = [value.producer() for value in node.inputs if value is not None]
    dequantize = [n for n in before if n is not None and n.op_type == _DEQUANTIZE]
    first = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if first is None or first not in dequantize:
        return None
    if any(n is not None and n not in dequantize for n in before):
        return None
    quantize: list[ir.Node] = []
    for output in node.outputs:
        users = [use.node for use in output.uses()]
        if output.is_graph_output() or any(user.op_type != _QUANTIZE for user in users):
            quantize = []
            break
        quantize += users
    if not quantize and node.op_type not in _MAY_END_IN_FLOAT:
        return None
    return _Unit(node, (*dict.fromkeys(dequantize), node, *quantize), quantized=True)


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or (value.const_value is not None and not value.is_graph_input())


def _refusal(unit: _Unit, target: Target, opset: int) -> Refusal | None:
    found = _why_not(unit, target, opset)
    return None if found is None else Refusal(node_label(unit.node), *found)


def _why_not(unit: _Unit, target: Target, opset: int) -> tuple[str, str] | None:
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


def _shape_refusal(unit: _Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    if target.static_shapes:
        for value in (*unit.node.inputs, *unit.node.outputs):
            if value is None or value.name == "" or _is_constant(value):
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


def _type_refusal(unit: _Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    node = unit.node
    if not node.inputs or node.inputs[0] is None or unit.quantized:
        return None
    value = node.inputs[0]
    if value.dtype is None:
        return None
    name = value.dtype.name.lower()
    if node.op_type in (_QUANTIZE, _DEQUANTIZE):
        side = value if node.op_type == _DEQUANTIZE else node.outputs[0]
        inner = "" if side.dtype is None else side.dtype.name.lower()
        if rule.integers and inner not in rule.integers:
            return "layout", f"its integers are {inner}, {target.name} takes {_or(rule.integers)}"
        return None
    allowed = (*target.types, *rule.types)
    if name not in allowed:
        return "type", f"its input is {name}, {target.name} takes {_or(allowed)}"
    return None


def _input_refusal(unit: _Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    node = unit.node
    for index in rule.constant:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.name == "" or _is_constant(value):
            continue
        producer = value.producer()
        stored = producer is not None and producer.op_type == _DEQUANTIZE
        if producer is not None and stored and _is_constant(producer.inputs[0]):
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
            wanted = _or([str(item) for item in allowed])
            return "attribute", f"{name} is {value}, {target.name} takes {wanted}"
    return None


def _behind(node: ir.Node, rule: OperatorRule) -> tuple[str, str] | None:
    if not rule.behind:
        return None
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None or producer.op_type not in rule.behind:
        return "operator", f"it is taken only behind {_or(rule.behind)} in float"
    return None


def _layout_refusal(unit: _Unit, rule: OperatorRule, target: Target) -> tuple[str, str] | None:
    node = unit.node
    allowed = rule.quantized
    if allowed is None:
        allowed = target.layouts if target.quantizes_any else ()
    if not allowed:
        return "layout", f"{target.name} takes {node.op_type} in float only, not between Q and DQ"
    inputs = [value.producer() for value in node.inputs if value is not None]
    dequantize = [n for n in inputs if n is not None and n.op_type == _DEQUANTIZE]
    activations = _integer_type(dequantize[0])
    weights = [n for n in dequantize[1:2] if _is_constant(n.inputs[0])]
    fitting = [
        name
        for name in allowed
        if LAYOUTS[name].activation_type == activations
        and all(LAYOUTS[name].weight_type == _integer_type(n) for n in weights)
    ]
    if not fitting:
        found = " with ".join([activations, *(f"weights of {_integer_type(n)}" for n in weights)])
        return "layout", f"it has {found}, {target.name} takes {_or(allowed)}"
    per_channel = target.per_channel_layouts if rule.per_channel is None else rule.per_channel
    if any(_scales(n) > 1 for n in weights) and not set(fitting) & set(per_channel):
        return "layout", (
            f"its weight has a scale per channel, {target.name} takes one per tensor with "
            f"{_or(fitting)}"
        )
    quantize = [n for n in unit.members if n.op_type == _QUANTIZE]
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


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _partitions(units: Sequence[_Unit], refused: set[int], target: Target) -> int:
    """How many groups of taken units onnxruntime would make."""
    owner = {member: index for index, unit in enumerate(units) for member in unit.members}
    feeds: list[set[int]] = [set() for _ in units]
    waits = [0] * len(units)
    for index, unit in enumerate(units):
        sources = {
            owner[producer]
            for member in unit.members
            for value in member.inputs
            if value is not None
            and (producer := value.producer()) is not None
            and producer in owner
            and owner[producer] != index
        }
        waits[index] = len(sources)
        for source in sources:
            feeds[source].add(index)
    kernel_preserving = {index for index in refused if _passes_through(units[index].node, target)}
    ready = [index for index, count in enumerate(waits) if count == 0]
    count, open_group, border = 0, False, set[int]()
    later: list[int] = []
    while ready or later:
        if not ready:
            count, open_group, border = count + open_group, False, set()
            ready, later = later, []
            continue
        index = ready.pop(0)
        taken = index not in refused
        if not taken and index not in kernel_preserving and index in border:
            later.append(index)
            continue
        open_group = open_group or taken
        if taken or (index in kernel_preserving and index in border):
            border |= feeds[index]
        for follower in sorted(feeds[index]):
            waits[follower] -= 1
            if waits[follower] == 0:
                ready.append(follower)
    return count + open_group


def _passes_through(node: ir.Node, target: Target) -> bool:
    """Whether the node may stay with the CPU provider without ending a partition."""
    if not target.shares_cpu_memory or node.op_type not in target.passes_through:
        return False
    if node.op_type not in _VIEWS:
        return True
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    # One axis besides the batch: the tensor lies the same in NCHW and NHWC.
    return shape is not None and sum(dim != 1 for dim in list(shape)[1:]) <= 1


def _advice(
    model: ir.Model,
    target: Target,
    refusals: Sequence[Refusal],
    beside: Sequence[ir.Node],
    partitions: int,
) -> Iterator[str]:
    kinds = Counter(refusal.kind for refusal in refusals)
    between = Counter(node.op_type for node in beside)
    if between:
        yield (
            f"{_listed(between)} stay with the CPU provider in the same memory and layout, so "
            "that no partition ends there"
        )
    if kinds["dynamic"]:
        yield f"give every dynamic dimension a size: {' '.join(_fix_shapes(model))}"
    if kinds["version"]:
        yield f"lower the opset to {target.maximum_opset}: --opset {target.maximum_opset}"
    if kinds["activation"]:
        yield (
            "leave out activation functions that QuantizeLinear performs: optimize with "
            f"--target {target.name} does"
        )
    if kinds["layout"] and target.layouts:
        yield f"quantize as {_or(target.layouts)}: optimize with --target {target.name} does"
    if kinds["layout"] and not target.layouts:
        yield f"{target.name} computes in float only: optimize with --target {target.name}"
    if partitions > 1:
        passed = set(between)
        operators = Counter(r.node.split(" ")[0] for r in refusals if r.kind == "operator")
        ending = Counter({k: n for k, n in operators.items() if k not in passed})
        if ending:
            yield f"for one partition, replace or move to an end of the graph: {_listed(ending)}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(6))


def _fix_shapes(model: ir.Model) -> Iterator[str]:
    """`--fix-shape` options for the dynamic inputs, with 1 for what is not known."""
    for value in model.graph.inputs:
        if value.shape is not None and not value.shape.is_static():
            dims = (str(dim) if isinstance(dim, int) else "1" for dim in value.shape)
            yield f"--fix-shape {value.name}={'x'.join(dims)}"
