"""Arrays that wait: in memory up to a limit, beyond it in temporary files.

A file has no name: the system frees its space when it is closed or the process ends, however that
ends. It is read back piece by piece and not mapped, since a mapped file counts as memory in use,
and writing to a mapped one ends the process when the disk is full.
"""

import tempfile
from dataclasses import dataclass
from typing import IO

import numpy as np

from onnxpress.errors import OutputError
from onnxpress.runtime import Array

__all__ = ["Held"]

HELD_BYTES = 256_000_000
"""In memory, of the activations between two blocks in all samples."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in its file an array lies."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class Held:
    """Arrays by name, one a sample.

    Attributes:
        in_memory: bytes of those that are.
        on_disk: bytes of those that are not.
    """

    def __init__(self, limit_bytes: int = HELD_BYTES) -> None:
        """Hold nothing yet; beyond the limit arrays go to files."""
        self._limit = limit_bytes
        self._arrays: dict[str, list[Array | _Place]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self.in_memory = self.on_disk = 0

    def names(self) -> frozenset[str]:
        """Of what is held."""
        return frozenset(self._arrays)

    def add(self, name: str, array: Array) -> None:
        """Hold the array of the next sample.

        Raises:
            OutputError: the temporary folder is full.
        """
        held = self._arrays.setdefault(name, [])
        if self.in_memory + array.nbytes <= self._limit:
            self.in_memory += array.nbytes
            held.append(array)
            return
        try:
            held.append(self._written(name, array))
        except OSError as error:
            kept = (self.in_memory + self.on_disk) / 1e6
            self.close()
            raise OutputError(
                f"{tempfile.gettempdir()}: activations between two blocks of the network cannot "
                f"be kept there ({error.strerror or error}) beside {kept:,.0f} MB that are; "
                "free some space, let TMPDIR name a larger folder, or give fewer calibration "
                "samples [O006]"
            ) from error

    def _written(self, name: str, array: Array) -> _Place:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = tempfile.TemporaryFile(prefix="onnxpress-")  # noqa: SIM115 - closed by `drop`
        offset = file.seek(0, 2)
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        self.on_disk += array.nbytes
        return _Place(offset, array.shape, array.dtype)

    def get(self, name: str, sample: int) -> Array:
        """The array of a sample, by its number."""
        found = self._arrays[name][sample]
        if not isinstance(found, _Place):
            return found
        array = np.empty(found.shape, found.dtype)
        file = self._files[name]
        file.seek(found.offset)
        file.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
        return array

    def drop(self, name: str) -> None:
        """Forget it in all samples."""
        for array in self._arrays.pop(name):
            if isinstance(array, _Place):
                continue
            self.in_memory -= array.nbytes
        file = self._files.pop(name, None)
        if file is not None:
            self.on_disk -= file.seek(0, 2)
            file.close()

    def close(self) -> None:
        """Forget everything."""
        for name in sorted(self._arrays):
            self.drop(name)
