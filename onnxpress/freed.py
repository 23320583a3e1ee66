"""What was freed goes back to the system."""

import ctypes
import functools
import sys
from collections.abc import Callable

__all__ = ["give_back_freed"]


def give_back_freed() -> None:
    """Let the system have what was freed (`malloc_trim(3)`), where the C library can do that.

    glibc keeps freed arrays of up to 32 MB for the next ones, between others that live on: after
    twenty blocks of a network half a gigabyte.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
