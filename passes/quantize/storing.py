"""Weights in int8 that the runtime expands when it loads the model, whoever reads them.

A scale for each index of the axes that a reader wants; of several readers' wishes, and where nobody
says, of each axis alone, the one that errs least is taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.contract import Candidate, Context, StoredWeight, memoised

__all__ = ["StoredIntegers", "stored_integers", "storing_candidate"]

_HIGHEST = 127
_LEAST_A_SCALE = 16
"""Elements: a scale of 4 bytes for fewer would take much of what is saved."""
_BLOCK_ELEMENTS = 1 << 22
_NODES_BYTES = 160
_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class StoredIntegers:
    """A tensor as int8 times scales.

    Attributes:
        values: of the tensor's shape.
        scales: float32, of a shape that broadcasts with it.
        error: power of the difference over that of the tensor.
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    error: float

    @property
    def nbytes(self) -> int:
        """In the file."""
        return self.values.nbytes + self.scales.nbytes


def stored_integers(context: Context, stored: StoredWeight) -> StoredIntegers:
    """The integers of the scales that err least."""
    return _nearest(context, stored.weight.const_value, stored.axes)


@memoised
def _nearest(
    context: Context,
    tensor: object,
    wanted: Sequence[frozenset[int]],
) -> StoredIntegers:
    array: npt.NDArray[np.floating] = tensor.numpy()  # type: ignore[attr-defined]
    choices = [axes for axes in wanted if _few(array.shape, axes)]
    alone = [frozenset({axis}) for axis in range(array.ndim) if array.shape[axis] > 1]
    choices = choices or [axes for axes in alone if _few(array.shape, axes)] or [frozenset()]
    found = [_rounded(array, axes) for axes in choices]
    return min(found, key=lambda item: item.error)


def _few(shape: Sequence[int], axes: frozenset[int]) -> bool:
    scales = math.prod(shape[axis] for axis in axes)
    return scales * _LEAST_A_SCALE <= math.prod(shape)


def _rounded(array: npt.NDArray[np.floating], axes: frozenset[int]) -> StoredIntegers:
    """To the nearest of 255 levels that are symmetric about zero."""
    others = tuple(axis for axis in range(array.ndim) if axis not in axes)
    ends = array.max(axis=others, keepdims=True), array.min(axis=others, keepdims=True)
    largest = np.maximum(ends[0].astype(np.float64), -ends[1].astype(np.float64))
    scales = largest / _HIGHEST
    # Of zeros, or of numbers so small that their scale underflows.
    scales = np.where(scales > np.finfo(np.float32).tiny, scales, 1.0).astype(np.float32)
    values = np.empty(array.shape, np.int8)
    noise = power = 0.0
    rows = max(1, _BLOCK_ELEMENTS * len(array) // max(array.size, 1))
    for start in range(0, len(array), rows):
        block = slice(start, start + rows)
        own = scales[block] if len(scales) > 1 else scales
        wide = array[block].astype(np.float64)
        integers = np.clip(np.round(wide / own), -_HIGHEST, _HIGHEST)
        values[block] = integers
        power += float(np.square(wide).sum())
        noise += float(np.square(integers * own - wide).sum())
    return StoredIntegers(values, scales, noise / power if power > 0 else 0.0)


def storing_candidate(
    context: Context, stored: StoredWeight, least_bytes: float
) -> tuple[Candidate | None, str | None]:
    """Integers that the runtime expands when it loads the model; or why not.

    Args:
        context: of the proposal.
        stored: weight.
        least_bytes: that are worth any loss.
    """
    if stored.refusal is not None:
        return None, stored.refusal
    if not (context.shapes_only or _is_finite(stored.array)):
        return None, "its weight holds NaN or infinity [L001]"
    # With one scale at least.
    most, error = stored.nbytes - math.prod(stored.shape) - _SCALE_BYTES, 0.0
    if not context.shapes_only:
        found = stored_integers(context, stored)
        most, error = stored.nbytes - found.nbytes, found.error
    saved = most - _NODES_BYTES
    if saved <= 0 or saved < least_bytes:
        return None, f"too small: {max(saved, 0):,} bytes are not worth any loss [Q008]"
    return Candidate({}, error, saved, family="weight_only", keeps_kernels=True), None


def _is_finite(array: npt.NDArray[np.floating]) -> bool:
    # NaN is passed on by both.
    return bool(np.isfinite(array.max()) and np.isfinite(array.min()))
