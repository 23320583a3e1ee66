"""Decoding, suppression and matching, against a plain implementation that shares no code."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zoo.builder import floats

from onnxpress.judge.detections import Detections, decoded, hits
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.metrics import Metric, metrics_of

Array = npt.NDArray[Any]
CLASSES = 3
HEAD = Reading("y", Kind.DETECTION, "", "", axis=1, role="head", group=1, classes=CLASSES)
Box = tuple[float, float, float, float]
Found = list[tuple[float, int, Box]]


def plain_iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def plain_decode(table: Array) -> Found:
    """Of rows (x, y, w, h, scores): the best class of at least 0.25, suppressed at 0.5."""
    candidates = []
    for row in table.astype(float):
        x, y, w, h = row[:4]
        label = max(range(CLASSES), key=lambda c: row[4 + c])
        if row[4 + label] >= 0.25:
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            candidates.append((row[4 + label], label, box))
    kept: Found = []
    for one in sorted(candidates, key=lambda c: -c[0]):
        if all(k[1] != one[1] or plain_iou(k[2], one[2]) < 0.5 for k in kept):
            kept.append(one)
    return kept


def plain_hits(a: Found, b: Found) -> int:
    free, number = list(b), 0
    for _, label, box in a:
        alike = [other for other in free if other[1] == label]
        best = max(alike, key=lambda other: plain_iou(box, other[2]), default=None)
        if best is not None and plain_iou(box, best[2]) >= 0.5:
            free.remove(best)
            number += 1
    return number


def table(seed: int, anchors: int = 40) -> Array:
    rng = np.random.default_rng(seed)
    boxes = np.stack(
        [*rng.uniform(20, 80, (2, anchors)), *rng.uniform(5, 40, (2, anchors))], axis=1
    )
    return np.hstack([boxes, rng.random((anchors, CLASSES)) ** 2]).astype(np.float32)


def head(rows: Array) -> dict[str, Array]:
    return {"y": rows.T[None]}


def as_list(found: Detections) -> Found:
    return [
        (float(s), int(c), tuple(map(float, b)))  # type: ignore[misc] # four of them
        for s, c, b in zip(found.scores, found.labels, found.boxes, strict=True)
    ]


@given(st.integers(0, 9999))
def test_decoding_and_suppression_are_the_plain_ones(seed: int) -> None:
    rows = table(seed)
    found, wanted = as_list(decoded([HEAD], head(rows))), plain_decode(rows)
    assert [label for _, label, _ in found] == [label for _, label, _ in wanted]
    np.testing.assert_allclose([b for *_, b in found], [b for *_, b in wanted], rtol=1e-5)


@given(st.integers(0, 9999), st.floats(0, 30))
def test_hits_are_the_plain_ones(seed: int, moved: float) -> None:
    rows = table(seed)
    other = rows.copy()
    other[:, :2] += np.random.default_rng(seed).normal(0, moved, (len(rows), 2))
    one, two = decoded([HEAD], head(rows)), decoded([HEAD], head(other))
    assert hits(one, two) == plain_hits(as_list(one), as_list(two))


def test_every_object_is_found_in_itself_and_none_in_nothing() -> None:
    one = decoded([HEAD], head(table(0)))
    nothing = decoded([HEAD], head(np.zeros((40, 4 + CLASSES), np.float32)))
    assert hits(one, one) == len(one) > 3
    assert hits(one, nothing) == hits(nothing, one) == 0


def test_boxes_without_an_area_and_of_swapped_corners_are_found_in_themselves() -> None:
    rows = table(0)
    wanted = len(decoded([HEAD], head(rows)))
    mirrored = rows.copy()
    mirrored[:, 2:4] *= -1
    assert len(decoded([HEAD], head(mirrored))) == wanted
    flat = rows.copy()
    flat[:, 2] = 0
    for changed in (mirrored, flat):
        one = decoded([HEAD], head(changed))
        assert hits(one, one) == len(one) > 3


def test_rows_of_swapped_corners_are_found_in_themselves() -> None:
    reading = replace(HEAD, role="rows", corners=True)
    rows = np.array([[50, 60, 10, 20, 0.9, 1], [5, 5, 90, 90, 0.8, 0]], np.float32)
    found = decoded([reading], {"y": rows[None]})
    assert hits(found, found) == len(found) == 2


def test_forms_of_one_head_mean_the_same_objects() -> None:
    rows = table(1)
    wanted = as_list(decoded([HEAD], head(rows)))
    corners = rows.copy()
    corners[:, :2], corners[:, 2:4] = (
        rows[:, :2] - rows[:, 2:4] / 2,
        rows[:, :2] + rows[:, 2:4] / 2,
    )
    by_corners = replace(HEAD, corners=True)
    found = as_list(decoded([by_corners], head(corners)))
    assert [(s, label) for s, label, _ in found] == [(s, label) for s, label, _ in wanted]
    np.testing.assert_allclose([b for *_, b in found], [b for *_, b in wanted], rtol=1e-5)
    last = replace(HEAD, axis=2)
    assert as_list(decoded([last], {"y": rows[None]})) == wanted
    certain = np.insert(rows, 4, 1.0, axis=1)
    assert as_list(decoded([replace(HEAD, objectness=True)], head(certain))) == wanted


def test_objectness_scales_the_class_scores() -> None:
    rows = np.insert(table(1), 4, 0.1, axis=1)
    assert len(decoded([replace(HEAD, objectness=True)], head(rows))) == 0


def pair(form: str, background: int | None, first: str = "boxes") -> list[Reading]:
    boxes = Reading("b", Kind.DETECTION, "", "", axis=2, role="boxes", group=1, partner="s")
    scores = Reading("s", Kind.DETECTION, "", "", axis=2, role="scores", group=1, form=form,  # type: ignore[arg-type]
                     background=background)  # fmt: skip
    return [boxes, scores] if first == "boxes" else [scores, boxes]


@pytest.mark.parametrize("first", ["boxes", "scores"])
def test_scores_beside_boxes_mean_the_same_in_either_order(first: str) -> None:
    rows = table(2)
    wanted = as_list(decoded([HEAD], head(rows)))
    outputs = {"b": rows[None, :, :4], "s": rows[None, :, 4:]}
    assert as_list(decoded(pair("sigmoid", None, first), outputs)) == wanted


def test_logits_with_nothing_as_a_class_and_logits_of_each_class_apart() -> None:
    boxes = np.array([[[50, 50, 10, 10], [20, 20, 10, 10]]], np.float32)
    logits = np.array([[[4, 0, 0, 0], [0, 0, 0, 6]]], np.float32)
    found = decoded(pair("logits", 3), {"b": boxes, "s": logits})
    assert found.labels.tolist() == [0]
    assert found.scores[0] == pytest.approx(np.exp(4) / (np.exp(4) + 3))
    apart = decoded(pair("logits", None), {"b": boxes, "s": logits - 2})
    assert apart.labels.tolist() == [3, 0]
    assert apart.scores[0] == pytest.approx(1 / (1 + np.exp(-4)))


def test_lists_of_objects_stop_at_their_number() -> None:
    def of(role: str, name: str) -> Reading:
        return Reading(name, Kind.DETECTION, "", "", role=role, varying=True, corners=True)  # type: ignore[arg-type]

    readings = [of("boxes", "b"), of("scores", "s"), of("labels", "l"), of("count", "n")]
    outputs: dict[str, Array] = {
        "b": np.tile(floats([0, 0, 5, 5]), (1, 4, 1)),
        "s": floats([[0.9, 0.8, 0.1, 0.9]]),
        "l": np.array([[2, 1, 0, 0]]),
        "n": np.array([[3]]),
    }
    assert decoded(readings, outputs).labels.tolist() == [2, 1]


def f1(one: Array, other: Array) -> float:
    (metric,) = metrics_of({"y": HEAD}, None, [])
    assert isinstance(metric, Metric)
    new, _, weight = metric.rows(head(other), head(one), None)[0]
    return float(new / weight)


@given(st.integers(0, 999))
def test_f1_is_the_plain_one_summed_over_thresholds(seed: int) -> None:
    one, other = table(seed), table(seed)
    other[::3, 0] += 9
    other[::4, 4:] *= 0.6
    same = number = 0
    for threshold in (0.25, 0.5, 0.75):
        a, b = ([f for f in plain_decode(t) if f[0] >= threshold] for t in (one, other))
        same, number = same + 2 * plain_hits(a, b), number + len(a) + len(b)
    assert f1(one, other) == pytest.approx(same / number)


def test_f1_falls_where_all_scores_are_saturated() -> None:
    one = table(3)
    other = one.copy()
    best = one[:, 4:].max(axis=1) >= 0.25
    other[best, 4:] = (one[best, 4:] == one[best, 4:].max(axis=1, keepdims=True)).astype(np.float32)
    assert f1(one, one) == 1.0
    assert f1(one, other) < 0.9


def test_order_of_anchors_does_not_matter() -> None:
    rows = table(4)
    assert f1(rows, rows[::-1].copy()) == 1.0
