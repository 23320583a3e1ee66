"""Objects that a detector's outputs mean, and how many of the original's are found again.

Heads are decoded as their users do: the best class of each anchor with a score of at least 0.25,
greedy suppression within a class at an IoU of 0.5. A detection is found again where one of the
same class overlaps it with an IoU of at least 0.5, as in the PASCAL VOC criterion (Everingham et
al. 2010); F1 = 2·hits / (detections of both), summed over all samples and thresholds of the score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.judge.kinds import Reading
from onnxpress.judge.slices import softmax
from onnxpress.runtime import Array

__all__ = ["Detections", "decoded", "hits"]

Floats = npt.NDArray[np.float64]
_THRESHOLD = 0.25
_OVERLAP = 0.5
_MOST = 300
"""Boxes of a picture that suppression looks at, the best first."""


@dataclass(frozen=True, slots=True)
class Detections:
    """Of one sample.

    Attributes:
        boxes: [n, 4], left, top, right, bottom.
        labels: [n], classes; of distances also which anchor.
        scores: [n], falling.
    """

    boxes: Floats
    labels: npt.NDArray[np.int64]
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Those with at least such a score; suppression of the others does not depend on them."""
        kept = self.scores >= threshold
        return Detections(self.boxes[kept], self.labels[kept], self.scores[kept])


def decoded(readings: Sequence[Reading], outputs: Mapping[str, Array]) -> Detections:
    """The objects in one sample's outputs.

    Args:
        readings: of one detector's outputs.
        outputs: by name.
    """
    roles = {reading.role for reading in readings}
    if "head" in roles:
        found = [_of_head(reading, outputs[reading.output]) for reading in readings]
        return _suppressed(_joined(found))
    if "rows" in roles:
        return _of_rows(outputs[readings[0].output])
    if readings[0].varying:
        return _of_lists(readings, outputs)
    by_name = {reading.output: reading for reading in readings}
    pairs = [(boxes, by_name[boxes.partner]) for boxes in readings if boxes.partner]
    if "distances" in roles:
        return _joined([_of_distances(level, *pair, outputs) for level, pair in enumerate(pairs)])
    return _suppressed(_joined([_of_pair(*pair, outputs) for pair in pairs]))


def hits(one: Detections, other: Detections, overlap: float = _OVERLAP) -> int:
    """How many detections of one picture are found in the other, each at most once.

    Args:
        one: detections that are looked for.
        other: among which.
        overlap: IoU that is needed.
    """
    free = np.ones(len(other), bool)
    number = 0
    for box, label in zip(one.boxes, one.labels, strict=True):
        alike = np.flatnonzero(free & (other.labels == label))
        if not len(alike):
            continue
        overlaps = _overlap(box, other.boxes[alike])
        best = int(overlaps.argmax())
        if overlaps[best] >= overlap:
            free[alike[best]] = False
            number += 1
    return number


def _of_head(reading: Reading, output: Array) -> Detections:
    assert reading.axis is not None
    table = np.moveaxis(output.astype(np.float64), reading.axis, -1)
    table = table.reshape(-1, table.shape[-1])
    first = 4 + reading.objectness
    scores = table[:, first : first + reading.classes]
    if reading.objectness:
        scores = scores * table[:, 4:5]
    return _best(_corners(table[:, :4], given=reading.corners), scores)


def _of_pair(boxes: Reading, scores: Reading, outputs: Mapping[str, Array]) -> Detections:
    table = outputs[boxes.output].astype(np.float64).reshape(-1, 4)
    return _best(_corners(table, given=boxes.corners), _class_scores(scores, outputs))


