"""Models that are no files, or whose weights lie where they should not."""

import io
import os
import zipfile
from pathlib import Path

from hostile.building import Kind, collecting, field, is_external, saved, valid

__all__ = ["FILES"]

FILES: dict[str, Kind] = {}
_kind = collecting(FILES)


def _with_weights_in(folder: Path, **entries: str | int) -> Path:
    model = valid()
    is_external(model.graph.initializer[0], **entries)
    return saved(folder, model)


def _with_data(folder: Path, **entries: str | int) -> Path:
    (folder / "weights.bin").write_bytes(bytes(256))
    return _with_weights_in(folder, location="weights.bin", **entries)


@_kind
def empty_file(folder: Path) -> Path:
    return saved(folder, b"")


@_kind
def text_file(folder: Path) -> Path:
    return saved(folder, b"this is no model\n" * 100)


@_kind
def truncated_file(folder: Path) -> Path:
    content = valid().SerializeToString()
    return saved(folder, content[: len(content) // 2])


@_kind
def zip_file(folder: Path) -> Path:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.onnx", valid().SerializeToString())
    return saved(folder, stream.getvalue())


@_kind
def message_nested_10000_deep(folder: Path) -> Path:
    content = b""
    for _ in range(10_000):
        content = field(7, content)
    return saved(folder, content)


@_kind
def folder_as_model(folder: Path) -> Path:
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


@_kind
def fifo_as_model(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


@_kind
def symbolic_link_to_itself_as_model(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to("model.onnx")
    return folder / "model.onnx"


@_kind
def device_as_model(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to("/dev/zero")
    return folder / "model.onnx"


@_kind
def weights_at_negative_offset(folder: Path) -> Path:
    return _with_data(folder, offset=-256, length=256)


@_kind
def weights_beyond_their_file(folder: Path) -> Path:
    return _with_data(folder, offset=1 << 40, length=256)


@_kind
def weights_of_another_length(folder: Path) -> Path:
    return _with_data(folder, length=17)


@_kind
def weights_at_an_offset_that_is_no_number(folder: Path) -> Path:
    return _with_data(folder, offset="9" * 6000, length="\x1b[2J")


@_kind
def weights_in_a_system_file(folder: Path) -> Path:
    return _with_weights_in(folder, location="/etc/passwd", length=256)


@_kind
def weights_outside_the_folder(folder: Path) -> Path:
    (folder / "inside").mkdir()
    (folder / "secret").write_bytes(bytes(256))
    return _with_weights_in(folder / "inside", location="../secret")


@_kind
def weights_behind_a_link_outside(folder: Path) -> Path:
    (folder / "inside").mkdir()
    (folder / "inside" / "weights.bin").symlink_to("/etc/passwd")
    return _with_weights_in(folder / "inside", location="weights.bin")


@_kind
def weights_behind_a_link_to_itself(folder: Path) -> Path:
    (folder / "weights.bin").symlink_to("weights.bin")
    return _with_weights_in(folder, location="weights.bin")


@_kind
def weights_in_a_folder(folder: Path) -> Path:
    (folder / "weights.bin").mkdir()
    return _with_weights_in(folder, location="weights.bin")


@_kind
def weights_in_a_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "weights.bin")
    return _with_weights_in(folder, location="weights.bin")


@_kind
def weights_in_an_endless_device(folder: Path) -> Path:
    (folder / "weights.bin").symlink_to("/dev/zero")
    return _with_weights_in(folder, location="weights.bin")


@_kind
def weights_in_the_model_itself(folder: Path) -> Path:
    return _with_weights_in(folder, location="model.onnx", offset=0, length=256)


@_kind
def weights_nowhere(folder: Path) -> Path:
    return _with_weights_in(folder, location="absent.bin")


@_kind
def weights_in_a_name_with_nul(folder: Path) -> Path:
    return _with_weights_in(folder, location="a\0b")
