"""Weights in files beside a model (ONNX, `docs/ExternalData.md`): found, checked, never guessed.

A model may refer to files of its own tree alone. The tree is

- the folder of the model, links in its path resolved;
- where the model itself is a symbolic link, also the folder of the file it leads to;
- in a model hub's cache, `…/snapshots/REVISION/…` beside `…/blobs/`, also those blobs.

A location that leads out of it, by `..` or by a link, is refused: what lies there is never copied
into another model.
"""

import mmap
import os
import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxpress.errors import ModelError

__all__ = [
    "data_left_by",
    "has_external",
    "locate",
    "referred",
    "rename",
    "tensors",
    "without_data",
]

_MOST_SEARCHED_BYTES = 4_000_000_000
"""Of files beside an output; where there is more, old data stays."""
_LARGEST_MODEL_BYTES = 2**31


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, in bodies and functions too."""
    yield from (tensor for tensor, _ in _placed(model))


def _placed(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Every tensor, and whether it is an initializer."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    for tensor in graph.initializer:
        yield tensor, True
    for sparse in graph.sparse_initializer:
        yield sparse.values, False
        yield sparse.indices, False
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[onnx.TensorProto, bool]]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t, False
            for tensor in attribute.tensors:
                yield tensor, False
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def has_external(model: onnx.ModelProto) -> bool:
    """Whether any tensor lies in another file."""
    return any(_is_external(tensor) for tensor in tensors(model))


def referred(model: onnx.ModelProto) -> set[str]:
    """Locations of all files with weights, as they stand in the model."""
    found = {
        _entries(tensor).get("location", "") for tensor in tensors(model) if _is_external(tensor)
    }
    return found - {""}


def locate(model: onnx.ModelProto, file: Path) -> Path:
    """Check where the weights lie and let the model name the files themselves, links resolved.

    Weights of attributes and of files with several hard links, which onnx-ir does not read, are
    brought into the model.

    Args:
        model: changed in place where links are in the way.
        file: where the model was read from.

    Returns:
        The folder that the locations are relative to.

    Raises:
        ModelError: a file is missing, too short or outside the model's tree.
    """
    trees = _trees(file)
    found = [
        (tensor, is_initializer, _checked(tensor, file, trees))
        for tensor, is_initializer in _placed(model)
        if _is_external(tensor)
    ]
    plain = all(path == trees[0] / _entries(tensor)["location"] for tensor, _, path in found)
    base = trees[0] if plain else Path(os.path.commonpath(trees))
    for tensor, is_initializer, path in found:
        if not is_initializer or path.stat().st_nlink > 1:
            _bring_in(tensor, path)
            continue
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = path.relative_to(base).as_posix()
    return base


def _trees(file: Path) -> list[Path]:
    """The folders whose files a model may refer to; its own comes first."""
    named = Path(os.path.abspath(file))  # noqa: PTH100 - links stay as they are
    trees = [named.parent.resolve(), file.resolve().parent]
    for folder in named.parents:
        blobs = folder.parent / "blobs"
        if folder.name == "snapshots" and blobs.is_dir():
            trees.append(blobs.resolve())
            break
    return list(dict.fromkeys(trees))


def _checked(tensor: onnx.TensorProto, file: Path, trees: list[Path]) -> Path:
    """The file in which a tensor lies whole."""
    entries = _entries(tensor)
    location = entries.get("location", "")
    where = f"{file}: tensor {tensor.name!r} lies in {location!r}"
    normal = Path(os.path.normpath(location))
    if not location or normal.is_absolute() or normal.parts[:1] == (os.pardir,):
        raise ModelError(
            f"{where}; expected a file beside the model, or in a folder below it [M004]"
        )
    try:
        path = (trees[0] / location).resolve(strict=True)
        size = path.stat().st_size
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{where}, which cannot be read ({getattr(error, 'strerror', None) or error}); copy "
            "the model's external data beside it [M004]"
        ) from error
    if not any(path.is_relative_to(tree) for tree in trees):
        raise ModelError(
            f"{where}, a link that leads to {path}, outside of the model's folder; copy the data "
            "beside the model if it belongs to it [M004]"
        )
    if not path.is_file():
        raise ModelError(f"{where}, which is no regular file; expected a file of weights [M004]")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
        expected = _nbytes(tensor)
    except ValueError as error:
        raise ModelError(
            f"{where} with a place or type that is no number ({error}) [M004]"
        ) from error
    if offset < 0 or length < 0 or (length and length != expected):
        raise ModelError(
            f"{where} from byte {offset}, {length} bytes; expected {expected} bytes from 0 or "
            "later; the file is damaged: export it again [M004]"
        )
    if offset + expected > size:
        raise ModelError(
            f"{where} from byte {offset}, {expected} bytes; the file has {size}, so it is cut off; "
            "copy it again [M004]"
        )
    return path


def _nbytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return (count * ir.DataType(tensor.data_type).bitwidth + 7) // 8


def _bring_in(tensor: onnx.TensorProto, path: Path) -> None:
    with path.open("rb") as stream:
        stream.seek(int(_entries(tensor).get("offset") or 0))
        tensor.raw_data = stream.read(_nbytes(tensor))
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose external tensors are empty, for checks that would look for their files."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for tensor in tensors(copied):
        if _is_external(tensor):
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.dims[:] = [0]
    return copied


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Let tensors that lie in the file `old` lie in `new`."""
    for tensor in tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == old:
                entry.value = new


def data_left_by(output: Path, in_use: AbstractSet[Path]) -> set[Path]:
    """Files of weights that nobody needs once the model at `output` is replaced.

    Only files of the names that we give, `OUTPUT.DIGEST.data`, which the replaced model refers to
    and no other file beside it names: a copy of it under another name keeps its weights.

    Args:
        output: the model that stands there, if any.
        in_use: files that stay in any case, links resolved.
    """
    named = re.compile(re.escape(output.name) + r"\.[0-9a-f]{8}([0-9a-f]{56})?\.data")
    beside = [path for path in output.parent.glob("*.data") if named.fullmatch(path.name)]
    if not beside or not output.is_file():
        return set()
    try:
        old = referred(onnx.load(output, load_external_data=False))
    except (DecodeError, OSError, ValueError):
        return set()
    left = {path for path in beside if path.name in old and path.resolve() not in in_use}
    others = [path for path in sorted(output.parent.iterdir()) if path != output]
    return left - _named_in(others, left)


def _named_in(files: Iterable[Path], data: AbstractSet[Path]) -> set[Path]:
    """Those of `data` whose names stand in any of the files; all where that cannot be told."""
    found: set[Path] = set()
    searched = 0
    for file in files:
        try:
            size = file.stat().st_size if file.is_file() else 0
            if not 0 < size < _LARGEST_MODEL_BYTES or file in data:
                continue
            searched += size
            if searched > _MOST_SEARCHED_BYTES:
                return set(data)
            with (
                file.open("rb") as stream,
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                found |= {path for path in data if content.find(path.name.encode()) >= 0}
        except OSError:
            return set(data)
    return found
