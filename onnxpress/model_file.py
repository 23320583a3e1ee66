"""Read and write model files: checks before any work, writes that are whole or not at all.

A model is read through onnx-ir, which maps external data instead of copying it. It is
written into a temporary folder beside the target, synced and renamed, so that an existing
file is replaced by a complete one or stays as it was.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxpress.errors import ModelError, OutputError

__all__ = [
    "check_output",
    "digest",
    "load",
    "replace_file",
    "save",
    "size_bytes",
    "to_bytes",
    "weight_bytes",
]

logger = logging.getLogger(__name__)

PROTOBUF_LIMIT_BYTES = 2_000_000_000
"""Protobuf refuses messages of 2 GiB; the graph itself needs room beside the weights."""


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read and check an ONNX model of any opset; external data stays on disk until used.

    Raises:
        ModelError: the file is missing, is no ONNX model, is cut off, breaks the ONNX
            specification, or lacks its external data.
    """
    file = Path(path)
    if not file.exists():
        raise ModelError(f"{file}: there is no such file; expected an ONNX model")
    if not file.is_file():
        raise ModelError(f"{file}: found a folder; expected an ONNX model file")
    if file.stat().st_size == 0:
        raise ModelError(f"{file}: the file is empty; expected an ONNX model; export it again")
    try:
        proto = onnx.load(file, load_external_data=False)
    except DecodeError as error:
        raise ModelError(
            f"{file}: found {file.stat().st_size:,} bytes that are not a complete ONNX model "
            f"(protobuf: {error}); expected a file written by an ONNX exporter; if it was "
            "downloaded or copied, fetch it again"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as an ONNX model: {error}") from error
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(
            f"{file}: found no graph and no opset in it, so it is not an ONNX model, or only the "
            "beginning of one; expected a file written by an ONNX exporter"
        )
    try:
        onnx.checker.check_model(str(file))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{file}: the ONNX checker refuses it: {first_line}; export the model again, or copy "
            "its external data beside it"
        ) from error
    try:
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, file.parent)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:200]
        raise ModelError(
            f"{file}: holds what onnxpress cannot read yet ({reason}): it is damaged, or has types "
            "such as maps; export the part of tensors alone"
        ) from error
    return model


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers and constants, those of subgraphs and functions included."""
    total = 0
    for graph in model.graphs():
        total += sum(
            value.const_value.nbytes
            for value in graph.initializers.values()
            if value.const_value is not None
        )
        total += sum(
            attribute.as_tensor().nbytes
            for node in graph
            for attribute in node.attributes.values()
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR
        )
    return total


def size_bytes(path: Path) -> int:
    """Bytes a model takes on disk, its external data included."""
    total = path.stat().st_size
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError:
        return total
    locations = {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return total + sum((path.parent / location).stat().st_size for location in sorted(locations))


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_output(output: Path, *, source: Path | None = None) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        OutputError: the folder is missing or closed to us, or the output is the input.
    """
    folder = output.parent
    if not folder.is_dir():
        raise OutputError(f"{output}: the folder {folder} does not exist; create it first")
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; expected the name of a file to write")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{output}: the folder {folder} cannot be written to")
    if source is not None and output.exists() and output.samefile(source):
        raise OutputError(
            f"{output}: is the input itself, which is never overwritten; choose another -o"
        )


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it takes the place of `path`, on failure it is gone.

    Raises:
        OutputError: the disk is full or the folder cannot be written to.
    """
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary = folder / path.name
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        kept = "what was there before is unchanged" if path.exists() else "nothing was written"
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; {kept}; make room or choose "
            "another folder with -o"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save(model: ir.Model, path: str | os.PathLike[str], *, external_data: bool = False) -> None:
    """Write `model` atomically, weights beside it when over 2 GB or when asked for.

    The data file is named after its content, so that the model that stood there before keeps
    its own data until the rename of the model file itself.

    Args:
        model: what to write; it is not changed.
        path: the `.onnx` file.
        external_data: put weights of 1 kB and more into a file of their own.

    Raises:
        OutputError: the file cannot be written; what was there before is unchanged.
    """
    target = Path(path)
    check_output(target)
    if not external_data and weight_bytes(model) < PROTOBUF_LIMIT_BYTES:
        with replace_file(target) as temporary:
            temporary.write_bytes(to_bytes(model))
        return
    with replace_file(target) as temporary:
        # onnx-ir redirects the tensors of what it saves to the new file: save a copy.
        ir.save(
            model.clone(),
            temporary,
            external_data=f"{target.name}.data",
            size_threshold_bytes=1024,
        )
        written = temporary.with_name(f"{target.name}.data")
        if written.exists():
            final = target.with_name(f"{target.name}.{digest(written)[:8]}.data")
            _rename_external_data(temporary, written.name, final.name)
            _sync(written)
            written.replace(final)
            stale = set(target.parent.glob(f"{target.name}.????????.data")) - {final}
        else:
            stale = set()
    for old in sorted(stale):
        old.unlink(missing_ok=True)


def _in_memory(model: ir.Model) -> ir.Model:
    """The model with external tensors read, so that its file stands alone."""
    if any(
        isinstance(value.const_value, ir.ExternalTensor)
        for graph in model.graphs()
        for value in graph.initializers.values()
    ):
        model = model.clone()
        for graph in model.graphs():
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = ir.Tensor(
                        value.const_value.numpy(),
                        dtype=value.const_value.dtype,
                        name=value.name,
                    )
    return model


def to_bytes(model: ir.Model) -> bytes:
    """The file's content, weights inside; the same bytes for the same model."""
    proto: onnx.ModelProto = ir.to_proto(_in_memory(model))
    return bytes(proto.SerializeToString(deterministic=True))


def _rename_external_data(path: Path, old: str, new: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == old:
                entry.value = new
    path.write_bytes(proto.SerializeToString(deterministic=True))
