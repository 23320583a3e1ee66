"""Gradients of sums and means along axes, and of pooling over whole planes."""

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import Term

__all__ = ["RULES", "share"]


def _repeated(call: Call, term: Term) -> Term | str:
    """A result's gradient, or the result, in the shape of the input."""
    if call.integer("keepdims", 1):
        return term.expand(call.x)
    axes = call.listed("axes", 1)
    if axes is None:
        return "its axes are not constant"
    rank = call.x.rank
    if rank is None:
        return "the number of axes of its input is not known"
    if not axes and call.integer("noop_with_empty_axes", 0):
        return term
    ones = sorted(axis % rank for axis in axes) or list(range(rank))
    return term.op("Unsqueeze", call.tape.integers(ones)).expand(call.x)


def share(call: Call) -> Term:
    """How many outputs there are for one input: 1/n of a mean over n."""
    numbers = [term.op("Size").cast(call.x.dtype) for term in (call.y, call.x)]
    return numbers[0] / numbers[1]


def _sum(call: Call) -> Gradients | str:
    """Of y = Σ x: dx = dy everywhere."""
    dx = _repeated(call, call.dy)
    return dx if isinstance(dx, str) else [dx]


def _mean(call: Call) -> Gradients | str:
    """Of y = Σ x/n: dx = dy/n everywhere."""
    dx = _repeated(call, call.dy * share(call))
    return dx if isinstance(dx, str) else [dx]


def _extreme(call: Call) -> Gradients | str:
    """Of y = max x or min x: dy to where x is y; equal ones share it."""
    y, dy = _repeated(call, call.y), _repeated(call, call.dy)
    axes = call.listed("axes", 1)
    if isinstance(y, str) or isinstance(dy, str) or axes is None or call.x.rank is None:
        return "its axes are not known"
    mask = call.x.op("Equal", y).cast(call.x.dtype)
    every = list(axes) or list(range(call.x.rank))
    return [dy * mask / mask.sum(every, keep=True)]


def _sum_square(call: Call) -> Gradients | str:
    """Of y = Σ x²: dx = 2·x·dy."""
    dy = _repeated(call, call.dy * 2.0)
    return dy if isinstance(dy, str) else [dy * call.x]


def _l2(call: Call) -> Gradients | str:
    """Of y = √Σ x²: dx = dy·x/y."""
    ratio = _repeated(call, call.dy / call.y)
    return ratio if isinstance(ratio, str) else [ratio * call.x]


def _log_sum_exp(call: Call) -> Gradients | str:
    """Of y = ln Σ eˣ: dx = dy·e^(x − y)."""
    y, dy = _repeated(call, call.y), _repeated(call, call.dy)
    if isinstance(y, str) or isinstance(dy, str):
        return "its axes are not known"
    return [dy * (call.x - y).op("Exp")]


def _global_average(call: Call) -> Gradients:
    """Of y = the mean over the spatial axes' n places: dx = dy/n everywhere."""
    return [(call.dy * share(call)).expand(call.x)]


RULES: dict[str, Rule] = {
    "GlobalAveragePool": _global_average,
    "ReduceL2": _l2,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _extreme,
    "ReduceMean": _mean,
    "ReduceMin": _extreme,
    "ReduceSum": _sum,
    "ReduceSumSquare": _sum_square,
}
