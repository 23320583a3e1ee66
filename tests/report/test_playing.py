"""Recordings in the report are WAV files as they were fed, read back by soundfile."""

import base64
import io

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from made_reports import rich_result

from onnxpress.judge import Heard
from onnxpress.report.document import document
from onnxpress.report.sounds import heard_document, sound_address
from onnxpress.runtime import Array

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000).astype(np.float32)


def read(address: str | None) -> tuple[npt.NDArray[np.float64], int]:
    assert address is not None
    kind, _, content = address.partition(",")
    assert kind == "data:audio/wav;base64"
    values, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    return values, rate


@pytest.mark.parametrize("shape", [(8000,), (1, 8000), (1, 1, 8000), (1, 8000, 1)])
def test_waveform_is_played_as_it_is(shape: tuple[int, ...]) -> None:
    values, rate = read(sound_address(TONE.reshape(shape), 16_000))
    assert rate == 16_000
    assert np.abs(values - TONE).max() < 2 / 32767


def test_integers_are_as_loud_as_they_are() -> None:
    values, _ = read(sound_address(np.rint(TONE * 32767).astype(np.int16), 16_000))
    assert np.abs(values - TONE).max() < 2 / 32767


def test_what_would_be_cut_off_is_made_less_loud() -> None:
    values, _ = read(sound_address(TONE * 1000, 16_000))
    assert np.abs(values).max() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(values, TONE)[0, 1] > 0.999


def test_only_the_first_seconds_are_kept() -> None:
    values, _ = read(sound_address(np.zeros((1, 160_000), np.float32), 16_000))
    assert len(values) == 64_000


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8000), np.float32),
        np.zeros(100, np.float32),
        np.full(8000, np.nan, np.float32),
        np.array(["a"] * 8000, object),
    ],
)
def test_what_is_no_sound_is_not_played(array: Array) -> None:
    assert sound_address(array, 16_000) is None


def test_both_models_are_heard_equally_loud() -> None:
    (found,) = heard_document([Heard("clean", 16_000, TONE[None] * 4, TONE[None])])
    (before, _), (after, _) = read(found["original"]), read(found["optimized"])
    assert np.abs(before).max() == pytest.approx(1, abs=1e-3)
    assert np.abs(after).max() == pytest.approx(0.25, abs=1e-3)


def test_document_holds_what_was_fed_and_heard() -> None:
    sample = document(rich_result())["disagreements"][2]
    assert read(sample["fed"][0]["sound"])[1] == 8000
    assert sample["fed"][0]["values"]
    assert [one["output"] for one in sample["heard"]] == ["logits"]
