"""Small charts of single layers: weights with their grid, singular values, what was removed."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from onnxpress.report.columns import Document

__all__ = ["Mask", "Small", "activation_charts", "histogram_charts", "masks", "spectrum_charts"]

_MASKS = 24
_UNITS = 2048
_MASK_ROWS = ((512, 32), (_UNITS, 64))
"""Units up to which a row has so many."""
_GRID_LINES = 40


@dataclass(frozen=True, slots=True)
class Small:
    """One of many small charts of a layer, 300×120.

    Attributes:
        title: the layer.
        note: what there is to say of it.
        words: all of it for those who do not see it.
        bars: (x, y, width, height, CSS class).
        line: an SVG path, or empty.
        marks: places of lines from top to bottom.
    """

    title: str
    note: str
    words: str
    bars: tuple[tuple[float, float, float, float, str], ...] = ()
    line: str = ""
    marks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Mask:
    """Which units of a layer were removed: (x, y, CSS class) of squares; width and height."""

    title: str
    note: str
    squares: tuple[tuple[int, int, str], ...]
    size: tuple[int, int]


def histogram_charts(found: Sequence[Document]) -> list[Small]:
    """How weights lie, with the lines of the grid where there are few."""
    charts = []
    for one in found:
        counts, grid = one["counts"], one["grid"]
        most = max(counts) or 1
        wide = 300 / len(counts)
        bars = tuple(
            (
                round(i * wide, 2),
                round(110 - 104 * c / most, 2),
                round(wide - 1, 2),
                round(104 * c / most, 2),
                "bin",
            )
            for i, c in enumerate(counts)
        )
        note = f"{one['low']:.3g} to {one['high']:.3g}"
        marks: tuple[float, ...] = ()
        if grid is not None:
            note += f"; {grid['bits']} bits, {_step_text(grid)}"
            marks = _grid_marks(one["low"], one["high"], grid["middle"])
        words = f"Histogram of {sum(counts):,} weights of {one['layer']}, {note}"
        charts.append(Small(one["layer"], note, words, bars, marks=marks))
    return charts


def activation_charts(found: Sequence[Document]) -> list[Small]:
    """How quantized activations lie; shaded is what their grid reaches."""
    charts = []
    for one in found:
        (chart,) = histogram_charts([{**one, "layer": one["tensor"], "grid": None}])
        low, high = one["low"], one["high"]
        left, right = (
            min(max(300 * (end - low) / (high - low), 0.0), 300.0)
            for end in (one["first"], one["last"])
        )
        reached = (round(left, 1), 0.0, round(right - left, 1), 110.0, "kept")
        note = (
            f"{low:.3g} to {high:.3g}; {one['bits']} bits in steps of {one['step']:.3g}, "
            f"{one['first']:.3g} to {one['last']:.3g}"
        )
        if one["clipped"]:
            note += f"; {100 * one['clipped']:.2g}% clipped"
        words = f"Histogram of the activation {one['tensor']}, {note}"
        marks = _grid_marks(max(low, one["first"]), min(high, one["last"]), one["step"])
        scale = (right - left) / 300
        charts.append(
            Small(
                one["tensor"],
                note,
                words,
                (reached, *chart.bars),
                marks=tuple(round(left + scale * place, 1) for place in marks),
            )
        )
    return charts


def _step_text(grid: Document) -> str:
    if grid["steps"] == 1:
        return f"one step of {grid['middle']:.3g}"
    return f"{grid['steps']:,} steps of {grid['least']:.3g} to {grid['most']:.3g}"


def _grid_marks(low: float, high: float, step: float) -> tuple[float, ...]:
    if step <= 0 or high <= low or (high - low) / step > _GRID_LINES:
        return ()
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(round(300 * (n * step - low) / (high - low), 1) for n in range(first, last + 1))


def spectrum_charts(found: Sequence[Document]) -> list[Small]:
    """Singular values of factorized layers, and where they were cut."""
    charts = []
    for one in found:
        span = max(one["of"] - 1, 1)
        places = [
            (round(300 * (place - 1) / span, 1), round(110 - 104 * value, 1))
            for place, value in zip(one["places"], one["values"], strict=True)
        ]
        line = "M" + "L".join(f"{x} {y}" for x, y in places)
        cut = round(300 * (one["rank"] - 1) / span, 1)
        kept = ((0.0, 0.0, min(cut, 300.0), 110.0, "kept"),)
        note = f"rank {one['rank']:,} of {one['of']:,} kept ({one['form']})"
        words = f"Singular values of {one['layer']}, from the largest to the smallest; {note}"
        charts.append(Small(one["layer"], note, words, kept, line, (cut,)))
    return charts


def masks(stages: Sequence[Document]) -> tuple[list[Mask], int]:
    """Which channels or heads were removed where decisions say so, and how many are not shown."""
    found = []
    for stage in stages:
        for decision in stage["decisions"]:
            removed = decision["parameters"].get("removed")
            kept = decision["parameters"].get("kept")
            if isinstance(removed, str) and isinstance(kept, int):
                gone = _indices(removed)
                if gone and len(gone) + kept <= _UNITS:
                    found.append(_mask(decision, gone, kept))
    return found[:_MASKS], max(0, len(found) - _MASKS)


def _mask(decision: Document, gone: set[int], kept: int) -> Mask:
    number = max(len(gone) + kept, max(gone) + 1)
    row = next((row for most, row in _MASK_ROWS if number <= most), _MASK_ROWS[-1][1])
    squares = tuple(
        (8 * (i % row), 8 * (i // row), "gone" if i in gone else "stays") for i in range(number)
    )
    note = f"{len(gone):,} of {number:,} {decision['family'] or 'unit'}s removed"
    return Mask(decision["site"], note, squares, (8 * row, 8 * -(-number // row)))


def _indices(text: str) -> set[int]:
    """`0-2,5` as a set; empty where it is not of that form."""
    if not re.fullmatch(r"\d{1,7}(-\d{1,7})?(,\d{1,7}(-\d{1,7})?)*", text):
        return set()
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if int(last or first) - int(first) > _UNITS:
            return set()
        found.update(range(int(first), int(last or first) + 1))
    return found
