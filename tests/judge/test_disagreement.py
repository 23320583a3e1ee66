"""The samples on which two models differ most are found, told and ordered."""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest

from onnxpress.data import Samples
from onnxpress.judge import Disagreement, Kind, Reading, most_different
from onnxpress.runtime import Array, Feed, Session


class Table:
    """Answers by the number that is fed, as a session gives them."""

    def __init__(self, answers: Mapping[int, Mapping[str, Array]]) -> None:
        self.answers = answers

    def run(self, feed: Feed) -> Mapping[str, Array]:
        """Look the answer up."""
        return self.answers[int(feed["x"].reshape(-1)[0])]


def compared(
    reading: Reading,
    old: Mapping[int, Array],
    new: Mapping[int, Array],
    *,
    seconds: float = 60.0,
    labels: list[int] | None = None,
) -> tuple[tuple[Disagreement, ...], int]:
    """What is found where a model answers `old` and the other `new`, by sample."""
    feeds = tuple({"x": np.array([place])} for place in old)
    known = None if labels is None else np.array(labels)
    samples = Samples(feeds, known, "here", places=tuple(10 * place for place in old))
    one, other = (
        cast("Session", Table({place: {reading.output: a} for place, a in answers.items()}))
        for answers in (old, new)
    )
    return most_different(one, other, samples, {reading.output: reading}, seconds=seconds)


CLASSES = Reading("y", Kind.CLASSIFICATION, "", "", form="probabilities", axis=-1)


def test_outputs_as_long_as_a_recording_are_heard() -> None:
    recording = np.zeros((1, 1000), np.float32)
    shapes = {"clean": (1, 1000), "mask": (2, 500), "short": (10,)}
    answers: dict[str, Array] = {name: np.ones(shape) for name, shape in shapes.items()}
    others: dict[str, Array] = {name: np.full(shape, 2.0) for name, shape in shapes.items()}
    samples = Samples(({"x": recording},), None, "here", rates={"x": 8000})
    one, other = (cast("Session", Table({0: found})) for found in (answers, others))
    reading = Reading("clean", Kind.REGRESSION, "", "")
    ((found,), _) = most_different(one, other, samples, {"clean": reading}, seconds=60)
    assert found.rates == {"x": 8000}
    (heard,) = found.heard
    assert (heard.output, heard.rate) == ("clean", 8000)
    assert (heard.optimized == 2).all()


def scores(*values: float) -> Array:
    return np.array([values], np.float32)


def test_changed_answer_comes_before_a_larger_error() -> None:
    old = {0: scores(0.9, 0.1), 1: scores(0.51, 0.49), 2: scores(0.8, 0.2)}
    new = {0: scores(0.6, 0.4), 1: scores(0.49, 0.51), 2: scores(0.8, 0.2)}
    found, looked = compared(CLASSES, old, new, labels=[0, 1, 0])
    assert looked == 3
    assert [(one.place, one.lost, one.label) for one in found] == [(10, 1.0, 1), (0, 0.0, 0)]
    assert [(a.original, a.optimized) for one in found for a in one.answers] == [
        ("class 0 (51%)", "class 1 (51%)"),
        ("class 0 (90%)", "class 0 (60%)"),
    ]
    assert found[1].error == pytest.approx((0.3**2 + 0.3**2) / (0.9**2 + 0.1**2), rel=1e-5)


def test_six_are_kept_and_the_worst_first() -> None:
    old = {place: scores(1.0, 0.0) for place in range(9)}
    new = {place: scores(1.0 - place / 100, 0.0) for place in range(9)}
    found, _ = compared(CLASSES, old, new)
    assert [one.place for one in found] == [80, 70, 60, 50, 40, 30]


def test_equal_answers_are_no_disagreement() -> None:
    old = {0: scores(1.0, 0.0)}
    assert compared(CLASSES, old, old) == ((), 1)


def test_one_sample_is_looked_at_where_there_is_no_time() -> None:
    old = {place: scores(1.0, 0.0) for place in range(9)}
    assert compared(CLASSES, old, old, seconds=0.0) == ((), 1)


def test_a_forbidden_class_is_no_error_where_it_stays_forbidden() -> None:
    reading = Reading("y", Kind.CLASSIFICATION, "", "", form="logits", axis=-1)
    forbidden = scores(3.0, 4.0, -math.inf)
    found, _ = compared(reading, {0: forbidden}, {0: scores(3.0, 5.0, -math.inf)})
    assert found[0].error == 1 / 25
    found, _ = compared(reading, {0: forbidden}, {0: scores(3.0, 4.0, 0.0)})
    assert found[0].error == math.inf


def test_logits_are_told_as_shares() -> None:
    reading = Reading("y", Kind.CLASSIFICATION, "", "", form="logits", axis=-1)
    found, _ = compared(reading, {0: scores(0.0, 0.0)}, {0: scores(0.0, math.log(3))})
    assert found[0].answers[0].optimized == "class 1 (75%)"


def test_other_shape_and_values_that_are_not_finite_are_infinite_errors() -> None:
    reading = Reading("y", Kind.VALUES, "", "")
    found, _ = compared(
        reading,
        {0: np.ones((1, 2)), 1: np.ones((1, 2))},
        {0: np.ones((1, 3)), 1: np.array([[1.0, np.nan]])},
    )
    assert [one.error for one in found] == [math.inf, math.inf]
    assert found[0].answers[0].original == "shape [1, 2]"
    assert found[1].answers[0].optimized == "1, nan"


@pytest.mark.parametrize(
    ("reading", "old", "new", "told"),
    [
        (
            Reading("y", Kind.SEQUENCE, "", "", form="probabilities", axis=-1),
            np.eye(3)[None],
            np.eye(3)[[0, 1, 1]][None],
            ("3 classes in 3 steps", "2 classes in 3 steps, 1 other than before"),
        ),
        (
            Reading("y", Kind.SEGMENTATION, "", "", form="sigmoid", axis=1),
            np.array([[[[0.9, 0.1], [0.8, 0.2]]]]),
            np.array([[[[0.9, 0.6], [0.4, 0.2]]]]),
            ("2 of 4 places marked", "2 of 4 places marked, 2 other than before"),
        ),
        (
            Reading("y", Kind.MULTI_LABEL, "", "", form="sigmoid", axis=-1),
            np.array([[0.9, 0.1, 0.8]]),
            np.array([[0.1, 0.1, 0.2]]),
            ("labels 0, 2", "no label"),
        ),
        (
            Reading("y", Kind.VALUES, "", ""),
            np.arange(6.0)[None],
            np.arange(6.0)[None] + 0.5,
            ("0, 1, 2, 3, … (6 numbers)", "0.5, 1.5, 2.5, 3.5, … (6 numbers)"),
        ),
    ],
)
def test_answers_are_told_by_what_they_mean(
    reading: Reading, old: Array, new: Array, told: tuple[str, str]
) -> None:
    found, _ = compared(reading, {0: old}, {0: new})
    assert [(a.original, a.optimized) for a in found[0].answers] == [told]


def test_taken_samples_know_where_they_stood() -> None:
    samples = Samples(tuple({"x": np.array([i])} for i in range(6)), None, "here")
    taken = samples.take([4, 2, 5]).take([2, 0])
    assert [taken.place(index) for index in range(2)] == [5, 4]
    assert samples.place(3) == 3
