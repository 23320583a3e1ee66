"""What the inputs of a model hold, as their values in the samples show: signals, tokens, masks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.runtime import Array, Feed

__all__ = ["Roles", "Signal", "read_roles"]

_LOOKED_AT = 64
"""Samples whose values are read."""
_VALUES = 1 << 16
"""Values of a sample that are read, about."""
_DISTINCT = 8
"""Different integers that are tokens rather than categories or flags."""
_FEWEST = 8
"""Elements that a signal has more of; what is smaller is a scalar, a size, a threshold."""
_TABLE = 128
"""Elements up to which a row `[batch, n]` is a table, whose columns cannot move."""
_MASKED = -1e4
_STATES = re.compile(r"past|cache|^state|^[hc]_?\d?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Signal:
    """An input of measured values: an image, a sound, features.

    Attributes:
        mean: over the samples.
        deviation: the standard deviation over the samples.
        low: the lowest value; 0 for bytes.
        high: the highest value; 255 for bytes.
        axes: along which things can move: time, or height and width; none for tables.
        is_image: has height and width.
    """

    mean: float
    deviation: float
    low: float
    high: float
    axes: tuple[int, ...]
    is_image: bool


@dataclass(frozen=True, slots=True)
class Roles:
    """What the inputs hold; those in none of the lists are left alone.

    Attributes:
        signals: by input name.
        tokens: names of integer inputs with many values along their last axis.
        masks: names of inputs of 0 and 1, those called so first.
    """

    signals: dict[str, Signal]
    tokens: tuple[str, ...]
    masks: tuple[str, ...]

    def mask_of(self, feed: Feed, shape: tuple[int, ...]) -> Array | None:
        """The mask of the tokens of that shape, or `None`."""
        alike = (feed[name] for name in self.masks if feed[name].shape == shape)
        # All zeros are segment numbers rather than a mask that hides everything.
        return next((array for array in alike if array.any()), None)


def read_roles(feeds: Sequence[Feed]) -> Roles:
    """Sort the inputs by the values of some samples."""
    signals: dict[str, Signal] = {}
    tokens: list[str] = []
    masks: list[str] = []
    for name in feeds[0]:
        arrays = [feed[name] for feed in feeds[:_LOOKED_AT] if feed[name].size]
        if not arrays or arrays[0].dtype.kind not in "fiub" or arrays[0].ndim == 0:
            continue
        # An odd stride, so that it falls on all channels.
        strides = [array.size // _VALUES | 1 for array in arrays]
        flat = zip(arrays, strides, strict=True)
        values = np.concatenate([array.reshape(-1)[::stride] for array, stride in flat])
        if _is_mask(values):
            masks.append(name)
        elif _STATES.search(name) or arrays[0].size <= _FEWEST:
            continue
        elif values.dtype.kind == "f" or values.dtype.itemsize <= 2:
            if arrays[0].ndim >= 2 and np.isfinite(values).all():
                signals[name] = _signal(values, arrays[0])
        elif len(np.unique(values)) >= _DISTINCT and not _are_positions(arrays):
            tokens.append(name)
    masks.sort(key=lambda name: "mask" not in name.lower())
    return Roles(signals, tuple(tokens), tuple(masks))


def _is_mask(values: Array) -> bool:
    """Only 0 and 1, or 0 and what Softmax makes zero of; also one of them alone."""
    if values.dtype.kind == "b":
        return True
    others = values[values != 0]
    return bool((others == 1).all()) or (
        values.dtype.kind == "f" and bool((others <= _MASKED).all())
    )


def _are_positions(arrays: Sequence[Array]) -> bool:
    return all(bool((np.diff(array, axis=-1) == 1).all()) for array in arrays)


def _signal(values: Array, example: Array) -> Signal:
    wide = values.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    if values.dtype == np.uint8:
        low, high = 0.0, 255.0
    axes = _moving_axes(example.shape)
    mean, deviation = float(wide.mean()), float(wide.std())
    return Signal(mean, deviation, low, high, axes, is_image=len(axes) == 2)


def _moving_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of `[n, c, h, w]` or `[n, h, w, c]`; the last axis of all others."""
    if len(shape) == 4:
        axes = (1, 2) if shape[3] <= 4 < shape[1] else (2, 3)
        return axes if min(shape[axis] for axis in axes) >= _FEWEST else ()
    if len(shape) == 2 and shape[1] <= _TABLE:
        return ()
    return (len(shape) - 1,) if shape[-1] > _FEWEST else ()
