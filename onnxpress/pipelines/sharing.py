"""Write the models of a pipeline into one folder, weights that several hold once.

A tensor of 1 kB or more whose bytes stand in two files goes into `shared.data`, to which both
refer as external data; onnxruntime maps it (ONNX, `docs/ExternalData.md`).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.beyond_ir import to_proto
from onnxpress.inlining import in_memory
from onnxpress.model_file import PROTOBUF_LIMIT_BYTES
from onnxpress.output_file import FileSet

__all__ = ["SHARED", "shared_bytes", "write_models"]

SHARED = "shared.data"
_LEAST = 1024
_ALIGNED = 4096
"""Of offsets, so that weights can be mapped."""


def _digests(models: Mapping[str, ir.Model]) -> dict[str, dict[str, ir.TensorProtocol]]:
    """Large tensors of each model's main graph, by what they hold."""
    found: dict[str, dict[str, ir.TensorProtocol]] = {}
    for file, model in models.items():
        own = found.setdefault(file, {})
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and _can_stand_apart(value, tensor):
                own[_digest(tensor)] = tensor
    return found


def _can_stand_apart(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    # Texts have no raw bytes (ONNX, TensorProto).
    texts = tensor.dtype == ir.DataType.STRING
    return not texts and tensor.nbytes >= _LEAST and not value.is_graph_input()


def _digest(tensor: ir.TensorProtocol) -> str:
    kind = f"{tensor.dtype}{list(tensor.shape.numpy())}".encode()
    return hashlib.sha256(kind + tensor.tobytes()).hexdigest()


def _common(models: Mapping[str, ir.Model]) -> dict[str, tuple[ir.TensorProtocol, int]]:
    """What stands in more than one model, in the order of the first, and in how many."""
    if any(model_file.weight_bytes(m) > PROTOBUF_LIMIT_BYTES for m in models.values()):
        return {}
    found = _digests(models)
    times = Counter(digest for own in found.values() for digest in own)
    return {d: (t, times[d]) for own in found.values() for d, t in own.items() if times[d] > 1}


def shared_bytes(models: Mapping[str, ir.Model]) -> int:
    """Bytes that are stored once instead of again and again."""
    return sum(tensor.nbytes * (times - 1) for tensor, times in _common(models).values())


def write_models(models: Mapping[str, ir.Model], folder: Path, files: FileSet) -> list[Path]:
    """Write models as a part of a set of files; they are not changed.

    Args:
        models: by the names of their files.
        folder: where to.
        files: the set.

    Raises:
        OutputError: a file cannot be written.

    Returns:
        What is written.
    """
    common = _common(models)
    if not common:
        for file, model in models.items():
            model_file.save(model, folder / file, files=files)
        return [folder / file for file in models]
    places: dict[str, tuple[int, int]] = {}
    with files.stage(folder / SHARED) as temporary, temporary.open("wb") as stream:
        for digest, (tensor, _) in common.items():
            stream.write(bytes(-stream.tell() % _ALIGNED))
            places[digest] = stream.tell(), tensor.nbytes
            stream.write(tensor.tobytes())
    for file, model in models.items():
        with files.stage(folder / file) as temporary:
            temporary.write_bytes(_referring(model, places))
    return [folder / SHARED, *(folder / file for file in models)]


def _referring(model: ir.Model, places: Mapping[str, tuple[int, int]]) -> bytes:
    """The content of a file whose common weights lie in the other."""
    proto = to_proto(in_memory(model))
    for value, tensor in zip(
        model.graph.initializers.values(), proto.graph.initializer, strict=True
    ):
        held = value.const_value
        place = None
        if held is not None and _can_stand_apart(value, held):
            place = places.get(_digest(held))
        if place is None:
            continue
        onnx.external_data_helper.set_external_data(tensor, SHARED, *place)
        tensor.ClearField("raw_data")
    return bytes(proto.SerializeToString(deterministic=True))
