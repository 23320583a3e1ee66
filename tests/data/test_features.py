"""Log-mel features are those of the transformers library's extractors.

`features_by_transformers.npz` was made once by transformers 5.24 with numpy, without torchaudio,
of `signal()`: some frames of `WhisperFeatureExtractor`, `Speech2TextFeatureExtractor`,
`ASTFeatureExtractor` and `Wav2Vec2FeatureExtractor`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from onnxpress.data import Samples, load_samples
from onnxpress.data.features import Mel, log_mel, standardized
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec

RATE = 16_000
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def signal() -> Floats:
    """A second of a rising tone with some noise."""
    time = np.arange(RATE) / RATE
    noise = 0.02 * np.random.default_rng(0).standard_normal(RATE)
    tone = 0.4 * np.sin(2 * np.pi * (200 * time + 1500 * time * time))
    return (tone + noise).astype(np.float32)


@pytest.fixture(scope="module")
def expected() -> dict[str, Floats]:
    with np.load(Path(__file__).with_name("features_by_transformers.npz")) as arrays:
        return dict(arrays)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", signal(), RATE, subtype="FLOAT")
    return tmp_path


def said(folder: Path, name: str, **more: object) -> None:
    text = json.dumps({"feature_extractor_type": name, "sampling_rate": RATE, **more})
    (folder / "preprocessor_config.json").write_text(text)


def fed(samples: Samples) -> Floats:
    (array,) = samples.feeds[0].values()
    return array  # type: ignore[return-value]


@pytest.mark.parametrize("bands", [80, 128])
def test_whisper_s(folder: Path, expected: dict[str, Floats], bands: int) -> None:
    said(folder, "WhisperFeatureExtractor", feature_size=bands)
    spec = InputSpec("input_features", "float32", ("batch", bands, 3000))
    found = fed(load_samples(folder, [spec]))
    assert found.shape == (1, bands, 3000)
    assert np.abs(found[0, :, :110:7] - expected[f"whisper_{bands}"]).max() < 1e-5


def test_whisper_s_where_nothing_is_fixed_is_of_30_seconds(folder: Path) -> None:
    said(folder, "WhisperFeatureExtractor", feature_size=80)
    spec = InputSpec("input_features", "float32", ("batch", "bands", "frames"))
    assert fed(load_samples(folder, [spec])).shape == (1, 80, 3000)


def test_speech2text_s(folder: Path, expected: dict[str, Floats]) -> None:
    said(folder, "Speech2TextFeatureExtractor", num_mel_bins=80)
    spec = InputSpec("input_features", "float32", ("batch", "frames", 80))
    samples = load_samples(folder, [spec])
    found = fed(samples)
    assert found.shape == (1, 98, 80)
    assert np.abs(found[0, ::7] - expected["speech2text"]).max() < 2e-5
    assert any("preprocessor_config.json says" in note for note in samples.notes)


def test_ast_s(folder: Path, expected: dict[str, Floats]) -> None:
    said(folder, "ASTFeatureExtractor")
    spec = InputSpec("input_values", "float32", ("batch", 1024, 128))
    found = fed(load_samples(folder, [spec]))
    assert np.abs(found[0, :98:7] - expected["ast"]).max() < 1e-5
    assert found[0, 98:] == pytest.approx(4.2677393 / (2 * 4.5689974)), "0, less the mean"


def test_wav2vec_s(folder: Path, expected: dict[str, Floats]) -> None:
    said(folder, "Wav2Vec2FeatureExtractor", do_normalize=True)
    spec = InputSpec("input_values", "float32", ("batch", "samples"))
    found = fed(load_samples(folder, [spec]))
    assert np.abs(found[0, ::97] - expected["wav2vec2"]).max() < 1e-5


def test_a_description_says_the_same(folder: Path, expected: dict[str, Floats]) -> None:
    (folder / "d.toml").write_text(
        "[sounds]\npath = 'a.wav'\nfeatures = 'fbank'\nwindow = 'hann'\nbands = 128\n"
        "mean = -4.2677393\ndeviation = 9.1379948\n"
    )
    spec = InputSpec("x", "float32", ("batch", 1, "frames", 128))
    found = fed(load_samples(folder / "d.toml", [spec]))
    assert found.shape == (1, 1, 98, 128)
    assert np.abs(found[0, 0, ::7] - expected["ast"]).max() < 1e-5


@pytest.mark.parametrize("kind", ["log-mel", "fbank"])
@pytest.mark.parametrize("rate", [1_600, 8_000, 16_000, 44_100])
def test_a_tone_is_loudest_in_its_band(kind: str, rate: int) -> None:
    hertz = rate / 8
    tone = np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)
    found = log_mel(tone, Mel(kind, rate, 20))  # type: ignore[arg-type]
    assert np.isfinite(found).all()
    noisier = log_mel(tone * np.float32(0.01), Mel(kind, rate, 20))  # type: ignore[arg-type]
    assert len(set(found[2:-2].argmax(axis=1).tolist())) == 1
    assert (found >= noisier - 1e-3).all()


def test_silence_is_finite_and_standardized_to_0() -> None:
    silent = np.zeros(RATE, np.float32)
    assert np.isfinite(log_mel(silent, Mel("log-mel", RATE, 80))).all()
    assert not standardized(log_mel(silent, Mel("fbank", RATE, 80))).any()


def test_a_recording_shorter_than_a_frame_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", signal()[:100], RATE)
    said(tmp_path, "Speech2TextFeatureExtractor")
    spec = InputSpec("x", "float32", ("batch", "frames", 80))
    with pytest.raises(DataError, match=r"short\.wav: is shorter than one frame of 400 values"):
        load_samples(tmp_path, [spec])


@pytest.mark.parametrize(
    ("name", "more", "found"),
    [
        ("ClapFeatureExtractor", {}, "names ClapFeatureExtractor, whose features"),
        ("WhisperFeatureExtractor", {"n_fft": 512}, "n_fft is 512; expected 400"),
        ("WhisperFeatureExtractor", {"feature_size": "many"}, "says what is not understood"),
    ],
)
def test_what_is_not_computed_is_refused(
    folder: Path, name: str, more: dict[str, object], found: str
) -> None:
    said(folder, name, **more)
    with pytest.raises(DataError, match=found):
        load_samples(folder, [InputSpec("x", "float32", ("batch", 80, 3000))])
