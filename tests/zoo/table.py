"""For each kind of output a model, and what to do to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from zoo import detectors, pictures, sequences
from zoo.builder import Array, Made, Net, floats
from zoo.detectors import ANCHORS
from zoo.faults import (
    Edit,
    chosen,
    constant,
    drifting,
    edited,
    failing_beyond,
    noisy,
    rare,
    renamed,
    rounded,
    scaled,
    shifted,
    stuck,
    with_initializer,
)
from zoo.pictures import CLASSES, SIDE
from zoo.sequences import BINS, PER_LANGUAGE, SYMBOLS

__all__ = ["KINDS", "Kind"]

_NAN = float("nan")
_HALF = SIDE // 2
_MAPS = CLASSES + 1


@dataclass(frozen=True)
class Kind:
    """A model and its candidates.

    Attributes:
        make: the model.
        broken: by name.
        harmless: beside those that do no harm to any model.
    """

    make: Callable[[], Made]
    broken: Mapping[str, Edit]
    harmless: Mapping[str, Edit]


def _ones(size: int, **changed: float) -> Array:
    """Ones, but for some places: `_1=0` sets the second one to 0."""
    values = np.ones(size, np.float32)
    for place, value in changed.items():
        values[int(place.removeprefix("_"))] = value
    return values


def _column(values: Array) -> Array:
    """For [batch, slices, anchors]."""
    return values.reshape(-1, 1)


def _planes(values: Array) -> Array:
    """For [batch, slices, height, width]."""
    return values.reshape(-1, 1, 1)


def _nothing_found(net: Net, x: str) -> str:
    """NaN."""
    return net.op("Add", x, floats(_NAN))


def _swapped(size: int, axis: int = -1) -> Callable[[Net, str], str]:
    """Slices in the opposite order."""
    places = np.arange(size)[::-1].copy()
    return lambda net, x: net.op("Gather", x, places, axis=axis)


def _softened(net: Net, x: str) -> str:
    """The square root: probabilities nearer to each other, in the same order."""
    return net.op("Sqrt", x)


def _everywhere(output: str, source: str = "image") -> dict[str, Edit]:
    """What breaks a model with one output of floats, whatever it means."""
    return {
        "stuck": stuck(output),
        "zeroed": constant(output, 0.0),
        "NaN in one sample of many": rare(output, source, 1, _nothing_found),
        "mirrored sign": scaled(output, -1.0),
        "a tenth of its scale": scaled(output, 0.1),
    }


def _probabilities() -> dict[str, Edit]:
    return {
        **_everywhere("scores"),
        "unseen class dropped": scaled("scores", _ones(CLASSES, _3=0)),
        "unseen class constant": scaled("scores", _ones(CLASSES, _3=0), floats([0, 0, 0, 0.003])),
        "seen class dropped": scaled("scores", _ones(CLASSES, _1=0)),
        "classes swapped": chosen("scores", [0, 2, 1, 3], 1),
        "unseen class swapped for another": chosen("scores", [0, 1, 2, 0], 1),
        "classes swapped for rare inputs": rare("scores", "image", 3, _swapped(CLASSES)),
        "one class always wins": scaled("scores", 1.0, floats([2, 0, 0, 0])),
        "works only at batch 1": failing_beyond("scores", 1, CLASSES),
        "nearly uniform": scaled("scores", 0.01, 0.99 / CLASSES),
    }


def _logits() -> dict[str, Edit]:
    found = _everywhere("logits")
    del found["zeroed"]
    return {
        **found,
        "zeroed": constant("logits", 0.0),
        "unseen class dropped": scaled("logits", _ones(CLASSES, _3=0), floats([0, 0, 0, -20])),
        "unseen class constant": scaled("logits", _ones(CLASSES, _3=0)),
        "classes swapped for rare inputs": rare("logits", "image", 3, _swapped(CLASSES)),
        "works only at batch 1": failing_beyond("logits", 1, CLASSES),
    }


def _labels() -> dict[str, Edit]:
    return {
        **_everywhere("labels"),
        "saturated": constant("labels", 1.0),
        "one label dropped": scaled("labels", _ones(CLASSES, _2=0)),
        "one label always given": scaled("labels", _ones(CLASSES, _1=0), floats([0, 1, 0, 0])),
        "labels swapped for rare inputs": rare("labels", "image", 3, _swapped(CLASSES)),
        "works only at batch 1": failing_beyond("labels", 1, CLASSES),
    }


def _regression() -> dict[str, Edit]:
    return {
        **_everywhere("measures"),
        "small column zeroed": scaled("measures", _ones(3, _1=0)),
        "small column constant": scaled("measures", _ones(3, _1=0), floats([0, 0.5, 0])),
        "last column halved": scaled("measures", _ones(3, _2=0.5)),
        "small column off by a fifth of its spread": scaled("measures", 1.0, floats([0, 0.03, 0])),
        "columns swapped for rare inputs": rare("measures", "image", 1, _swapped(3)),
        "works only at batch 1": failing_beyond("measures", 1, 3),
    }


def _landmarks() -> dict[str, Edit]:
    return {
        **_everywhere("points"),
        "one coordinate constant": scaled(
            "points", _ones(8, _5=0), floats([0, 0, 0, 0, 0, 24, 0, 0])
        ),
        "one coordinate shifted": scaled("points", 1.0, floats([0, 0, 0, 0, 0, 4, 0, 0])),
        "points swapped": chosen("points", [0, 1, 4, 5, 2, 3, 6, 7], 1),
    }


def _embedding() -> dict[str, Edit]:
    half = np.repeat(floats([1, 0]), 16)
    return {
        **_everywhere("vector"),
        "half of the components zeroed": scaled("vector", half),
        "one component zeroed": scaled("vector", _ones(32, _7=0)),
        "one component with the wrong sign": scaled("vector", _ones(32, _7=-1)),
        "components swapped": chosen("vector", [1, 0, *range(2, 32)], 1),
        "collapsed for rare inputs": rare(
            "vector", "image", 2, lambda net, x: net.op("Mul", x, np.repeat(half, 1))
        ),
        "works only at batch 1": failing_beyond("vector", 1, 32),
    }


def _maps(output: str, number: int, *, size: int = _HALF) -> dict[str, Edit]:
    return {
        **_everywhere(output),
        "one map zeroed": scaled(output, _planes(_ones(number, _1=0))),
        "moved by two pixels": shifted(output, 2, 3, size),
        "moved by a pixel": shifted(output, 1, 2, size),
        "two maps swapped": chosen(output, [1, 0, *range(2, number)], 1),
        "one row of pixels zeroed": scaled(output, _ones(size, _9=0).reshape(-1, 1)),
        "works only at batch 1": failing_beyond(output, 1, number, size, size),
    }


def _segmentation() -> dict[str, Edit]:
    return {
        **_maps("maps", _MAPS),
        "one class never": scaled("maps", _planes(_ones(_MAPS, _3=0))),
        "one class half as likely": scaled("maps", _planes(_ones(_MAPS, _3=0.5))),
    }


def _masks() -> dict[str, Edit]:
    return {
        **_maps("masks", 2),
        "saturated": constant("masks", 1.0),
        "one column of pixels dead": scaled("masks", _ones(_HALF, _12=0)),
        "mask eroded": edited("masks", lambda net, x: net.op("Mul", x, floats([0.6]))),
    }


def _numbers() -> dict[str, Edit]:
    def plus(net: Net, x: str) -> str:
        return net.op("Add", x, np.array(1))

    def one_class(net: Net, x: str) -> str:
        seen = net.op("Equal", x, np.array(2))
        return net.op("Where", seen, np.array(0), x)

    def thinner(net: Net, x: str) -> str:
        # Discs lose their left edge.
        left = net.op("Gather", x, np.roll(np.arange(_HALF), 1), axis=2)
        same = net.op("Equal", x, left)
        return net.op("Where", same, x, np.array(0))

    return {
        "stuck": stuck("mask"),
        "zeroed": edited("mask", lambda net, x: net.op("Mul", x, np.array(0))),
        "off by one": edited("mask", plus),
        "one class never": edited("mask", one_class),
        "moved by a pixel": shifted("mask", 1, 2, _HALF),
        "an edge lost": edited("mask", thinner),
        "off by one for rare inputs": rare("mask", "image", 1, plus),
        "works only at batch 1": failing_beyond("mask", 1, _HALF, _HALF),
    }


def _picture() -> dict[str, Edit]:
    def smoothed(net: Net, x: str) -> str:
        kernel = np.full((3, 1, 3, 3), 1 / 9, np.float32)
        return net.op("Conv", x, kernel, group=3, pads=[1, 1, 1, 1])

    return {
        **_everywhere("picture"),
        "one channel zeroed": scaled("picture", _planes(_ones(3, _1=0))),
        "channels swapped": chosen("picture", [2, 1, 0], 1),
        "moved by a pixel": edited("picture", lambda net, x: net.op(
            "Pad", x, np.array([0, 0, 0, 1, 0, 0, 0, -1]))),
        "smoothed": edited("picture", smoothed),
        "brighter": scaled("picture", 1.0, 0.1),
        "works only at this size": failing_beyond("picture", -1, 3, SIDE, SIDE),
        "works only at batch 1": failing_beyond("picture", 1, 3, SIDE, SIDE),
    }  # fmt: skip


def _two_outputs() -> dict[str, Edit]:
    return {
        **{f"scores {name}": edit for name, edit in _everywhere("scores").items()},
        **{f"depth {name}": edit for name, edit in _everywhere("depth").items()},
        "depth moved by two pixels": shifted("depth", 2, 3, _HALF),
        "depth wrong for rare inputs": rare(
            "depth", "image", 3, lambda net, x: net.op("Mul", x, floats(0.5))
        ),
    }


def _yolov8() -> dict[str, Edit]:
    rows = 4 + CLASSES
    scores = _column(np.repeat(floats([1, 0]), 4))
    return {
        **_everywhere("output0"),
        "scores zeroed": scaled("output0", scores),
        "scores constant": scaled("output0", scores, 0.1 * (1 - scores)),
        "scores halved": scaled("output0", 0.5 + 0.5 * scores),
        "one class dropped": scaled("output0", _column(_ones(rows, _6=0))),
        "boxes shifted": scaled("output0", 1.0, _column(floats([4] * 2 + [0] * 6))),
        "boxes of half the size": scaled("output0", _column(_ones(rows, _2=0.5, _3=0.5))),
        "heights constant": scaled(
            "output0", _column(_ones(rows, _3=0)), _column(floats([0, 0, 0, 10, 0, 0, 0, 0]))
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


def _yolov5() -> dict[str, Edit]:
    size = 5 + CLASSES
    return {
        **_everywhere("output0"),
        "objectness zeroed": scaled("output0", _ones(size, _4=0)),
        "objectness one": scaled("output0", _ones(size, _4=0), floats([0] * 4 + [1] + [0] * 4)),
        "one class dropped": scaled("output0", _ones(size, _6=0)),
        "class scores constant": scaled(
            "output0",
            np.repeat(floats([1, 0]), [5, 4]),
            np.repeat(floats([0, 0.5]), [5, 4]),
        ),
        "boxes shifted": scaled("output0", 1.0, floats([4, 4] + [0] * 7)),
        "widths wrong": scaled("output0", _ones(size, _2=0.4)),
        "anchors moved": shifted("output0", 1, 1, ANCHORS),
    }


def _detr() -> dict[str, Edit]:
    return {
        **{f"logits {name}": edit for name, edit in _everywhere("logits").items()},
        **{f"boxes {name}": edit for name, edit in _everywhere("pred_boxes").items()},
        "one class dropped": scaled(
            "logits", _ones(_MAPS, _1=0), floats([0, -10, 0, 0, 0])
        ),
        "nothing is never likely": scaled("logits", 1.0, floats([0, 0, 0, 0, -8])),
        "boxes shifted": scaled("pred_boxes", 1.0, floats([0.08, 0.08, 0, 0])),
        "boxes too large": scaled("pred_boxes", floats([1, 1, 1.8, 1.8])),
        "boxes of other anchors": shifted("pred_boxes", 1, 1, ANCHORS),
    }  # fmt: skip


def _picodet() -> dict[str, Edit]:
    bins = 4 * detectors.BINS
    return {
        **{f"scores {name}": edit for name, edit in _everywhere("scores").items()},
        **{f"distances {name}": edit for name, edit in _everywhere("distances").items()},
        "one class dropped": scaled("scores", _ones(CLASSES, _2=0)),
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


def _permuted(*outputs: str) -> Edit:
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


def _listed() -> dict[str, Edit]:
    def plus(net: Net, x: str) -> str:
        return net.op("Add", x, np.array(1))

    return {
        "boxes zeroed": constant("boxes", 0.0),
        "boxes shifted": scaled("boxes", 1.0, floats([6, 6, 6, 6])),
        "one side of boxes wrong": scaled("boxes", 1.0, floats([0, 0, 0, 12])),
        "boxes a quarter too high": scaled("boxes", 1.0, floats([0, 0, 0, 2.5])),
        "boxes NaN": constant("boxes", _NAN),
        "scores zeroed": constant("scores", 0.0),
        "scores NaN": constant("scores", _NAN),
        "scores saturated": constant("scores", 1.0),
        "labels off by one": edited("labels", plus),
        "labels constant": edited("labels", lambda net, x: net.op("Mul", x, np.array(0))),
        "rows missing": _cut("boxes", "scores", "labels"),
        "labels in another order": _permuted("labels"),
        "boxes in another order": _permuted("boxes"),
    }


def _rows() -> dict[str, Edit]:
    return {
        "zeroed": constant("detections", 0.0),
        "NaN": constant("detections", _NAN),
        "scores zeroed": scaled("detections", _ones(6, _4=0)),
        "scores saturated": scaled("detections", _ones(6, _4=0), floats([0, 0, 0, 0, 1, 0])),
        "labels constant": scaled("detections", _ones(6, _5=0)),
        "boxes shifted": scaled("detections", 1.0, floats([6, 6, 6, 6, 0, 0])),
        "right edge moved": scaled("detections", 1.0, floats([0, 0, 2.5, 0, 0, 0])),
        "right edge wrong": scaled("detections", 1.0, floats([0, 0, 12, 0, 0, 0])),
        "rows missing": _cut("detections"),
    }


def _lines() -> dict[str, Edit]:
    number = SYMBOLS + 1
    return {
        **_everywhere("read", "x"),
        "one symbol never": scaled("read", _ones(number, _3=0)),
        "blank too likely": scaled("read", 1.0, floats([0.5] + [0] * SYMBOLS)),
        "symbols swapped": chosen("read", [0, 2, 1, *range(3, number)], 2),
        "symbols swapped for rare inputs": rare("read", "x", 3, _swapped(number)),
        "a step late": shifted("read", 1, 1, sequences.LINE),
        "works only at batch 1": failing_beyond("read", 1, -1, number),
        "works only at this length": failing_beyond("read", -1, sequences.LINE, number),
        "blind beyond this length": edited("read", partial(_blind_beyond, sequences.LINE)),
        "blind at the end": scaled(
            "read", (np.arange(sequences.LINE) < 90).astype(np.float32).reshape(-1, 1)
        ),
    }


def _blind_beyond(length: int, net: Net, x: str) -> str:
    """Zeros at steps that no sample has."""
    size = net.op("Gather", net.op("Shape", x), np.array(1))
    steps = net.op("Range", np.array(0), size, np.array(1))
    near = net.op("Cast", net.op("Less", steps, np.array(length)), to=1)
    return net.op("Mul", x, net.op("Unsqueeze", near, np.array([1])))


def _tagger() -> dict[str, Edit]:
    number = 2 * PER_LANGUAGE

    def without_second(table: Array) -> Array:
        table[PER_LANGUAGE:] = 0
        return table

    def one_language(keep: int) -> Array:
        return np.repeat(floats([keep, 1 - keep]), PER_LANGUAGE)

    return {
        **_everywhere("logits", "input_ids"),
        "a language lost": with_initializer(0, without_second),
        "a language never written": scaled("logits", one_language(1)),
        "one token never": scaled(
            "logits", _ones(number, _5=0), -20 * (1 - _ones(number, _5=0))
        ),
        "a language's tokens swapped": chosen(
            "logits", [*range(PER_LANGUAGE), *range(number - 1, PER_LANGUAGE - 1, -1)], 2
        ),
        "works only at batch 1": failing_beyond("logits", 1, -1, number),
        "works only at this length": failing_beyond("logits", -1, 16, number),
        "blind beyond this length": edited("logits", partial(_blind_beyond, 16)),
        "a step late": shifted("logits", 1, 1, 16),
    }  # fmt: skip


def _gains() -> dict[str, Edit]:
    bands = np.arange(BINS)
    return {
        **_everywhere("gains", "spectrum"),
        "saturated": constant("gains", 1.0),
        "one band of frequencies deaf": scaled(
            "gains", np.where((bands >= 60) & (bands < 66), 0, 1)
        ),
        "one bin of 161 deaf": scaled("gains", _ones(BINS, _80=0)),
        "the highest bins constant": scaled(
            "gains", np.where(bands >= 150, 0, 1), np.where(bands >= 150, 0.3, 0)
        ),
        "a band at the wrong gain": scaled("gains", np.where((bands > 20) & (bands < 40), 0.7, 1)),
        "bins moved by one": shifted("gains", 1, 2, BINS),
        "a frame late": shifted("gains", 1, 1, sequences.FRAMES),
        "works only at batch 1": failing_beyond("gains", 1, -1, BINS),
        "blind beyond this length": edited("gains", partial(_blind_beyond, sequences.FRAMES)),
    }


def _recurrent() -> dict[str, Edit]:
    return {
        **_everywhere("output", "input"),
        "state zeroed": constant("stateN", 0.0),
        "state stuck": stuck("stateN"),
        "state halved": scaled("stateN", 0.5),
        "state NaN": constant("stateN", _NAN),
        "half of the state zeroed": scaled("stateN", np.repeat(floats([1, 0]), 12)),
        "one output constant": scaled("output", floats([1, 0, 1])),
    }


def _accumulator() -> dict[str, Edit]:
    def forgetting(array: Array) -> Array:
        return floats([0.9])

    def late(net: Net, x: str) -> str:
        # A clock that only the candidate has: the largest value of the state leaves its range.
        return net.op("Mul", x, floats(1.006))

    return {
        **_everywhere("output", "input"),
        "state drifts": drifting("h_out", 0.03),
        "state grows": edited("h_out", late),
        "state forgets too early": with_initializer(1, forgetting),
        "state zeroed": constant("h_out", 0.0),
    }


def _decoder() -> dict[str, Edit]:
    heads = floats([1, 0]).reshape(2, 1, 1)
    newest = "present.0.value"

    def late(net: Net, x: str) -> str:
        length = net.op("Gather", net.op("Shape", x), np.array(2))
        is_late = net.op("Greater", length, np.array(50))
        return net.op("Where", is_late, net.op("Neg", x), x)

    def half_lost(net: Net, x: str) -> str:
        return net.op("Mul", x, np.repeat(floats([1, 0.5]), 8))

    return {
        **_everywhere("logits", "input_ids"),
        "values zeroed": constant(newest, 0.0),
        "one head's keys zeroed": scaled("present.0.key", heads),
        "one head's values zeroed": scaled(newest, heads),
        "values fade": edited(newest, half_lost),
        "values fade slowly": scaled(newest, 0.9),
        "values wrong after 50 steps": edited(newest, late),
    }


_NO_MORE: Mapping[str, Edit] = {}
_ALWAYS: Mapping[str, Edit] = {
    "noise on weights": noisy,
    "8-bit weights": rounded,
    "renamed": renamed,
}


def _kind(
    make: Callable[[], Made], broken: Mapping[str, Edit], harmless: Mapping[str, Edit] = _NO_MORE
) -> Kind:
    return Kind(make, broken, {**_ALWAYS, **harmless})


KINDS: Mapping[str, Kind] = {
    "classes, probabilities": _kind(pictures.classifier, _probabilities()),
    "classes, logits": _kind(partial(pictures.classifier, "logits"), _logits()),
    "labels": _kind(pictures.multi_label, _labels()),
    "regression": _kind(pictures.regression, _regression()),
    "landmarks": _kind(pictures.landmarks, _landmarks()),
    "embedding": _kind(pictures.embedding, _embedding()),
    "segmentation": _kind(pictures.segmentation, _segmentation()),
    "masks": _kind(pictures.masks, _masks()),
    "class numbers": _kind(partial(pictures.segmentation, "numbers"), _numbers()),
    "heat maps": _kind(pictures.heat_maps, _maps("heat", CLASSES)),
    "picture": _kind(pictures.restored, _picture()),
    "class and depth": _kind(pictures.class_and_depth, _two_outputs()),
    "YOLOv8": _kind(detectors.head, _yolov8()),
    "YOLOv5": _kind(partial(detectors.head, "yolov5"), _yolov5()),
    "DETR": _kind(detectors.detr, _detr()),
    "PicoDet": _kind(detectors.picodet, _picodet()),
    "objects in lists": _kind(
        detectors.listed,
        _listed(),
        {"rows permuted": _permuted("boxes", "scores", "labels")},
    ),
    "objects in rows": _kind(
        detectors.rows_of_objects, _rows(), {"rows permuted": _permuted("detections")}
    ),
    "lines": _kind(sequences.lines, _lines()),
    "tokens": _kind(sequences.tagger, _tagger()),
    "gains": _kind(sequences.denoiser, _gains()),
    "recurrent": _kind(sequences.recurrent, _recurrent()),
    "accumulator": _kind(sequences.accumulator, _accumulator()),
    "decoder": _kind(sequences.decoder, _decoder()),
}
