"""How much memory may be taken; what was worked out before, bounded by its size; garbage."""

import contextlib
import ctypes
import dataclasses
import gc
import mmap
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxpress.errors import UsageError

__all__ = ["Memory", "bytes_of", "collected_rarely", "memory_budget"]

T = TypeVar("T")

_LIMIT_BYTES = 1_000_000_000
"""Of arrays: solutions of a few hundred layers at float64."""
_NEW_OBJECTS = 200_000
"""Of Python, between two looks for garbage; 20 MB at about 100 bytes each."""


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHARE = 0.5
"""Of what is free, unless something else is asked for."""
_LEAST_BYTES = 1_000_000_000
"""Unless less is asked for: what a model of 60 million numbers takes is rarely worth a look."""
_FILE_PAGES = ("inactive_file ", "active_file ")


def memory_budget(asked: str | int | None) -> int:
    """Bytes that may be taken.

    Args:
        asked: a number of bytes, or with a unit: `4GB` (powers of 1000), `4GiB` (of 1024); `None`:
            half of what is free, and 1 GB at least.

    Raises:
        UsageError: it is no such size.
    """
    if asked is None:
        return max(int(_SHARE * _free_bytes()), _LEAST_BYTES)
    return bytes_of(asked, "max memory")


def bytes_of(asked: str | float, name: str) -> int:
    """A size in bytes.

    Args:
        asked: a number of bytes, or with a unit: `4GB` (powers of 1000), `4GiB` (of 1024).
        name: of what has that size, for the message.

    Raises:
        UsageError: it is no such size.
    """
    found = _SIZE.fullmatch(str(asked))
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{name} is {asked!r}; expected a size, as 4GB, 800MB or 4GiB [U009]")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("all", ctypes.c_uint64),
        ("free", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


def _free_bytes() -> int:
    """What the system could give without taking it from others, within the group's own limit."""
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.free)
    found: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        # Pages of files count as used, and are given up as soon as they are needed.
        cached = sum(int(line.split()[1]) for line in lines if line.startswith(_FILE_PAGES))
        found = min(found, max(limit - used + cached, 0))
    return found


@contextlib.contextmanager
def collected_rarely() -> Iterator[None]:
    """Look for garbage seldom while many small objects are made, which are kept.

    Each look walks over all that was made: a third of the time of simplifying 20,000 nodes.
    """
    usual = gc.get_threshold()
    if usual[0]:
        gc.set_threshold(max(usual[0], _NEW_OBJECTS), *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class Memory:
    """Results by key; beyond the limit those go first that were not asked for longest."""

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._found: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Of all arrays that are remembered."""
        return self._held

    def recall(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was remembered under the key, else what `make` returns."""
        if key in self._found:
            self._found.move_to_end(key)
            known: T = self._found[key][0]
            return known
        result = make()
        size = _nbytes(result)
        self._found[key] = result, size
        self._held += size
        while self._held > self._limit and len(self._found) > 1:
            _, (_, freed) = self._found.popitem(last=False)
            self._held -= freed
        return result


def _is_mapped(array: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> bool:
    """Whether it shows a part of a file, which takes no memory of its own."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def _nbytes(value: object) -> int:
    """Bytes of the arrays in a result."""
    if isinstance(value, np.ndarray):
        return 0 if _is_mapped(value) else value.nbytes
    if isinstance(value, list | tuple):
        return sum(_nbytes(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(_nbytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0
