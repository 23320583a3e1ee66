"""What breaks models that classify, segment, measure and restore pictures."""

import numpy as np

from zoo.builder import Net, floats
from zoo.everywhere import everywhere, ones, planes, swapped
from zoo.faults import (
    Edit,
    chosen,
    constant,
    edited,
    failing_beyond,
    rare,
    scaled,
    shifted,
    stuck,
)
from zoo.pictures import CLASSES, SIDE

__all__ = [
    "embedding",
    "labels",
    "landmarks",
    "logits",
    "maps",
    "masks",
    "numbers",
    "picture",
    "probabilities",
    "regression",
    "segmentation",
    "two_outputs",
]

_HALF = SIDE // 2
_MAPS = CLASSES + 1


def probabilities() -> dict[str, Edit]:
    return {
        **everywhere("scores"),
        "unseen class dropped": scaled("scores", ones(CLASSES, _3=0)),
        "unseen class constant": scaled("scores", ones(CLASSES, _3=0), floats([0, 0, 0, 0.003])),
        "seen class dropped": scaled("scores", ones(CLASSES, _1=0)),
        "classes swapped": chosen("scores", [0, 2, 1, 3], 1),
        "unseen class swapped for another": chosen("scores", [0, 1, 2, 0], 1),
        "classes swapped for rare inputs": rare("scores", "image", 3, swapped(CLASSES)),
        "one class always wins": scaled("scores", 1.0, floats([2, 0, 0, 0])),
        "works only at batch 1": failing_beyond("scores", 1, CLASSES),
        "nearly uniform": scaled("scores", 0.01, 0.99 / CLASSES),
    }


def logits() -> dict[str, Edit]:
    found = everywhere("logits")
    del found["zeroed"]
    return {
        **found,
        "zeroed": constant("logits", 0.0),
        "unseen class dropped": scaled("logits", ones(CLASSES, _3=0), floats([0, 0, 0, -20])),
        "unseen class constant": scaled("logits", ones(CLASSES, _3=0)),
        "classes swapped for rare inputs": rare("logits", "image", 3, swapped(CLASSES)),
        "works only at batch 1": failing_beyond("logits", 1, CLASSES),
    }


def labels() -> dict[str, Edit]:
    return {
        **everywhere("labels"),
        "saturated": constant("labels", 1.0),
        "one label dropped": scaled("labels", ones(CLASSES, _2=0)),
        "one label always given": scaled("labels", ones(CLASSES, _1=0), floats([0, 1, 0, 0])),
        "labels swapped for rare inputs": rare("labels", "image", 3, swapped(CLASSES)),
        "works only at batch 1": failing_beyond("labels", 1, CLASSES),
    }


def regression() -> dict[str, Edit]:
    return {
        **everywhere("measures"),
        "small column zeroed": scaled("measures", ones(3, _1=0)),
        "small column constant": scaled("measures", ones(3, _1=0), floats([0, 0.5, 0])),
        "last column halved": scaled("measures", ones(3, _2=0.5)),
        "small column off by a fifth of its spread": scaled("measures", 1.0, floats([0, 0.03, 0])),
        "columns swapped for rare inputs": rare("measures", "image", 1, swapped(3)),
        "works only at batch 1": failing_beyond("measures", 1, 3),
    }


def landmarks() -> dict[str, Edit]:
    return {
        **everywhere("points"),
        "one coordinate constant": scaled(
            "points", ones(8, _5=0), floats([0, 0, 0, 0, 0, 24, 0, 0])
        ),
        "one coordinate shifted": scaled("points", 1.0, floats([0, 0, 0, 0, 0, 4, 0, 0])),
        "points swapped": chosen("points", [0, 1, 4, 5, 2, 3, 6, 7], 1),
    }


def embedding() -> dict[str, Edit]:
    half = np.repeat(floats([1, 0]), 16)
    return {
        **everywhere("vector"),
        "half of the components zeroed": scaled("vector", half),
        "one component zeroed": scaled("vector", ones(32, _7=0)),
        "one component with the wrong sign": scaled("vector", ones(32, _7=-1)),
        "components swapped": chosen("vector", [1, 0, *range(2, 32)], 1),
        "collapsed for rare inputs": rare(
            "vector", "image", 2, lambda net, x: net.op("Mul", x, np.repeat(half, 1))
        ),
        "works only at batch 1": failing_beyond("vector", 1, 32),
    }


def maps(output: str, number: int, *, size: int = _HALF) -> dict[str, Edit]:
    return {
        **everywhere(output),
        "one map zeroed": scaled(output, planes(ones(number, _1=0))),
        "moved by two pixels": shifted(output, 2, 3, size),
        "moved by a pixel": shifted(output, 1, 2, size),
        "two maps swapped": chosen(output, [1, 0, *range(2, number)], 1),
        "one row of pixels zeroed": scaled(output, ones(size, _9=0).reshape(-1, 1)),
        "works only at batch 1": failing_beyond(output, 1, number, size, size),
    }


def segmentation() -> dict[str, Edit]:
    return {
        **maps("maps", _MAPS),
        "one class never": scaled("maps", planes(ones(_MAPS, _3=0))),
        "one class half as likely": scaled("maps", planes(ones(_MAPS, _3=0.5))),
    }


def masks() -> dict[str, Edit]:
    return {
        **maps("masks", 2),
        "saturated": constant("masks", 1.0),
        "one column of pixels dead": scaled("masks", ones(_HALF, _12=0)),
        "mask eroded": edited("masks", lambda net, x: net.op("Mul", x, floats([0.6]))),
    }


def numbers() -> dict[str, Edit]:
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


def picture() -> dict[str, Edit]:
    def smoothed(net: Net, x: str) -> str:
        kernel = np.full((3, 1, 3, 3), 1 / 9, np.float32)
        return net.op("Conv", x, kernel, group=3, pads=[1, 1, 1, 1])

    return {
        **everywhere("picture"),
        "one channel zeroed": scaled("picture", planes(ones(3, _1=0))),
        "channels swapped": chosen("picture", [2, 1, 0], 1),
        "moved by a pixel": edited("picture", lambda net, x: net.op(
            "Pad", x, np.array([0, 0, 0, 1, 0, 0, 0, -1]))),
        "smoothed": edited("picture", smoothed),
        "brighter": scaled("picture", 1.0, 0.1),
        "works only at this size": failing_beyond("picture", -1, 3, SIDE, SIDE),
        "works only at batch 1": failing_beyond("picture", 1, 3, SIDE, SIDE),
    }  # fmt: skip


def two_outputs() -> dict[str, Edit]:
    return {
        **{f"scores {name}": edit for name, edit in everywhere("scores").items()},
        **{f"depth {name}": edit for name, edit in everywhere("depth").items()},
        "depth moved by two pixels": shifted("depth", 2, 3, _HALF),
        "depth wrong for rare inputs": rare(
            "depth", "image", 3, lambda net, x: net.op("Mul", x, floats(0.5))
        ),
    }
