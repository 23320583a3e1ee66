"""Which outputs are a detector's: one head, scores beside boxes, or rows that suppression left.

Known forms: boxes and class scores in one tensor, [N, 4 + classes, anchors] (YOLOv8) or
[N, anchors, 5 + classes] with objectness (YOLOv5), other rows behind the scores (masks, key
points) or not; scores [N, anchors, classes] beside boxes [N, anchors, 4] (DETR, SSD) or beside
distributions of distances [N, anchors, 4·bins] (PicoDet); boxes, scores and labels of the objects
that were found, in outputs of their own or in rows of 6 or 7 (suppression inside).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.judge.evidence import Evidence
from onnxpress.judge.kinds import Form, Kind, Reading
from onnxpress.judge.slices import softmax

__all__ = ["detectors"]

_MOST_ROWS = 1024
_PIXELS = 1.5
"""Beyond it a coordinate is in pixels, not a share of the picture."""
_BOXES = r"box|bbox|loc\b|reg"
_SCORES = r"score|conf|cls|class|logit|prob"
_LABELS = r"label|class|cls|categor"
_COUNTS = r"num|count|valid"
_MOSTLY = 0.5
"""Of all anchors: what "nothing" takes where it is a class."""
_ORDERED = 0.98
"""Share of boxes whose second corner lies behind the first, where corners are given."""


def detectors(known: Sequence[Evidence], *, asked: bool = False) -> list[Reading]:
    """Readings of the outputs that belong to a detector; none where there is no detector.

    Args:
        known: of the outputs in question.
        asked: a user says that there is a detector, so that its shapes are enough.
    """
    for find in (_rows_left, _pairs, _heads):
        found = find(known, asked=asked)
        if found:
            return found
    return []


@dataclass(frozen=True, slots=True)
class _Head:
    """Where the rows of a head lie."""

    axis: int
    classes: int
    objectness: bool


def _heads(known: Sequence[Evidence], *, asked: bool) -> list[Reading]:
    found = []
    for e in known:
        dense = e.is_float and e.rank == 3 and not e.varies and (asked or not e.named("logit"))
        head = _head(e, asked=asked) if dense else None
        if head is None:
            continue
        anchors = e.size(3 - head.axis)
        extra = (e.size(head.axis) or 0) - 4 - head.objectness - head.classes
        words = (
            "detector head, 4 boxes"
            + (" + objectness" if head.objectness else "")
            + f" + {head.classes} scores"
            + (f" + {extra} other rows" if extra > 0 else "")
            + f" × {anchors or '?'} anchors"
        )
        boxes = [np.moveaxis(a, head.axis, -1)[..., :4] for a in e.examples]
        found.append(
            Reading(
                e.name,
                Kind.DETECTION,
                words,
                "as asked" if asked else "boxes beside scores of 0 to 1 in one tensor",
                axis=head.axis,
                role="head",
                group=1,
                classes=head.classes,
                objectness=head.objectness,
                corners=_by_corners(boxes),
            )
        )
    return found


def _head(e: Evidence, *, asked: bool) -> _Head | None:
    """The axis of boxes and scores, by the answers; by the graph where there are none."""
    if not e.examples:
        mixed = [bool(part & {"Sigmoid", "Softmax"}) for part in e.parts]
        axis = None if e.concat_axis is None else e.concat_axis % 3
        if any(mixed) and not all(mixed) and axis in (1, 2) and (e.size(axis) or 0) > 4:
            return _Head(axis, (e.size(axis) or 0) - 4, objectness=False)
        return None
    for axis in (1, 2):
        rows = e.size(axis)
        if rows is None or not 5 <= rows <= _MOST_ROWS:
            continue
        table = np.concatenate(
            [np.moveaxis(a, axis, 0).reshape(rows, -1) for a in e.examples], axis=1
        )
        table = np.where(np.isfinite(table), table, 0.0)
        scores = (table[4:].min(axis=1) >= 0) & (table[4:].max(axis=1) <= 1 + 1e-6)
        number = int(scores.argmin()) if not scores.all() else len(scores)
        pixels = table[:4].max() > _PIXELS and table[2:4].min() >= 0
        if number and (pixels or asked) and table.shape[1] > rows:
            objectness = number > 1 and _has_objectness(table[4 : 4 + number])
            return _Head(axis, number - objectness, objectness=objectness)
    return None


def _has_objectness(scores: npt.NDArray[np.floating]) -> bool:
    """Whether the first row says that there is an object, and the others which if there is one.

    Only then are the best class's scores high where there is none.
    """
    first, best = scores[0], scores[1:].max(axis=0)
    nothing = first < np.median(first) + 1e-6
    return bool(np.median(best[nothing]) > 0.05 and np.median(best) > 10 * np.median(first))


def _pairs(known: Sequence[Evidence], *, asked: bool) -> list[Reading]:
    """Scores beside boxes, or beside distances, by the number of anchors they share."""
    found = []
    dense = [e for e in known if e.is_float and e.rank == 3 and not e.varies]
    used: set[str] = set()
    for boxes in dense:
        width = boxes.size(2)
        if width is None or width % 4:
            continue
        if boxes.sums_to_one(2) or boxes.origins & {"Softmax"}:
            continue
        if width > 4 and (boxes.origins & {"Sigmoid"} or boxes.in_unit_range):
            # The bins of a distance are weighed by a softmax that follows: they are logits.
            continue
        partners = [
            e
            for e in dense
            if e is not boxes
            and e.name not in used
            and not e.normalizes & boxes.holds
            and _sizes_agree(e, boxes)
            and _looks_like_scores(e, boxes, asked=asked)
        ]
        if not partners or boxes.name in used or (width > 4 and width < 16):
            continue
        scores = min(partners, key=lambda e: e.size(2) != width)
        used |= {boxes.name, scores.name}
        found += _pair(boxes, scores, "boxes" if width == 4 else "distances")
    return found


def _sizes_agree(one: Evidence, other: Evidence) -> bool:
    return one.size(1) == other.size(1) and (
        one.size(1) is not None or one.shape[1] == other.shape[1]
    )


def _looks_like_scores(e: Evidence, boxes: Evidence, *, asked: bool) -> bool:
    named = e.named(_SCORES) and boxes.named(_BOXES)
    bounded = bool(e.origins & {"Sigmoid", "Softmax"}) or e.sums_to_one(2)
    if e.examples and not named:
        bounded = bounded and e.in_unit_range
    return asked or named or (bounded and not boxes.origins & {"Softmax"})


def _pair(boxes: Evidence, scores: Evidence, role: str) -> list[Reading]:
    classes = scores.size(2) or 0
    form, background = _form(scores)
    anchors = scores.size(1) or "?"
    what = "boxes" if role == "boxes" else f"distances in {(boxes.size(2) or 0) // 4} bins"
    common = Reading(
        boxes.name,
        Kind.DETECTION,
        f"a detector's {what} × {anchors} anchors, scored by {scores.name!r}",
        "scores beside boxes for the same anchors",
        axis=2,
        role="boxes" if role == "boxes" else "distances",
        group=1,
        partner=scores.name,
        classes=classes,
        corners=_by_corners([a[..., :4] for a in boxes.examples]) if role == "boxes" else False,
        background=background,
    )
    return [
        common,
        replace(
            common,
            output=scores.name,
            words=f"a detector's scores, {classes} classes × {anchors} anchors",
            role="scores",
            partner="",
            form=form,
        ),
    ]


def _form(scores: Evidence) -> tuple[Form, int | None]:
    """How scores are given, and which class means that there is nothing."""
    classes = scores.size(2) or 0
    if scores.sums_to_one(2) or "Softmax" in scores.origins:
        shares = [array.astype(np.float64) for array in scores.examples]
        form: Form = "probabilities"
    elif scores.in_unit_range or scores.origins & {"Sigmoid", "HardSigmoid"}:
        return "sigmoid", None
    else:
        shares = [softmax(array, 2) for array in scores.examples]
        form = "logits"
    if classes < 2 or not shares:
        return form, classes - 1 if classes > 1 else None
    ends = [
        float(np.concatenate([array[..., place].ravel() for array in shares]).mean())
        for place in (0, classes - 1)
    ]
    if form == "logits" and max(ends) < _MOSTLY:
        # As DETR gives logits over the classes and "nothing", so others give logits of each class.
        return form, None
    return form, 0 if ends[0] > ends[1] else classes - 1


def _rows_left(known: Sequence[Evidence], *, asked: bool) -> list[Reading]:
    """What suppression inside the model left."""
    for e in known:
        if e.is_float and e.rank in (2, 3) and e.size(e.rank - 1) in (6, 7) and _row_like(e):
            words = f"objects found, rows of {e.size(e.rank - 1)}: box, score, class"
            return [_left(e, words, "rows", corners=True)]
    for boxes in known:
        if not (boxes.is_float and boxes.rank in (2, 3) and boxes.size(boxes.rank - 1) == 4):
            continue
        if not (boxes.by_data or boxes.varies or boxes.named(r"box")):
            continue
        others = [e for e in known if e is not boxes and e.rank == boxes.rank - 1]
        labels = [e for e in others if not e.is_float or e.named(_LABELS)]
        scores = [e for e in others if e.is_float and e not in labels]
        counts = [e for e in known if e.named(_COUNTS) and e is not boxes and e not in scores]
        labels = [e for e in labels if e not in counts]
        if not (labels or scores):
            continue
        corners = _by_corners([a[..., :4] for a in boxes.examples])
        found = [_left(boxes, "boxes of the objects found", "boxes", corners=corners)]
        found += [_left(e, "their scores", "scores", corners=corners) for e in scores[:1]]
        found += [_left(e, "their classes", "labels", corners=corners) for e in labels[:1]]
        found += [_left(e, "how many there are", "count", corners=corners) for e in counts[:1]]
        return found
    return []


def _row_like(e: Evidence) -> bool:
    """Whether rows hold a box, a score of 0 to 1 and a whole number."""
    rows = [a.reshape(-1, a.shape[-1]) for a in e.examples if a.size]
    if not rows:
        return e.by_data
    table = np.concatenate(rows)
    score, label = (4, 5) if table.shape[1] == 6 else (6, 5)
    whole = np.array_equal(table[:, label], np.round(table[:, label]))
    bounded = table[:, score].min() >= 0 and table[:, score].max() <= 1
    return bool(whole and bounded and (e.by_data or table[:, :4].max() > _PIXELS))


def _left(e: Evidence, words: str, role: str, *, corners: bool) -> Reading:
    return Reading(
        e.name,
        Kind.DETECTION,
        words,
        "suppression inside the model" if e.by_data else "names and shapes",
        role=role,  # type: ignore[arg-type] # one of `Role` at every call
        group=2,
        corners=corners,
        varying=True,
    )


def _by_corners(boxes: Sequence[npt.NDArray[np.generic]]) -> bool:
    rows = [array.reshape(-1, 4).astype(np.float64) for array in boxes if array.size]
    if not rows:
        return False
    table = np.concatenate(rows)
    return bool(np.mean((table[:, 2] >= table[:, 0]) & (table[:, 3] >= table[:, 1])) > _ORDERED)
