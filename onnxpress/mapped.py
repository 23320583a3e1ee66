"""Weights in files beside a model: one mapping for each file, and its pages given back.

onnx-ir maps the whole file anew for every tensor: 200 tensors of a file of 4 GB take 800 GB of
address space. Here all tensors of a file share one mapping. What was read through it counts as
memory of the process until it is given back (`madvise(2)`, MADV_DONTNEED: the mapping is read only,
so that what is looked at again is only read again). That is done whenever more than `_SHOWN_BYTES`
were handed out of all files, so that a walk over all weights holds a few at a time. Arrays stay
valid.
"""

import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["MappedTensor", "Mapping", "map_tensors", "placed"]

_SHOWN_BYTES = 64_000_000
_GIVE_BACK = getattr(mmap, "MADV_DONTNEED", None)
"""Where the system has it."""


class Mapping:
    """A file in memory, for reading.

    Attributes:
        shown: bytes that were handed out and not given back.
    """

    def __init__(self, path: Path, keeper: object = None) -> None:
        """Map a file that is not empty.

        Args:
            path: of the file.
            keeper: what keeps the file from being removed.

        Raises:
            OSError: it cannot be opened or mapped.
        """
        with path.open("rb") as stream:
            self._memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.shown, self._keeper = 0, keeper
        _MAPPINGS.add(self)

    def bytes_at(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        """Bytes of the file, which cannot be written to."""
        if sum(one.shown for one in _MAPPINGS) + count > _SHOWN_BYTES:
            for one in _MAPPINGS:
                one.give_back()
        self.shown += count
        return np.frombuffer(self._memory, np.uint8, count, offset)

    def give_back(self) -> None:
        """Let the system take the pages that were read."""
        if sys.platform != "win32" and self.shown and _GIVE_BACK is not None:
            self._memory.madvise(_GIVE_BACK)
        self.shown = 0


_MAPPINGS: weakref.WeakSet[Mapping] = weakref.WeakSet()
"""All there are: a spill of 22 layers has a dozen files."""


class MappedTensor(ir.ExternalTensor):
    """A tensor in a mapping that others share."""

    __slots__ = ("_mapping",)

    def __init__(self, tensor: ir.ExternalTensor, mapping: Mapping) -> None:
        """Stand for an external tensor.

        Args:
            tensor: of a file that is not empty.
            mapping: of its file.
        """
        super().__init__(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=tensor.metadata_props,
            base_dir=tensor.base_dir,
        )
        self._mapping = mapping

    def numpy(self) -> npt.NDArray[Any]:
        """The numbers, in the mapping but for types of less than a byte."""
        stored = self._mapping.bytes_at(self.offset or 0, self.nbytes)
        shape = self.shape.numpy()
        if self.dtype.bitwidth < 8:
            packed: npt.NDArray[Any] = ir.PackedTensor(stored, self.dtype, shape=shape).numpy()
            return packed
        return stored.view(np.dtype(self.dtype.numpy()).newbyteorder("<")).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: ANN401, FBT001 - numpy's protocol
        """As numpy asks for it."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def tobytes(self) -> bytes:
        """A copy of what is stored."""
        return self._mapping.bytes_at(self.offset or 0, self.nbytes).tobytes()


def map_tensors(model: ir.Model) -> None:
    """Let all weights of a file share one mapping, in place.

    Raises:
        OSError: a file cannot be mapped.
    """
    mappings: dict[str, Mapping] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if type(tensor) is not ir.ExternalTensor or not tensor.size:
                continue
            path = os.path.realpath(tensor.path)
            if path not in mappings:
                mappings[path] = Mapping(Path(path))
            value.const_value = MappedTensor(tensor, mappings[path])


def placed(
    tensor: ir.TensorProtocol, file: str | Path, offset: int = 0, folder: str | Path = ""
) -> ir.ExternalTensor:
    """A tensor that says all that another says of itself, with its numbers in a file.

    Args:
        tensor: not changed.
        file: relative to the folder.
        offset: of the numbers in the file, in bytes.
        folder: that the file is below.
    """
    return ir.ExternalTensor(
        file,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=folder,
    )
