"""What each operator says of its axes, as the ONNX operator specifications define them.

A rule reads the axes of a node's inputs and gives those of its outputs, uniting and blocking atoms
on the way. An operator without a rule blocks whatever it reads. Shapes that are computed (Shape,
Gather, Concat → Reshape) are followed element by element: an element is a number, or the axis
whose size it is, which then follows by itself when the axis gets shorter.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.graph import attribute, constant, is_standard, node_label
from onnxpress.passes.shrink.coupling import Atoms, Axes, Coupling, Dynamic, fixed

__all__ = ["Reader", "analyse", "bounds", "split_sizes", "target_elements"]

Element = int | Atoms | Dynamic
"""Of a shape: a number, or the axis whose size it is."""

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
        "BatchNormalization",
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
_POOLS = frozenset(
    ["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]
)
_PER_CHANNEL = frozenset(("BatchNormalization", "InstanceNormalization"))
_SUMS = frozenset(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"))
_SHAPE_OPERATORS = frozenset(
    ["Shape", "Gather", "Slice", "Concat", "Cast", "Squeeze", "Unsqueeze", "Identity"]
)
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


class Reader:
    """Walks a graph and fills in a coupling."""

    def __init__(self, opset: int = 13) -> None:
        self.opset = opset
        self.coupling = Coupling()
        self.shapes: dict[ir.Value, list[Element]] = {}
        """Elements of tensors that hold shapes."""
        self.needs_all: set[ir.Node] = set()
        """Nodes that run on all channels, the removed ones put back as zeros (LRN)."""
        self.summed: list[Atoms] = []
        """Axes that are summed over without weights of their own."""

    # What is known of a value

    def axes(self, value: ir.Value | None) -> Axes | None:
        """The axes of a tensor, or `None` where not even their number is known."""
        if value is None:
            return None
        known = self.coupling.axes.get(value)
        if known is not None:
            return known
        array = constant(value)
        if array is None:
            return None
        axes: Axes = [self.coupling.fresh(size) for size in array.shape]
        self.coupling.axes[value] = self.coupling.constants[value] = axes
        return axes

    def adopt(self, value: ir.Value | None, axes: Axes, reason: str) -> None:
        """Say what the axes of a tensor are, trailing ones of size one being broadcast."""
        if value is None:
            return
        known = self.axes(value)
        if known is None:
            if value.const_value is None:
                self.coupling.block_all(axes, reason)
            return
        for mine, other in zip(known[::-1], axes[::-1], strict=False):
            self.coupling.relate(mine, other, reason)

    def vanishes(self, value: ir.Value | None) -> bool:
        """Whether the tensor is zero where the constants of a unit are."""
        if value is None:
            return True
        known = self.coupling.vanishes.get(value)
        if known is not None:
            return known
        array = constant(value)
        if array is None or array.dtype.kind not in "fiub":
            return False
        return any(size > 1 for size in array.shape) or not array.any()

    def vanishes_in(self, value: ir.Value | None, result: Axes) -> bool:
        """`vanishes` for an operand that may be broadcast: what has no such axis stays as it is."""
        array = constant(value)
        if array is not None and not array.any():
            return True
        axes = self.axes(value)
        if axes is None or not self.vanishes(value):
            return False
        padded = [fixed(1)] * (len(result) - len(axes)) + axes
        return all(
            isinstance(whole, Dynamic)
            or not (whole >= 0).any()
            or (not isinstance(mine, Dynamic) and len(mine) == len(whole))
            for mine, whole in zip(padded, result, strict=True)
        )

    def elements(self, value: ir.Value | None) -> list[Element] | None:
        """A shape element by element, or `None` where it is not known how it comes about."""
        if value is None:
            return None
        if value in self.shapes:
            return self.shapes[value]
        array = constant(value)
        if array is None or array.dtype.kind not in "iu" or array.ndim > 1:
            return None
        return [int(number) for number in array.reshape(-1)]

    # The walk

    def graph(self, graph: ir.Graph, *, body_of: ir.Node | None = None) -> None:
        """Read a graph, and the bodies inside it."""
        for value in graph.inputs:
            given = f"they are the model's input {value.name!r}"
            if body_of is not None:
                given = f"{node_label(body_of)} hands them to its body"
            self.given(value, given)
        for node in graph:
            self.node(node)
        owner = "the model" if body_of is None else node_label(body_of)
        for value in graph.outputs:
            axes = self.axes(value)
            self._use_of_shape(value, "is given out")
            if axes is not None:
                self.coupling.block_all(axes, f"they are the output {value.name!r} of {owner}")

    def given(self, value: ir.Value, reason: str) -> None:
        """A tensor that comes from elsewhere: its axes have to stay."""
        if value.shape is None:
            return
        axes: Axes = [
            self.coupling.fresh(dim) if isinstance(dim, int) else Dynamic() for dim in value.shape
        ]
        self.coupling.block_all(axes, reason)
        self.coupling.axes[value] = axes

    def node(self, node: ir.Node) -> None:
        """Read one node."""
        bodies = [
            body
            for attr in node.attributes.values()
            for body in (
                [attr.as_graph()]
                if attr.type == ir.AttributeType.GRAPH
                else attr.as_graphs()
                if attr.type == ir.AttributeType.GRAPHS
                else []
            )
        ]
        for body in bodies:
            self.graph(body, body_of=node)
        if node.op_type in _SHAPE_OPERATORS and self._shape_operator(node):
            return
        rule = _RULES.get(node.op_type) if is_standard(node) and not bodies else None
        outputs = None
        if rule is not None and any(self.axes(value) is not None for value in node.inputs):
            outputs = rule(self, node)
        if outputs is None:
            self._refuse(node)
            return
        for value, axes in zip(node.outputs, outputs, strict=False):
            if axes is not None:
                self.coupling.axes[value] = axes

    def _refuse(self, node: ir.Node) -> None:
        reason = f"{node_label(node)} does not say which of them belong together"
        for value in node.inputs:
            if value is None:
                continue
            axes = self.axes(value)
            if axes is not None:
                self.coupling.block_all(axes, reason)
            self._use_of_shape(value, f"{node_label(node)} computes with their number")
        for value in node.outputs:
            self.given(value, reason)

    def _use_of_shape(self, value: ir.Value, reason: str) -> None:
        """A size that is used in a way that is not followed has to stay."""
        for element in self.shapes.get(value, []):
            if isinstance(element, np.ndarray):
                self.coupling.block(element, reason)

    def _shape_operator(self, node: ir.Node) -> bool:
        """Follow a shape; whether the node is about shapes."""
        source = node.inputs[0] if node.inputs else None
        output = node.outputs[0]
        if node.op_type == "Shape":
            axes = self.axes(source)
            if axes is None:
                return True
            start, end = attribute(node, "start", 0), attribute(node, "end", len(axes))
            self.shapes[output] = list(axes[start:end])
            return True
        if node.op_type == "Concat":
            if not any(value in self.shapes for value in node.inputs if value is not None):
                return False
            pieces = [self.elements(value) for value in node.inputs]
            # A piece of unknown origin is one number, or nobody knows which place is which.
            self.shapes[output] = [
                element
                for piece, value in zip(pieces, node.inputs, strict=True)
                for element in (piece if piece is not None else _unknown(value))
            ]
            return True
        if source not in self.shapes:
            return False
        elements = self.shapes[source]
        picked: list[Element] | None = elements
        if node.op_type == "Gather":
            indices = constant(node.inputs[1])
            picked = None
            if indices is not None:
                picked = [elements[int(index)] for index in indices.reshape(-1)]
        elif node.op_type == "Slice":
            found = bounds(node)
            picked = None
            if found is not None and len(found) == 1 and found[0][0] in (0, -1):
                _, start, end, step = found[0]
                picked = elements[start:end:step]
        if picked is None:
            self._use_of_shape(source, f"{node_label(node)} computes with their number")
            return True
        self.shapes[output] = picked
        return True


def _unknown(value: ir.Value | None) -> list[Element]:
    size = 1
    if value is not None and value.shape is not None and len(value.shape) == 1:
        dim = value.shape[0]
        size = dim if isinstance(dim, int) else 1
    return [Dynamic() for _ in range(size)]


def analyse(model: ir.Model) -> Reader:
    """Read the whole model and settle every choice."""
    reader = Reader(model.graph.opset_imports.get("", 13))
    reader.graph(model.graph)
    reader.coupling.settle()
    return reader


# Rules: (reader, node) → axes of each output, or None: not understood

Rule = Callable[[Reader, ir.Node], "list[Axes | None] | None"]
_RULES: dict[str, Rule] = {}


def _rule(*operators: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def _sized(value: ir.Value, axis: int, rank: int) -> Atoms | Dynamic:
    """An axis of an output along which nothing is ever removed (height, width)."""
    if value.shape is not None and len(value.shape) == rank:
        dim = value.shape[axis]
        if isinstance(dim, int):
            return fixed(dim)
    return Dynamic()


def _ints(node: ir.Node, name: str, index: int) -> list[int] | None:
    """Integers that are an attribute in older opsets and a constant input in newer ones."""
    found = node.attributes.get(name)
    if found is not None:
        return [found.as_int()] if found.type == ir.AttributeType.INT else list(found.as_ints())
    if index < len(node.inputs) and node.inputs[index] is not None:
        array = constant(node.inputs[index])
        return None if array is None else [int(number) for number in array.reshape(-1)]
    return []


def _spatial(node: ir.Node, axes: Axes) -> Axes:
    output = node.outputs[0]
    return [_sized(output, axis, len(axes)) for axis in range(2, len(axes))]


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
    return [[axes[0], outputs, *_spatial(node, axes)]]


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
    batch = _broadcast(reader, [first[:-2], second[:-2]], reason)
    if computed:
        for axis in batch:
            coupling.mark_heads(axis)
    coupling.vanishes[node.outputs[0]] = True
    return [[*batch, first[-2], second[-1]]]


def _broadcast(reader: Reader, operands: Sequence[Axes], reason: str) -> Axes:
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
    if node.op_type in _PER_CHANNEL:
        return None
    operands = []
    for value in node.inputs:
        axes = reader.axes(value)
        if axes is not None:
            operands.append(axes)
        elif value is not None:
            return None
    outputs = [_broadcast(reader, operands, f"{label} computes with them")]
    coupling = reader.coupling
    given = [value for value in node.inputs if value is not None]
    zeros = [reader.vanishes_in(value, outputs[0]) for value in given]
    if node.op_type == "Mul":
        zero = any(zeros)
    elif node.op_type == "Div":
        zero = zeros[0]
    elif node.op_type == "Pow":
        power = constant(node.inputs[1])
        zero = zeros[0] and power is not None and bool((power.astype(np.float64) > 0).all())
    elif node.op_type in ("Equal", "GreaterOrEqual", "LessOrEqual", "Where"):
        zero = False
    elif node.op_type == "Clip":
        zero = zeros[0] and _clip_keeps_zero(node)
    elif node.op_type in _UNARY:
        zero = node.op_type in _KEEPS_ZERO and zeros[0]
    else:
        zero = all(zeros)
    coupling.vanishes[node.outputs[0]] = zero
    return [outputs[0] for _ in node.outputs]


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
    made: Axes = [*axes[:2], *_spatial(node, axes)]
    if node.op_type.startswith("Global"):
        made[2:] = [fixed(1)] * (len(axes) - 2)
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made for _ in node.outputs]


@_rule("Concat")
def _concat(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    operands = [reader.axes(value) for value in node.inputs]
    known = [axes for axes in operands if axes is not None]
    if len(known) < len(operands) or len({len(axes) for axes in known}) > 1:
        return None
    reason = f"{node_label(node)} needs as many of each"
    place = attribute(node, "axis", 0) % len(known[0])
    made: Axes = []
    for at in range(len(known[0])):
        facing = [axes[at] for axes in known]
        if at == place:
            sized = [axis for axis in facing if not isinstance(axis, Dynamic)]
            if len(sized) == len(facing):
                made.append(np.concatenate(sized))
            else:
                reader.coupling.block_all(sized, reason)
                made.append(Dynamic())
            continue
        for axis in facing[1:]:
            reader.coupling.relate(facing[0], axis, reason)
        made.append(facing[0])
    reader.coupling.vanishes[node.outputs[0]] = all(reader.vanishes(v) for v in node.inputs)
    return [made]


def split_sizes(node: ir.Node, size: int) -> list[int] | None:
    """Sizes of a Split's outputs for an axis of `size`; `None` where they are computed."""
    given = _ints(node, "split", 1)
    if given is None:
        return None
    if given:
        return given
    count = len(node.outputs)
    part = math.ceil(size / count)
    return [min(part, size - part * index) for index in range(count)]


