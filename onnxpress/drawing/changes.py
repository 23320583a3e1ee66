"""What differs between two models, box by box.

A box of A is `same`, `changed` or `removed`, one of B `same`, `changed` or `added`. A node is
changed where its operator, attributes or constants differ, or where it reads another tensor than
its counterpart; integers there and back, casts and copies in between do not count, as they are
boxes of their own. A node with bodies is changed where one of them is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxpress.difference.explaining import attributes_changed, constants_changed
from onnxpress.drawing.graphs import Box, Picture, root
from onnxpress.drawing.pairs import pair_boxes

__all__ = ["Changes", "compare_pictures"]


@dataclass(slots=True)
class Changes:
    """What became of two graphs, and of all inside of them.

    Attributes:
        pairs: places of boxes of A and of B, by the two graphs.
        status: of each box that is in no `same` pair; what is not here has no counterpart graph.
        why: sentences, of boxes that changed.
    """

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


def compare_pictures(a: Picture, b: Picture, by_value: Mapping[str, str]) -> Changes:
    """Compare two models.

    Args:
        a: the original's main graph.
        b: the other's.
        by_value: names of tensors of A and of their counterparts in B, where that was measured.
    """
    changes = Changes()
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
            *_differences(*boxes),
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


def _differences(one: Box, other: Box) -> Iterator[str]:
    if one.node is None or other.node is None:
        return
    if (one.node.op_type, one.node.domain) != (other.node.op_type, other.node.domain):
        yield f"{_operator(one.node)} became {_operator(other.node)}"
        return
    yield from attributes_changed(one.node, other.node)
    yield from constants_changed(one.node, other.node)


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
