"""Read and write model files: checks before any work, writes that are whole or not at all.

A model is read through onnx-ir, which maps external data instead of copying it.
"""

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxpress.beyond_ir import from_proto, to_proto, with_map_types
from onnxpress.errors import ModelError, OutputError, brief, nearest_file
from onnxpress.external_data import (
    data_left_by,
    has_external,
    locate,
    referred,
    rename,
    without_data,
)
from onnxpress.foreign import what_it_is
from onnxpress.graph import graphs_of
from onnxpress.inlining import in_memory, is_in_memory, read_from, with_own_attributes
from onnxpress.mapped import map_tensors, placed
from onnxpress.output_file import FileSet, check_output, place_of
from onnxpress.referring import Referring, is_small, referring_to
from onnxpress.soundness import bodies, require_sound
from onnxpress.spill import Spill
from onnxpress.storage import stored_bytes
from onnxpress.streaming import whole_bytes, write_whole

__all__ = [
    "digest",
    "file_bytes",
    "held_bytes",
    "load",
    "parsed",
    "referring",
    "save",
    "size_bytes",
    "to_bytes",
    "weight_bytes",
    "whole_size",
]

logger = logging.getLogger(__name__)

PROTOBUF_LIMIT_BYTES = 2_000_000_000
"""Protobuf refuses messages of 2 GiB; the graph itself needs room beside the weights."""

