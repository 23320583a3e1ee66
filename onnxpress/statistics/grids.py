"""Activations that were quantized: how they lie, and the grid that was chosen for them.

From the histograms that calibration collects anyway: nothing is run again. A grid of integers q has
the values step·(q − zero point); what lies beyond its ends is clipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.graph import constant, is_standard
from onnxpress.statistics.store import TensorStatistics

__all__ = ["ActivationGrid", "activation_grids"]

_MOST = 8
_SHOWN_BINS = 32


@dataclass(frozen=True, slots=True)
class ActivationGrid:
    """A tensor that is quantized with one scale.

    Attributes:
        tensor: its name.
        low: the least value that was observed.
        high: the largest.
        counts: of observed values in 32 bins from low to high; large tensors are sampled.
        bits: of the integers.
        step: between neighbouring values of the grid.
        first: the grid's least value.
        last: its largest.
        clipped: share of the observed values beyond its ends, to the width of a bin.
        noise: power of rounding and clipping over the variance.
    """

    tensor: str
    low: float
    high: float
    counts: tuple[int, ...]
    bits: int
    step: float
    first: float
    last: float
    clipped: float
    noise: float


def activation_grids(
    model: ir.Model, observed: Mapping[str, TensorStatistics]
) -> tuple[ActivationGrid, ...]:
    """Of the activations that lose most by being quantized, at most eight, the worst first.

    Args:
        model: with QuantizeLinear.
        observed: ranges and histograms of tensors, by name.
    """
    found = {}
    for name, step, zero_point, integers in _quantized(model):
        seen = observed.get(name)
        if seen is not None and seen.counts.any() and seen.minimum < seen.maximum:
            found[name] = _grid(name, seen, step, zero_point, integers)
    return tuple(sorted(found.values(), key=lambda grid: (-grid.noise, grid.tensor))[:_MOST])


def _quantized(model: ir.Model) -> Iterator[tuple[str, float, int, np.dtype[np.generic]]]:
    """Name, scale, zero point and type of integers, where there is one scale."""
    for node in model.graph.all_nodes():
        if node.op_type != "QuantizeLinear" or not is_standard(node) or len(node.inputs) < 3:
            continue
        source = node.inputs[0]
        scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
        if source is None or not source.name or source.const_value is not None:
            continue
        if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
            continue
        step = float(scale.item())
        if zero_point.dtype.kind in "iu" and np.isfinite(step) and step > 0:
            yield source.name, step, int(zero_point.item()), zero_point.dtype


def _grid(
    name: str,
    seen: TensorStatistics,
    step: float,
    zero_point: int,
    integers: np.dtype[np.generic],
) -> ActivationGrid:
    limits = np.iinfo(str(integers))
    first, last = (step * (int(end) - zero_point) for end in (limits.min, limits.max))
    centers, counts = seen.centers, seen.counts
    total = counts.sum()
    mean = float((centers * counts).sum() / total)
    variance = float((np.square(centers - mean) * counts).sum() / total)
    beyond = np.maximum(0.0, np.maximum(first - centers, centers - last))
    noise = step**2 / 12 + float((np.square(beyond) * counts).sum() / total)
    width = centers[1] - centers[0]
    span = seen.minimum, seen.maximum
    places = np.clip(centers, *span)
    shown, _ = np.histogram(places, _SHOWN_BINS, span, weights=counts)
    return ActivationGrid(
        name,
        *span,
        tuple(int(count) for count in shown.round()),
        limits.bits,
        step,
        first,
        last,
        float(counts[beyond > width].sum() / total),
        noise / variance if variance > 0 else noise / step**2,
    )
