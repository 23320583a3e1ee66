"""Small drawings of the places where the graph changed, from the places that the document has."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnxpress.report.columns import Document
from onnxpress.report.text import counted

__all__ = ["Region", "regions"]

_HIGH, _STEP, _AROUND = 42, 72, 8
_SIGNS = {"added": "+ ", "removed": "− ", "changed": "≠ "}
_LETTER, _SMALL_LETTER = 8.4, 7.0
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Drawn:
    """One side of a region.

    Attributes:
        heading: which model it is of.
        size: width and height.
        boxes: (x, y, width, CSS class, operator, note).
        paths: of arrows, as SVG.
        words: all of it for those who do not see it.
        rest: what is left out, in words.
    """

    heading: str
    size: tuple[float, float]
    boxes: tuple[tuple[float, float, float, str, str, str], ...]
    paths: tuple[str, ...]
    words: str
    rest: str


@dataclass(frozen=True, slots=True)
class Region:
    """One kind of change: what became of what, and where that is drawn."""

    title: str
    note: str
    sides: tuple[Drawn, ...]


def regions(found: Sequence[Document]) -> list[Region]:
    """Each kind of change, as a page draws it."""
    return [
        Region(
            f"{_operators(one['before'])} → {_operators(one['after'])}",
            f"{counted(one['places'], 'place')}; drawn is {one['example']}",
            (
                _drawn(one["original"], "simplified original", one["before"]),
                _drawn(one["optimized"], "optimized", one["after"]),
            ),
        )
        for one in found
    ]


def _operators(names: Sequence[str]) -> str:
    counts = Counter(names)
    listed = [
        f"{name} ×{count}" if count > 1 else name for name, count in list(counts.items())[:_NAMED]
    ]
    more = [f"{len(counts) - _NAMED} more"] if len(counts) > _NAMED else []
    return ", ".join([*listed, *more]) or "nothing"


def _drawn(side: Document, heading: str, names: Sequence[str]) -> Drawn:
    boxes = side["boxes"]
    rows = max((box["row"] for box in boxes), default=0) + 1
    shapes = tuple(
        (
            round(box["x"] - box["width"] / 2 + _AROUND, 1),
            float(box["row"] * _STEP + _AROUND),
            box["width"],
            box["status"],
            _cut(_SIGNS.get(box["status"], "") + box["operator"], box["width"], _LETTER),
            _cut(box["note"], box["width"], _SMALL_LETTER),
        )
        for box in boxes
    )
    paths = tuple(path for arrow in side["arrows"] for path in _paths(arrow, boxes))
    size = (side["width"] + 2 * _AROUND, rows * _STEP - (_STEP - _HIGH) + 2 * _AROUND)
    rest = f"and {side['left_out']:,} more nodes" if side["left_out"] else ""
    return Drawn(heading, size, shapes, paths, f"{heading}: {', '.join(names) or 'nothing'}", rest)


def _cut(text: str, width: float, letter: float) -> str:
    most = int((width - 14) / letter)
    return text if len(text) <= most else f"{text[: max(1, most - 1)]}…"


def _paths(arrow: Document, boxes: Sequence[Document]) -> list[str]:
    """Curves from row to row: through the bends, and from them to every target."""
    source = boxes[arrow["from"]]
    first = source["row"] + 1
    points = [(source["x"], float(source["row"] * _STEP + _HIGH))]
    found = []
    for place, bend in enumerate(arrow["bends"]):
        top = float((first + place) * _STEP)
        found.append(f"{_curve(points[-1], (bend, top))}V{top + _HIGH + _AROUND}")
        points.append((bend, top + _HIGH))
    for target in arrow["to"]:
        row = boxes[target]["row"]
        if 0 <= row - first < len(points):
            found.append(_curve(points[row - first], (boxes[target]["x"], float(row * _STEP))))
    return found


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (to, down) = ((round(a + _AROUND, 1), b + _AROUND) for a, b in (start, end))
    middle = (y + down) / 2
    return f"M{x} {y}C{x} {middle} {to} {middle} {to} {down}"
