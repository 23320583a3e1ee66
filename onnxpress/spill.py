"""Weights that passes make of a large model, in temporary files instead of memory.

A model that does not fit into memory as often as passes would hold it (`spill`) carries a `Spill`
in its graph's `meta`, which its clones share. What is made for it by `graph.add_initializer` or
`Layer.write_stored` goes into a file at once and is mapped again like the weights that were read.
"""

import os
from pathlib import Path

import onnx_ir as ir

from onnxpress.freed import give_back_freed
from onnxpress.mapped import MappedTensor, Mapping, placed
from onnxpress.temporary import TemporaryFolder, no_room

__all__ = ["Spill", "kept", "spill", "spill_of", "spilled_apart"]

_KEY = "onnxpress.spill"
_LEAST_BYTES = 65_536
"""Of a tensor that is worth a place in a file."""
_FILE_BYTES = 256_000_000
"""Of a file, whose room is mapped before it is filled."""
_ALIGNMENT = 64


class Spill:
    """Files in a temporary folder, which goes when no tensor in them is left."""

    def __init__(self) -> None:
        self._folder: TemporaryFolder | None = None
        self._place: Path | None = None
        self._mapping: Mapping | None = None
        self._end = self._room = 0

    def close(self) -> None:
        """Remove the files; what is mapped of them stays readable."""
        if self._folder is not None:
            self._folder.close()

    def put(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """The same tensor in a file; what is small or there already stays as it is.

        Raises:
            OutputError: there is no room in the temporary folder.
        """
        small = tensor.nbytes < _LEAST_BYTES or tensor.dtype == ir.DataType.STRING
        if small or isinstance(tensor, ir.ExternalTensor):
            return tensor
        try:
            return self._written(tensor)
        except OSError as error:
            raise no_room(error) from error

    def _written(self, tensor: ir.TensorProtocol) -> MappedTensor:
        if self._end + tensor.nbytes > self._room:
            self._open(max(_FILE_BYTES, tensor.nbytes))
        assert self._place is not None
        assert self._mapping is not None
        start = self._end
        with self._place.open("r+b") as stream:
            stream.seek(start)
            if isinstance(tensor, ir.Tensor):
                tensor.tofile(stream)
            else:
                stream.write(tensor.tobytes())
        self._end = -(-(start + tensor.nbytes) // _ALIGNMENT) * _ALIGNMENT
        # What it was made of is freed about now.
        give_back_freed(tensor.nbytes)
        external = placed(tensor, self._place.name, start, self._place.parent)
        return MappedTensor(external, self._mapping)

    def _open(self, room: int) -> None:
        """Go on in a new file, of which the whole room is mapped: what is written shows in it."""
        if self._folder is None:
            self._folder = TemporaryFolder()
        number = len(list(self._folder.path.iterdir()))
        self._place = self._folder.path / f"{number}.data"
        self._place.touch()
        os.truncate(self._place, room)
        self._mapping = Mapping(self._place, keeper=self._folder)
        self._end, self._room = 0, room


def spill(model: ir.Model) -> None:
    """Let everything that is made for the model or its clones from now on go into files."""
    if _KEY not in model.graph.meta:
        model.graph.meta[_KEY] = Spill()


def spilled_apart(model: ir.Model) -> ir.Model:
    """A clone for which new weights go into files of its own, gone when it and its clones are."""
    found = model.clone()
    found.graph.meta[_KEY] = Spill()
    return found


def spill_of(graph: ir.Graph) -> Spill | None:
    """Where what is made for a main graph goes; `None`: it stays in memory."""
    found = graph.meta.get(_KEY)
    return found if isinstance(found, Spill) else None


def kept(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor as it is to be kept for a main graph: in memory, or in a file."""
    found = spill_of(graph)
    return tensor if found is None else found.put(tensor)
