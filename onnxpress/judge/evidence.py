"""What the graph, the names and the original's answers say of an output."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.beyond_ir import gives_maps
from onnxpress.graph import RANDOM_OPERATORS, attribute, bodies, is_constant, is_standard
from onnxpress.runtime import Array, Session

__all__ = ["Evidence", "gather"]

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
_SUM_TOLERANCE = 1e-3
Size = int | str | None


@dataclass(frozen=True)
class Evidence:
    """Of one output.

    Attributes:
        name: of the output.
        shape: as the model declares it.
        is_float: its type.
        origins: operators that computed its values, behind those that only move them.
        parts: of an output that a Concat made: the origins of each part.
        concat_axis: along which it did; `None` where what lies behind it hides that.
        by_data: an operator before it decides by the data how many rows there are.
        holds: names of tensors with the same numbers in another order or shape, its own among them.
        normalizes: of a Softmax or Sigmoid: what the tensor that it reads `holds`.
        given: no weight lies before it, only the inputs: passes have nothing there to change.
        added: names of a sum that it holds, and of the term with weights, where the other term has
            none: y = x + f(x).
        examples: the original's answers, at least one, or none where nothing was run.
    """

    name: str
    shape: tuple[Size, ...]
    is_float: bool
    origins: frozenset[str]
    parts: tuple[frozenset[str], ...] = ()
    concat_axis: int | None = None
    by_data: bool = False
    holds: frozenset[str] = frozenset()
    normalizes: frozenset[str] = frozenset()
    given: bool = False
    added: tuple[str, str] | None = None
    examples: tuple[Array, ...] = ()

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.examples[0].ndim if self.examples else len(self.shape)

    def size(self, axis: int) -> int | None:
        """Of an axis, where it is the same everywhere; `None`: dynamic or not known."""
        if self.examples:
            sizes = {array.shape[axis] for array in self.examples}
            return sizes.pop() if len(sizes) == 1 else None
        found = self.shape[axis]
        return found if isinstance(found, int) and found > 0 else None

    def square_in(self, axis: int) -> bool:
        """Whether another axis is always as long, as of attentions: these are steps, no classes.

        By the names of sizes, and by the answers, as some exporters give all sizes one name.
        """
        name = self.shape[axis] if axis < len(self.shape) else None
        if not isinstance(name, str):
            return False
        others = [place for place, size in enumerate(self.shape) if size == name and place != axis]
        return any(
            all(array.shape[place] == array.shape[axis] for array in self.examples)
            for place in others
        )

    @property
    def varies(self) -> bool:
        """Whether its shape depends on the data."""
        return self.by_data or any(0 in array.shape for array in self.examples)

    @property
    def lowest(self) -> float | None:
        """Of all values that are finite; `None` where nothing was run."""
        return _extreme(self.examples, "min")

    @property
    def highest(self) -> float | None:
        """As `lowest`."""
        return _extreme(self.examples, "max")

    @property
    def in_unit_range(self) -> bool:
        """Whether all values lie between 0 and 1."""
        low, high = self.lowest, self.highest
        return low is not None and high is not None and low >= 0 and high <= 1 + 1e-6

    def sums_to_one(self, axis: int) -> bool:
        """Whether the values are probabilities of classes along an axis."""
        arrays = [array for array in self.examples if array.size]
        return bool(arrays) and all(
            float(array.min()) >= 0
            and np.allclose(array.astype(np.float64).sum(axis=axis), 1.0, atol=_SUM_TOLERANCE)
            for array in arrays
        )

    def exponents_sum_to_one(self, axis: int) -> bool:
        """Whether the values are logarithms of probabilities of classes along an axis."""
        arrays = [array for array in self.examples if array.size]
        return bool(arrays) and all(
            float(array.max()) <= _SUM_TOLERANCE
            and np.allclose(np.exp(array.astype(np.float64)).sum(axis), 1.0, atol=_SUM_TOLERANCE)
            for array in arrays
        )

    def unit_length(self) -> bool:
        """Whether all rows along the last axis have length 1; single numbers have no direction."""
        arrays = [array for array in self.examples if array.size]
        if any(array.ndim == 0 for array in arrays):
            return False
        wide = [array.astype(np.float64) for array in arrays if array.shape[-1] > 1]
        return bool(wide) and all(
            np.allclose(np.linalg.norm(array, axis=-1), 1, atol=_SUM_TOLERANCE) for array in wide
        )

    def named(self, pattern: str) -> bool:
        """Whether a part of its name matches a pattern."""
        return re.search(pattern, self.name, re.IGNORECASE) is not None


def gather(
    model: ir.Model | None, session: Session | None, examples: Sequence[Mapping[str, Array]]
) -> list[Evidence]:
    """Of every output of a model, in order.

    Args:
        model: its graph, where it is at hand.
        session: of it, where there is one: the model's outputs are taken from one of both.
        examples: the original's answers to a few samples.
    """
    names = session.output_names if session is not None else ()
    types = session.output_types if session is not None else ()
    ranks = session.output_ranks if session is not None else ()
    values = {} if model is None else {value.name: value for value in model.graph.outputs}
    if session is None:
        names = tuple(str(name) for name in values)
    found = []
    for place, name in enumerate(names):
        value = values.get(name)
        shape = _shape(value) if value is not None and value.shape is not None else None
        kind = types[place] if types else _type(value)
        if model is not None and gives_maps(model, name):
            kind, shape = "tensor(float)", shape or (None, None)
        origins, parts, axis, by_data = _origins(value)
        arrays = tuple(answer[name] for answer in examples)
        if len({array.ndim for array in arrays}) > 1:
            # An axis of one answer means nothing in another.
            shape, arrays, by_data = (), (), True
        found.append(
            Evidence(
                name,
                shape or (None,) * (ranks[place] if ranks else 0),
                kind in ("tensor(float)", "tensor(double)", "tensor(float16)"),
                origins,
                parts,
                axis,
                by_data,
                *_normalized(value),
                value is not None and _given(value),
                None if value is None else _added(value),
                arrays,
            )
        )
    return found


def _shape(value: ir.Value) -> tuple[Size, ...]:
    assert value.shape is not None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _type(value: ir.Value | None) -> str:
    if value is None or value.dtype is None:
        return ""
    names = {
        ir.DataType.FLOAT: "tensor(float)",
        ir.DataType.DOUBLE: "tensor(double)",
        ir.DataType.FLOAT16: "tensor(float16)",
    }
    return names.get(value.dtype, "")


def _origins(
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


def _normalized(value: ir.Value | None) -> tuple[frozenset[str], frozenset[str]]:
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


def _added(value: ir.Value) -> tuple[str, str] | None:
    """Names of a sum behind an output and of its term with weights, where the other has none."""
    node = value.producer()
    while node is not None and is_standard(node) and node.inputs and node.inputs[0] is not None:
        if node.op_type in ("Add", "Sub"):
            terms = [term for term in node.inputs if term is not None]
            fixed = [term for term in terms if is_constant(term)]
            if not fixed:
                parts = [term for term in terms if not _given(term, _SMALL)]
                both = len(parts) == 1 and len(terms) == 2
                return (str(node.outputs[0].name), str(parts[0].name)) if both else None
            (value,) = [term for term in terms if term not in fixed] or [terms[0]]
        elif node.op_type in _ALL_VALUES | _LIMITED:
            value = node.inputs[0]
        else:
            return None
        node = value.producer()
    return None


def _given(value: ir.Value, numbers: int = 1) -> bool:
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


def _extreme(examples: Sequence[Array], which: str) -> float | None:
    found = []
    for array in examples:
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if finite.size:
            found.append(float(getattr(finite, which)()))
    if not found:
        return None
    return min(found) if which == "min" else max(found)
