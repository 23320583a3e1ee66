"""Move outliers of activations into the weights that read them (SmoothQuant, arXiv 2211.10438).

x·W = (x/s)·(s·W) for any s > 0 per input channel. With s_j = max|x_j|^α / max|w_j|^(1−α) the
channels of x/s have ranges alike, so that one scale fits them all. α is chosen by the predicted
output error over all layers that read x; no smoothing is a choice too. The division is a Mul in
the graph, because x mostly has other readers (residual sums), so it has to pay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.passes.quantize.ranges import ActivationRange, range_between
from onnxpress.statistics import LayerStatistics

__all__ = ["Smoothing", "choose_smoothing", "smoothing_scales"]

Float64 = npt.NDArray[np.float64]

_STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_LEAST_GAIN = 1.25
"""1 dB less noise, or the extra Mul is not worth it."""
_WEIGHT_LEVELS = 127


@dataclass(frozen=True)
class Smoothing:
    """How the input of some layers is smoothed.

    Attributes:
        strength: α.
        range: of the smoothed input.
    """

    strength: float
    range: ActivationRange


def _extremes(moments: Sequence[LayerStatistics]) -> tuple[Float64, Float64]:
    """Lowest and highest `[in]` over layers that read one tensor at different drawn rows."""
    low = np.min([m.minimum[0] for m in moments], axis=0)
    high = np.max([m.maximum[0] for m in moments], axis=0)
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def smoothing_scales(
    matrices: Sequence[npt.NDArray[np.floating]],
    moments: Sequence[LayerStatistics],
    strength: float,
) -> npt.NDArray[np.float32]:
    """`[in]` s; 1 for inputs that are always 0 or that no layer weighs.

    Args:
        matrices: `[out, in]` of the layers that read the tensor.
        moments: theirs, in the same order, of one group.
        strength: α, 0 to 1.
    """
    low, high = _extremes(moments)
    inputs = np.maximum(-low, high)
    weights = np.max([np.abs(m).max(axis=0) for m in matrices], axis=0).astype(np.float64)
    alive = (inputs > 0) & (weights > 0)
    scales = np.ones(len(inputs))
    scales[alive] = inputs[alive] ** strength / weights[alive] ** (1 - strength)
    if alive.any():
        # Only ratios matter; about 1 they keep float32 away from its limits.
        scales[alive] /= np.exp(np.log(scales[alive]).mean())
    return np.clip(scales, 1e-4, 1e4).astype(np.float32)


def choose_smoothing(
    matrices: Sequence[npt.NDArray[np.floating]],
    moments: Sequence[LayerStatistics],
    plain: ActivationRange,
    *,
    signed: bool,
    bits: int = 8,
) -> Smoothing | None:
    """The strength that predicts least output error, or `None` where none gains 1 dB."""
    low, high = _extremes(moments)
    squares = [m.second_moment[0] for m in moments]
    ones = np.ones(len(low))
    unsmoothed = _noise(matrices, squares, ones, plain.noise)
    best: Smoothing | None = None
    least = unsmoothed / _LEAST_GAIN
    for strength in _STRENGTHS:
        scales = smoothing_scales(matrices, moments, strength).astype(np.float64)
        span = range_between(
            float((low / scales).min()),
            float((high / scales).max()),
            signed=signed,
            bits=bits,
        )
        noise = _noise(matrices, squares, scales, span.noise)
        if noise < least:
            least, best = noise, Smoothing(strength, span)
    return best


def _noise(
    matrices: Sequence[npt.NDArray[np.floating]],
    squares: Sequence[Float64],
    scales: Float64,
    input_noise: float,
) -> float:
    """Predicted output noise over output energy, summed over the layers."""
    total = 0.0
    for matrix, second_moment in zip(matrices, squares, strict=True):
        smoothed = matrix * scales
        energy = float((np.square(matrix, dtype=np.float64) @ second_moment).sum())
        steps = np.abs(smoothed).max(axis=1) / _WEIGHT_LEVELS
        from_weights = float(np.square(steps, dtype=np.float64).sum() / 12)
        from_weights *= float((second_moment / scales**2).sum())
        from_inputs = input_noise * float(np.square(smoothed, dtype=np.float64).sum())
        total += (from_weights + from_inputs) / energy if energy > 0 else 0.0
    return total
