"""Detectors of coloured discs, in the forms that exporters give them."""

from functools import cache

import numpy as np
import numpy.typing as npt

from zoo.builder import Array, Made, Net, Shape, fitted, floats
from zoo.pictures import CLASSES, INPUT, SIDE, backbone, discs, surest, unsure

__all__ = ["ANCHORS", "BINS", "CELLS", "detr", "head", "listed", "picodet", "rows_of_objects"]

CELLS = SIDE // 8
ANCHORS = CELLS * CELLS
BINS = 8
SAMPLES = 48
_SURE = 6.0
"""Log-odds of what is there; the negative of what is not."""
_SHARPER = floats(2.0)
_BIN = 0.8
_RIDGE = 1e-4
"""Pixels."""

_ONE: dict[str, tuple[str, Shape]] = {"image": ("float", [1, 3, SIDE, SIDE])}

Fit = tuple[Array, Array]
Floats = npt.NDArray[np.float64]


@cache
def _fits() -> tuple[Fit, Fit, Fit]:
    """Class log-odds, boxes (offset in the cell, size, in pixels), and distances in bins."""
    net = Net(40)
    x = backbone(net)
    images, truth = discs(41, 300, cell=8)
    maps = net.computed(x, INPUT, {"image": images})
    rows = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
    scores = np.full((len(images), CELLS, CELLS, CLASSES), -_SURE)
    boxes = np.zeros((len(images), CELLS, CELLS, 4))
    here = np.zeros((len(images), CELLS, CELLS), bool)
    for index, found in enumerate(truth):
        for x_, y_, r, colour in found:
            column, row = min(int(x_ / 8), CELLS - 1), min(int(y_ / 8), CELLS - 1)
            scores[index, row, column, colour] = _SURE
            boxes[index, row, column] = x_ - 8 * column, y_ - 8 * row, 2 * r, 2 * r
            here[index, row, column] = True
    flat = here.reshape(-1)
    score_fit = fitted(rows, scores.reshape(-1, CLASSES), _RIDGE)
    # What is rare has a mean that draws everything to "nothing".
    found_scores = (rows @ score_fit[0] + score_fit[1]).max(axis=1)
    least = floats(np.quantile(found_scores, 1 - flat.mean()))
    score_fit = _SHARPER * score_fit[0], _SHARPER * (score_fit[1] - least)
    box_fit = fitted(rows[flat], boxes.reshape(-1, 4)[flat], 1e-3)
    known = boxes.reshape(-1, 4)[flat]
    sides = np.stack([known[:, 2] / 2 - 4 + known[:, 0]] * 2 + [known[:, 2] / 2] * 2, axis=1)
    nearest = -0.5 * (np.arange(BINS) - np.clip(sides / _BIN, 0, BINS - 1)[..., None]) ** 2
    return score_fit, box_fit, fitted(rows[flat], nearest.reshape(len(nearest), -1), 1e-3)


def _net() -> tuple[Net, str]:
    net = Net(40)
    return net, backbone(net)


def _anchored(net: Net, x: str, channels: int) -> str:
    """[batch, channels, height, width] to [batch, channels, anchors]."""
    return net.reshaped(x, -1, channels, ANCHORS)


def _corners() -> npt.NDArray[np.float32]:
    """Left upper corners of the cells in pixels, [1, 2, anchors]."""
    return np.mgrid[:CELLS, :CELLS][::-1].reshape(1, 2, -1).astype(np.float32) * 8


def _boxes(net: Net, x: str) -> str:
    """Centre and size in pixels, [batch, 4, anchors]."""
    raw = _anchored(net, net.pointwise(x, _fits()[1]), 4)
    shift = np.concatenate([_corners(), np.zeros((1, 2, ANCHORS), np.float32)], axis=1)
    boxes = net.op("Add", raw, shift)
    low = np.array([-99, -99, 1, 1], np.float32).reshape(1, 4, 1)
    return net.op("Max", boxes, low)


def _scores(net: Net, x: str) -> str:
    """After Sigmoid, [batch, classes, anchors]."""
    return net.op("Sigmoid", _anchored(net, net.pointwise(x, _fits()[0]), CLASSES))


def _feeds(seed: int) -> tuple[dict[str, Array], ...]:
    """Pictures on which scores are far from the threshold."""
    net, x = _net()
    model = net.model(INPUT, {"scores": (_scores(net, x), "float", ["batch", CLASSES, ANCHORS])})
    return surest(model, discs(seed, 5 * SAMPLES, cell=8)[0], unsure("scores", 0.1, 0.5))


