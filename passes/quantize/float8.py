"""Eight-bit floats around a product: the numbers, and which weights and ranges lose least.

x ≈ s·f(x/s), f the nearest of the finite numbers of E4M3FN (3 bits of mantissa, to 448) or E5M2 (2
bits, to 57,344), which saturates (arXiv 2209.05433; ONNX operators QuantizeLinear and
DequantizeLinear). There is no zero point: `output_dtype` says the type (opset 21), as onnxruntime
1.32 takes a Relu away before a QuantizeLinear whose zero point is a float, and loads no Clip before
one. Steps grow with the number, so that the largest one says little of the error: of scales that
clip by up to four octaves the one is taken whose error over the histogram, or over an output's
weights times E[x²], is least.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Candidate, Context, Layer, memoised
from onnxpress.errors import UsageError
from onnxpress.layers import from_matrix, output_channel_axis
from onnxpress.passes.quantize.goals import compensable, goal_of, judged, layer_energy
from onnxpress.passes.quantize.levels import LevelGrid, nearest_index
from onnxpress.passes.quantize.qdq_rules import PRODUCTS, input_of, pair_refusal
from onnxpress.passes.quantize.ranges import ActivationRange
from onnxpress.passes.quantize.rounding import Compensation
from onnxpress.passes.quantize.tiles import tiled, untiled
from onnxpress.statistics import TensorStatistics
from onnxpress.targets import Target, load_target

__all__ = [
    "FLOAT8",
    "FLOAT8_OPSET",
    "Float8Weight",
    "choose_scale",
    "float8_candidate",
    "float8_weight",
    "is_product",
    "levels_of",
    "refuse_float8",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FLOAT8: Mapping[str, ir.DataType] = {
    "float8_e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "float8_e5m2": ir.DataType.FLOAT8E5M2,
}
"""By form, which is the family of its candidates too."""
FLOAT8_OPSET = 21
_CLIPS = 2.0 ** (-np.arange(17) / 4)
"""Shares of the largest number that are tried as the end of the range."""
_NODES_BYTES, _NAMES = 320, 10
"""Of three nodes and four tensors, and how often these are named after the weight."""
_SCALE_BYTES = 4
"""float32."""


@cache
def levels_of(family: str) -> Float32:
    """`[n]` the finite numbers, rising."""
    every = np.arange(256, dtype=np.uint8).view(FLOAT8[family].numpy()).astype(np.float32)
    return np.unique(every[np.isfinite(every)] + np.float32(0))


def _rounded(values: npt.NDArray[np.floating], levels: Float32) -> npt.NDArray[np.floating]:
    return np.asarray(levels[nearest_index(values, levels[None])])


def refuse_float8(family: str, target: Target) -> None:
    """Complain where a table does not list the type on the other side of the pairs.

    Raises:
        UsageError: what it lists.
    """
    wanted = FLOAT8[family].name.lower()
    for name in target.members if len(target.members) > 1 else (target.name,):
        own = target if name == target.name else load_target(name)
        rules = [own.operators.get(pair) for pair in ("QuantizeLinear", "DequantizeLinear")]
        listed = [set() if rule is None else set(rule.integers) for rule in rules]
        both = set.intersection(*listed)
        if wanted not in both:
            has = ", ".join(sorted(both)) or "none by name"
            fits = [form for form, kind in FLOAT8.items() if kind.name.lower() in both]
            raise UsageError(
                f"quantize: form is {family!r}, which needs {wanted} in QuantizeLinear and "
                f"DequantizeLinear, and the table of target {name} lists {has}; expected "
                f"{' or '.join(fits or ['auto, static, dynamic or weight_only'])} there, or a "
                f"target whose [operators] list {wanted} as integers of both [U008]"
            )


def choose_scale(seen: TensorStatistics, family: str) -> ActivationRange | None:
    """The scale of least squared error over the histogram; `None` for what is not finite."""
    largest = max(-seen.minimum, seen.maximum)
    if not np.isfinite(largest):
        return None
    levels = levels_of(family)
    centers = np.clip(seen.centers, seen.minimum, seen.maximum)
    shares = seen.counts / max(seen.counts.sum(), 1.0)
    signal = float((shares * centers**2).sum())
    if largest / levels[-1] <= np.finfo(np.float32).tiny:
        return ActivationRange(1.0, 0, 0.0, signal)
    found = []
    for scale in (largest / levels[-1] * _CLIPS).astype(np.float32):
        error = _rounded(centers / scale, levels) * scale - centers
        found.append(ActivationRange(float(scale), 0, float((shares * error**2).sum()), signal))
    return min(found, key=lambda one: one.noise)


@dataclass(frozen=True)
class Float8Weight:
    """A layer's weight in 8-bit floats.

    Attributes:
        values: of the weight's shape, of ml_dtypes' type.
        scales: float32 `[channels]`, or of no axis.
        axis: along which the scales run; `None` for one scale.
        offset: `[out]` what the bias has to take up, or `None`.
        error: power of the output's change, by weights alone, over that of the output.
    """

    values: npt.NDArray[Any]
    scales: Float32
    axis: int | None
    offset: Float64 | None
    error: float


@memoised
def float8_weight(context: Context, layer: Layer, family: str) -> Float8Weight:
    """The weight, its columns rounded so that errors cancel where inputs were observed."""
    goal, levels = goal_of(context, layer), levels_of(family)
    moments = context.moments(layer) if compensable(layer) else None
    weigh = None
    if moments is not None and moments.rows:
        # Of the inputs of each output's group.
        second = np.asarray(moments.second_moment, np.float64)
        weigh = np.repeat(second, len(goal.weights) // len(second), axis=0)
    axis = output_channel_axis(layer) if context.target.per_channel else None
    scales = _row_scales(goal.weights, weigh, levels, shared=axis is None)
    if goal.gram is None or context.draft:
        numbers = _rounded(goal.weights / scales, levels)
    else:
        steps = tiled(np.broadcast_to(scales, goal.weights.shape), goal.tiles)
        grouped = steps.reshape(len(goal.gram), -1, steps.shape[1]).astype(np.float32)
        own = np.zeros((*grouped.shape[:2], 1), np.int64)
        grid = LevelGrid(levels[None], own, grouped)
        fitted = Compensation.of(goal.gram).fitted(
            np.asarray(tiled(goal.weights, goal.tiles), np.float64),
            grid,
            keep_zeros=goal.keeps_zeros,
        )
        numbers = _rounded(untiled(fitted, goal.tiles) / scales, levels)
    offset, error = judged(context, layer, goal, numbers * scales - goal.weights)
    stored = from_matrix(
        np.asarray(numbers, np.float32), layer.shape, layer.uses[0], layer.groups
    ).astype(FLOAT8[family].numpy())
    single = scales.reshape(-1).astype(np.float32)
    return Float8Weight(
        stored, single if axis is not None else single[0].reshape(()), axis, offset, error
    )


def _row_scales(
    w: Float64, weigh: Float64 | None, levels: Float32, *, shared: bool
) -> npt.NDArray[np.floating]:
    """`[out, 1]` the scales of least error of each output, or `[1, 1]` of all."""
    largest = np.abs(w).max(axis=1, initial=0.0)
    if shared:
        largest = largest.max(keepdims=True, initial=0.0)
    ends = largest / float(levels[-1])
    usable = ends > np.finfo(np.float32).tiny / _CLIPS[-1]
    ends = np.where(usable, ends, 1.0)
    best, least = ends.astype(np.float32), np.full(len(ends), np.inf)
    for share in _CLIPS:
        scales = (ends * share).astype(np.float32)
        squares = np.square(_rounded(w / scales[:, None], levels) * scales[:, None] - w)
        rows = (squares if weigh is None else squares * weigh).sum(axis=1)
        lost = rows.sum(keepdims=True) if shared else rows
        best = np.where((lost < least) & usable, scales, best)
        least = np.minimum(lost, least)
    return np.asarray(best[:, None], np.float32)


def float8_candidate(
    context: Context, layer: Layer, family: str
) -> tuple[Candidate | None, str | None]:
    """Pairs around the product's input and weight; or why not."""
    reason = _refusal(context, layer)
    if reason is not None or context.statistics is None:
        return None, reason
    seen = context.statistics.tensors.get(input_of(layer).name or "")
    if seen is None:
        return None, "its activations cannot be observed [L014]"
    if seen.minimum > seen.maximum:
        return None, "the calibration data never exercises it: no run gave it an input [L013]"
    moments, span = context.moments(layer), choose_scale(seen, family)
    if span is None:
        return None, "its activations are not finite [L012]"
    if moments is None or moments.rows == 0 or not moments.absolute_maximum.any():
        return None, "the calibration data never exercises it: its inputs are all zero [L013]"
    found = float8_weight(replace(context, draft=True), layer, family)
    energy = layer_energy(context, layer)
    noise = span.noise * float(np.square(layer.read(), dtype=np.float64).sum())
    error = found.error + (noise / energy if energy > 0 else 0.0)
    beside = _SCALE_BYTES * found.scales.size + _NODES_BYTES + _NAMES * len(layer.name)
    saved = layer.nbytes - found.values.size - beside
    return Candidate({"input_scale": span.scale}, error, saved, family=family), None


def is_product(layer: Layer) -> bool:
    """Whether it may read 8-bit floats."""
    return layer.op_type in PRODUCTS


def _refusal(context: Context, layer: Layer) -> str | None:
    if not is_product(layer):
        return f"no product in 8-bit floats for {layer.op_type} [Q001]"
    reason = pair_refusal(layer)
    if reason is not None:
        return reason
    if int(context.model.opset_imports.get("", 1)) < FLOAT8_OPSET:
        return f"opset {context.model.opset_imports.get('', 1)} has no 8-bit floats [Q002]"
    if context.statistics is None:
        return "without calibration data the ranges of its activations are unknown [Q003]"
    return None
