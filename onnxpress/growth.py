"""How many elements a node makes out of few, as far as it stands in the graph.

ConstantOfShape, Expand, Tile, Range, Pad, Resize and OneHot (ONNX operators) make tensors of any
size of a number or two: nothing of a small file says what it takes to run it.
"""

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import is_standard, static_shape

__all__ = ["GROWING", "largest_made", "made_elements"]

GROWING = ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Upsample", "Pad", "OneHot")
"""Operators that make more than they are given."""

_MOST_NUMBERS = 64
_ENDLESS = 10**30

Constant = npt.NDArray[np.generic]


def made_elements(node: ir.Node) -> int | None:
    """How many elements a node computes, where that is known."""
    if node.op_type in ("ConstantOfShape", "Expand"):
        shape = _constant(node.inputs[-1])
        if shape is None:
            return None
        dims = [int(dim) for dim in shape.reshape(-1)]
        if node.op_type == "Expand":
            data = node.inputs[0]
            own = _elements(data) if data is not None else None
            return None if own is None else max(own, 1) * math.prod(max(dim, 1) for dim in dims)
        return math.prod(dims)
    if node.op_type == "Range":
        ends = [_constant(value) for value in node.inputs]
        if any(end is None for end in ends):
            return None
        start, stop, step = (float(np.asarray(end).reshape(-1)[0]) for end in ends)
        return max(0, math.ceil((stop - start) / step)) if step else None
    if node.op_type == "Split":
        return None if node.inputs[0] is None else _elements(node.inputs[0])
    if node.op_type == "Slice":
        return _sliced_elements(node)
    made = [_elements(value) for value in node.outputs]
    known = [size for size in made if size is not None]
    return sum(known) if len(known) == len(made) else None


def _sliced_elements(node: ir.Node) -> int | None:
    """Of a Slice whose places are constant (ONNX operator Slice, from opset 10)."""
    shape = static_shape(node.inputs[0])
    given = [None if value is None else _constant(value) for value in node.inputs[1:]]
    if (
        shape is None
        or len(given) < 2
        or any(v is not None and _constant(v) is None for v in node.inputs[1:])
    ):
        return None
    starts, ends = (np.asarray(array).reshape(-1).tolist() for array in given[:2])
    axes, steps = ([*given, None, None][place] for place in (2, 3))
    which = range(len(starts)) if axes is None else np.asarray(axes).reshape(-1).tolist()
    jumps = [1] * len(starts) if steps is None else np.asarray(steps).reshape(-1).tolist()
    left = list(shape)
    for axis, start, end, step in zip(which, starts, ends, jumps, strict=True):
        left[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    return math.prod(left)


def largest_made(model: ir.Model) -> tuple[ir.Node, int] | None:
    """The node that is sure to make the most elements, and how many at least."""
    found: tuple[ir.Node, int] | None = None
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in GROWING:
            continue
        made = max(made_elements(node) or 0, _factor(node))
        if found is None or made > found[1]:
            found = node, made
    return found


def _factor(node: ir.Node) -> int:
    """How many elements it makes of a single one, by the constants that it is given."""
    given = [_constant(value) for value in node.inputs[1:]]
    if node.op_type == "Pad":
        return max((size for array in given[:1] for size in _sums(array)), default=0)
    if node.op_type in ("Expand", "Tile", "OneHot"):
        return max(map(_product, given[:1]), default=0)
    if node.op_type in ("Resize", "Upsample"):
        # Scales or sizes; a Resize has the region of interest before them.
        return max(map(_product, given), default=0)
    return 0


def _product(array: Constant | None) -> int:
    """Of the numbers of an array, those below one left out; 0 where it is not known."""
    if array is None or array.dtype.kind not in "iuf" or not 0 < array.size <= _MOST_NUMBERS:
        return 0
    product = math.prod(max(float(number), 1.0) for number in array.reshape(-1))
    return int(min(product, _ENDLESS))


def _sums(array: Constant | None) -> list[int]:
    """How much each axis is padded."""
    if array is None or array.dtype.kind not in "iu" or not 0 < array.size <= _MOST_NUMBERS:
        return []
    before, after = np.split(array.reshape(-1), [array.size // 2])
    return [int(a) + int(b) for a, b in zip(before, after, strict=False)]


def _constant(value: ir.Value | None) -> Constant | None:
    """The array of an initializer that nobody overrides, or of a Constant node."""
    if value is None or value.is_graph_input():
        return None
    tensor = value.const_value or ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _elements(value: ir.Value) -> int | None:
    shape = static_shape(value)
    return None if shape is None else math.prod(shape)
