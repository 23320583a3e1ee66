"""Gradients of what moves values and computes none."""

import numpy as np

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import Term

__all__ = ["RULES"]

_ADDING_OPSET = 16
"""From which on ScatterElements adds up what falls on the same place."""
_TOO_OLD = f"opset {_ADDING_OPSET} first adds up what is scattered to one place"


def _reshaped(call: Call) -> Gradients:
    """Where y is x in another shape: dx = dy in the shape of x."""
    return [call.dy.like(call.x)]


def _transpose(call: Call) -> Gradients | str:
    """Of y = x with its axes in another order: dx = dy with the inverse order."""
    rank = call.x.rank
    if rank is None:
        return "the number of axes of its input is not known"
    order = call.integers("perm", list(reversed(range(rank))))
    return [call.dy.transpose([order.index(axis) for axis in range(rank)])]


def _concat(call: Call) -> Gradients:
    """Of y = the inputs one behind the other: dy taken apart again."""
    axis = call.integer("axis", 0)
    if len(call.inputs) == 1:
        return [call.dy]
    sizes = [operand.size(axis) for operand in call.inputs]
    return _split_by(call.dy, sizes, axis)


def _split_by(term: Term, sizes: list[Term], axis: int) -> list[Term]:
    """Parts of these sizes."""
    tape = term.tape
    found, start = [], tape.integers([0])
    for size in sizes:
        end = start + size
        found.append(term.op("Slice", start, end, tape.integers([axis])))
        start = end
    return found


def _split(call: Call) -> Gradients:
    """Of y₁, y₂, … = parts of x: dx = their gradients one behind the other."""
    tape = call.tape
    parts = []
    for value, gradient in zip(call.node.outputs, call.upstream, strict=True):
        output = tape.term(value)
        zeros = tape.zeros(output.shape(), output.dtype) if gradient is None else gradient
        parts.append(zeros)
    axis = call.integer("axis", 0)
    return [parts[0] if len(parts) == 1 else parts[0].op("Concat", *parts[1:], axis=axis)]


def _places(call: Call) -> Term:
    """For each element of x its number, in the shape of x."""
    tape = call.tape
    first, step = (tape.array(np.asarray(number, np.int64)) for number in (0, 1))
    return tape.op("Range", first, call.x.op("Size"), step).like(call.x)


def _put_back(call: Call, places: Term, *, several: bool) -> Term:
    """The gradient dy at the elements of x it came from, added up where there are several."""
    flat = call.tape.zeros(call.x.op("Size").reshape([1]), call.x.dtype)
    given = places.reshape([-1]), call.dy.reshape([-1])
    if several:
        return flat.op("ScatterElements", *given, axis=0, reduction="add").like(call.x)
    return flat.op("ScatterElements", *given, axis=0).like(call.x)


def _slice(call: Call) -> Gradients:
    """Of y = a part of x: dx = dy at its places, 0 elsewhere."""
    places = _places(call).op("Slice", *(call.optional(index) for index in range(1, 5)))
    return [_put_back(call, places, several=False)]


def _gather(call: Call) -> Gradients | str:
    """Of y = entries of x along an axis: dx = dy added up at the entries it came from."""
    x, tape = call.x, call.tape
    if tape.opset < _ADDING_OPSET:
        return _TOO_OLD
    if x.rank is None:
        return "the number of axes of its input is not known"
    axis = call.integer("axis", 0) % x.rank
    sizes = [x.size(other) for other in range(x.rank)]
    sizes[axis] = tape.integers([-1])
    shape = sizes[0] if len(sizes) == 1 else sizes[0].op("Concat", *sizes[1:], axis=0)
    taken = call.dy.reshape(shape)
    column = [-1 if other == axis else 1 for other in range(x.rank)]
    places = call.input(1).reshape(column).expand(taken)
    zeros = tape.zeros(x.shape(), call.dy.dtype)
    return [zeros.op("ScatterElements", places, taken, axis=axis, reduction="add")]


def _gather_elements(call: Call) -> Gradients | str:
    """Of y = an entry of x for each index along an axis: dx = dy added up at these entries."""
    if call.tape.opset < _ADDING_OPSET:
        return _TOO_OLD
    zeros = call.tape.zeros(call.x.shape(), call.x.dtype)
    axis = call.integer("axis", 0)
    return [
        zeros.op("ScatterElements", call.input(1), call.dy, axis=axis, reduction="add"),
    ]


def _pad(call: Call) -> Gradients | str:
    """Of y = x with a border: dx = dy without it; of borders that repeat x, added up there."""
    mode = call.text("mode", "constant")
    pads, axes = call.input(1), call.optional(3)
    if mode == "constant":
        return [call.dy.op("Pad", -pads, None, axes)]
    if call.tape.opset < _ADDING_OPSET:
        return _TOO_OLD
    places = call.tape.node("Pad", [_places(call), pads, None, axes], {"mode": mode})
    return [_put_back(call, places, several=True)]


def _expand(call: Call) -> Gradients:
    """Of y = x repeated: dx = dy summed over the repeats."""
    return [call.dy.sum_to(call.x, call.y)]


def _depth_to_space(call: Call) -> Gradients | str:
    """Of y = channels put into blocks: dx = dy's blocks as channels."""
    if call.text("mode", "DCR") != "DCR":
        return "its mode is CRD"
    return [call.dy.op("SpaceToDepth", blocksize=call.integer("blocksize", 1))]


def _space_to_depth(call: Call) -> Gradients:
    """Of y = blocks as channels: dx = dy's channels put into blocks."""
    return [call.dy.op("DepthToSpace", blocksize=call.integer("blocksize", 1))]


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _reshaped,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Reshape": _reshaped,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshaped,
    "Transpose": _transpose,
    "Unsqueeze": _reshaped,
}
