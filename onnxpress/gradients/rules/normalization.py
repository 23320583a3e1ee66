"""Gradients of normalizations."""

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import Term

__all__ = ["RULES"]


def _batch(call: Call) -> Gradients | str:
    """Of y = (x − μ)/σ·s + b, μ and σ fixed: dx = dy·s/σ, ds = Σ dy·(x − μ)/σ, db = Σ dy."""
    if call.integer("training_mode", 0):
        return "it takes its statistics from the batch"
    rank = call.x.rank
    if rank is None:
        return "the number of axes of its input is not known"
    x, scale, _, mean, variance = call.inputs[:5]
    column = [-1, *[1] * (rank - 2)]
    deviation = (variance + call.number("epsilon", 1e-5)).op("Sqrt")
    others = [0, *range(2, rank)]
    dx = call.dy * (scale / deviation).reshape(column)
    centred = call.dy * (x - mean.reshape(column))
    return [dx, centred.sum(others) / deviation, call.dy.sum(others)]


def _layer(call: Call) -> Gradients | str:
    """Of y = s·z + b, z = (x − μ)/σ over the last axes: ds = Σ dy·z, db = Σ dy."""
    rank = call.x.rank
    if rank is None:
        return "the number of axes of its input is not known"
    axes = list(range(call.integer("axis", -1) % rank, rank))
    scale, bias = call.input(1), call.optional(2)
    dx, z = _centred(call.x, call.dy * scale, axes, call.number("epsilon", 1e-5))
    ds = (call.dy * z).sum_to(scale, call.y)
    return [dx, ds, None if bias is None else call.dy.sum_to(bias, call.y)]


def _instance(call: Call) -> Gradients | str:
    """Of y = s·z + b, z = (x − μ)/σ over the spatial axes: as `_layer`, s and b a channel."""
    rank = call.x.rank
    if rank is None:
        return "the number of axes of its input is not known"
    column, axes = [-1, *[1] * (rank - 2)], list(range(2, rank))
    scale = call.input(1).reshape(column)
    dx, z = _centred(call.x, call.dy * scale, axes, call.number("epsilon", 1e-5))
    return [dx, (call.dy * z).sum([0, *axes]), call.dy.sum([0, *axes])]


def _centred(x: Term, dz: Term, axes: list[int], epsilon: float) -> tuple[Term, Term]:
    """Of z = (x − μ)/σ: dx = (dz − mean(dz) − z·mean(dz·z))/σ; with it, z."""
    centred = x - x.mean(axes)
    deviation = ((centred * centred).mean(axes) + epsilon).op("Sqrt")
    z = centred / deviation
    return (dz - dz.mean(axes) - z * (dz * z).mean(axes)) / deviation, z


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
}
