"""Holding samples out, and making some up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxpress.data import GROUPS, LABELS, Samples, load_samples, random_samples, require_runnable
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


def grouped(groups: list[str] | np.ndarray) -> Samples:
    rows = np.zeros((len(groups), 2), np.float32)
    numbers = np.arange(len(groups))
    return load_samples({"x": rows, LABELS: numbers, GROUPS: np.asarray(groups)}, INPUTS)


def numbers(part: Samples) -> list[int]:
    assert part.labels is not None
    return [int(number) for number in part.labels]


def groups_of(part: Samples) -> set[int]:
    assert part.groups is not None
    return set(part.groups.tolist())


def test_parts_hold_every_sample_once_in_the_shares_asked_for() -> None:
    parts = samples(100).parts((0.5, 0.3, 0.2), seed=0)
    assert [len(part) for part in parts] == [50, 30, 20]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(100))


def test_parts_depend_on_the_seed_alone() -> None:
    first, again, other = (samples(30).parts((1, 1, 1), seed) for seed in (0, 0, 1))
    assert [numbers(part) for part in first] == [numbers(part) for part in again]
    assert [numbers(part) for part in first] != [numbers(part) for part in other]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together(seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 25, 200)
    parts = grouped(drawn).parts((0.5, 0.25, 0.25), seed)
    together = [groups_of(part) for part in parts]
    assert not together[0] & together[1] | together[0] & together[2] | together[1] & together[2]
    # A cut lies at the nearest edge of a group, and groups here have about 8 samples.
    assert [len(part) for part in parts] == pytest.approx([100, 50, 50], abs=10)
    kept, held = grouped(drawn).hold_out(1 / 3, seed)
    assert not groups_of(kept) & groups_of(held)
    assert len(kept) + len(held) == 200


def test_every_part_holds_something_however_small_its_share() -> None:
    parts = samples(4).parts((0.97, 0.01, 0.01, 0.01), seed=0)
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    large = grouped(["a"] * 20 + ["b", "c"]).parts((0.1, 0.8, 0.1), seed=0)
    assert sorted(len(part) for part in large) == [1, 1, 20]


def test_more_parts_than_samples_or_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"found 2 sample\(s\).*give at least 3"):
        samples(2).parts((1, 1, 1), seed=0)
    with pytest.raises(DataError, match=r"found 1 group\(s\) in __groups__.*2 parts"):
        grouped(["a"] * 9).hold_out(1 / 3, seed=0)


def test_taken_samples_keep_their_groups() -> None:
    assert groups_of(grouped(["a", "b", "a", "c"]).take([0, 2])) == {0}


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


def test_what_was_assumed_of_both_is_said_once() -> None:
    array = {"x": np.zeros((1, 2), np.float32)}
    notes = ("a: fed as RGB", "a: 3 of 9 files are read")
    one = Samples((array,), None, "a", notes=notes)
    other = Samples((array,), None, "b", notes=("b: fed as RGB", "b: 2 of 9 files are read"))
    assert one.assumed_beside(other) == ["a: 3 of 9 files are read"]
    assert one.assumed_beside(replace(other, source="a (held out)", notes=notes)) == []
    assert one.assumed_beside(replace(other, notes=())) == list(notes)