@_rule("Split")
def _split(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    place = attribute(node, "axis", 0) % len(axes)
    along = axes[place]
    if isinstance(along, Dynamic):
        return [
            [*axes[:place], _sized(value, place, len(axes)), *axes[place + 1 :]]
            for value in node.outputs
        ]
    sizes = split_sizes(node, len(along))
    if sizes is None:
        return None
    ends = np.cumsum(sizes)
    made: list[Axes | None] = []
    for value, start, end in zip(node.outputs, ends - sizes, ends, strict=True):
        made.append([*axes[:place], along[start:end], *axes[place + 1 :]])
        reader.coupling.vanishes[value] = reader.vanishes(node.inputs[0])
    return made


def bounds(node: ir.Node) -> list[tuple[int, int, int, int]] | None:
    """`(axis, start, end, step)` of a Slice; `None` where they are computed."""
    found = [_ints(node, n, i) for n, i in (("starts", 1), ("ends", 2), ("axes", 3), ("steps", 4))]
    starts, ends, axes, steps = found
    if starts is None or ends is None or axes is None or steps is None:
        return None
    axes = axes or list(range(len(starts)))
    return list(zip(axes, starts, ends, steps or [1] * len(starts), strict=True))


@_rule("Slice")
def _slice(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, found = reader.axes(node.inputs[0]), bounds(node)
    if axes is None or found is None:
        return None
    made = list(axes)
    for at, start, end, step in found:
        along = made[at]
        if isinstance(along, Dynamic):
            made[at] = along if (start, step) == (0, 1) and end >= 2**31 - 1 else Dynamic()
            continue
        if step != 1:
            reader.coupling.block(along, f"{node_label(node)} takes every {step}th")
        picked = along[start : end if end > -(2**31) else None : step]
        made[at] = _single(reader, picked, node) if len(picked) == 1 else picked
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made]


def _single(reader: Reader, picked: Atoms, node: ir.Node) -> Atoms:
    """One index that is taken out by name has to stay; others may go."""
    reader.coupling.block(picked, f"{node_label(node)} picks it")
    return fixed(1)


@_rule("Gather")
def _gather(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, picks = reader.axes(node.inputs[0]), reader.axes(node.inputs[1])
    if axes is None or picks is None:
        return None
    place = attribute(node, "axis", 0) % len(axes)
    along, indices = axes[place], constant(node.inputs[1])
    middle: Axes = list(picks)
    if indices is None or isinstance(along, Dynamic):
        reader.coupling.block(along, f"{node_label(node)} picks among them at run time")
    elif indices.ndim == 1 and len(indices) > 1:
        middle = [along[indices]]
    else:
        reader.coupling.block(along[indices.reshape(-1)], f"{node_label(node)} picks it")
    reader.coupling.block_all(picks, f"{node_label(node)} uses them as indices")
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[*axes[:place], *middle, *axes[place + 1 :]]]


@_rule("Transpose")
def _transpose(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    order = _ints(node, "perm", len(node.inputs)) or list(range(len(axes)))[::-1]
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[axes[at] for at in order]]


@_rule("Squeeze")
def _squeeze(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, places = reader.axes(node.inputs[0]), _ints(node, "axes", 1)
    if axes is None or places is None:
        return None
    if not places:
        if any(isinstance(axis, Dynamic) for axis in axes):
            return None
        # An axis that becomes one long would go too.
        reader.coupling.block_all(axes, f"{node_label(node)} drops axes of one by their size")
        places = [
            at for at, axis in enumerate(axes) if not isinstance(axis, Dynamic) and len(axis) == 1
        ]
    gone = {at % len(axes) for at in places}
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[axis for at, axis in enumerate(axes) if at not in gone]]


@_rule("Unsqueeze")
def _unsqueeze(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, places = reader.axes(node.inputs[0]), _ints(node, "axes", 1)
    if axes is None or places is None:
        return None
    rank = len(axes) + len(places)
    made = list(axes)
    for at in sorted(place % rank for place in places):
        made.insert(at, fixed(1))
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made]


@_rule("Pad")
def _pad(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, pads = reader.axes(node.inputs[0]), _ints(node, "pads", 1)
    if axes is None or pads is None:
        return None
    places = (_ints(node, "axes", 3) or list(range(len(axes)))) if len(node.inputs) > 3 else None
    places = list(range(len(axes))) if places is None else places
    made = list(axes)
    for index, at in enumerate(places):
        if pads[index] or pads[index + len(places)]:
            reader.coupling.block(axes[at], f"{node_label(node)} puts others beside them")
            made[at] = _sized(node.outputs[0], at % len(axes), len(axes))
    zero = "value" not in node.attributes or node.attributes["value"].as_float() == 0
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        filling = constant(node.inputs[2])
        zero = filling is not None and not filling.any()
    reader.coupling.vanishes[node.outputs[0]] = zero and reader.vanishes(node.inputs[0])
    return [made]


@_rule("Resize", "Upsample")
def _resize(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None or len(axes) < 3 or "axes" in node.attributes:
        return None
    # Channels are never resized by those who export images; the shape says whether they are.
    shape = node.outputs[0].shape
    if isinstance(axes[1], Dynamic) or shape is None or len(shape) != len(axes):
        return None
    if shape[1] != len(axes[1]):
        return None
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if sizes is not None:
        elements = reader.elements(sizes)
        if elements is None:
            return None
        for at, element in enumerate(elements):
            if isinstance(element, np.ndarray) and at != 1:
                reader.coupling.block(element, f"{node_label(node)} computes with their number")
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[*axes[:2], *_spatial(node, axes)]]


@_rule("DepthToSpace", "SpaceToDepth")
def _pixel_shuffle(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None or isinstance(axes[1], Dynamic):
        return None
    block = attribute(node, "blocksize", 1) ** 2
    along = axes[1]
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    if node.op_type == "SpaceToDepth":
        made = np.tile(along, block)
    else:
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "DCR"
        table = along.reshape(-1, block).T if mode == "CRD" else along.reshape(block, -1)
        for row in table[1:]:
            reader.coupling.relate(table[0], row, f"{node_label(node)} makes one of several")
        made = table[0]
    return [[axes[0], made, *_spatial(node, axes)]]


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
    axes, places = reader.axes(node.inputs[0]), _ints(node, "axes", 1)
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


@_rule("LSTM", "GRU", "RNN")
def _recurrent(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, weight = reader.axes(node.inputs[0]), reader.axes(node.inputs[1])
    if axes is None or weight is None:
        return None
    reason = f"{node_label(node)} carries them from step to step"
    reader.coupling.block_all(axes[:2], reason)
    reader.coupling.relate(axes[2], weight[2], f"{node_label(node)} computes with them")
    for value in [node.inputs[1], *node.inputs[2:]]:
        known = reader.axes(value)
        if known is not None:
            reader.coupling.block_all([axis for axis in known if axis is not weight[2]], reason)
    for value in node.outputs:
        reader.given(value, reason)
    return [None for _ in node.outputs]


@_rule("Expand")
def _expand(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, elements = reader.axes(node.inputs[0]), reader.elements(node.inputs[1])
    if axes is None or elements is None:
        return None
    made: Axes = []
    rank = max(len(axes), len(elements))
    reason = f"{node_label(node)} repeats them"
    for place in range(rank):
        mine = axes[place - rank] if len(axes) >= rank - place else fixed(1)
        wanted = elements[place - rank] if len(elements) >= rank - place else 1
        target = fixed(wanted) if isinstance(wanted, int) else wanted
        if isinstance(mine, Dynamic):
            made.append(mine)
        elif len(mine) > 1:
            if not isinstance(wanted, int):
                reader.coupling.relate(mine, target, reason)
            made.append(mine)
        else:
            made.append(target)
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made]


@_rule("Tile")
def _tile(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, repeats = reader.axes(node.inputs[0]), _ints(node, "repeats", 1)
    if axes is None or not repeats:
        return None
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [
        [
            axis if times == 1 else Dynamic() if isinstance(axis, Dynamic) else np.tile(axis, times)
            for axis, times in zip(axes, repeats, strict=True)
        ]
    ]


@_rule("Flatten")
def _flatten(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    place = attribute(node, "axis", 1)
    place = place % len(axes) if place < 0 else place
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    reason = f"{node_label(node)} puts them together with others"
    return [[_merged(reader, part, reason) for part in (axes[:place], axes[place:])]]


def _merged(reader: Reader, axes: Axes, reason: str) -> Atoms | Dynamic:
    """One axis for several."""
    wide = [axis for axis in axes if isinstance(axis, Dynamic) or len(axis) > 1]
    if len(wide) == 1:
        return wide[0]
    if not wide:
        return fixed(1)
    sized = [axis for axis in wide if not isinstance(axis, Dynamic)]
    if len(sized) < len(wide):
        reader.coupling.block_all(sized, reason)
        return Dynamic()
    whole = reader.coupling.fresh(math.prod(len(axis) for axis in sized))
    reader.coupling.product(whole, sized, reason)
    return whole


def target_elements(reader: Reader, node: ir.Node) -> list[Element] | None:
    """What a Reshape's target says of each output axis: a number, or the axis it follows."""
    axes, elements = reader.axes(node.inputs[0]), reader.elements(node.inputs[1])
    if axes is None or elements is None:
        return None
    copies = not attribute(node, "allowzero", 0)
    return [
        axes[at] if isinstance(element, int) and element == 0 and copies else element
        for at, element in enumerate(elements)
    ]


@_rule("Reshape")
def _reshape(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, wanted = reader.axes(node.inputs[0]), target_elements(reader, node)
    if axes is None or wanted is None:
        return None
    reason = f"{node_label(node)} puts them together with others"
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    before, after = list(axes), list(wanted)
    head: Axes = []
    while before and after and _same(before[0], after[0]):
        head.append(before.pop(0))
        after.pop(0)
    tail: Axes = []
    while before and after and _same(before[-1], after[-1]):
        tail.insert(0, before.pop())
        after.pop()
    middle = _regrouped(reader, before, after, reason)
    if middle is None:
        reader.coupling.block_all(before, reason)
        middle = [
            Dynamic()
            if not isinstance(e, int) or e < 0
            else fixed(e)
            if not isinstance(e, np.ndarray)
            else e
            for e in after
        ]
        for element in after:
            if isinstance(element, np.ndarray):
                reader.coupling.block(element, reason)
    return [[*head, *middle, *tail]]


def _same(axis: Atoms | Dynamic, element: Element) -> bool:
    """Whether an output axis is this input axis for sure."""
    if isinstance(element, Dynamic):
        return element is axis
    if isinstance(element, int):
        return not isinstance(axis, Dynamic) and len(axis) == element
    return not isinstance(axis, Dynamic) and np.array_equal(axis, element)


def _regrouped(reader: Reader, before: Axes, after: list[Element], reason: str) -> Axes | None:
    """The output axes of the part of a Reshape that changes; `None` where it cannot be told."""
    before = [axis for axis in before if isinstance(axis, Dynamic) or len(axis) > 1]
    if any(isinstance(axis, Dynamic) for axis in before):
        return None
    sized = [axis for axis in before if not isinstance(axis, Dynamic)]
    total = math.prod(len(axis) for axis in sized)
    sizes = [e if isinstance(e, int) else -2 if isinstance(e, Dynamic) else len(e) for e in after]
    if -2 in sizes or sizes.count(-1) > 1:
        return None
    rest = math.prod(size for size in sizes if size != -1)
    if rest == 0 or total % rest:
        return None
    sizes = [total // rest if size == -1 else size for size in sizes]
    if math.prod(sizes) != total:
        return None
    made = _runs(reader, sized, sizes, reason)
    for element, axis in zip(after, made, strict=True):
        if isinstance(element, np.ndarray):
            # The size of another axis: it follows that one.
            reader.coupling.relate(element, axis, reason)
    return made


def _runs(reader: Reader, sized: list[Atoms], sizes: list[int], reason: str) -> Axes:
    """Output axes of these sizes, each run of them made of the shortest run of input axes."""
    made: Axes = []
    place = 0
    at = 0
    while at < len(sizes):
        if sizes[at] == 1:
            made.append(fixed(1))
            at += 1
            continue
        run, many = [sized[place]], [sizes[at]]
        place, at = place + 1, at + 1
        while math.prod(len(axis) for axis in run) != math.prod(many):
            if math.prod(len(axis) for axis in run) < math.prod(many):
                run.append(sized[place])
                place += 1
            else:
                many.append(sizes[at])
                at += 1
        if len(run) == 1 and len(many) == 1:
            made.append(run[0])
            continue
        whole = run[0] if len(run) == 1 else _merged(reader, list(run), reason)
        assert not isinstance(whole, Dynamic)
        if len(many) == 1:
            made.append(whole)
            continue
        factors = [reader.coupling.fresh(size) for size in many]
        reader.coupling.product(whole, factors, reason)
        made += factors
    return made
