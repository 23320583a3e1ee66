"""Gradients of products of integers, straight through the rounding that made them.

With DynamicQuantizeLinear before and a product of scales behind it, the whole has the gradient of
the product of real numbers (Bengio et al., arXiv:1308.3432).
"""

import onnx_ir as ir

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.rules.convolution import (
    input_gradient,
    kernel_of,
    weight_gradient,
    window_of,
)
from onnxpress.gradients.rules.linear import product_of
from onnxpress.gradients.tape import Term

__all__ = ["RULES"]


def _matmul(call: Call) -> Gradients:
    """Of Y = (A − a)(B − b): dA = dY·(B − b)ᵀ, dB = (A − a)ᵀ·dY."""
    a, b = _centred(call, 0), _centred(call, 1)
    da = product_of(call.dy, b, turn_right=True)
    if b.rank == 2 and (a.rank or 0) > 2:
        rows = a.reshape(call.tape.integers([-1]).op("Concat", b.size(0), axis=0))
        outputs = call.dy.reshape(call.tape.integers([-1]).op("Concat", b.size(1), axis=0))
        return [da, rows.op("Gemm", outputs, transA=1)]
    db = product_of(a, call.dy, turn_left=True)
    return [da.sum_to(a, da), db.sum_to(b, db)]


def _conv(call: Call) -> Gradients | str:
    """Of y = (w − w₀) ⋆ (x − x₀), as of a convolution of real numbers."""
    x, w = _centred(call, 0), _centred(call, 1)
    kernel = kernel_of(w)
    if kernel is None:
        return "the shape of its weight is not known"
    window = window_of(call, kernel)
    return [input_gradient(call.dy, w, x, call.y, window), weight_gradient(x, call.dy, w, window)]


def _centred(call: Call, index: int) -> Term:
    """Integers less their zero point, in float; that of A may be a row's, that of w a channel's."""
    term, zero = call.input(index), call.optional(index + 2)
    found = term.cast(ir.DataType.FLOAT)
    if zero is not None:
        point = zero.cast(ir.DataType.FLOAT)
        if zero.rank == 1 and call.node.op_type == "ConvInteger":
            point = point.reshape([-1, *[1] * ((term.rank or 1) - 1)])
        elif zero.rank == 1 and index == 0:
            point = point.op("Unsqueeze", call.tape.integers([-1]))
        found -= point
    return found if term.dims is None else found.known_as(term.dims)


RULES: dict[str, Rule] = {"ConvInteger": _conv, "MatMulInteger": _matmul}
