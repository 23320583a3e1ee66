"""What operators that sum and normalize say of their axes, by the ONNX operator specifications.

The others: `elementwise`, `moving`, `reshaping`, `recurrent`. Here all come together in `analyse`.
"""

import numpy as np
import onnx_ir as ir

from onnxpress.graph import attribute, constant, node_label
from onnxpress.passes.prune.coupling import Atoms, Axes, Coupling, Dynamic, fixed
from onnxpress.passes.prune.elementwise import ELEMENTWISE, broadcast
from onnxpress.passes.prune.moving import MOVING
from onnxpress.passes.prune.reader import Reader, Rule, integers, registering, spatial
from onnxpress.passes.prune.recurrent import RECURRENT_RULES
from onnxpress.passes.prune.reshaping import RESHAPING

__all__ = ["analyse"]

_POOLS = frozenset(
    ["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]
)
_PER_CHANNEL = frozenset(("BatchNormalization", "InstanceNormalization"))
_SUMS = frozenset(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"))
_ALONG = {
    "Softmax": -1,
    "LogSoftmax": -1,
    "Hardmax": -1,
    "ArgMax": 0,
    "ArgMin": 0,
    "CumSum": 0,
    "TopK": -1,
    "LpNormalization": -1,
}
_TO_THE_END = frozenset(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"))

_RULES: dict[str, Rule] = {}

_rule = registering(_RULES)


@_rule("Conv", "ConvTranspose")
def _conv(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, weight = reader.axes(node.inputs[0]), reader.axes(node.inputs[1])
    if axes is None or weight is None or isinstance(axes[1], Dynamic):
        return None
    coupling, label = reader.coupling, node_label(node)
    groups = attribute(node, "group", 1)
    transposed = node.op_type == "ConvTranspose"
    mine, outer = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if isinstance(mine, Dynamic) or isinstance(outer, Dynamic):
        return None
    inputs, reason = axes[1], f"{label} computes with them"
    if constant(node.inputs[1]) is None:
        reader.summed.append(inputs)
    if groups == 1:
        coupling.relate(mine, inputs, reason)
        outputs = outer
    elif groups == len(inputs):
        # Depthwise: what comes of a channel goes with it.
        multiplier = len(outer) if transposed else len(outer) // groups
        outputs = np.repeat(inputs, multiplier)
        if transposed:
            coupling.relate(mine, inputs, reason)
            coupling.block(outer, reason)
        else:
            coupling.relate(outer, outputs, reason)
    else:
        reason = f"{label} needs as many in each of its {groups} groups"
        outputs = _grouped(coupling, inputs, mine, outer, groups, reason, transposed=transposed)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        reader.adopt(node.inputs[2], [outputs], reason)
    coupling.vanishes[node.outputs[0]] = True
    return [[axes[0], outputs, *spatial(node, axes)]]


def _grouped(
    coupling: Coupling,
    inputs: Atoms,
    mine: Atoms,
    outer: Atoms,
    groups: int,
    reason: str,
    *,
    transposed: bool,
) -> Atoms:
    """Every group of a convolution loses as many as the others: those at the same place."""
    size = len(inputs) // groups
    for start in range(size, len(inputs), size):
        coupling.relate(inputs[start : start + size], inputs[:size], reason)
    coupling.relate(mine, inputs if transposed else inputs[:size], reason)
    if transposed:
        return np.tile(outer, groups)
    made = len(outer) // groups
    for start in range(made, len(outer), made):
        coupling.relate(outer[start : start + made], outer[:made], reason)
    return outer


@_rule("Gemm")
def _gemm(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    first, second = reader.axes(node.inputs[0]), reader.axes(node.inputs[1])
    if first is None or second is None:
        return None
    rows, inner = first[::-1] if attribute(node, "transA", 0) else first
    other, outputs = second[::-1] if attribute(node, "transB", 0) else second
    reader.coupling.relate(inner, other, f"{node_label(node)} sums over them")
    made: Axes = [rows, outputs]
    zero = True
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        reader.adopt(node.inputs[2], made, f"{node_label(node)} computes with them")
        zero = reader.vanishes_in(node.inputs[2], [fixed(1), made[1]])
    if constant(node.inputs[1]) is None and not isinstance(inner, Dynamic):
        reader.summed.append(inner)
    reader.coupling.vanishes[node.outputs[0]] = zero
    return [made]


@_rule("MatMul")
def _matmul(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    first, second = reader.axes(node.inputs[0]), reader.axes(node.inputs[1])
    if first is None or second is None or min(len(first), len(second)) < 2:
        return None
    coupling, label = reader.coupling, node_label(node)
    reason = f"{label} sums over them"
    computed = constant(node.inputs[0]) is None and constant(node.inputs[1]) is None
    if computed and not (reader.vanishes(node.inputs[0]) or reader.vanishes(node.inputs[1])):
        coupling.block(first[-1], f"{label} sums over them although they are never zero")
    if computed and not isinstance(first[-1], Dynamic):
        reader.summed.append(first[-1])
    coupling.relate(first[-1], second[-2], reason)
    batch = broadcast(reader, [first[:-2], second[:-2]], reason)
    if computed:
        for axis in batch:
            coupling.mark_heads(axis)
    coupling.vanishes[node.outputs[0]] = True
    return [[*batch, first[-2], second[-1]]]


@_rule(*_PER_CHANNEL)
def _per_channel(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None or len(axes) < 2:
        return None
    for value in node.inputs[1:]:
        reader.adopt(value, [axes[1]], f"{node_label(node)} has parameters for each")
    # Scale and offset of a removed channel are zero too.
    reader.coupling.vanishes[node.outputs[0]] = True
    return [list(axes), *([None] * (len(node.outputs) - 1))]


@_rule("LRN")
def _lrn(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    if not reader.vanishes(node.inputs[0]):
        reader.coupling.block(axes[1], f"{node_label(node)} weighs neighbouring channels")
    reader.needs_all.add(node)
    reader.coupling.vanishes[node.outputs[0]] = True
    return [list(axes)]


@_rule(*_TO_THE_END)
def _normalize_rest(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    start = attribute(node, "axis", -1)
    reason = f"{node_label(node)} normalizes over them"
    reader.coupling.block_all(axes[start:], reason)
    for value in node.inputs[1:]:
        # The same constant may be the parameter of something else too.
        reader.coupling.block_all(reader.axes(value) or [], reason)
    return [list(axes), *([None] * (len(node.outputs) - 1))]


@_rule(*_ALONG)
def _along(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    default = _ALONG[node.op_type]
    # Softmax and its kin used to run over all axes from a first one on.
    flattens = reader.opset < 13 and node.op_type.endswith("max") and default == -1
    place = attribute(node, "axis", 1 if flattens else default)
    if node.op_type == "CumSum":
        found = constant(node.inputs[1])
        if found is None:
            return None
        place = int(found.reshape(-1)[0])
    reason = f"{node_label(node)} weighs them against each other"
    if node.op_type in ("ArgMax", "ArgMin", "TopK"):
        reader.coupling.block(axes[place], reason)
        rest = [axis for at, axis in enumerate(axes) if at != place % len(axes)]
        reader.coupling.block_all(rest, reason)
        return None
    until = len(axes) if flattens else place % len(axes) + 1
    reader.coupling.block_all(axes[place % len(axes) : until], reason)
    return [list(axes)]


@_rule(*_POOLS)
def _pool(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None or len(axes) < 3:
        return None
    made: Axes = [*axes[:2], *spatial(node, axes)]
    if node.op_type.startswith("Global"):
        made[2:] = [fixed(1)] * (len(axes) - 2)
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made for _ in node.outputs]


@_rule(
    *_SUMS,
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
def _reduce(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, places = reader.axes(node.inputs[0]), integers(node, "axes", 1)
    if axes is None or places is None:
        return None
    if not places and not attribute(node, "noop_with_empty_axes", 0):
        places = list(range(len(axes)))
    gone = {at % len(axes) for at in places}
    summed = node.op_type in _SUMS and reader.vanishes(node.inputs[0])
    for at in gone:
        axis = axes[at]
        if not summed:
            reader.coupling.block(axis, f"{node_label(node)} counts them")
        elif not isinstance(axis, Dynamic):
            reader.summed.append(axis)
    keep = attribute(node, "keepdims", 1)
    reader.coupling.vanishes[node.outputs[0]] = node.op_type not in (
        "ReduceLogSum",
        "ReduceLogSumExp",
    ) and reader.vanishes(node.inputs[0])
    return [
        [fixed(1) if at in gone else axis for at, axis in enumerate(axes) if at not in gone or keep]
    ]


def analyse(model: ir.Model) -> Reader:
    """Read the whole model and settle every choice."""
    reader = Reader(
        {**ELEMENTWISE, **_RULES, **MOVING, **RESHAPING, **RECURRENT_RULES},
        model.graph.opset_imports.get("", 13),
    )
    reader.graph(model.graph)
    reader.coupling.settle()
    return reader
