"""What breaks detectors, and what does not."""

import numpy as np

from zoo import detectors
from zoo.builder import Made, Net, floats
from zoo.detectors import ANCHORS
from zoo.everywhere import NAN, column, everywhere, ones
from zoo.faults import (
    Edit,
    chosen,
    constant,
    edited,
    failing_beyond,
    rare,
    scaled,
    shifted,
)
from zoo.pictures import CLASSES, SIDE

__all__ = ["detr", "listed", "permuted", "picodet", "rows", "yolov5", "yolov8"]

_HALF = SIDE // 2
_MAPS = CLASSES + 1


def yolov8() -> dict[str, Edit]:
    rows = 4 + CLASSES
    scores = column(np.repeat(floats([1, 0]), 4))
    return {
        **everywhere("output0"),
        "scores zeroed": scaled("output0", scores),
        "scores constant": scaled("output0", scores, 0.1 * (1 - scores)),
        "scores halved": scaled("output0", 0.5 + 0.5 * scores),
        "one class dropped": scaled("output0", column(ones(rows, _6=0))),
        "boxes shifted": scaled("output0", 1.0, column(floats([4] * 2 + [0] * 6))),
        "boxes of half the size": scaled("output0", column(ones(rows, _2=0.5, _3=0.5))),
        "heights constant": scaled(
            "output0", column(ones(rows, _3=0)), column(floats([0, 0, 0, 10, 0, 0, 0, 0]))
        ),
        "classes swapped": chosen("output0", [0, 1, 2, 3, 4, 6, 5, 7], 1),
        "one row of boxes given twice": chosen("output0", [0, 0, 2, 3, 4, 5, 6, 7], 1),
        "blind in a corner": scaled(
            "output0",
            np.where(
                np.arange(ANCHORS) < 9, np.concatenate([np.ones((4, 1)), np.zeros((4, 1))]), 1
            ),
        ),
        "no objects in rare inputs": rare(
            "output0", "image", 3, lambda net, x: net.op("Mul", x, scores)
        ),
        "works only at batch 1": failing_beyond("output0", 1, rows, ANCHORS),
    }


def yolov5() -> dict[str, Edit]:
    size = 5 + CLASSES
    return {
        **everywhere("output0"),
        "objectness zeroed": scaled("output0", ones(size, _4=0)),
        "objectness one": scaled("output0", ones(size, _4=0), floats([0] * 4 + [1] + [0] * 4)),
        "one class dropped": scaled("output0", ones(size, _6=0)),
        "class scores constant": scaled(
            "output0",
            np.repeat(floats([1, 0]), [5, 4]),
            np.repeat(floats([0, 0.5]), [5, 4]),
        ),
        "boxes shifted": scaled("output0", 1.0, floats([4, 4] + [0] * 7)),
        "widths wrong": scaled("output0", ones(size, _2=0.4)),
        "anchors moved": shifted("output0", 1, 1, ANCHORS),
    }


def detr() -> dict[str, Edit]:
    return {
        **{f"logits {name}": edit for name, edit in everywhere("logits").items()},
        **{f"boxes {name}": edit for name, edit in everywhere("pred_boxes").items()},
        "one class dropped": scaled(
            "logits", ones(_MAPS, _1=0), floats([0, -10, 0, 0, 0])
        ),
        "nothing is never likely": scaled("logits", 1.0, floats([0, 0, 0, 0, -8])),
        "boxes shifted": scaled("pred_boxes", 1.0, floats([0.08, 0.08, 0, 0])),
        "boxes too large": scaled("pred_boxes", floats([1, 1, 1.8, 1.8])),
        "boxes of other anchors": shifted("pred_boxes", 1, 1, ANCHORS),
    }  # fmt: skip


def picodet() -> dict[str, Edit]:
    bins = 4 * detectors.BINS
    return {
        **{f"scores {name}": edit for name, edit in everywhere("scores").items()},
        **{f"distances {name}": edit for name, edit in everywhere("distances").items()},
        "one class dropped": scaled("scores", ones(CLASSES, _2=0)),
        "bins in the opposite order": chosen(
            "distances", np.arange(bins).reshape(4, -1)[:, ::-1].reshape(-1).tolist(), 2
        ),
        "one side constant": scaled("distances", np.repeat(floats([1, 0, 1, 1]), bins // 4)),
        "scores of other anchors": shifted("scores", 1, 1, ANCHORS),
    }


def _cut(*outputs: str, axis: int = 0) -> Edit:
    """Without the first object."""

    def edit(made: Made) -> "object":
        model = made.model
        for output in outputs:
            model = edited(
                output,
                lambda net, x: net.op("Slice", x, np.array([1]), np.array([99]), np.array([axis])),
            )(Made(model, made.feeds))
        return model

    return edit  # type: ignore[return-value]


def permuted(*outputs: str) -> Edit:
    """All objects in the opposite order."""

    def reverse(net: Net, x: str) -> str:
        return net.op(
            "Slice", x, np.array([-1]), np.array([-(2**31)]), np.array([0]), np.array([-1])
        )

    def edit(made: Made) -> "object":
        model = made.model
        for output in outputs:
            model = edited(output, reverse)(Made(model, made.feeds))
        return model

    return edit  # type: ignore[return-value]


def listed() -> dict[str, Edit]:
    def plus(net: Net, x: str) -> str:
        return net.op("Add", x, np.array(1))

    return {
        "boxes zeroed": constant("boxes", 0.0),
        "boxes shifted": scaled("boxes", 1.0, floats([6, 6, 6, 6])),
        "one side of boxes wrong": scaled("boxes", 1.0, floats([0, 0, 0, 12])),
        "boxes a quarter too high": scaled("boxes", 1.0, floats([0, 0, 0, 2.5])),
        "boxes NaN": constant("boxes", NAN),
        "scores zeroed": constant("scores", 0.0),
        "scores NaN": constant("scores", NAN),
        "scores saturated": constant("scores", 1.0),
        "labels off by one": edited("labels", plus),
        "labels constant": edited("labels", lambda net, x: net.op("Mul", x, np.array(0))),
        "rows missing": _cut("boxes", "scores", "labels"),
        "labels in another order": permuted("labels"),
        "boxes in another order": permuted("boxes"),
    }


def rows() -> dict[str, Edit]:
    return {
        "zeroed": constant("detections", 0.0),
        "NaN": constant("detections", NAN),
        "scores zeroed": scaled("detections", ones(6, _4=0)),
        "scores saturated": scaled("detections", ones(6, _4=0), floats([0, 0, 0, 0, 1, 0])),
        "labels constant": scaled("detections", ones(6, _5=0)),
        "boxes shifted": scaled("detections", 1.0, floats([6, 6, 6, 6, 0, 0])),
        "right edge moved": scaled("detections", 1.0, floats([0, 0, 2.5, 0, 0, 0])),
        "right edge wrong": scaled("detections", 1.0, floats([0, 0, 12, 0, 0, 0])),
        "rows missing": _cut("detections"),
    }
