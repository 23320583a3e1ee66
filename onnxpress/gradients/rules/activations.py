"""Gradients of activation functions.

Where a function has a kink the gradient is that of one side, as finite differences on either side
are: 0 for Relu at 0, and inside for the bounds of Clip.
"""

import math

from onnxpress.gradients.call import Call, Gradients, Rule

__all__ = ["RULES"]


def _relu(call: Call) -> Gradients:
    """Of y = max(x, 0): dx = dy where y > 0."""
    return [call.dy.only(call.y > 0.0)]


def _leaky_relu(call: Call) -> Gradients:
    """Of y = x > 0 ? x : αx: dx = dy·(x > 0 ? 1 : α)."""
    alpha = call.number("alpha", 0.01)
    return [call.dy * (alpha + (1 - alpha) * (call.x > 0.0).cast(call.x.dtype))]


def _prelu(call: Call) -> Gradients:
    """Of y = x > 0 ? x : sx: dx = dy·(x > 0 ? 1 : s), ds = x > 0 ? 0 : x·dy."""
    x, slope = call.inputs
    dx = call.dy * (slope + (1.0 - slope) * (x > 0.0).cast(x.dtype))
    ds = x.op("Min", call.tape.number(0.0, x.dtype)) * call.dy
    return [dx, ds.sum_to(slope, call.y)]


def _clip(call: Call) -> Gradients:
    """Of y = min(max(x, low), high): dx = dy where low ≤ x ≤ high, which is where y = x."""
    return [call.dy.only(call.x.op("Equal", call.y))]


def _sigmoid(call: Call) -> Gradients:
    """Of y = 1/(1 + e^(−x)): dx = dy·y·(1 − y)."""
    return [call.dy * call.y * (1.0 - call.y)]


def _tanh(call: Call) -> Gradients:
    """Of y = tanh x: dx = dy·(1 − y²)."""
    return [call.dy * (1.0 - call.y * call.y)]


def _hard_sigmoid(call: Call) -> Gradients:
    """Of y = min(max(αx + β, 0), 1): dx = α·dy where 0 < y < 1."""
    inside = (call.y > 0.0) & (call.y < 1.0)
    return [(call.dy * call.number("alpha", 0.2)).only(inside)]


def _hard_swish(call: Call) -> Gradients:
    """Of y = x·h, h = min(max(x/6 + 1/2, 0), 1): dx = dy·(h + x/6 where 0 < h < 1)."""
    h = call.x.op("HardSigmoid", alpha=1 / 6, beta=0.5)
    inside = (h > 0.0) & (h < 1.0)
    return [call.dy * (h + (call.x / 6.0).only(inside))]


def _gelu(call: Call) -> Gradients:
    """Of y = x·Φ(x): dx = dy·(Φ(x) + x·φ(x)); with `approximate=tanh` that of its formula."""
    if call.text("approximate", "none") == "tanh":
        return _tanh_gelu(call)
    x = call.x
    cdf = 0.5 * (1.0 + (x * math.sqrt(0.5)).op("Erf"))
    density = (-0.5 * (x * x)).op("Exp") * (1 / math.sqrt(2 * math.pi))
    return [call.dy * (cdf + x * density)]


def _tanh_gelu(call: Call) -> Gradients:
    """Of y = x/2·(1 + tanh u), u = √(2/π)·(x + 0.044715x³); t = tanh u.

    dx = dy·((1 + t)/2 + x/2·(1 − t²)·u').
    """
    x = call.x
    factor = math.sqrt(2 / math.pi)
    square = x * x
    t = (x * (factor + factor * 0.044715 * square)).op("Tanh")
    slope = factor + 3 * factor * 0.044715 * square
    return [call.dy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope)]


def _elu(call: Call) -> Gradients:
    """Of y = x > 0 ? x : α(eˣ − 1): dx = dy·(x > 0 ? 1 : y + α)."""
    below = call.y.op("Min", call.tape.number(0.0, call.y.dtype)) + call.number("alpha", 1.0)
    return [call.dy * (below + (1.0 - below).only(call.x > 0.0))]


def _softplus(call: Call) -> Gradients:
    """Of y = ln(1 + eˣ): dx = dy·sigmoid x."""
    return [call.dy * call.x.op("Sigmoid")]


def _softsign(call: Call) -> Gradients:
    """Of y = x/(1 + |x|): dx = dy·(1 − |y|)²."""
    root = 1.0 - call.y.op("Abs")
    return [call.dy * root * root]


def _softmax(call: Call) -> Gradients:
    """Of y = eˣ/Σeˣ: dx = y·(dy − Σ dy·y)."""
    weighted = call.dy * call.y
    return [weighted - call.y * weighted.sum([call.integer("axis", -1)], keep=True)]


def _log_softmax(call: Call) -> Gradients:
    """Of y = x − ln Σeˣ: dx = dy − eʸ·Σ dy."""
    total = call.dy.sum([call.integer("axis", -1)], keep=True)
    return [call.dy - call.y.op("Exp") * total]


RULES: dict[str, Rule] = {
    "Clip": _clip,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "PRelu": _prelu,
    "Relu": _relu,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Tanh": _tanh,
}
