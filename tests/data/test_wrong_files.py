"""What people have in place of samples or a model: told by what it is, and what helps."""

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.errors import DataError, ModelError, OnnxpressError
from onnxpress.runtime import InputSpec

RGB = InputSpec("image", "float32", ("batch", 3, 4, 6))
SIGNAL = InputSpec("signal", "float32", ("batch", "samples"))
ROW = InputSpec("x", "float32", ("n", 2))
WORDS = InputSpec("text", "object", ("n",))


def picture(file: Path, mode: str = "RGB", **options: Any) -> None:
    Image.new(mode, (6, 4), 1 if mode == "P" else None).save(file, **options)


def recording(file: Path, *, rate: int = 16000, channels: int = 1, width: int = 2) -> None:
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(channels)
        opened.setsampwidth(width)
        opened.setframerate(rate)
        opened.writeframes(b"\1" * (rate * channels * width // 100))


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("model.pt", b"PK\x03\x04abc", "a PyTorch file: export it to ONNX"),
        ("model.zip", b"PK\x03\x04abc", "a zip archive: unpack it"),
        ("model.onnx.gz", b"\x1f\x8b\x08", "compressed .gzip.: unpack it"),
        ("model.safetensors", b"\x08\0\0\0", "weights without a graph"),
        ("model.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        ("model.h5", b"\x89HDF\r\n", "a Keras model"),
        ("model.bin", b"\x89HDF\r\n", "an HDF5 file"),
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        ("page.onnx", b"<!DOCTYPE html><html>", "a web page"),
        ("photo.onnx", b"\xff\xd8\xff\xe0", "a picture"),
        ("samples.npz", b"PK\x03\x04abc", "samples of numpy: give them with --calibration"),
        ("x.npy", b"\x93NUMPY", "a lone array of numpy: samples are a .npz"),
        ("model.ort", b"\x20\0\0\0ORTM\xff", "a model in onnxruntime's own format"),
    ],
)
def test_file_of_another_kind_is_named_in_place_of_a_model(
    tmp_path: Path, name: str, head: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(ModelError, match=rf"{name}: is no ONNX model, but {expected}.*\[M002\]"):
        model_file.load(tmp_path / name)


def test_text_with_the_name_of_an_archive_is_not_offered_to_be_run(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    with pytest.raises(DataError, match=r"a\.npz: is no zip archive of arrays.*\[D008\]") as caught:
        load_samples(tmp_path / "a.npz", [ROW])
    assert "allow_pickle" not in str(caught.value)


def test_model_that_is_cut_off_is_said_to_be_incomplete(linear_model: Path) -> None:
    content = linear_model.read_bytes()
    linear_model.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="not a complete ONNX model"):
        model_file.load(linear_model)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda at: at.mkdir(), "the folder is empty; expected one of"),
        (lambda at: (at.mkdir(), (at / "a.bin").touch()), "takes what this folder holds"),
        (lambda at: at.write_bytes(b"PK\x03\x04"), "is a zip archive: unpack it"),
        (lambda at: at.write_bytes(b"?"), "is of a kind that no installed reader takes"),
    ],
)
def test_what_is_read_by_nothing_is_named(
    tmp_path: Path, make: Callable[[Path], object], expected: str
) -> None:
    make(tmp_path / "data")
    with pytest.raises(DataError, match=expected) as raised:
        load_samples(tmp_path / "data", [RGB])
    assert len(str(raised.value).replace(str(tmp_path), "")) < 500


def test_model_in_place_of_samples_is_named(linear_model: Path) -> None:
    with pytest.raises(DataError, match="is an ONNX model; expected one of"):
        load_samples(linear_model, [RGB])


def test_nearest_file_stands_in_place_of_the_list_of_kinds(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'photos'\? \[D001"):
        load_samples(tmp_path / "photo", [RGB])


def test_damaged_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        picture(tmp_path / str(number) / "a.png")
    (tmp_path / "1" / "a.png").write_bytes(b"hello")
    samples = load_samples(tmp_path, [RGB])
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 2]
    assert any(
        "1 of 3 files cannot be read and are left out, the first: " in note
        and note.endswith("[D008]")
        for note in samples.notes
    )


def test_damaged_recordings_are_left_out_and_named(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:10])
    (tmp_path / "c.wav").write_text("no sound")
    samples = load_samples(tmp_path, [SIGNAL])
    assert len(samples.feeds) == 1
    assert any("2 of 3 files cannot be read" in note for note in samples.notes)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {}),
        ("a.jpg", "CMYK", {}),
        ("a.jpg", "L", {}),
        ("a.png", "RGBA", {}),
        ("a.png", "P", {}),
        ("a.png", "1", {}),
        ("a.png", "LA", {}),
        ("a.png", "I;16", {}),
        ("a.gif", "P", {"save_all": True, "append_images": [Image.new("P", (6, 4))]}),
        ("a.webp", "RGB", {}),
        ("a.bmp", "RGB", {}),
        ("A.JPEG", "RGB", {}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.ppm", "RGB", {}),
    ],
)
def test_pictures_are_read_in_the_forms_that_people_have(
    tmp_path: Path, name: str, mode: str, options: dict[str, Any]
) -> None:
    picture(tmp_path / name, mode, **options)
    (feed,) = load_samples(tmp_path, [RGB]).feeds
    assert feed["image"].shape == (1, 3, 4, 6)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 6)])
def test_recordings_are_read_in_the_forms_that_people_have(
    tmp_path: Path, rate: int, channels: int, width: int
) -> None:
    recording(tmp_path / "a.wav", rate=rate, channels=channels, width=width)
    (feed,) = load_samples(tmp_path, [SIGNAL]).feeds
    assert feed["signal"].shape == (1, 160)


