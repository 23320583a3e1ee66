"""Ranges of activations: the scale and zero point that lose least.

Minimum and maximum cover every value, but an outlier then coarsens all others. The range is
shrunk in steps, and the one whose rounding and clipping error is smallest over the histogram
wins (mean squared error, as in arXiv 1810.05723).
"""

from dataclasses import dataclass

import numpy as np

from onnxpress.statistics import TensorStatistics

__all__ = ["ActivationRange", "choose_range", "range_between"]

_SHRINKS = np.concatenate(([1.0], np.geomspace(0.98, 0.1, 40)))


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """How a tensor is quantized.

    Attributes:
        scale: a float32 number above 0.
        zero_point: the integer that stands for 0.0.
        noise: mean squared error of rounding and clipping.
        signal: mean square of the tensor.
    """

    scale: float
    zero_point: int
    noise: float
    signal: float

    @property
    def error(self) -> float:
        """Noise over signal; 0 for a tensor of zeros."""
        return self.noise / self.signal if self.signal > 0 else 0.0


def choose_range(statistics: TensorStatistics, *, signed: bool) -> ActivationRange | None:
    """The 8-bit range with the least squared error, or `None` for a tensor that is not finite.

    Unsigned ranges are asymmetric and hold 0 exactly; signed ones are symmetric with zero
    point 0.
    """
    if not np.isfinite((statistics.minimum, statistics.maximum)).all():
        return None
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    tiny = float(np.finfo(np.float32).tiny)
    centers, counts = statistics.centers, statistics.counts
    # Bins at the ends may reach beyond what was seen.
    centers = np.clip(centers, low, high)
    total = max(counts.sum(), 1.0)
    signal = float((counts * centers**2).sum() / total)
    if high - low <= tiny * 255:
        return ActivationRange(1.0, 0, 0.0, signal)
    best: ActivationRange | None = None
    for shrink in _SHRINKS:
        scale, zero_point, lowest, highest = _grid(low * shrink, high * shrink, signed=signed)
        levels = np.clip(np.round(centers / scale) + zero_point, lowest, highest)
        errors = (levels - zero_point) * scale - centers
        # Within a bin values are spread evenly; below a bin's width the grid itself rounds.
        noise = float((counts * np.maximum(errors**2, scale**2 / 12)).sum() / total)
        if low == 0.0 or high == 0.0:
            zero = np.abs(centers) < scale / 2
            noise -= float(counts[zero].sum() / total * scale**2 / 12)
        if best is None or noise < best.noise:
            best = ActivationRange(scale, zero_point, noise, signal)
    return best


def range_between(low: float, high: float, *, signed: bool) -> ActivationRange:
    """The range that covers [low, high] and 0, with the noise of rounding alone."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= float(np.finfo(np.float32).tiny) * 255:
        return ActivationRange(1.0, 0, 0.0, 0.0)
    scale, zero_point, _, _ = _grid(low, high, signed=signed)
    return ActivationRange(scale, zero_point, scale**2 / 12, 0.0)


def _grid(low: float, high: float, *, signed: bool) -> tuple[float, int, int, int]:
    if signed:
        return float(np.float32(max(-low, high) / 127)), 0, -127, 127
    scale = float(np.float32((high - low) / 255))
    return scale, int(np.clip(round(-low / scale), 0, 255)), 0, 255
