"""Holding samples out, and making some up."""

from pathlib import Path

import numpy as np
import pytest

from onnxpress.data import LABELS, Samples, load_samples, random_samples, require_runnable
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec, Session

INPUTS = (InputSpec("x", "float32", ("batch", 2)),)


def samples(number: int) -> Samples:
    rows = np.arange(2 * number, dtype=np.float32).reshape(number, 2)
    return load_samples({"x": rows, LABELS: np.arange(number)}, INPUTS)


def test_hold_out_splits_every_sample_to_one_side_with_its_label() -> None:
    kept, held = samples(9).hold_out(1 / 3, seed=0)
    assert (len(kept), len(held)) == (6, 3)
    assert kept.labels is not None
    assert held.labels is not None
    assert sorted([*kept.labels.tolist(), *held.labels.tolist()]) == list(range(9))
    for part in (kept, held):
        assert part.labels is not None
        assert [feed["x"][0, 0] / 2 for feed in part] == part.labels.tolist()


def test_hold_out_depends_on_the_seed_alone() -> None:
    first, again, other = (samples(30).hold_out(1 / 3, seed)[1] for seed in (0, 0, 1))
    assert first.labels is not None
    assert again.labels is not None
    assert other.labels is not None
    assert first.labels.tolist() == again.labels.tolist()
    assert first.labels.tolist() != other.labels.tolist()


def test_two_samples_are_too_few_to_hold_some_out() -> None:
    with pytest.raises(DataError, match="give at least 3"):
        samples(2).hold_out(1 / 3, seed=0)


def test_random_samples_run_and_repeat(linear_model: Path) -> None:
    session = Session(linear_model)
    first, again, other = (random_samples(session, 2, seed) for seed in (0, 0, 1))
    require_runnable(session, first)
    assert first.labels is None
    assert [np.array_equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True)] == [True] * 2
    assert not np.array_equal(first.feeds[0]["x"], first.feeds[1]["x"])
    assert not np.array_equal(first.feeds[0]["x"], other.feeds[0]["x"])


def test_data_that_does_not_run_is_refused_with_the_reason(linear_model: Path) -> None:
    wrong = Samples(({"x": np.zeros((1, 3), np.float32)},), None, "a test")
    with pytest.raises(DataError, match="a test: the first sample does not run"):
        require_runnable(Session(linear_model), wrong)
