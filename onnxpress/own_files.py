"""Which files are earlier results of onnxpress, and may be replaced without asking.

A model says so in its metadata (`result.stamp`), which the last bytes of the file hold: only the
lengths of what stands before are read, not the graph. A report is a JSON object or an HTML page.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

from onnxpress.errors import OutputError

__all__ = [
    "STAMP",
    "require_marked",
    "require_own_model",
    "require_report",
    "was_written_by_us",
]

STAMP = "onnxpress.version"
"""The metadata that every model has which we write."""
_METADATA = onnx.ModelProto.METADATA_PROPS_FIELD_NUMBER
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
"""Protobuf's wire types."""
_BEGINNING = 1000
"""Bytes of a text that hold our mark."""
_LONGEST = 1 << 16
"""Bytes of an entry of metadata that can be ours."""


def require_own_model(path: Path) -> None:
    """Refuse to replace a file that is no model which onnxpress has written.

    Raises:
        OutputError: such a file is there.
    """
    if path.is_file() and not was_written_by_us(path):
        raise _not_ours(path, "no earlier result of onnxpress", "choose another name, or --force")


def require_report(path: Path, *, can_force: bool = True) -> None:
    """Refuse to replace a file that is no report: no JSON object and no page.

    Args:
        path: where a report is to be written.
        can_force: whether the command has `--force`.

    Raises:
        OutputError: such a file is there.
    """
    if path.is_file() and not (_is_object(path) or _is_page(path)):
        rest = "choose another name, or --force" if can_force else "choose another name"
        raise _not_ours(path, "no report", rest)


def require_marked(path: Path, mark: str) -> None:
    """Refuse to replace a text that does not begin with our mark.

    Args:
        path: where a text is to be written.
        mark: in its first lines, where onnxpress wrote it.

    Raises:
        OutputError: another file is there.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(_BEGINNING)
    if mark.encode() not in begins:
        raise _not_ours(path, "no earlier result of onnxpress", "choose another name, or --force")


def _not_ours(path: Path, what: str, rest: str) -> OutputError:
    return OutputError(f"{path}: exists and is {what}, so it is not replaced; {rest} [O004]")


def was_written_by_us(path: Path) -> bool:
    """Whether a file is a model with our metadata."""
    try:
        with path.open("rb") as file:
            return any(entry.key == STAMP for entry in _metadata(file))
    except (OSError, ValueError, IndexError):
        return False


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(100).lstrip().lower().startswith(b"<!doctype html")
    except OSError:
        return False


def _is_object(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _metadata(file: BinaryIO) -> Iterator[onnx.StringStringEntryProto]:
    """The metadata of a model, without reading the rest.

    Raises:
        ValueError: it is no protobuf message.
        IndexError: it ends within a number.
    """
    end = file.seek(0, 2)
    file.seek(0)
    while file.tell() < end:
        tag = _varint(file)
        kind = tag & 7
        if kind == _VARINT:
            _varint(file)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            file.seek(8 if kind == _EIGHT_BYTES else 4, 1)
        elif kind == _DELIMITED:
            length = _varint(file)
            if tag >> 3 == _METADATA and length <= _LONGEST:
                yield onnx.StringStringEntryProto.FromString(file.read(length))
            else:
                file.seek(length, 1)
        else:
            raise ValueError(f"no wire type of protobuf: {kind}")


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while shift < 64:
        byte = file.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value
        shift += 7
    raise ValueError("a number of protobuf is too long")
