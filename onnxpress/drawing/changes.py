"""What differs between two models, box by box.

A box of A is `same`, `changed` or `removed`, one of B `same`, `changed` or `added`. A node is
changed where its operator, attributes or constants differ, or where it reads another tensor than
its counterpart; integers there and back, casts and copies in between do not count, as they are
boxes of their own. A node with bodies is changed where one of them is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxpress.difference.explaining import attributes_changed, constants_changed
from onnxpress.drawing.graphs import Box, Picture, root
from onnxpress.drawing.pairs import pair_boxes

__all__ = ["Changes", "compare_pictures"]

_GLANCED = 256
"""Elements of a constant that are compared, about."""


@dataclass(slots=True)
class Changes:
    """What became of two graphs, and of all inside of them.

    Attributes:
        glance: whether only a few elements of constants were looked at.
        pairs: places of boxes of A and of B, by the two graphs.
        status: of each box that is in no `same` pair; what is not here has no counterpart graph.
        why: sentences, of boxes that changed.
    """

    glance: bool = False
    pairs: dict[tuple[Picture, Picture], dict[int, int]] = field(default_factory=dict)
    status: dict[Box, str] = field(default_factory=dict)
    why: dict[Box, list[str]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many nodes are same (in A), changed (in A), removed, added."""
        found = dict.fromkeys(("same", "changed", "removed", "added"), 0)
        of_b = {b.boxes[other] for (_, b), pairs in self.pairs.items() for other in pairs.values()}
        for box, status in self.status.items():
            if box.kind == "node" and box not in of_b:
                found[status] += 1
        return found


def compare_pictures(
    a: Picture, b: Picture, by_value: Mapping[str, str], *, glance: bool = False
) -> Changes:
    """Compare two models.

    Args:
        a: the original's main graph.
        b: the other's.
        by_value: names of tensors of A and of their counterparts in B, where that was measured.
        glance: look at a few elements of constants alone, and say nothing of their difference.
    """
    changes = Changes(glance)
    _compare(a, b, by_value, changes)
    for side, status in ((a, "removed"), (b, "added")):
        for picture in side.all():
            for box in picture.boxes:
                changes.status.setdefault(box, status)
    return changes


def _compare(a: Picture, b: Picture, by_value: Mapping[str, str], changes: Changes) -> None:
    if (a, b) in changes.pairs:
        return
    pairs = pair_boxes(a, b, by_value)
    changes.pairs[a, b] = pairs
    for one, other in pairs.items():
        for (place, name), inner in a.inner.items():
            if place == one and (other, name) in b.inner:
                _compare(inner, b.inner[other, name], by_value, changes)
    sources = [
        {value: place for place, box in enumerate(picture.boxes) for value in box.gives}
        for picture in (a, b)
    ]
    back = {value: pairs.get(place) for value, place in sources[0].items()}
    for one, other in pairs.items():
        boxes = a.boxes[one], b.boxes[other]
        why = [
            *_differences(*boxes, glance=changes.glance),
            *_rewired(*boxes, back, sources[1]),
            *_inside(a, b, one, other, changes),
        ]
        for box in boxes:
            changes.status[box] = "changed" if why else "same"
            if why:
                changes.why[box] = why
    for picture, status, known in ((a, "removed", pairs.keys()), (b, "added", {*pairs.values()})):
        for place, box in enumerate(picture.boxes):
            if place not in known:
                changes.status[box] = status


def _differences(one: Box, other: Box, *, glance: bool) -> Iterator[str]:
    if one.node is None or other.node is None:
        return
    if (one.node.op_type, one.node.domain) != (other.node.op_type, other.node.domain):
        yield f"{_operator(one.node)} became {_operator(other.node)}"
        return
    yield from attributes_changed(one.node, other.node)
    if not glance:
        yield from constants_changed(one.node, other.node)
    elif len(one.node.inputs) != len(other.node.inputs) or _constants_differ(one, other):
        yield "its constants differ"


def _constants_differ(one: Box, other: Box) -> bool:
    """By their types, shapes and operators, and by a few elements."""
    for place, constant in one.constants.items():
        now = other.constants.get(place)
        if now is None or constant.tensor is None or now.tensor is None:
            continue
        before, after = constant.tensor, now.tensor
        if constant.through != now.through:
            return True
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            return True
        if before is after or before.dtype == ir.DataType.STRING:
            continue
        step = max(1, before.size // _GLANCED)
        sample = [tensor.numpy().reshape(-1)[::step] for tensor in (before, after)]
        if not np.array_equal(sample[0], sample[1], equal_nan=sample[0].dtype.kind == "f"):
            return True
    return False


def _operator(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _rewired(
    one: Box,
    other: Box,
    counterparts: Mapping[ir.Value, int | None],
    made: Mapping[ir.Value, int],
) -> Iterator[str]:
    """Inputs that come from elsewhere; nothing where a source has no counterpart."""
    reads = (one.reads, other.reads) if one.node is not None else _left(one, other)
    for place, value in reads[0].items():
        now = reads[1].get(place)
        if now is None:
            continue
        expected, found = counterparts.get(root(value)), made.get(root(now))
        if expected is not None and found is not None and expected != found:
            yield f"reads {now.name} instead of {value.name}"


def _left(one: Box, other: Box) -> tuple[dict[int, ir.Value], dict[int, ir.Value]]:
    """What leaves the graph at two of its outputs."""
    if one.kind != "output" or one.value is None or other.value is None:
        return {}, {}
    return {0: one.value}, {0: other.value}


def _inside(a: Picture, b: Picture, one: int, other: int, changes: Changes) -> Iterator[str]:
    for (place, name), inner in a.inner.items():
        if place != one or (other, name) not in b.inner:
            continue
        pair = inner, b.inner[other, name]
        pairs = changes.pairs.get(pair, {})
        whole = len(pairs) == len(inner.boxes) == len(pair[1].boxes)
        if not whole or any(changes.status.get(inner.boxes[p]) == "changed" for p in pairs):
            yield f"{name or 'the function'} changed inside"
