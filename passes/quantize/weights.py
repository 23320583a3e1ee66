"""Weights as 8-bit integers, symmetric, with one scale per output channel.

Outputs run along one axis, or along two: a recurrent operator's along directions and gates.

Two forms of the same integers:

- behind DequantizeLinear, for layers whose activations are quantized too, so that the runtime
  fuses the pairs into an integer kernel;
- behind Cast and Mul, for weight-only layers: the runtime folds both when it loads the model,
  so the file is small and the kernels and their speed stay as they were. DequantizeLinear
  would not be folded by default and would run at every call (28% slower, measured on a CNN), or
  would be fused into kernels that add up in int8.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.pieces import row_blocks

__all__ = ["QuantizedWeight", "quantize_weight"]

Integers = npt.NDArray[np.int8] | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight in integers.

    Attributes:
        values: int8 or uint8 (zero point 128), the weight's shape.
        scales: float32 `[channels]`, or `[1]` for one scale.
        axes: along which the scales run, in row-major order; none for one scale.
        zero_point: 0 for int8, 128 for uint8.
        highest: the largest integer, without the zero point.
    """

    values: Integers
    scales: npt.NDArray[np.float32]
    axes: tuple[int, ...]
    zero_point: int = 0
    highest: int = 127

    @property
    def axis(self) -> int | None:
        """The only one; `None` for one scale. DequantizeLinear has no more."""
        return self.axes[0] if len(self.axes) == 1 else None

    def broadcast_scales(self) -> npt.NDArray[np.float32]:
        """The scales in a shape that broadcasts with the values."""
        if not self.axes:
            return self.scales.reshape(())
        sizes = self.values.shape
        return self.scales.reshape([n if at in self.axes else 1 for at, n in enumerate(sizes)])

    def scales_of(self, block: slice) -> npt.NDArray[np.float32]:
        """`broadcast_scales` of some rows of the values."""
        scales = self.broadcast_scales()
        return scales[block] if 0 in self.axes else scales

    def dequantize(self) -> npt.NDArray[np.float64]:
        """What the integers stand for."""
        integers = self.values.astype(np.float64) - self.zero_point
        return integers * self.broadcast_scales()


def quantize_weight(
    weight: npt.NDArray[np.floating],
    axis: int | tuple[int, ...] | None,
    *,
    bits: int = 8,
    unsigned: bool = False,
    least_scales: npt.NDArray[np.float64] | float = 0.0,
) -> QuantizedWeight:
    """Round to the nearest of 2ᵇⁱᵗˢ − 1 levels that are symmetric about zero.

    Args:
        weight: finite values, any shape.
        axis: of the channels, or several in rising order; `None` for one scale.
        bits: 8, or 7 where products of 8 bits would saturate.
        unsigned: store with a zero point of 128.
        least_scales: a channel's scale is at least this, so that its int32 bias fits.
    """
    # Of float32 numbers the quotient is as good as of float64 ones, and costs half.
    kind: type[np.floating] = np.float64 if weight.dtype == np.float64 else np.float32
    w = np.atleast_1d(weight)
    axes = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
    others = tuple(at for at in range(w.ndim) if at not in axes)
    largest = np.zeros(1)
    if w.size:
        # Both ends, not magnitudes, and in place below: no copies of a large embedding.
        ends = w.max(axis=others), -w.min(axis=others)
        largest = np.maximum(*ends).reshape(-1).astype(kind)
    highest = 2 ** (bits - 1) - 1
    scales = np.maximum(largest / highest, least_scales)
    # A channel of zeros, or of numbers so small that their scale underflows, becomes zeros.
    scales = np.where(scales > np.finfo(np.float32).tiny, scales, 1.0).astype(np.float32)
    zero_point = 128 if unsigned else 0
    values: Integers = np.empty(w.shape, np.int8)
    if unsigned:
        values = np.empty(w.shape, np.uint8)
    found = QuantizedWeight(values, scales, axes, zero_point, highest)
    for block in row_blocks(w):
        integers = np.asarray(w[block], kind) / found.scales_of(block)
        np.clip(np.round(integers, out=integers), -highest, highest, out=integers)
        values[block] = integers + zero_point if unsigned else integers
    return replace(found, values=values.reshape(weight.shape))
