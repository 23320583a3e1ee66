"""Ranges of activations: the scale and zero point that lose least.

Minimum and maximum cover every value, but an outlier then coarsens all others. By default the
range is shrunk in steps, and the one whose rounding and clipping error is smallest over the
histogram wins (mean squared error, as in arXiv 1810.05723). Noise that is independent from input
to input reaches a layer's output as its power times Σw², so the range of least squared error is
also that of least error at the outputs of all layers that read the tensor.

`percentile` cuts off 0.01% of the values; `entropy` takes the range whose quantized histogram
diverges least from the original (Kullback-Leibler, as TensorRT calibrates).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.statistics import TensorStatistics

__all__ = ["BOUNDS", "RANGE_METHODS", "ActivationRange", "choose_range", "range_between"]

Float64 = npt.NDArray[np.float64]

RANGE_METHODS = ("mse", "minmax", "percentile", "entropy")
BOUNDS: Mapping[str, tuple[float, float]] = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
}
"""Between which values these operators' outputs lie, whatever they read."""
_CUT_SHARE = 1e-4
_LEVELS = 128
"""Of a histogram that stands for 8 bits in the entropy method."""
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


def choose_range(
    statistics: TensorStatistics,
    *,
    signed: bool,
    bits: int = 8,
    method: str = "mse",
    bounds: tuple[float, float] | None = None,
) -> ActivationRange | None:
    """The range by a method, or `None` for a tensor that is not finite.

    Unsigned ranges are asymmetric and hold 0 exactly; signed ones are symmetric with zero
    point 0.

    Args:
        statistics: what was observed.
        signed: whether integers are.
        bits: of an integer, 8 or 16.
        method: one of `RANGE_METHODS`.
        bounds: of the function that computes the tensor (`BOUNDS`), which then are the range:
            they hold for inputs that calibration did not show, too.
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
    if high - low <= tiny * (2**bits - 1):
        return ActivationRange(1.0, 0, 0.0, signal)

    sums = _Moments.of(centers, counts / total)

    def measured(lowest: float, highest: float) -> ActivationRange:
        scale, zero_point, _, _ = _grid(lowest, highest, signed=signed, bits=bits)
        ends = np.asarray([lowest]), np.asarray([highest])
        noise = float(_noise(sums, *ends, signed=signed, bits=bits)[0])
        return ActivationRange(scale, zero_point, noise, signal)

    if bounds is not None:
        return measured(*bounds)

    if method == "percentile":
        low, high = _percentile(centers, counts, low, high)
    elif method == "entropy":
        low, high = _shrunk(
            low, high, _each(lambda a, b: _divergence(centers, counts, a, b)), signed=signed
        )
    elif method == "mse":
        low, high = _shrunk(
            low, high, lambda a, b: _noise(sums, a, b, signed=signed, bits=bits), signed=signed
        )
    return measured(low, high)


@dataclass(frozen=True)
class _Moments:
    """Sums of a histogram up to each bin, from which those of any range follow at once.

    Attributes:
        centers: `[bins]`, rising.
        powers: `[3, bins + 1]` Σ share, Σ share·c, Σ share·c² of the bins before.
    """

    centers: Float64
    powers: Float64

    @classmethod
    def of(cls, centers: Float64, shares: Float64) -> "_Moments":
        sums = np.cumsum(shares * np.stack((np.ones_like(centers), centers, centers**2)), axis=1)
        return cls(centers, np.concatenate((np.zeros((3, 1)), sums), axis=1))

    def between(self, low: Float64, high: Float64) -> Float64:
        """`[3, ranges]` the sums over low ≤ c ≤ high."""
        first = np.searchsorted(self.centers, low, side="left")
        last = np.searchsorted(self.centers, high, side="right")
        return np.asarray(self.powers[:, np.maximum(first, last)] - self.powers[:, first])


def _noise(sums: _Moments, low: Float64, high: Float64, *, signed: bool, bits: int) -> Float64:
    """Mean squared error of rounding and clipping for each range: Δ²/12 within, clipped beyond.

    Args:
        sums: of the histogram.
        low: `[ranges]` lower ends, at most 0.
        high: `[ranges]` upper ends.
        signed: as for `choose_range`.
        bits: likewise.
    """
    if signed:
        largest = 2 ** (bits - 1) - 1
        scale = np.maximum(-low, high) / largest
        lowest, highest = -scale * largest, scale * largest
    else:
        largest = 2**bits - 1
        scale = (high - low) / largest
        zero_point = np.clip(np.round(-low / scale), 0, largest)
        lowest, highest = -zero_point * scale, (largest - zero_point) * scale
    count, _, _ = sums.between(lowest, highest)
    one_sided = (low == 0.0) | (high == 0.0)
    # Exact zeros of a Relu are not rounded.
    near_zero, _, _ = sums.between(-scale / 2, scale / 2)
    rounded = count - np.where(one_sided, near_zero, 0.0)
    noise = rounded * scale**2 / 12
    infinite = np.full_like(scale, np.inf)
    for end, beyond in ((lowest, (-infinite, lowest)), (highest, (highest, infinite))):
        shares, firsts, squares = sums.between(*beyond)
        noise += np.maximum(squares - 2 * end * firsts + end**2 * shares, 0.0)
    return np.asarray(noise)


Loss = Callable[[Float64, Float64], Float64]
"""Of ranges `[ranges]`, by their lower and their upper ends."""


def _each(loss: Callable[[float, float], float]) -> Loss:
    return lambda low, high: np.asarray([loss(*ends) for ends in zip(low, high, strict=True)])


def _shrunk(low: float, high: float, loss: Loss, *, signed: bool) -> tuple[float, float]:
    """The ends of least loss: both drawn in together, then each for itself.

    An outlier on one side must not cost the values at the other end.
    """
    together = _SHRINKS[loss(low * _SHRINKS, high * _SHRINKS).argmin()]
    first, last = low * together, high * together
    if signed or low == 0.0 or high == 0.0:
        return float(first), float(last)
    for _ in range(2):
        lows, highs = low * _SHRINKS, high * _SHRINKS
        last = highs[loss(np.full_like(highs, first), highs).argmin()]
        first = lows[loss(lows, np.full_like(lows, last)).argmin()]
    return float(first), float(last)


def _percentile(centers: Float64, counts: Float64, low: float, high: float) -> tuple[float, float]:
    """The range without the outermost values on either side; it still holds 0."""
    shares = np.cumsum(counts) / max(counts.sum(), 1.0)
    first = int(np.searchsorted(shares, _CUT_SHARE / 2))
    last = min(int(np.searchsorted(shares, 1 - _CUT_SHARE / 2)), len(centers) - 1)
    cut_low = max(low, min(float(centers[first]), 0.0))
    cut_high = min(high, max(float(centers[last]), 0.0))
    return (cut_low, cut_high) if cut_high > cut_low else (low, high)


def _divergence(centers: Float64, counts: Float64, low: float, high: float) -> float:
    """Of the clipped distribution from the same in as many levels as 7 bits have."""
    inside = (centers >= low) & (centers <= high)
    if not counts[inside].any():
        return float("inf")
    clipped = counts[inside].copy()
    clipped[0] += counts[centers < low].sum()
    clipped[-1] += counts[centers > high].sum()
    level = np.minimum(np.arange(len(clipped)) * _LEVELS // len(clipped), _LEVELS - 1)
    present = counts[inside] > 0
    sums = np.bincount(level, weights=counts[inside], minlength=_LEVELS)
    sizes = np.maximum(np.bincount(level, weights=present, minlength=_LEVELS), 1)
    spread = np.where(present, (sums / sizes)[level], 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1e-30)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())


def range_between(low: float, high: float, *, signed: bool, bits: int = 8) -> ActivationRange:
    """The range that covers [low, high] and 0, with the noise of rounding alone."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= float(np.finfo(np.float32).tiny) * (2**bits - 1):
        return ActivationRange(1.0, 0, 0.0, 0.0)
    scale, zero_point, _, _ = _grid(low, high, signed=signed, bits=bits)
    return ActivationRange(scale, zero_point, scale**2 / 12, 0.0)


def _grid(low: float, high: float, *, signed: bool, bits: int) -> tuple[float, int, int, int]:
    """Scale, zero point, lowest and highest integer."""
    if signed:
        largest = 2 ** (bits - 1) - 1
        return float(np.float32(max(-low, high) / largest)), 0, -largest, largest
    largest = 2**bits - 1
    scale = float(np.float32((high - low) / largest))
    return scale, int(np.clip(round(-low / scale), 0, largest)), 0, largest
