"""A model as onnxruntime opens it without a copy of its weights.

onnxruntime maps weights from files beside the model, which it takes as bytes with the folder that
these files are below (`session.model_external_initializers_file_folder_path`). So a rewritten model
is a small message that refers to the file of the original; only what passes made, and is large,
goes into temporary files first.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxpress.beyond_ir import to_proto
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
    """

    content: bytes
    folder: Path | None
    temporary: Spill


def is_small(nbytes: int) -> bool:
    """Whether so many bytes of weights are copied sooner than all nodes are."""
    return nbytes < _IN_MEMORY_BYTES


def referring_to(model: ir.Model) -> Referring:
    """The message of a model, with large weights left in files or put there.

    Args:
        model: external tensors only as weights; a copy, which is changed.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    values = _values(model)
    own = [v for v in values if v.const_value is not None and not _is_external(v)]
    temporary = Spill()
    if sum(v.const_value.nbytes for v in own if v.const_value is not None) >= _IN_MEMORY_BYTES:
        for value in own:
            assert value.const_value is not None
            value.const_value = temporary.put(value.const_value)
    places: dict[ir.Value, Path] = {}
    for value in values:
        if isinstance(value.const_value, ir.ExternalTensor):
            places[value] = Path(os.path.realpath(value.const_value.path))
    if not places:
        return Referring(_bytes(model), None, temporary)
    folder = Path(os.path.commonpath([place.parent for place in places.values()]))
    light = model.clone()
    for old, new in zip(values, _values(light), strict=True):
        tensor = old.const_value
        if isinstance(tensor, ir.ExternalTensor):
            file = places[old].relative_to(folder)
            new.const_value = placed(tensor, file, tensor.offset or 0, folder)
    return Referring(_bytes(light), folder, temporary)


def _values(model: ir.Model) -> list[ir.Value]:
    return [value for graph in model.graphs() for value in graph.initializers.values()]


def _is_external(value: ir.Value) -> bool:
    return isinstance(value.const_value, ir.ExternalTensor)


def _bytes(model: ir.Model) -> bytes:
    return bytes(to_proto(model).SerializeToString(deterministic=True))
