"""Large arrays piece by piece, so that what is computed of them takes little memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["is_finite", "pieces", "row_blocks"]

_ELEMENTS = 1 << 20
"""Of a piece: what is computed of it stays in the processor's cache."""


def row_blocks(array: npt.NDArray[Any], elements: int = _ELEMENTS) -> Iterator[slice]:
    """Slices of the first axis with about so many elements each, and at least one row."""
    count = len(array)
    rows = max(1, elements * count // max(array.size, 1))
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Views that together are the array, in its order."""
    if array.ndim > 1 and array.flags.c_contiguous:
        array = array.reshape(-1)
    elif array.ndim == 0:
        yield array
        return
    for block in row_blocks(array):
        yield array[block]


def is_finite(array: npt.NDArray[Any]) -> bool:
    """Whether there is neither NaN nor infinity in it."""
    return all(bool(np.isfinite(piece).all()) for piece in pieces(array))
