"""Recordings: one channel at one rate, cut or filled to what the model wants."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from onnxpress.data import load_samples
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec

ANY = InputSpec("signal", "float32", ("batch", "samples"))


def tone(file: Path, rate: int = 16_000, seconds: float = 0.1, channels: int = 1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(file, np.stack([wave] * channels, axis=1), rate, subtype="FLOAT")


def test_signal_is_fed_as_it_is(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", channels=2)
    (feed,) = load_samples(tmp_path, [ANY]).feeds
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16_000)
    assert feed["signal"].tolist() == [pytest.approx(expected.tolist(), abs=1e-6)]


def test_another_rate_becomes_the_model_s(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", rate=48_000)
    (feed,) = load_samples(tmp_path, [ANY]).feeds
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16_000)
    assert feed["signal"].shape == (1, 1600)
    # The filter needs some values at both ends.
    inner = feed["signal"][0, 200:-200].tolist()
    assert inner == pytest.approx(expected[200:-200].tolist(), abs=0.01)


@pytest.mark.parametrize("shape", [("n", 2000), ("n", 1, 2000), ("n", 2000, 1), (2000,)])
def test_short_recording_is_filled_up(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    tone(tmp_path / "a.wav")
    (feed,) = load_samples(tmp_path, [InputSpec("x", "float32", shape)]).feeds
    assert feed["x"].size == 2000
    assert feed["x"].ndim == len(shape)
    assert not feed["x"].reshape(-1)[1600:].any()


def test_description_cuts_scales_and_places(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    (tmp_path / "d.toml").write_text(
        '[sounds]\npath = "a.wav"\nrate = 16000\nseconds = 0.2\nplace = "end"\nscale = 32768\n'
    )
    samples = load_samples(tmp_path / "d.toml", [ANY])
    signal = samples.feeds[0]["signal"][0]
    assert len(signal) == 3200
    assert not signal[:1600].any()
    assert signal.max() == pytest.approx(16384, rel=0.01)
    assert not any("assumed" in note for note in samples.notes)


def test_subfolders_are_classes_and_the_rate_is_said(tmp_path: Path) -> None:
    for name in ("no", "yes"):
        tone(tmp_path / name / "a.wav")
    samples = load_samples(tmp_path, [ANY])
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1]
    assert any("16,000 values a second, which is assumed" in note for note in samples.notes)


def test_rate_is_known_of_every_part(tmp_path: Path) -> None:
    for name in "abcd":
        tone(tmp_path / f"{name}.wav")
    samples = load_samples(tmp_path, [ANY])
    for part in (samples, *samples.hold_out(0.5, 0)):
        assert part.rates == {"signal": 16_000}


def test_model_that_takes_features_is_refused(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"features = 'log-mel' or 'fbank'"):
        load_samples(tmp_path, [InputSpec("mel", "float32", ("n", 80, 3000))])


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE"])
def test_broken_recording_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.wav: cannot be read as a recording"):
        load_samples(tmp_path, [ANY])


def test_empty_recording_is_named(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", seconds=0)
    with pytest.raises(DataError, match=r"a\.wav: is empty"):
        load_samples(tmp_path, [ANY])


def ramp(file: Path, count: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.arange(count) / count, 16_000, subtype="FLOAT")


def test_long_recordings_are_cut_into_pieces_that_stay_together(tmp_path: Path) -> None:
    ramp(tmp_path / "a.wav", 5300)
    ramp(tmp_path / "b.wav", 900)
    ramp(tmp_path / "c.wav", 20_000)
    samples = load_samples(tmp_path, [InputSpec("x", "float32", ("n", 512))])
    firsts = [
        round(float(feed["x"][0, 0]) * size)
        for feed, size in zip(samples.feeds, [*[5300] * 8, 900, *[20_000] * 8], strict=True)
    ]
    # 5300 values hold ten windows of 512, of which eight are taken; 900 hold one.
    assert firsts[:9] == [0, 684, 1368, 2052, 2736, 3420, 4104, 4788, 0]
    assert firsts[-1] == 20_000 - 512
    assert samples.groups is not None
    assert samples.groups.tolist() == [*[0] * 8, 1, *[2] * 8]
    for part in samples.parts((0.5, 0.5), 0):
        assert part.groups is not None
    left, right = samples.parts((0.5, 0.5), 0)
    assert left.groups is not None
    assert right.groups is not None
    assert not set(left.groups.tolist()) & set(right.groups.tolist())


def test_recordings_with_classes_are_one_piece_unless_more_are_asked_for(tmp_path: Path) -> None:
    for name in ("yes", "no"):
        ramp(tmp_path / name / "a.wav", 2048)
    spec = InputSpec("x", "float32", ("n", 512))
    assert len(load_samples(tmp_path, [spec])) == 2
    (tmp_path / "d.toml").write_text('[sounds]\npath = "."\npieces = 3\n')
    assert len(load_samples(tmp_path / "d.toml", [spec])) == 6
