"""Gradients through rounding, straight through (Bengio et al., arXiv:1308.3432).

An integer's gradient is that of its value in steps, in float. With the two rules together a pair
of QuantizeLinear and DequantizeLinear has the gradients of learned step sizes (LSQ,
arXiv:1902.08153): dx = dy inside the range, 0 outside; ds = Σ dy·(q − z − x/s inside).
"""

import onnx_ir as ir

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import Term

__all__ = ["RULES"]

_RANGES = {
    ir.DataType.INT8: (-128.0, 127.0),
    ir.DataType.UINT8: (0.0, 255.0),
    ir.DataType.INT16: (-32768.0, 32767.0),
    ir.DataType.UINT16: (0.0, 65535.0),
    ir.DataType.INT4: (-8.0, 7.0),
    ir.DataType.UINT4: (0.0, 15.0),
}


def _column(call: Call, term: Term) -> Term | None:
    """A scale or zero point in a shape that broadcasts; `None` where it is a block's."""
    if term.rank == 0:
        return term
    if term.rank != 1 or call.x.rank is None or call.integer("block_size", 0):
        return None
    axis = call.integer("axis", 1) % call.x.rank
    return term.reshape([-1 if other == axis else 1 for other in range(call.x.rank)])


def _dequantize(call: Call) -> Gradients | str:
    """Of y = (q − z)·s: dq = dy·s, ds = Σ dy·(q − z)."""
    scale = _column(call, call.input(1))
    if scale is None:
        return "its scales are of blocks"
    steps = call.x.cast(scale.dtype) if call.x.dtype != scale.dtype else call.x
    zero = call.optional(2)
    point = None if zero is None else _column(call, zero)
    if point is not None:
        steps -= point.cast(scale.dtype)
    return [call.dy * scale, _of_scale(call, call.dy * steps)]


def _quantize(call: Call) -> Gradients | str:
    """Of q = round(x/s) + z, cut to its range: dx = dq/s inside, ds = −Σ dq·x/s² inside."""
    scale = _column(call, call.input(1))
    if scale is None:
        return "its scales are of blocks"
    low, high = _RANGES.get(call.y.dtype, (0.0, 0.0))
    if low == high:
        return f"it rounds to {call.y.dtype}"
    steps = call.x / scale
    zero = call.optional(2)
    point = None if zero is None else _column(call, zero)
    shifted = steps if point is None else steps + point.cast(scale.dtype)
    inside = (shifted >= low - 0.5) & (shifted <= high + 0.5)
    passed = (call.dy / scale).only(inside)
    return [passed, _of_scale(call, -(passed * steps))]


def _dynamic(call: Call) -> Gradients:
    """Of q = round(x/s) + z with s and z from x itself: dx = dq/s, s and z as if constant."""
    return [call.dy / call.tape.term(call.node.outputs[1])]


def _of_scale(call: Call, each: Term) -> Term:
    """The sum over all that has one scale."""
    scale, rank = call.input(1), call.x.rank or 0
    own = call.integer("axis", 1) % rank if scale.rank and rank else None
    return each.sum([axis for axis in range(rank) if axis != own]).like(scale)


RULES: dict[str, Rule] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "QuantizeLinear": _quantize,
}
