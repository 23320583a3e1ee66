"""Move outliers of activations into the weights that read them (SmoothQuant, arXiv 2211.10438).

x·W = (x/s)·(s·W) for any s > 0 per input channel. With s_j = max|x_j|^α / max|w_j|^(1−α) the
channels of x/s have ranges alike, so that one scale fits them all. α is chosen by the predicted
output error over all layers that read x; no smoothing is a choice too. The division is folded into
what computes x where no one else reads it (`folding`), which between convolutions is cross-layer
equalization (arXiv 1906.04721). Elsewhere it is a Mul in the graph, which has to pay.
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
_LEAST_FREE_GAIN = 1.05
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


Channels = npt.NDArray[np.intp]
"""`[groups, in]`: which channel of the tensor each input of a layer's rows is."""


def _extremes(
    moments: Sequence[LayerStatistics], channels: Sequence[Channels]
) -> tuple[Float64, Float64]:
    """Lowest and highest `[channels]` over layers that read one tensor at different drawn rows."""
    low, high = (np.zeros(1 + max(int(index.max()) for index in channels)) for _ in range(2))
    for seen, index in zip(moments, channels, strict=True):
        np.minimum.at(low, index, seen.minimum)
        np.maximum.at(high, index, seen.maximum)
    return low, high


def _plain_channels(moments: Sequence[LayerStatistics]) -> list[Channels]:
    return [np.arange(seen.mean.shape[1])[None] for seen in moments]


def smoothing_scales(
    matrices: Sequence[npt.NDArray[np.floating]],
    moments: Sequence[LayerStatistics],
    strength: float,
    channels: Sequence[Channels] | None = None,
) -> npt.NDArray[np.float32]:
    """`[channels]` s; 1 for channels that are always 0 or that no layer weighs.

    Args:
        matrices: `[out, in]` of the layers that read the tensor.
        moments: theirs, in the same order.
        strength: α, 0 to 1.
        channels: of their inputs; `None`: each input is a channel.
    """
    index = _plain_channels(moments) if channels is None else channels
    low, high = _extremes(moments, index)
    inputs = np.maximum(-low, high)
    weights = np.zeros(len(inputs))
    for matrix, own in zip(matrices, index, strict=True):
        grouped = np.abs(matrix).reshape(len(own), -1, own.shape[1]).max(axis=1)
        np.maximum.at(weights, own, grouped)
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
    channels: Sequence[Channels] | None = None,
    free: bool = False,
) -> Smoothing | None:
    """The strength that predicts least output error, or `None` where none gains 1 dB.

    Args:
        matrices: as for `smoothing_scales`, like `moments` and `channels`.
        moments: of the layers.
        plain: the range without smoothing.
        signed: whether integers of activations are.
        bits: of such an integer.
        channels: of the layers' inputs.
        free: no Mul is needed, so that any gain counts.
    """
    index = _plain_channels(moments) if channels is None else channels
    low, high = _extremes(moments, index)
    unsmoothed = _noise(matrices, moments, index, np.ones(len(low)), plain.noise)
    best: Smoothing | None = None
    least = unsmoothed / (_LEAST_FREE_GAIN if free else _LEAST_GAIN)
    for strength in _STRENGTHS:
        scales = smoothing_scales(matrices, moments, strength, index).astype(np.float64)
        span = range_between(
            float((low / scales).min()), float((high / scales).max()), signed=signed, bits=bits
        )
        noise = _noise(matrices, moments, index, scales, span.noise)
        if noise < least:
            least, best = noise, Smoothing(strength, span)
    return best


def _noise(
    matrices: Sequence[npt.NDArray[np.floating]],
    moments: Sequence[LayerStatistics],
    channels: Sequence[Channels],
    scales: Float64,
    input_noise: float,
) -> float:
    """Predicted output noise over output energy, summed over the layers."""
    total = 0.0
    for matrix, seen, own in zip(matrices, moments, channels, strict=True):
        factors = scales[own]
        grouped = matrix.reshape(len(own), -1, own.shape[1]).astype(np.float64)
        smoothed = grouped * factors[:, None, :]
        energy = float(np.einsum("goi,gi->", np.square(grouped), seen.second_moment))
        steps = np.abs(smoothed).max(axis=2) / _WEIGHT_LEVELS
        power = (seen.second_moment / factors**2).sum(axis=1)
        from_weights = float(np.einsum("go,g->", np.square(steps), power) / 12)
        from_inputs = input_noise * float(np.square(smoothed).sum())
        total += (from_weights + from_inputs) / energy if energy > 0 else 0.0
    return total
