"""The places where two models differ, one of each kind, small enough for a report.

A place begins with a node that changed, and what was added or removed around it belongs to it: what
was removed behind it first (a norm that was folded into it), what was added before it first (its
input, quantized). What is left is a place of its own. Places with the same operators on both sides
are of one kind, of which one is drawn, with the nodes beside it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxpress.drawing.changes import Changes, compare_pictures
from onnxpress.drawing.graphs import Picture, pictures_of
from onnxpress.drawing.layout import layered
from onnxpress.drawing.viewing import box_note, box_width

__all__ = ["region_documents"]

_KINDS = 6
_WIDEST = 176.0
"""In pixels: two sides stand beside each other."""
_BOXES = 16
"""On one side of a place; more are counted."""


@dataclass(slots=True)
class _Place:
    """Boxes of A and of B, by their places in the two pictures, in order."""

    pair: tuple[Picture, Picture]
    sides: tuple[dict[int, None], dict[int, None]]

    def kind(self) -> tuple[tuple[str, ...], ...]:
        """Its operators, which tell it from places of another kind."""
        return tuple(
            tuple(picture.boxes[at].op_type for at in sorted(boxes))
            for picture, boxes in zip(self.pair, self.sides, strict=True)
        )


def region_documents(a: ir.Model, b: ir.Model) -> list[dict[str, Any]]:
    """One place of each of the most frequent kinds, as JSON-ready data.

    Args:
        a: the original, or what lossless simplification made of it.
        b: what became of it.
    """
    changes = compare_pictures(pictures_of(a), pictures_of(b), {}, glance=True)
    kinds: dict[tuple[tuple[str, ...], ...], list[_Place]] = defaultdict(list)
    for pair in changes.pairs:
        for place in _places(pair, changes):
            kinds[place.kind()].append(place)
    ranked = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return [_document(places, changes, kind) for kind, places in ranked[:_KINDS]]


def _places(pair: tuple[Picture, Picture], changes: Changes) -> Iterator[_Place]:
    pairs = changes.pairs[pair]
    joined = [_joined(picture) for picture in pair]
    lost = [
        {at for at, box in enumerate(picture.boxes) if changes.status[box] == status}
        for picture, status in zip(pair, ("removed", "added"), strict=True)
    ]
    found = []
    for one, other in sorted(pairs.items()):
        box = pair[0].boxes[one]
        # A node with bodies that changed inside has places of its own there.
        if changes.status[box] == "changed" and not any(at == one for at, _ in pair[0].inner):
            found.append(_Place(pair, ({one: None}, {other: None})))
    for first in (True, False):
        for place in found:
            for side, down in ((0, first), (1, not first)):
                _claim(place.sides[side], lost[side], joined[side][down])
    for side in (0, 1):
        while lost[side]:
            begun = min(lost[side])
            lost[side].discard(begun)
            place = _Place(pair, ({}, {}))
            place.sides[side][begun] = None
            for down in (True, False, True):
                _claim(place.sides[side], lost[side], joined[side][down])
            found.append(place)
    yield from (place for place in found if _has_node(place))


def _has_node(place: _Place) -> bool:
    return any(
        picture.boxes[at].kind == "node"
        for picture, boxes in zip(place.pair, place.sides, strict=True)
        for at in boxes
    )


def _joined(picture: Picture) -> tuple[Mapping[int, list[int]], Mapping[int, list[int]]]:
    """What each box reads, and what reads it."""
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for net in picture.nets:
        for target in net.targets:
            above[target].append(net.source)
            below[net.source].append(target)
    return above, below


def _claim(own: dict[int, None], free: set[int], joined: Mapping[int, list[int]]) -> None:
    """Add what is free and joined to a place, in one direction."""
    waiting = list(own)
    while waiting:
        for at in joined.get(waiting.pop(), ()):
            if at in free:
                free.discard(at)
                own[at] = None
                waiting.append(at)


def _document(
    places: Sequence[_Place], changes: Changes, kind: tuple[tuple[str, ...], ...]
) -> dict[str, Any]:
    shown = min(places, key=lambda place: sum(map(len, place.sides)))
    return {
        "before": list(kind[0]),
        "after": list(kind[1]),
        "places": len(places),
        "example": _name(shown),
        "original": _drawing(shown.pair[0], shown.sides[0], changes),
        "optimized": _drawing(shown.pair[1], shown.sides[1], changes),
    }


def _name(place: _Place) -> str:
    for picture, boxes in zip(place.pair, place.sides, strict=True):
        for at in sorted(boxes):
            node = picture.boxes[at].node
            if node is not None:
                return node.name or node.op_type
    return ""


def _drawing(picture: Picture, own: Mapping[int, None], changes: Changes) -> dict[str, Any]:
    """The boxes of a place and those beside it; arrows among them."""
    kept = sorted(own)[:_BOXES]
    beside: dict[int, None] = {}
    for net in picture.nets:
        ends = {net.source, *net.targets}
        if ends.intersection(kept):
            if net.source not in own:
                beside[net.source] = None
            if net.source in own:
                beside.update((target, None) for target in net.targets[:3] if target not in own)
    number = {at: place for place, at in enumerate(sorted({*kept, *beside}))}
    boxes = [picture.boxes[at] for at in number]
    nets = []
    for net in picture.nets:
        targets = [number[target] for target in net.targets if target in number]
        if net.source in number and targets and _touches(net.source, net.targets, kept):
            nets.append((number[net.source], targets))
    widths = [min(box_width(box.op_type, box_note(box)), _WIDEST) for box in boxes]
    layout = layered(widths, nets)
    return {
        "width": round(layout.width, 1),
        "left_out": len(own) - len(kept),
        "boxes": [
            {
                "operator": box.op_type,
                "note": box_note(box),
                "status": changes.status[box] if at in own else "beside",
                "row": layout.rows[place],
                "x": round(layout.places[place], 1),
                "width": round(widths[place], 1),
            }
            for (at, place), box in zip(number.items(), boxes, strict=True)
        ],
        "arrows": [
            {"from": source, "to": targets, "bends": [round(x, 1) for x in layout.bends[index]]}
            for index, (source, targets) in enumerate(nets)
        ],
    }


def _touches(source: int, targets: Sequence[int], kept: Sequence[int]) -> bool:
    return bool({source, *targets}.intersection(kept))
