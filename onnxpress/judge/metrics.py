"""The metric of each kind of output: what its user would notice.

A metric gives for each sample one or more rows of (this model, the original, weight); its value
is the sum of the first over the sum of the last, so that shares of pixels, steps and objects are
pooled over all samples. Where the original is the truth, its part is the weight. Rows that name a
class are pooled for each class, and the value is the mean over classes, as mean IoU is defined
(PASCAL VOC, Everingham et al. 2010): a class of few pixels counts as much as the background, and
a few pixels of it in one picture do not.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import numpy as np
import numpy.typing as npt

from onnxpress.judge.detections import decoded, hits
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.runtime import Array

__all__ = [
    "Answers",
    "Label",
    "Metric",
    "WholeMetric",
    "edit_distance",
    "metrics_of",
    "says_nothing",
]

Answers = Mapping[str, Array]
Label = npt.NDArray[np.int64] | None
Floats = npt.NDArray[np.float64]

_POSITIVE = 0.5
_THRESHOLDS = (0.25, 0.5, 0.75)
_OVERLAPS = (0.5, 0.75)
_BLANK_SHARE = 0.2
"""Of steps: what the first or last class takes where it is the blank of a CTC head."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What is counted for each sample.

    Attributes:
        name: for people.
        outputs: that it looks at.
        rows: (this model's answers, the original's, labels) → [n, 3]: this model, the original,
            weight; or [n, 4] with a class.
    """

    name: str
    outputs: tuple[str, ...]
    rows: Callable[[Answers, Answers, Label], Floats]


@dataclass(frozen=True, slots=True)
class WholeMetric:
    """What can only be said of all samples together.

    Attributes:
        name: for people.
        outputs: that it looks at; none: all.
        value: (answers, the original's, labels), one each a sample → a score, 1 is all.
    """

    name: str
    outputs: tuple[str, ...]
    value: Callable[[Sequence[Answers], Sequence[Answers], Sequence[Label] | None], float]


def metrics_of(
    readings: Mapping[str, Reading], labelled: str | None, references: Sequence[Answers]
) -> list[Metric | WholeMetric]:
    """Metrics of all outputs.

    Args:
        readings: by output.
        labelled: the output that labels belong to.
        references: the original's answers to some samples.
    """
    found: list[Metric | WholeMetric] = []
    for reading in readings.values():
        name = reading.output
        if name == labelled:
            found.append(Metric("accuracy", (name,), partial(_accuracy, reading)))
        elif reading.kind == Kind.CLASSIFICATION:
            found.append(Metric("top-1 agreement", (name,), partial(_agreement, reading)))
        elif reading.kind == Kind.MULTI_LABEL:
            found.append(Metric("F1 of labels", (name,), partial(_labels, reading)))
        elif reading.kind == Kind.SEQUENCE:
            blank = _blank(reading, references)
            found.append(Metric("agreement of steps", (name,), partial(_agreement, reading)))
            found.append(Metric("edit similarity", (name,), partial(_edits, reading, blank)))
            if reading.form == "logits":
                found.append(Metric("exp(−KL) of steps", (name,), partial(_likelihood, reading)))
        elif reading.kind == Kind.SEGMENTATION:
            found.append(Metric("mean IoU", (name,), partial(_masks, reading)))
        elif reading.kind == Kind.EMBEDDING:
            found.append(WholeMetric("nearest neighbours", (name,), partial(_neighbours, name)))
        elif reading.kind == Kind.INTEGERS:
            found.append(Metric("equal elements", (name,), partial(_equal, name)))
        elif reading.varying and reading.kind != Kind.DETECTION:
            found.append(Metric("answers alike", (name,), partial(_alike, name)))
    decisions = [r.output for r in readings.values() if r.form == "decisions"]
    found += [Metric("F1 of decisions", (name,), partial(_decisions, name)) for name in decisions]
    parts = [reading for reading in readings.values() if reading.kind == Kind.DETECTION]
    if parts:
        found.append(_of_detector(parts))
    return found


def _of_detector(readings: Sequence[Reading]) -> Metric:
    """F1 of the objects found; where neither model finds any, nothing is lost.

    Counted at three thresholds, so that scores have to mean what they meant above the first, too.
    Where boxes are not judged by themselves, since their order is free, also at a stricter overlap.
    """
    overlaps = _OVERLAPS if readings[0].varying else _OVERLAPS[:1]

    def rows(found: Answers, reference: Answers, _: Label) -> Floats:
        one, other = decoded(readings, found), decoded(readings, reference)
        same = number = 0
        for threshold, overlap in itertools.product(_THRESHOLDS, overlaps):
            a, b = one.above(threshold), other.above(threshold)
            same += 2 * hits(b, a, overlap)
            number += len(a) + len(b)
        return np.array([[same, number, number]], np.float64)

    return Metric("F1 of detections", tuple(reading.output for reading in readings), rows)


def _classes(reading: Reading, output: Array) -> npt.NDArray[np.intp]:
    return np.asarray(output.argmax(axis=reading.axis))


def _accuracy(reading: Reading, found: Answers, reference: Answers, label: Label) -> Floats:
    """A row for each label; one below 0 says that there is none."""
    assert label is not None
    wanted = np.atleast_1d(label)
    given = wanted >= 0
    right = [
        _decided(reading, answers[reading.output], len(wanted)) == wanted
        for answers in (found, reference)
    ]
    return np.stack([*(r & given for r in right), given], axis=1).astype(np.float64)


def _decided(reading: Reading, output: Array, rows: int) -> npt.NDArray[np.int64]:
    table = output.reshape(rows, -1) if output.size % rows == 0 else output.reshape(1, -1)
    if output.dtype.kind in "iub":
        return np.asarray(table[:, 0], np.int64)
    if table.shape[1] == 1:
        limit = 0.0 if reading.form == "values" else _POSITIVE
        return np.asarray(table[:, 0].astype(np.float64) > limit, np.int64)
    return np.asarray(table.argmax(axis=1), np.int64)


def _agreement(reading: Reading, found: Answers, reference: Answers, _: Label) -> Floats:
    """A row for each sample of a batch where an answer is one class; the share of steps else."""
    one, other = found[reading.output], reference[reading.output]
    if one.shape != other.shape:
        return np.array([[0.0, 1.0, 1.0]])
    same = _classes(reading, one) == _classes(reading, other)
    # An argmax of NaN is a class too; an original that forbids a class says -inf.
    same &= (np.isfinite(one) | (one == other)).all(axis=reading.axis)
    if reading.kind == Kind.SEQUENCE:
        return np.array([[float(same.sum()), same.size, same.size]])
    return np.stack([same.reshape(-1), np.ones(same.size), np.ones(same.size)], axis=1).astype(
        np.float64
    )


def _likelihood(reading: Reading, found: Answers, reference: Answers, _: Label) -> Floats:
    """exp(−KL(original ‖ model)) of each step: how much of its likelihood the next token keeps."""
    one, other = found[reading.output], reference[reading.output]
    if one.shape != other.shape:
        return np.array([[0.0, 1.0, 1.0]])
    assert reading.axis is not None
    with np.errstate(invalid="ignore"):
        given, known = (_log_softmax(x.astype(np.float64), reading.axis) for x in (one, other))
        terms = np.exp(known) * (known - given)
    # What the original forbids (-inf) adds nothing, whatever the other says of it.
    divergence = np.where(np.isneginf(known), 0.0, terms).sum(axis=reading.axis)
    # A NaN is no likelihood at all.
    kept = np.nan_to_num(np.exp(-np.maximum(divergence, 0.0)))
    kept[(one == other).all(axis=reading.axis)] = 1.0
    return np.array([[float(kept.sum()), kept.size, kept.size]])


def _log_softmax(x: Floats, axis: int) -> Floats:
    x = x - x.max(axis=axis, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axis, keepdims=True)))


def _given_labels(reading: Reading, output: Array) -> npt.NDArray[np.bool_]:
    limit = _POSITIVE if reading.form == "sigmoid" else 0.0
    return np.asarray(output.astype(np.float64) > limit)


def says_nothing(reading: Reading, references: Sequence[Answers]) -> bool:
    """Whether the original decides all samples alike: one class of all, or no label ever.

    Then any model that decides so, too, is as good by a metric of decisions.
    """
    outputs = [answers[reading.output] for answers in references]
    if reading.form == "decisions":
        some = [output for output in outputs if output.size]
        return bool(some) and all(bool((output == some[0].flat[0]).all()) for output in some)
    if reading.kind == Kind.MULTI_LABEL:
        return not any(_given_labels(reading, output).any() for output in outputs)
    if reading.kind == Kind.CLASSIFICATION:
        return len({int(c) for output in outputs for c in _classes(reading, output).flat}) == 1
    return False


def _labels(reading: Reading, found: Answers, reference: Answers, _: Label) -> Floats:
    """F1 of the labels that are given, pooled over rows.

    A row to which neither gives any says nothing of labels that are rare: a mean over all rows is
    near 100% of a model that never gives one.
    """
    one, other = found[reading.output], reference[reading.output]
    if one.shape != other.shape:
        return np.array([[0.0, 1.0, 1.0]])
    rows = len(one) if one.ndim > 1 else 1
    a, b = (_given_labels(reading, x).reshape(rows, -1) for x in (one, other))
    both, number = (a & b).sum(axis=1), a.sum(axis=1) + b.sum(axis=1)
    return np.stack([2 * both, number, number], axis=1).astype(np.float64)


def _blank(reading: Reading, references: Sequence[Answers]) -> int | None:
    """The blank of a CTC head: its first or last class, where that takes many steps."""
    if reading.axis is None or not references:
        return None
    steps = np.concatenate([_classes(reading, r[reading.output]).reshape(-1) for r in references])
    last = references[0][reading.output].shape[reading.axis] - 1
    for blank in (0, last):
        if np.mean(steps == blank) >= _BLANK_SHARE:
            return int(blank)
    return None


def _edits(
    reading: Reading, blank: int | None, found: Answers, reference: Answers, _: Label
) -> Floats:
    """1 − edit distance over length, of what greedy decoding reads (Graves et al. 2006, CTC)."""
    one, other = (_read(reading, blank, answers[reading.output]) for answers in (found, reference))
    rows = []
    for place, wanted in enumerate(other):
        length = max(len(wanted), 1)
        distance = edit_distance(one[place], wanted) if place < len(one) else length
        rows.append([float(max(length - distance, 0)), length, length])
    return np.array(rows)


def _read(reading: Reading, blank: int | None, output: Array) -> list[list[int]]:
    decoded_rows = []
    for row in np.atleast_2d(_classes(reading, output)):
        classes = row.reshape(-1).tolist()
        if blank is not None:
            changes = [c for p, c in zip([None, *classes], classes, strict=False) if c != p]
            classes = [c for c in changes if c != blank]
        decoded_rows.append(classes)
    return decoded_rows


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Levenshtein's."""
    if list(one) == list(other):
        return 0
    before = np.arange(len(other) + 1)
    wanted = np.asarray(other)
    for number, symbol in enumerate(one, 1):
        row = np.minimum(before[1:] + 1, before[:-1] + (wanted != symbol))
        row = np.concatenate([[number], row])
        # An insertion costs one more than the best to its left.
        steps = np.arange(len(row))
        before = np.minimum.accumulate(row - steps) + steps
    return int(before[-1])


def _masks(reading: Reading, found: Answers, reference: Answers, _: Label) -> Floats:
    """Intersection, union and union of each class that either model sees in the sample."""
    one, other = found[reading.output], reference[reading.output]
    if one.shape != other.shape:
        return np.array([[0.0, other.size, other.size, 0.0]])
    if reading.axis is not None and one.dtype.kind == "f" and one.ndim > 1:
        one, other = (np.moveaxis(array, reading.axis, 1) for array in (one, other))
    exclusive = (
        one.dtype.kind == "f" and one.ndim > 1 and reading.axis is not None and one.shape[1] > 1
    )
    if one.dtype.kind == "f" and not (exclusive and not _masked(other)):
        limit = _POSITIVE if _masked(other) else 0.0
        pairs = [(a > limit, b > limit) for a, b in zip(*_channels(one, other), strict=True)]
        return np.array([_overlap(a, b, place) for place, (a, b) in enumerate(pairs)])
    if one.dtype.kind == "f":
        a, b = one.argmax(axis=1), other.argmax(axis=1)
    else:
        a, b = one.astype(np.int64), other.astype(np.int64)
    classes = np.union1d(np.unique(a), np.unique(b))
    return np.array([_overlap(a == c, b == c, int(c)) for c in classes])


def _channels(*arrays: Array) -> list[Array]:
    return [np.moveaxis(array, min(1, array.ndim - 1), 0) for array in arrays]


def _masked(output: Array) -> bool:
    """Whether values are masks between 0 and 1 that do not exclude each other."""
    low, high = float(output.min(initial=0)), float(output.max(initial=0))
    exclusive = output.shape[1] > 1 and np.allclose(output.sum(axis=1), 1.0, atol=1e-2)
    return low >= 0 and high <= 1 + 1e-6 and not exclusive


def _overlap(
    a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], number: int
) -> tuple[float, float, float, float]:
    union = float(np.count_nonzero(a | b))
    return float(np.count_nonzero(a & b)), union, union, float(number)


