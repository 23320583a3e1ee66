"""Metrics of kinds against textbook implementations."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zoo.builder import floats

from onnxpress.judge.kinds import Form, Kind, Reading
from onnxpress.judge.measurement import pooled
from onnxpress.judge.metrics import Answers, Metric, WholeMetric, metrics_of

Array = npt.NDArray[Any]
TEXTS = st.lists(st.integers(0, 4), max_size=12)


def reading(kind: Kind, form: Form = "values", axis: int | None = None) -> Reading:
    return Reading("y", kind, "", "", form=form, axis=axis)


def metric(kind: Reading, name: str, references: list[Answers] | None = None) -> Metric:
    found = next(m for m in metrics_of({"y": kind}, None, references or []) if m.name == name)
    assert isinstance(found, Metric)
    return found


def value(kind: Reading, name: str, found: list[Array], reference: list[Array]) -> float:
    answers: list[Answers] = [{"y": array} for array in reference]
    one = metric(kind, name, answers)
    rows = [one.rows({"y": a}, {"y": b}, None) for a, b in zip(found, reference, strict=True)]
    return pooled(np.concatenate(rows))[0]


def textbook_distance(a: list[int], b: list[int]) -> int:
    """Wagner & Fischer."""
    table = [
        [max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)
    ]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
    return table[-1][-1]


def one_hot(text: list[int], classes: int = 6) -> Array:
    return np.eye(classes, dtype=np.float32)[np.array(text, np.int64)].reshape(1, -1, classes)


@given(TEXTS.filter(bool), TEXTS.filter(bool))
def test_edit_similarity_is_the_textbooks(wanted: list[int], found: list[int]) -> None:
    kind = reading(Kind.SEQUENCE, "probabilities", 2)
    one = metric(kind, "edit similarity")
    ((got, length, _),) = one.rows({"y": one_hot(found)}, {"y": one_hot(wanted)}, None)
    assert length == len(wanted)
    assert got == max(0, len(wanted) - textbook_distance(found, wanted))


def test_ctc_reading_merges_repetitions_and_leaves_out_the_blank() -> None:
    kind = reading(Kind.SEQUENCE, "probabilities", 2)
    text = one_hot([0, 1, 1, 0, 1, 2, 2, 0, 0, 0])
    again = one_hot([1, 1, 0, 0, 1, 0, 2, 0, 0, 0])
    assert value(kind, "edit similarity", [again], [text]) == 1.0
    assert value(kind, "agreement of steps", [again], [text]) < 1.0
    other = one_hot([1, 1, 1, 1, 1, 0, 2, 0, 0, 0])
    assert value(kind, "edit similarity", [other], [text]) == pytest.approx(2 / 3)


def test_each_row_of_a_batch_counts() -> None:
    kind = reading(Kind.CLASSIFICATION, "probabilities", 1)
    one = np.eye(4, dtype=np.float32)
    rows = metric(kind, "top-1 agreement").rows({"y": one[[0, 1, 2, 2]]}, {"y": one}, None)
    assert rows.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]]


def test_nan_agrees_with_nothing() -> None:
    kind = reading(Kind.CLASSIFICATION, "probabilities", 1)
    one = floats([[np.nan, 0.1, 0.1]])
    assert value(kind, "top-1 agreement", [one], [floats([[0.8, 0.1, 0.1]])]) == 0.0


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
def test_classes_that_the_original_forbids_are_no_loss(shape: tuple[int, ...]) -> None:
    # A policy's illegal moves, a decoder's suppressed tokens.
    steps = len(shape) == 3
    kind = reading(Kind.SEQUENCE if steps else Kind.CLASSIFICATION, "logits", len(shape) - 1)
    names = ["agreement of steps", "exp(−KL) of steps"] if steps else ["top-1 agreement"]
    rng = np.random.default_rng(0)
    masked = floats(rng.standard_normal(shape))
    masked[..., 1] = -np.inf
    near = masked + floats(1e-4 * rng.standard_normal(shape))
    allowed = near.copy()
    allowed[..., 1] = 9.0
    for name in names:
        assert value(kind, name, [masked], [masked]) == 1.0
        assert value(kind, name, [near], [masked]) == pytest.approx(1.0)
        assert value(kind, name, [allowed], [masked]) < 0.1


def test_accuracy_is_of_every_label_of_a_batch() -> None:
    kind = reading(Kind.CLASSIFICATION, "logits", 1)
    (one,) = metrics_of({"y": kind}, "y", [])
    assert isinstance(one, Metric)
    scores = floats([[1, 0], [1, 0], [0, 1]])
    rows = one.rows({"y": scores}, {"y": scores[::-1]}, np.array([0, 1, 1]))
    assert rows[:, 0].tolist() == [1, 0, 1]
    assert rows[:, 1].tolist() == [0, 0, 0]


def test_rows_without_a_label_are_not_counted() -> None:
    kind = reading(Kind.CLASSIFICATION, "logits", 1)
    (one,) = metrics_of({"y": kind}, "y", [])
    assert isinstance(one, Metric)
    scores = floats([[1, 0], [1, 0], [0, 1]])
    rows = one.rows({"y": scores[::-1]}, {"y": scores}, np.array([0, -100, -1]))
    assert pooled(rows) == (0.0, 1.0)


def test_labels_given_by_neither_are_no_loss_and_a_lost_one_is() -> None:
    kind = reading(Kind.MULTI_LABEL, "sigmoid", 1)
    nothing, some = floats([[0.1, 0.2, 0.3]]), floats([[0.9, 0.8, 0.1]])
    fewer = floats([[0.9, 0.4, 0.1]])
    name = "F1 of labels"
    assert value(kind, name, [nothing], [nothing]) == 1.0
    assert value(kind, name, [fewer], [some]) == pytest.approx(2 / 3)
    assert value(kind, name, [some], [nothing]) == 0.0


def test_labels_that_are_rare_are_lost_though_nearly_all_rows_have_none() -> None:
    kind = reading(Kind.MULTI_LABEL, "sigmoid", 1)
    rare = np.full((1000, 2), 0.01, np.float32)
    rare[::100, 1] = 0.9
    assert value(kind, "F1 of labels", [rare * 0.5], [rare]) == 0.0
    half = rare.copy()
    half[:500] *= 0.5
    # 5 of 10 are found, none besides: 2 * 5 / (5 + 10).
    assert value(kind, "F1 of labels", [half], [rare]) == pytest.approx(2 / 3)


@given(st.integers(0, 999))
def test_mean_iou_is_the_textbooks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, (2, 5, 8, 8))
    b = np.where(rng.random(b.shape) < 0.7, a, b)
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (a.reshape(-1), b.reshape(-1)), 1)
    shared = np.diag(confusion)
    wanted = np.mean(shared / (confusion.sum(axis=0) + confusion.sum(axis=1) - shared))
    numbers = reading(Kind.SEGMENTATION)
    assert value(numbers, "mean IoU", [*a[:, None]], [*b[:, None]]) == pytest.approx(wanted)
    maps = [np.eye(4, dtype=np.float32)[x].transpose(2, 0, 1)[None] for x in (*a, *b)]
    by_class = reading(Kind.SEGMENTATION, "values", 1)
    assert value(by_class, "mean IoU", maps[:5], maps[5:]) == pytest.approx(wanted)


def test_few_pixels_of_a_class_in_one_picture_are_a_small_loss() -> None:
    picture = np.zeros((1, 20, 20), np.int64)
    picture[0, :10] = 1
    dotted = picture.copy()
    dotted[0, 0, 0] = 0
    several = [picture] * 9
    assert value(reading(Kind.SEGMENTATION), "mean IoU", [dotted, *several], [picture] * 10) > 0.99


def test_masks_that_do_not_exclude_each_other_are_judged_each() -> None:
    masks = np.zeros((1, 2, 4, 4), np.float32)
    masks[0, :, :2] = 0.9
    lost = masks.copy()
    lost[0, 1] = 0.1
    kind = reading(Kind.SEGMENTATION, "values", 1)
    assert value(kind, "mean IoU", [masks], [masks]) == 1.0
    assert value(kind, "mean IoU", [lost], [masks]) == 0.5


def test_nearest_neighbour_is_the_one_by_cosine() -> None:
    (one,) = metrics_of({"y": reading(Kind.EMBEDDING)}, None, [])
    assert isinstance(one, WholeMetric)
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.standard_normal((6, 16)), 2, axis=0)
    vectors = groups + 0.1 * rng.standard_normal(groups.shape)
    original: list[Answers] = [{"y": row[None]} for row in vectors]
    longer: list[Answers] = [{"y": 3 * row[None]} for row in vectors]
    swapped: list[Answers] = [{"y": row[None]} for row in np.roll(vectors, 2, axis=0)]
    assert one.value(original, original, None) == 1.0
    assert one.value(longer, original, None) == 1.0
    assert one.value(swapped, original, None) == 0.0


def test_whole_numbers_are_equal_or_not() -> None:
    kind = reading(Kind.INTEGERS)
    a = np.arange(10).reshape(2, 5)
    assert value(kind, "equal elements", [np.where(a < 3, 0, a)], [a]) == 0.8
    assert value(kind, "equal elements", [a[:1]], [a]) == 0.0


def f1_of(found: Array, reference: Array, answer: object) -> float:
    a, b = found == answer, reference == answer
    return float(2 * np.sum(a & b) / (np.sum(a) + np.sum(b)))


@pytest.mark.parametrize("names", [(False, True), (0, 7), ("usual", "rare")])
def test_rare_decisions_are_lost_though_nearly_all_elements_are_equal(
    names: tuple[object, object],
) -> None:
    kind = reading(Kind.INTEGERS, "decisions")
    usual, rare = names
    dtype = object if isinstance(usual, str) else None
    wanted = [np.array([rare if place % 100 == 0 else usual], dtype) for place in range(400)]
    never = [np.array([usual], dtype)] * 400
    assert value(kind, "equal elements", never, wanted) == 0.99
    given = np.concatenate(never), np.concatenate(wanted)
    mean = (f1_of(*given, usual) + f1_of(*given, rare)) / 2
    assert value(kind, "F1 of decisions", never, wanted) == pytest.approx(mean)
    assert mean < 0.5
    assert value(kind, "F1 of decisions", wanted, wanted) == 1.0
    assert value(kind, "F1 of decisions", [np.concatenate(never)], [given[1][:9]]) == 0.0


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (reading(Kind.CLASSIFICATION, "probabilities", 1), "top-1 agreement"),
        (reading(Kind.MULTI_LABEL, "sigmoid", 1), "F1 of labels"),
        (reading(Kind.SEQUENCE, "probabilities", 2), "agreement of steps"),
        (reading(Kind.SEGMENTATION, "values", 1), "mean IoU"),
    ],
)
def test_answer_of_another_shape_is_all_lost(kind: Reading, name: str) -> None:
    shape = {Kind.SEQUENCE: (1, 3, 4), Kind.SEGMENTATION: (1, 3, 4, 4)}.get(kind.kind, (2, 4))
    a = np.random.default_rng(0).random(shape).astype(np.float32)
    assert value(kind, name, [a[..., :2]], [a]) == 0.0
