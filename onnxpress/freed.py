"""What was freed goes back to the system."""

import ctypes
import functools
import gc
import sys
from collections.abc import Callable

__all__ = ["give_back_freed"]


_WORTH_BYTES = 16_000_000
"""Of what was worked on; to look for what was freed takes a while."""


def give_back_freed(worked_on: int, *, circles: bool = False) -> None:
    """Let the system have what was freed (`malloc_trim(3)`), where the C library can do that.

    glibc keeps freed arrays of up to 32 MB for the next ones, between others that live on: after
    twenty blocks of a network half a gigabyte.

    Args:
        worked_on: bytes of the weights that were; nothing is done after small ones.
        circles: whether models were dropped, which refer to themselves with all that they hold.
    """
    if worked_on < _WORTH_BYTES:
        return
    if circles:
        gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
