"""What lies before an output in the graph: what computed its values, and what weighs in it."""

import onnx_ir as ir

from onnxpress.graph import RANDOM_OPERATORS, attribute, bodies, is_constant, is_standard

__all__ = ["added", "is_given", "normalized", "origins"]

_SAME_VALUES = frozenset(
    [
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Flatten",
        "Cast",
        "Slice",
        "Split",
        "Gather",
        "Expand",
    ]
)
"""Operators behind which values mean what they meant before."""
_ALL_VALUES = _SAME_VALUES - {"Slice", "Split", "Gather", "Expand"}
"""Those of them that leave none out and repeat none."""
_NORMALIZERS = frozenset(["Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid"])
_ROWS_BY_DATA = frozenset(["NonMaxSuppression", "NonZero", "Compress", "Unique"])
_MOST_NODES = 400
_LIMITED = frozenset(["Clip", "DepthToSpace"])
"""Operators that change few values or none of a picture, before it is given out."""
_SMALL = 64
"""Numbers: scales, means of channels."""
_FEW_BITS = 8
"""Whole numbers of so few are weights in integers."""


def origins(
    value: ir.Value | None,
) -> tuple[frozenset[str], tuple[frozenset[str], ...], int | None, bool]:
    """Operators that computed the values, those of each part of a Concat, its axis, and rows."""
    if value is None:
        return frozenset(), (), None, False
    makers = _makers(value)
    parts: tuple[frozenset[str], ...] = ()
    axis = None
    for node in makers:
        if node.op_type == "Concat":
            axis = _moved(value, node)
            parts = tuple(
                frozenset(_operator(maker) for maker in _makers(source))
                for source in node.inputs
                if source is not None
            )
    return frozenset(_operator(node) for node in makers), parts, axis, _by_data(value)


def normalized(value: ir.Value | None) -> tuple[frozenset[str], frozenset[str]]:
    """Names of tensors with an output's numbers, and with those that it is the Softmax of."""
    held = _held(value)
    maker = held[-1].producer() if held else None
    read = _held(maker.inputs[0]) if maker is not None and maker.op_type in _NORMALIZERS else []
    return frozenset(str(v.name) for v in held), frozenset(str(v.name) for v in read)


def _held(value: ir.Value | None) -> list[ir.Value]:
    """A tensor and those before it that hold the same numbers, as far as there are such."""
    found: list[ir.Value] = []
    while value is not None:
        found.append(value)
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in _ALL_VALUES else None
    return found


def _operator(node: ir.Node) -> str:
    """Its type; Softmax where exp(x) / sum exp(x) is spelled out."""
    first = node.inputs[0] if node.inputs else None
    if node.op_type == "Div" and first is not None:
        maker = first.producer()
        if maker is not None and maker.op_type == "Exp":
            return "Softmax"
    return node.op_type


def _moved(value: ir.Value, concat: ir.Node) -> int | None:
    """The axis along which a Concat put an output together, as the output has it."""
    orders: list[list[int]] = []
    node = value.producer()
    while node is not concat:
        if node is None or node.op_type not in ("Transpose", "Identity", "Cast"):
            return None
        if node.op_type == "Transpose":
            order = node.attributes.get("perm")
            if order is None:
                return None
            orders.append(list(order.as_ints()))
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    axis: int = attribute(concat, "axis", 0)
    for places in reversed(orders):
        axis = places.index(axis % len(places))
    return axis


def _makers(value: ir.Value) -> list[ir.Node]:
    """The nodes that computed a value, behind those that only move values about."""
    found: list[ir.Node] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting and len(seen) < _MOST_NODES:
        current = waiting.pop()
        node = current.producer()
        if node is None or id(current) in seen:
            continue
        seen.add(id(current))
        if node.op_type in _SAME_VALUES and node.inputs and node.inputs[0] is not None:
            waiting.append(node.inputs[0])
        elif node.op_type in ("If", "Loop"):
            # Of a Loop's body the first output is its condition.
            shift = int(node.op_type == "Loop")
            place = node.outputs.index(current) + shift
            waiting += [body.outputs[place] for body in bodies(node) if place < len(body.outputs)]
        else:
            found.append(node)
    return found


def _by_data(value: ir.Value) -> bool:
    """Whether an operator near the output decides by the data how many rows there are."""
    seen: set[int] = set()
    waiting = [value]
    while waiting and len(seen) < _MOST_NODES:
        node = waiting.pop().producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type in _ROWS_BY_DATA:
            return True
        if node.op_type in ("Conv", "MatMul", "Gemm", "LSTM", "GRU"):
            continue
        waiting += [source for source in node.inputs if source is not None]
    return False


def added(value: ir.Value) -> tuple[str, str] | None:
    """Names of a sum behind an output and of its term with weights, where the other has none."""
    node = value.producer()
    while node is not None and is_standard(node) and node.inputs and node.inputs[0] is not None:
        if node.op_type in ("Add", "Sub"):
            terms = [term for term in node.inputs if term is not None]
            fixed = [term for term in terms if is_constant(term)]
            if not fixed:
                parts = [term for term in terms if not is_given(term, _SMALL)]
                both = len(parts) == 1 and len(terms) == 2
                return (str(node.outputs[0].name), str(parts[0].name)) if both else None
            (value,) = [term for term in terms if term not in fixed] or [terms[0]]
        elif node.op_type in _ALL_VALUES | _LIMITED:
            value = node.inputs[0]
        else:
            return None
        node = value.producer()
    return None


def is_given(value: ir.Value, numbers: int = 1) -> bool:
    """Whether neither weights nor chance lie before a value: a mask handed on, counted lengths.

    Args:
        value: any.
        numbers: of a constant that is no weight yet, as the means of three colours.
    """
    seen: set[int] = set()
    waiting: list[ir.Value | None] = [value]
    while waiting and len(seen) < _MOST_NODES:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        node = current.producer()
        if node is None or node.op_type == "Constant":
            if _is_weight(current, numbers):
                return False
            continue
        if not is_standard(node) or node.op_type in RANDOM_OPERATORS or bodies(node):
            return False
        waiting += node.inputs
    return not waiting


def _is_weight(value: ir.Value, numbers: int) -> bool:
    """Whether it has more than so many numbers that a pass may round: not whole, or of few bits."""
    tensor = ir.convenience.get_const_tensor(value)
    return (
        tensor is not None
        and tensor.size > numbers
        and (tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= _FEW_BITS)
    )