@cache
def head(form: str = "yolov8") -> Made:
    """[batch, 4 + classes, anchors], or [batch, anchors, 5 + classes] with objectness."""
    net, x = _net()
    parts = [_boxes(net, x), _scores(net, x)]
    if form == "yolov8":
        y = net.op("Concat", *parts, axis=1)
        shape = ["batch", 4 + CLASSES, ANCHORS]
    else:
        objectness = net.op("ReduceMax", parts[1], axes=[1], keepdims=1)
        logits = net.op("Mul", _anchored(net, net.pointwise(x, _fits()[0]), CLASSES), floats([0.6]))
        exclusive = net.op("Softmax", logits, axis=1)
        y = net.op("Concat", parts[0], objectness, exclusive, axis=1)
        y = net.op("Transpose", y, perm=[0, 2, 1])
        shape = ["batch", ANCHORS, 5 + CLASSES]
    return Made(net.model(INPUT, {"output0": (y, "float", shape)}), _feeds(50))


@cache
def detr() -> Made:
    """Logits over the classes and nothing, and boxes in shares of the picture."""
    net, x = _net()
    weight, bias = _fits()[0]
    # "Nothing" is as likely as the likeliest class is not.
    scores = _anchored(net, net.pointwise(x, (weight, bias)), CLASSES)
    nothing = net.op("Neg", net.op("ReduceMax", scores, axes=[1], keepdims=1))
    logits = net.op("Transpose", net.op("Concat", scores, nothing, axis=1), perm=[0, 2, 1])
    boxes = net.op("Transpose", _boxes(net, x), perm=[0, 2, 1])
    boxes = net.op("Div", boxes, floats(SIDE))
    outputs = {
        "logits": (logits, "float", ["batch", ANCHORS, CLASSES + 1]),
        "pred_boxes": (boxes, "float", ["batch", ANCHORS, 4]),
    }
    return Made(net.model(INPUT, outputs), _feeds(51))


@cache
def picodet() -> Made:
    """Scores after Sigmoid beside distributions of distances."""
    net, x = _net()
    scores = net.op("Transpose", _scores(net, x), perm=[0, 2, 1])
    bins = _anchored(net, net.pointwise(x, _fits()[2]), 4 * BINS)
    outputs = {
        "scores": (scores, "float", ["batch", ANCHORS, CLASSES]),
        "distances": (
            net.op("Transpose", bins, perm=[0, 2, 1]),
            "float",
            ["batch", ANCHORS, 4 * BINS],
        ),
    }
    return Made(net.model(INPUT, outputs), _feeds(52))


def _suppressed(net: Net, x: str) -> tuple[str, str, str]:
    """Boxes [objects, 4] by corners, scores [objects] and classes [objects], after suppression."""
    boxes, scores = _boxes(net, x), _scores(net, x)
    rows = net.op("Transpose", boxes, perm=[0, 2, 1])
    halves = floats([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]])
    by_corners = net.op("MatMul", rows, halves)
    chosen = net.op(
        "NonMaxSuppression", by_corners, scores, np.array([20]), floats([0.5]),
        floats([0.3]),
    )  # fmt: skip
    label = net.op("Gather", chosen, np.array(1), axis=1)
    anchor = net.op("Gather", chosen, np.array(2), axis=1)
    kept = net.op("Gather", net.reshaped(by_corners, ANCHORS, 4), anchor, axis=0)
    each = net.op("Gather", net.op("Transpose", scores, perm=[0, 2, 1]), np.array(0), axis=0)
    pair = net.op("Concat", net.reshaped(anchor, -1, 1), net.reshaped(label, -1, 1), axis=1)
    return kept, net.op("GatherND", each, pair), label


@cache
def listed() -> Made:
    """Three outputs of the objects that suppression left."""
    net, x = _net()
    boxes, scores, labels = _suppressed(net, x)
    outputs: dict[str, tuple[str, str, Shape]] = {
        "boxes": (boxes, "float", ["objects", 4]),
        "scores": (scores, "float", ["objects"]),
        "labels": (labels, "int64", ["objects"]),
    }
    return Made(net.model(_ONE, outputs), _feeds(53))


@cache
def rows_of_objects() -> Made:
    """One output, rows of box, score and class."""
    net, x = _net()
    boxes, scores, labels = _suppressed(net, x)
    parts = [net.reshaped(scores, -1, 1), net.reshaped(net.op("Cast", labels, to=1), -1, 1)]
    y = net.op("Concat", boxes, *parts, axis=1)
    return Made(net.model(_ONE, {"detections": (y, "float", ["objects", 6])}), _feeds(54))
