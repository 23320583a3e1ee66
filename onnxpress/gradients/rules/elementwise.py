"""Gradients of arithmetic, element by element, with broadcasting."""

import math

import onnx_ir as ir

from onnxpress.gradients.call import Call, Gradients, Rule

__all__ = ["RULES"]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


def _add(call: Call) -> Gradients:
    """Of y = a + b: da = dy, db = dy, summed where they were repeated."""
    return [call.dy.sum_to(operand, call.y) for operand in call.inputs]


def _sub(call: Call) -> Gradients:
    """Of y = a − b: da = dy, db = −dy."""
    a, b = call.inputs
    return [call.dy.sum_to(a, call.y), (-call.dy).sum_to(b, call.y)]


def _mul(call: Call) -> Gradients:
    """Of y = a·b: da = dy·b, db = dy·a."""
    a, b = call.inputs
    return [(call.dy * b).sum_to(a, call.y), (call.dy * a).sum_to(b, call.y)]


def _div(call: Call) -> Gradients:
    """Of y = a/b: da = dy/b, db = −dy·y/b."""
    a, b = call.inputs
    da = call.dy / b
    return [da.sum_to(a, call.y), (-(da * call.y)).sum_to(b, call.y)]


def _pow(call: Call) -> Gradients:
    """Of y = aᵖ: da = dy·p·aᵖ⁻¹, dp = dy·y·ln a."""
    a, p = call.inputs
    exponent = p if p.dtype == a.dtype else p.cast(a.dtype)
    da = call.dy * exponent * a.op("Pow", exponent - 1.0)
    dp = call.dy * call.y * a.op("Log")
    return [da.sum_to(a, call.y), dp.sum_to(p, call.y) if p.dtype == a.dtype else None]


def _extreme(call: Call) -> Gradients:
    """Of y = max(a, b, …) or min: dy to the operand that is y; equal ones share it."""
    masks = [operand.op("Equal", call.y).cast(call.y.dtype) for operand in call.inputs]
    number = masks[0]
    for mask in masks[1:]:
        number += mask
    share = call.dy / number
    return [
        (share * mask).sum_to(operand, call.y)
        for operand, mask in zip(call.inputs, masks, strict=True)
    ]


def _mean(call: Call) -> Gradients:
    """Of y = (a + b + …)/n: dy/n each."""
    share = call.dy / float(len(call.inputs))
    return [share.sum_to(operand, call.y) for operand in call.inputs]


def _where(call: Call) -> Gradients:
    """Of y = c ? a : b: da = c ? dy : 0, db = c ? 0 : dy."""
    condition, a, b = call.inputs
    da = call.dy.only(condition)
    db = call.dy - da
    return [None, da.sum_to(a, call.y), db.sum_to(b, call.y)]


def _exp(call: Call) -> Gradients:
    """Of y = eˣ: dx = dy·y."""
    return [call.dy * call.y]


def _log(call: Call) -> Gradients:
    """Of y = ln x: dx = dy/x."""
    return [call.dy / call.x]


def _sqrt(call: Call) -> Gradients:
    """Of y = √x: dx = dy/(2y)."""
    return [call.dy * 0.5 / call.y]


def _neg(call: Call) -> Gradients:
    """Of y = −x: dx = −dy."""
    return [-call.dy]


def _abs(call: Call) -> Gradients:
    """Of y = |x|: dx = dy·sign x."""
    return [call.dy * call.x.op("Sign")]


def _reciprocal(call: Call) -> Gradients:
    """Of y = 1/x: dx = −dy·y²."""
    return [-(call.dy * call.y * call.y)]


def _sin(call: Call) -> Gradients:
    """Of y = sin x: dx = dy·cos x."""
    return [call.dy * call.x.op("Cos")]


def _cos(call: Call) -> Gradients:
    """Of y = cos x: dx = −dy·sin x."""
    return [-(call.dy * call.x.op("Sin"))]


def _erf(call: Call) -> Gradients:
    """Of y = erf x: dx = dy·2/√π·e^(−x²)."""
    return [call.dy * (2 / math.sqrt(math.pi)) * (-(call.x * call.x)).op("Exp")]


def _same(call: Call) -> Gradients:
    """Of y = x: dx = dy."""
    return [call.dy]


def _steps(call: Call) -> Gradients:
    """Where y is constant but at its steps: dx = 0."""
    return [None]


def _cast(call: Call) -> Gradients:
    """Of y = x in another type: dx = dy in the type of x; integers have theirs in float."""
    source, result = call.x.dtype, call.y.dtype
    if result not in _FLOATS:
        return [None]
    return [call.dy if source == result or source not in _FLOATS else call.dy.cast(source)]


RULES: dict[str, Rule] = {
    "Abs": _abs,
    "Add": _add,
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": _steps,
    "Cos": _cos,
    "Div": _div,
    "Dropout": _same,
    "Erf": _erf,
    "Exp": _exp,
    "Floor": _steps,
    "Identity": _same,
    "Log": _log,
    "Max": _extreme,
    "Mean": _mean,
    "Min": _extreme,
    "Mul": _mul,
    "Neg": _neg,
    "Pow": _pow,
    "Reciprocal": _reciprocal,
    "Round": _steps,
    "Sign": _steps,
    "Sin": _sin,
    "Sqrt": _sqrt,
    "Sub": _sub,
    "Sum": _add,
    "Where": _where,
}