def _table(content: str) -> Callable[[Path], Path]:
    return _file("rows.csv", content.encode())


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _arrays(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return make


def _sets(*names: str, content: bytes | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        place = folder / "sets" / "test_data_set_0"
        place.mkdir(parents=True)
        tensor = numpy_helper.from_array(np.zeros((1, 2), np.float32), "x")
        for name in names:
            onnx.save_tensor(tensor, place / name)
            if content is not None:
                (place / name).write_bytes(content)
        return folder / "sets"

    return make


ROWS = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("make", "spec", "expected"),
    [
        (_arrays(y=ROWS), ROW, "missing: x; not an input: y"),
        (_arrays(x=ROWS, y=ROWS), ROW, "not an input: y"),
        (_arrays(x=ROWS[:0]), ROW, "no samples|holds no"),
        (_arrays(x=ROWS[:, :1]), ROW, "the model wants"),
        (_arrays(x=ROWS.astype(np.float64)), ROW, "float64"),
        (_arrays(x=ROWS, __labels__=np.zeros(2, int)), ROW, "__labels__"),
        (_arrays(x=ROWS, __labels__=np.zeros(3)), ROW, "__labels__"),
        (_arrays(x=ROWS.reshape(3, 1, 1, 2)), ROW, "the model wants"),
        (_file("a.npz", b"no zip"), ROW, "a.npz"),
        (_file("a.npz", b"PK\x03\x04cut"), ROW, "a.npz"),
    ],
)
def test_wrong_arrays_are_refused_with_what_is_wrong(
    tmp_path: Path, make: Callable[[Path], Path], spec: InputSpec, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        load_samples(make(tmp_path), [spec])


@pytest.mark.parametrize(
    ("make", "spec", "expected"),
    [
        (_sets(), ROW, r"test_data_set_0: holds no input_\*\.pb"),
        (_sets("input_0.pb", "input_1.pb"), ROW, "input_1.pb: holds the input 'x', which another"),
        (_sets("input_0.pb", content=b"\xff\xff"), ROW, "input_0.pb"),
        (_sets("input_0.pb", content=b""), ROW, "input_0.pb|the model wants|holds"),
        (_sets("input_0.pb"), InputSpec("x", "float32", ("n", 3)), "the model wants"),
        (_sets("input_0.pb"), InputSpec("x", "int64", ("n", 2)), "int64"),
        (_sets("input_0.pb"), InputSpec("x", "float32", ("n", 2, 2)), "the model wants"),
        (_sets("input_0.pb", content=b"version https://git-lfs"), ROW, "is not an ONNX tensor"),
    ],
)
def test_wrong_test_data_sets_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], spec: InputSpec, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        load_samples(make(tmp_path), [spec])


@pytest.mark.parametrize(
    ("make", "spec", "expected"),
    [
        (_file("a.txt", "Größe".encode("latin-1")), WORDS, r"a\.txt, line 1: is no UTF-8 .*iconv"),
        (_file("a.txt", "one\nGröße".encode("latin-1")), WORDS, r"a\.txt, line 2: is no UTF-8"),
        (_file("a.txt", "one".encode("utf-16")), WORDS, "is no UTF-8"),
        (_file("a.txt", b"\n \n"), WORDS, "holds no text"),
        (_file("a.jsonl", b'{"text": 3}'), WORDS, "has no text in 'text'"),
        (_file("a.jsonl", b'{"body": "a"}'), WORDS, "it has: body"),
        (_file("a.jsonl", b'{"text": "a", "label": "cat"}'), WORDS, "expected the number of a"),
        (_file("a.jsonl", b'{"text": "a"}\n{"text": '), WORDS, "line 2: is not JSON"),
        (_file("a.jsonl", b'[{"text": "a"}]'), WORDS, "has no text in 'text'"),
        (_table("a,b\n1;2\n"), ROW, "expected 2|row 2"),
        (_table("a,b\n1,\xe4\n"), ROW, "holds what is no float32"),
    ],
)
def test_wrong_texts_and_tables_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], spec: InputSpec, expected: str
) -> None:
    with pytest.raises(OnnxpressError, match=expected):
        load_samples(make(tmp_path), [spec])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read as a recording"),
        (b"hello", "cannot be read as a recording"),
        (b"RIFF\0\0\0\0WAVE", "cannot be read as a recording"),
        (b"ID3\x04\0\0\0\0\0\0", "cannot be read as a recording"),
        (b"OggS\0", "cannot be read as a recording"),
        (b"\x89PNG\r\n", "cannot be read as a recording"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.wav: {expected}.*\[D008\]"):
        load_samples(tmp_path, [SIGNAL])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("rate = 0", "rate is 0"),
        ("rate = 'fast'", "rate is 'fast'"),
        ("seconds = -1", "seconds is -1"),
        ("seconds = 'long'", "seconds is 'long'"),
        ("place = 'middle'", "place is 'middle'"),
        ("secnds = 1", r"did you mean 'seconds'\?"),
        ("classes = 3", "classes is 3"),
        ("most = 0", "most is 0"),
    ],
)
def test_wrong_description_of_recordings_is_refused(
    tmp_path: Path, said: str, expected: str
) -> None:
    recording(tmp_path / "a.wav")
    description = tmp_path / "a.toml"
    description.write_text(f'[sounds]\npath = "."\n{said}\n')
    with pytest.raises(OnnxpressError, match=expected):
        load_samples(description, [SIGNAL])
