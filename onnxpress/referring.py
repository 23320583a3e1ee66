"""A model as onnxruntime opens it without a copy of its weights.

onnxruntime maps weights from files beside the model, which it takes as bytes with the folder that
these files are below (`session.model_external_initializers_file_folder_path`). So a rewritten model
is a small message that refers to the file of the original; only what passes made, and is large,
goes into temporary files first. What comes a second time, as most weights do in models of which
one layer differs, stays in such a file as long as the tensor lives.
"""

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxpress.beyond_ir import to_proto
from onnxpress.errors import OutputError
from onnxpress.mapped import placed
from onnxpress.spill import Spill

__all__ = ["Referring", "is_small", "referring_to"]

_IN_MEMORY_BYTES = 32_000_000
"""Of weights that are in no file: with less the message is small all the same."""


@dataclass(frozen=True, slots=True)
class Referring:
    """What onnxruntime opens.

    Attributes:
        content: the model's message, which lacks the weights in files.
        folder: that their names are relative to; `None`: there are none.
        temporary: holds the files that were made for it, until it is closed.
        shared: those that hold weights of other models too.
    """

    content: bytes
    folder: Path | None
    temporary: Spill
    shared: tuple[Spill, ...] = ()


_met: weakref.WeakSet[ir.TensorProtocol] = weakref.WeakSet()
_kept: weakref.WeakKeyDictionary[ir.TensorProtocol, tuple[Spill, ir.TensorProtocol]] = (
    weakref.WeakKeyDictionary()
)
"""Tensors that came more than once, each with the file it is in; gone when the tensor is."""


def is_small(nbytes: int) -> bool:
    """Whether so many bytes of weights are copied sooner than all nodes are."""
    return nbytes < _IN_MEMORY_BYTES


def referring_to(model: ir.Model) -> Referring:
    """The message of a model, with large weights left in files or put there.

    Args:
        model: external tensors only as weights; a copy, which is changed.

    Raises:
        OutputError: there is no room in the temporary folder, or it is on another drive.
    """
    values = _values(model)
    own = [v for v in values if v.const_value is not None and not _is_external(v)]
    temporary, shared = Spill(), dict[int, Spill]()
    if sum(v.const_value.nbytes for v in own if v.const_value is not None) >= _IN_MEMORY_BYTES:
        for value in own:
            assert value.const_value is not None
            spill, value.const_value = _put(value.const_value, temporary)
            if spill is not temporary:
                shared[id(spill)] = spill
    places: dict[ir.Value, Path] = {}
    for value in values:
        if isinstance(value.const_value, ir.ExternalTensor):
            places[value] = Path(os.path.realpath(value.const_value.path))
    if not places:
        return Referring(_bytes(model), None, temporary)
    try:
        folder = Path(os.path.commonpath([place.parent for place in places.values()]))
    except ValueError as error:
        # Of Windows.
        raise OutputError(
            f"{tempfile.gettempdir()}: temporary files lie on another drive than the weights of "
            "the model; let TMP name a folder on theirs [O006]"
        ) from error
    for value, place in places.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            file = place.relative_to(folder).as_posix()
            value.const_value = placed(tensor, file, tensor.offset or 0, folder)
    return Referring(_bytes(model), folder, temporary, tuple(shared.values()))


def _put(tensor: ir.TensorProtocol, temporary: Spill) -> tuple[Spill, ir.TensorProtocol]:
    """The tensor in a file: in one that stays, where it has come before."""
    if tensor in _kept:
        return _kept[tensor]
    if tensor not in _met:
        _met.add(tensor)
        return temporary, temporary.put(tensor)
    spill = next((one for one, _ in _kept.values()), None) or Spill()
    found = spill.put(tensor)
    if found is not tensor:
        _kept[tensor] = spill, found
    return spill, found


def _values(model: ir.Model) -> list[ir.Value]:
    return [value for graph in model.graphs() for value in graph.initializers.values()]


def _is_external(value: ir.Value) -> bool:
    return isinstance(value.const_value, ir.ExternalTensor)


def _bytes(model: ir.Model) -> bytes:
    return bytes(to_proto(model).SerializeToString(deterministic=True))
