"""Samples that were saved twice are one, and what passes looked at is named where it judges."""

from pathlib import Path

import numpy as np
import pytest

import onnxpress
from onnxpress.data import Samples
from onnxpress.data.copies import noting_shared, without_copies


def samples_of(rows: np.ndarray, labels: np.ndarray | None = None) -> Samples:
    return Samples(tuple({"x": row[None]} for row in rows), labels, "given.npz")


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)


def test_copies_count_once_and_it_is_said() -> None:
    found = without_copies(samples_of(np.tile(drawn(8), (4, 1))))
    assert len(found) == 8
    assert "24 of 32 samples of given.npz are copies" in found.notes[0]


def test_equal_samples_of_other_labels_are_no_copies() -> None:
    labels = np.arange(8)
    assert len(without_copies(samples_of(np.tile(drawn(4), (2, 1)), labels))) == 8


def test_rows_of_categories_are_draws_of_their_own() -> None:
    given = samples_of(np.tile(np.arange(6).reshape(3, 2), (4, 1)))
    assert without_copies(given) is given


def test_too_few_that_differ_are_kept_and_it_is_said() -> None:
    found = without_copies(samples_of(np.tile(drawn(2), (4, 1))))
    assert len(found) == 8
    assert "bounds are better than what is known" in found.notes[0]


def test_what_passes_look_at_is_named_where_it_judges() -> None:
    rows = drawn(8)
    found = noting_shared(samples_of(rows), samples_of(rows[:3]))
    assert "3 of 8 samples" in found.notes[-1]


@pytest.mark.parametrize("apart", [True, False])
def test_a_bound_counts_each_sample_once(linear_model: Path, *, apart: bool) -> None:
    given = {"x": np.tile(drawn(12), (8, 1))}
    result = onnxpress.optimize(
        linear_model,
        passes=["quantize"],
        calibration={"x": drawn(16, 1)} if apart else given,
        evaluation=given if apart else None,
    )
    assert result.validation is not None
    assert result.validation.measurement.samples == (6 if apart else 3)
    assert any("are copies of others" in said for said in result.validation.warnings)