_UNPACKED_BYTES = 256_000_000
"""Of weights that are held as arrays beside the message that they were read from."""
_LARGE_ELEMENTS = 16_384
"""Of a weight that is not copied to be checked."""
_FILE_BYTES = "onnxpress.file_bytes"
"""In the model's `meta`."""
_FIRST_WITH_CONSTANTS = 4
"""The IR version from which on initializers need not be inputs."""
_FIRST_WITH_LAYER_NORM = 17
_OF_ONNXRUNTIME = frozenset(["LayerNormalization", "SimplifiedLayerNormalization"])
"""Operators that onnxruntime has in ONNX's own set, where opsets have them later or never."""


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read and check an ONNX model of any opset; external data stays on disk until used.

    Nodes in any order, as onnxruntime takes them, are sorted; so half-precision converters
    write them.

    Raises:
        ModelError: the file is missing, is no ONNX model, is cut off, breaks the ONNX
            specification, or lacks its external data.
    """
    file = Path(path)
    proto = parsed(file)
    require_sound(proto, file)
    beside = referred(proto)
    base = locate(proto, file) if has_external(proto) else None
    nbytes = _on_disk(file, beside)
    # onnxruntime loads files of IR 3 whose weights are no inputs, which that version forbids.
    by_path = base is None and proto.ir_version >= _FIRST_WITH_CONSTANTS
    by_path = by_path and not any(_unknown_to_onnx(proto))
    try:
        if not _is_sorted(proto.graph, set()):
            by_path = False
            sorted_model = from_proto(proto)
            sorted_model.graph.sort()
            proto = to_proto(sorted_model)
        with _taken_out(proto, file.stat().st_size) as taken:
            by_path = by_path and not taken
            onnx.checker.check_model(str(file) if by_path else _to_be_checked(proto))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{file}: the ONNX checker refuses it: {brief(error)}; export the model again [M003]"
        ) from error
    try:
        model = from_proto(proto)
        ir.external_data.set_base_dir(model.graph, base or file.parent)
        map_tensors(model)
        _unpack(model, taken)
        model.meta[_FILE_BYTES] = nbytes
    except OSError as error:
        raise ModelError(
            f"{file}: its weights cannot be mapped into memory: {error} [M004]"
        ) from error
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = brief(cause)
        raise ModelError(
            f"{file}: holds what onnxpress cannot read yet ({reason}): it is damaged, or has types "
            "such as maps; export the part of tensors alone [M005]"
        ) from error
    return model


@contextlib.contextmanager
def _taken_out(proto: onnx.ModelProto, nbytes: int) -> Iterator[dict[str, bytes]]:
    """Large weights of a model of moderate size by name, which the message is left without.

    The checker would copy them and look at no number; a tensor of protobuf copies all its bytes
    whenever it is looked at. While it is checked their dimensions say that they are empty.

    Args:
        proto: sound (`require_sound`), which the checker is not needed for then.
        nbytes: of its file.
    """
    taken: dict[str, bytes] = {}
    dims: list[tuple[onnx.TensorProto, list[int]]] = []
    if nbytes <= _UNPACKED_BYTES:
        for tensor in proto.graph.initializer:
            kind = ir.DataType(tensor.data_type)
            if math.prod(tensor.dims) < _LARGE_ELEMENTS or not tensor.HasField("raw_data"):
                continue
            if kind == ir.DataType.UNDEFINED:
                continue
            if kind.bitwidth >= 8 and tensor.name not in taken:
                taken[tensor.name] = tensor.raw_data
                dims.append((tensor, list(tensor.dims)))
                tensor.ClearField("raw_data")
                tensor.dims[:] = [0]
    yield taken
    for tensor, shape in dims:
        tensor.dims[:] = shape


def _unpack(model: ir.Model, taken: Mapping[str, bytes]) -> None:
    """Hold the weights of a model of moderate size as arrays, in place.

    Args:
        model: as it was read.
        taken: numbers of initializers of the main graph that are not in it, by name.
    """
    moderate = weight_bytes(model) <= _UNPACKED_BYTES
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype.bitwidth < 8:
                continue
            if graph is model.graph and name in taken:
                kind = np.dtype(tensor.dtype.numpy()).newbyteorder("<")
                array = np.frombuffer(taken[name], kind).reshape(tensor.shape.numpy())
            elif moderate and tensor.raw.HasField("raw_data"):
                array = tensor.numpy()
            else:
                continue
            value.const_value = ir.Tensor(
                array,
                dtype=tensor.dtype,
                shape=tensor.shape,
                name=tensor.name,
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )


def _to_be_checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    copied = without_data(proto)
    copied.ir_version = max(copied.ir_version, _FIRST_WITH_CONSTANTS)
    for node in _unknown_to_onnx(copied):
        # The checker looks at operators of ONNX's set alone.
        node.domain = "com.microsoft"
        if not any(one.domain == node.domain for one in copied.opset_import):
            copied.opset_import.add(domain=node.domain, version=1)
    return copied


def _unknown_to_onnx(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes that onnxruntime's optimizer writes into ONNX's own set although they are not in it."""
    opsets = {one.domain: one.version for one in proto.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    graphs = [proto.graph]
    for graph in graphs:
        for node in graph.node:
            graphs += [body for one in node.attribute for body in bodies(one)]
            known = node.op_type == "LayerNormalization" and opset >= _FIRST_WITH_LAYER_NORM
            if node.op_type in _OF_ONNXRUNTIME and not node.domain and not known:
                yield node


def parsed(file: Path) -> onnx.ModelProto:
    """The file's own content, as far as it is an ONNX model at all; nothing else is checked.

    Raises:
        ModelError: it is missing, no regular file, or no ONNX model.
    """
    try:
        if not file.exists():
            near = nearest_file(file) or "; expected an ONNX model"
            raise ModelError(f"{file}: there is no such file{near} [M001]")
        if file.is_dir():
            raise ModelError(f"{file}: found a folder; expected an ONNX model file [M001]")
        if not file.is_file():
            raise ModelError(f"{file}: is no regular file; expected an ONNX model file [M001]")
        size = file.stat().st_size
        if size == 0:
            raise ModelError(
                f"{file}: the file is empty; expected an ONNX model; export it again [M002]"
            )
        proto = onnx.load(file, load_external_data=False)
    except DecodeError as error:
        known = what_it_is(file)
        if known:
            raise ModelError(f"{file}: is no ONNX model, but {known} [M002]") from error
        raise ModelError(
            f"{file}: found {size:,} bytes that are not a complete ONNX model "
            f"(protobuf: {error}); expected a file written by an ONNX exporter; if it was "
            "downloaded or copied, fetch it again [M002]"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{file}: cannot be read as an ONNX model: {reason} [M002]") from error
    except ValueError as error:
        raise ModelError(f"{file}: cannot be read as an ONNX model: {error} [M002]") from error
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(
            f"{file}: found no graph and no opset in it, so it is not an ONNX model, or only the "
            "beginning of one; expected a file written by an ONNX exporter [M002]"
        )
    return proto


def _is_sorted(graph: onnx.GraphProto, outer: set[str]) -> bool:
    """Whether nothing is read before it is written by a later node of the same graph, or body.

    Args:
        graph: what is looked at, with its bodies.
        outer: names that graphs around it write later.
    """
    later = outer | {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if any(name in later for name in node.input):
            return False
        for attribute in node.attribute:
            # A body's own names hide those around it.
            if not all(_is_sorted(body, later - _own_names(body)) for body in bodies(attribute)):
                return False
        later.difference_update(node.output)
    return True


def _own_names(graph: onnx.GraphProto) -> set[str]:
    return {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}


def weight_bytes(model: ir.Model) -> int:
    """Bytes in a file of all initializers and constants, those of subgraphs included."""
    return _bytes_of(model, stored_bytes)


def held_bytes(model: ir.Model) -> int:
    """As `weight_bytes`, as they are in memory: what a file holds in half is float32 there."""
    return _bytes_of(model, lambda value: value.const_value.nbytes if value.const_value else 0)


def _bytes_of(model: ir.Model, size: Callable[[ir.Value], int]) -> int:
    total = 0
    for graph in graphs_of(model.graph):
        total += sum(
            size(value) for value in graph.initializers.values() if value.const_value is not None
        )
        # `as_tensor` looks at every property of a tensor to see whether it is one.
        total += sum(
            int(attribute.value.nbytes)
            for node in graph
            for attribute in node.attributes.values()
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR
        )
    return total


def file_bytes(model: ir.Model) -> int:
    """Bytes on disk, external data included, of the file that a model was read from (`load`)."""
    found = model.meta[_FILE_BYTES]
    assert isinstance(found, int)
    return found


def size_bytes(path: Path) -> int:
    """Bytes a model takes on disk, its external data included."""
    try:
        return _on_disk(path, referred(onnx.load(path, load_external_data=False)))
    except DecodeError:
        return path.stat().st_size


def files_of(path: Path) -> list[Path]:
    """A model's file, and those that it says its weights are in.

    Raises:
        ModelError: it is no ONNX model.
    """
    return [path, *(path.parent / location for location in sorted(referred(parsed(path))))]


def _on_disk(file: Path, beside: Iterable[str]) -> int:
    paths = [file, *(file.parent / location for location in beside)]
    return sum(path.stat().st_size for path in paths)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool = False,
    files: FileSet | None = None,
) -> None:
    """Write `model` atomically, weights beside it when over 2 GB or when asked for.

    The data file is named after its content, so that the model that stood there before keeps
    its own data until the rename of the model file itself. That data goes afterwards, unless
    another file beside it names it.

    Args:
        model: what to write; it is not changed.
        path: the `.onnx` file; a symbolic link is written through.
        external_data: put weights of 1 kB and more into a file of their own.
        files: written together with others; `None`: at once.

    Raises:
        OutputError: the file cannot be written; what was there before is unchanged.
    """
    if files is None:
        with FileSet() as alone:
            save(model, path, external_data=external_data, files=alone)
        return
    target = Path(path)
    check_output(target)
    place = place_of(target)
    unneeded = data_left_by(place, read_from(model))
    if not external_data and held_bytes(model) < PROTOBUF_LIMIT_BYTES:
        with files.stage(target) as temporary, temporary.open("wb") as stream:
            write_whole(in_memory(model, but_large=True), stream)
    else:
        unneeded -= {_save_apart(model, target, place, files)}
    for data in sorted(unneeded):
        files.remove(data)


def _save_apart(model: ir.Model, target: Path, place: Path, files: FileSet) -> Path | None:
    """Stage the model and the file of its weights, which is renamed first."""
    if place.parent.resolve() != target.parent.resolve():
        raise OutputError(
            f"{target}: is a symbolic link into {place.parent}, and weights in a file of their own "
            f"would not be found through it; give {place} as the output [O005]"
        )
    with files.stage(target) as temporary:
        # onnx-ir redirects the tensors of what it saves to the new file: save a copy.
        ir.save(
            with_own_attributes(model.clone()),
            temporary,
            external_data=f"{place.name}.data",
            size_threshold_bytes=1024,
        )
        written = temporary.with_name(f"{place.name}.data")
        if not written.exists():
            return None
        content = digest(written)
        final = place.with_name(f"{place.name}.{content[:8]}.data")
        if final.exists() and digest(final) != content:
            final = place.with_name(f"{place.name}.{content}.data")
        proto = with_map_types(model, onnx.load(temporary, load_external_data=False))
        rename(proto, written.name, final.name)
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
        with files.stage(final) as data:
            written.replace(data)
    return final


def whole_size(model: ir.Model) -> int:
    """Bytes of the file that holds the whole model; nothing large is made for it."""
    if _is_light(model):
        return len(to_bytes(model))
    light = model.clone()
    for value in light.graph.initializers.values():
        if isinstance(value.const_value, ir.Tensor):
            value.const_value = placed(value.const_value, "")
    return whole_bytes(in_memory(light, but_large=True))


def _is_light(model: ir.Model) -> bool:
    """Whether serializing the model takes less than a clone of every node."""
    return is_small(held_bytes(model)) and is_in_memory(model)


def referring(model: ir.Model) -> Referring:
    """What onnxruntime opens for a model, whose large weights stay in files; it is not changed.

    Raises:
        OutputError: there is no room in the temporary folder for weights that are in no file.
    """
    if _is_light(model):
        return Referring(to_bytes(model), None, Spill())
    return referring_to(with_own_attributes(model.clone()))


def to_bytes(model: ir.Model) -> bytes:
    """The file's content, weights inside; the same bytes for the same model."""
    proto = to_proto(in_memory(model))
    return bytes(proto.SerializeToString(deterministic=True))
