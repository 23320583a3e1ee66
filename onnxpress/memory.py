"""What was worked out before, bounded by its size; when Python looks for garbage."""

import contextlib
import dataclasses
import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import numpy as np

__all__ = ["Memory", "collected_rarely"]

T = TypeVar("T")

_LIMIT_BYTES = 1_000_000_000
"""Of arrays: solutions of a few hundred layers at float64."""
_NEW_OBJECTS = 200_000
"""Of Python, between two looks for garbage; 20 MB at about 100 bytes each."""


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


def _nbytes(value: object) -> int:
    """Bytes of the arrays in a result."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, list | tuple):
        return sum(_nbytes(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(_nbytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0