def _of_distances(
    level: int, boxes: Reading, scores: Reading, outputs: Mapping[str, Array]
) -> Detections:
    """Boxes about their own anchor, which alone they are compared with.

    Where anchors lie in the picture is not in the outputs. A distance is the mean of its bins
    (Generalized Focal Loss, Li et al. 2020).
    """
    raw = outputs[boxes.output].astype(np.float64)
    bins = raw.shape[-1] // 4
    weights = raw.reshape(-1, 4, bins)
    weights = np.exp(weights - weights.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    distances = weights @ np.arange(bins)
    corners = np.concatenate([-distances[:, :2], distances[:, 2:]], axis=1)
    found = _best(corners, _class_scores(scores, outputs), most=len(corners), anchors=True)
    return Detections(found.boxes, found.labels * 16 + level, found.scores)


def _class_scores(reading: Reading, outputs: Mapping[str, Array]) -> Floats:
    output = outputs[reading.output]
    scores = output.astype(np.float64)
    if reading.form == "logits" and reading.background is None:
        scores = 1 / (1 + np.exp(-scores))
    elif reading.form == "logits":
        scores = softmax(output, output.ndim - 1)
    scores = scores.reshape(-1, scores.shape[-1])
    if reading.background is not None:
        scores[:, reading.background] = 0.0
    return scores


def _of_rows(output: Array) -> Detections:
    table = output.astype(np.float64).reshape(-1, output.shape[-1])
    score, label, box = (4, 5, 0) if table.shape[1] == 6 else (6, 5, 1)
    table = table[table[:, score] >= _THRESHOLD]
    table = table[np.argsort(-table[:, score], kind="stable")]
    labels = np.nan_to_num(table[:, label]).astype(np.int64)
    corners = _corners(table[:, box : box + 4], given=True)
    return Detections(corners, labels, table[:, score])


def _of_lists(readings: Sequence[Reading], outputs: Mapping[str, Array]) -> Detections:
    by_role = {reading.role: outputs[reading.output] for reading in readings}
    boxes = by_role["boxes"].astype(np.float64).reshape(-1, 4)
    number = len(boxes)
    if "count" in by_role and by_role["count"].size == 1:
        number = min(number, int(by_role["count"].reshape(())))
    scores = np.ones(number)
    if "scores" in by_role:
        scores = by_role["scores"].astype(np.float64).reshape(-1)[:number]
    labels = np.zeros(number, np.int64)
    if "labels" in by_role:
        labels = by_role["labels"].astype(np.int64).reshape(-1)[:number]
    number = min(number, len(scores), len(labels))
    kept = np.flatnonzero(scores[:number] >= _THRESHOLD) if "scores" in by_role else range(number)
    order = np.asarray(kept, np.intp)
    order = order[np.argsort(-scores[order], kind="stable")]
    corners = _corners(boxes[order], given=readings[0].corners)
    return Detections(corners, labels[order], scores[order])


def _best(boxes: Floats, scores: Floats, most: int = _MOST, *, anchors: bool = False) -> Detections:
    """Anchors whose best class is likely enough, the best first."""
    if not scores.size:
        return Detections(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    labels, best = scores.argmax(axis=1), scores.max(axis=1)
    kept = np.flatnonzero(best >= _THRESHOLD)
    kept = kept[np.argsort(-best[kept], kind="stable")][:most]
    names = labels[kept] + kept * scores.shape[1] if anchors else labels[kept]
    return Detections(boxes[kept], names.astype(np.int64), best[kept])


def _joined(parts: Sequence[Detections]) -> Detections:
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    boxes = np.concatenate([part.boxes for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return Detections(boxes[order], labels[order], scores[order])


def _suppressed(found: Detections) -> Detections:
    """Without those that overlap a better one of their class."""
    kept: list[int] = []
    for index in range(len(found)):
        rivals = [k for k in kept if found.labels[k] == found.labels[index]]
        if not rivals or _overlap(found.boxes[index], found.boxes[rivals]).max() < _OVERLAP:
            kept.append(index)
    return Detections(found.boxes[kept], found.labels[kept], found.scores[kept])


def _corners(boxes: Floats, *, given: bool) -> Floats:
    """Left, top, right, bottom of any two opposite corners, as NonMaxSuppression takes them."""
    one, other = boxes[:, :2], boxes[:, 2:]
    if not given:
        one, other = one - other / 2, one + other / 2
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)


def _overlap(box: Floats, others: Floats) -> Floats:
    """IoU of a box with each of others, [n]; 1 with the same box, also where that has no area."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = area - common
    same = (others == box).all(axis=1).astype(np.float64)
    return np.asarray(np.divide(common, union, out=same, where=union > 0))