def _equal(name: str, found: Answers, reference: Answers, _: Label) -> Floats:
    one, other = found[name], reference[name]
    if one.shape != other.shape:
        return np.array([[0.0, 1.0, 1.0]])
    share = float(np.mean(one == other)) if one.size else 1.0
    return np.array([[share, 1.0, 1.0]])


def _decisions(name: str, found: Answers, reference: Answers, _: Label) -> Floats:
    """F1 of each answer that either model gives: one that is rare counts as much as another.

    Of a hundred alarms in ten thousand rows all may be lost while 99% of elements are equal.
    """
    one, other = found[name], reference[name]
    if one.shape != other.shape:
        return np.array([[0.0, 1.0, 1.0, 0.0]])
    rows = []
    for answer in np.union1d(one, other):
        a, b = one == answer, other == answer
        number = float(a.sum() + b.sum())
        rows.append([2.0 * (a & b).sum(), number, number, _number(answer)])
    return np.array(rows or [[0.0, 0.0, 0.0, 0.0]])


def _number(answer: float | str) -> float:
    """That stands for an answer: itself, or of a text one that no other is likely to have."""
    return float(crc32(answer.encode()) if isinstance(answer, str) else answer)


def _alike(name: str, found: Answers, reference: Answers, _: Label) -> Floats:
    """Whether the rows are as many, and differ by less than a tenth of their size (20 dB)."""
    one, other = found[name], reference[name]
    alike = one.shape == other.shape
    if alike and one.dtype.kind == "f":
        noise = float(np.sum((one.astype(np.float64) - other.astype(np.float64)) ** 2))
        alike = noise <= 0.01 * float(np.sum(other.astype(np.float64) ** 2))
    return np.array([[float(alike), 1.0, 1.0]])


def _neighbours(
    name: str,
    found: Sequence[Answers],
    reference: Sequence[Answers],
    _: Sequence[Label] | None,
) -> float:
    """How many embeddings have the same nearest neighbour among the original's, by cosine.

    A neighbour that the original hardly tells from the nearest one (a cosine within 0.001) is as
    right.
    """
    one, other = (_directions([a[name] for a in answers]) for answers in (found, reference))
    if one.shape != other.shape or len(other) < 3:
        return 1.0
    known = other @ other.T
    np.fill_diagonal(known, -math.inf)
    given = one @ other.T
    np.fill_diagonal(given, -math.inf)
    picked = given.argmax(axis=1)
    rows = np.arange(len(other))
    return float(np.mean(known[rows, picked] >= known.max(axis=1) - 1e-3))


def _directions(arrays: Sequence[Array]) -> Floats:
    rows = np.concatenate([a.reshape(-1, a.shape[-1]).astype(np.float64) for a in arrays])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))
