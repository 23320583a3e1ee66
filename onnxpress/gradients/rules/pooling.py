"""Gradients of pooling and resizing: linear in the input, or a choice of it."""

import math

import onnx_ir as ir

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.rules.convolution import (
    Window,
    input_gradient,
    joined,
    spatial_sizes,
    window_of,
)
from onnxpress.gradients.tape import Term

__all__ = ["RULES"]

_ADDING_OPSET = 16
"""From which on ScatterElements adds up what falls on the same place."""


def _average(call: Call) -> Gradients | str:
    """Of y = the mean of a window: dx = dy/n back to the whole window, n with or without padding.

    The sum of a window is the convolution of each plane with ones.
    """
    if call.integer("ceil_mode", 0):
        return "it has ceil_mode"
    tape, kernel = call.tape, call.integers("kernel_shape", ())
    window = window_of(call, kernel)
    ones = tape.number(1.0, call.x.dtype).op("Expand", tape.integers([1, 1, *kernel]))
    padded = window.pads is None or any(window.pads)
    if padded and not call.integer("count_include_pad", 0):
        shared = call.dy / _counts(call, ones, window)
    else:
        shared = call.dy / float(math.prod(kernel))
    planes = shared.reshape(joined(tape, [-1, 1], spatial_sizes(call.y)))
    return [input_gradient(planes, ones, call.x, call.y, window).like(call.x)]


def _counts(call: Call, ones: Term, window: Window) -> Term:
    """How many places of a window lie in the input `[1, 1, …]`."""
    tape = call.tape
    plane = tape.number(1.0, call.x.dtype).op("Expand", joined(tape, [1, 1], spatial_sizes(call.x)))
    padded = plane.op("Pad", joined(tape, [0, 0], window.begin, [0, 0], window.end))
    return padded.op("Conv", ones, strides=window.strides, dilations=window.dilations)


def _maximum(call: Call) -> Gradients | str:
    """Of y = the largest of a window: dx = dy added up at the places it came from."""
    if call.tape.opset < _ADDING_OPSET:
        return f"opset {_ADDING_OPSET} first adds up what is scattered to one place"
    if call.integer("storage_order", 0):
        return "it counts places along columns"
    places = call.tape.another_output(call.node, 1, ir.DataType.INT64)
    zeros = call.tape.zeros(call.x.op("Size").reshape([1]), call.x.dtype)
    found = zeros.op(
        "ScatterElements", places.reshape([-1]), call.dy.reshape([-1]), axis=0, reduction="add"
    )
    return [found.like(call.x)]


def _global_maximum(call: Call) -> Gradients | str:
    """Of y = the largest of a plane: dx = dy where x is y; equal ones share it."""
    if call.x.rank is None:
        return "the number of axes of its input is not known"
    mask = call.x.op("Equal", call.y).cast(call.x.dtype)
    return [call.dy * mask / mask.sum(range(2, call.x.rank), keep=True)]


def _resize(call: Call) -> Gradients | str:
    """Of y = R₁·x·R₂ᵀ, a matrix for each spatial axis: dx = R₁ᵀ·dy·R₂.

    The matrix of an axis is what the same operator makes of the identity.
    """
    if call.x.rank not in (3, 4) or "axes" in call.node.attributes:
        return "it resizes other axes than the last one or two of 3 or 4"
    if call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "it crops"
    dx = call.dy
    for axis in range(2, call.x.rank):
        matrix = _matrix(call, axis)
        if matrix is None:
            return "its scales are not constant"
        if axis == 2 and call.x.rank == 4:
            dx = matrix.op("MatMul", dx)
        else:
            dx = dx.op("MatMul", matrix.transpose([1, 0]))
    return [dx]


def _matrix(call: Call, axis: int) -> Term | None:
    """Rᵀ `[in, out]` of one axis; `None` where it cannot be told."""
    tape, x = call.tape, call.x
    size = x.size(axis)
    square = tape.zeros(joined(tape, size, size), x.dtype)
    identity = square.op("EyeLike")
    scales, sizes = call.optional(2), call.optional(3)
    given: list[Term | None] = [None, None]
    if sizes is not None:
        given[1] = joined(tape, [1], size, call.y.size(axis), [1])
    elif scales is not None:
        own = scales.op("Slice", tape.integers([axis]), tape.integers([axis + 1]))
        one = tape.number(1.0, ir.DataType.FLOAT).reshape([1])
        given[0] = one.op("Concat", one, own, one, axis=0)
    else:
        return None
    attributes = {
        name: attribute.value
        for name, attribute in call.node.attributes.items()
        if name != "keep_aspect_ratio_policy"
    }
    column = identity.reshape(joined(tape, [1], size, size, [1]))
    resized = column.op("Resize", None, *given, **attributes)
    return resized.reshape(joined(tape, size, [-1]))


RULES: dict[str, Rule] = {
    "AveragePool": _average,
    "GlobalMaxPool": _global_maximum,
    "MaxPool": _maximum,
    "Resize": _resize,
}
