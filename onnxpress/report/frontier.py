"""The chart of all models that a search tried, by bytes and by what they spend of the budget."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxpress.report.axes import LEFT, NARROW, RIGHT, TOP, WIDE, Axis, Ticks
from onnxpress.report.columns import Document
from onnxpress.report.layer_columns import forms_in_words, percent, size_text
from onnxpress.report.text import counted, decimals

__all__ = ["Frontier", "Point", "frontiers"]

_BOTTOM = 44
"""Margin below the plot, for labels and the title."""
_LEAST_SPENT, _MOST_SPENT = 0.001, 100.0
"""Shares of the budget between which the axis ends at most."""


@dataclass(frozen=True, slots=True)
class Point:
    """A model or layer: its place, CSS classes, what it is in words."""

    x: float
    y: float
    style: str
    words: str


@dataclass(frozen=True, slots=True)
class Frontier:
    """Models by the size of their weights and what they spend of the budget.

    Attributes:
        name: `wide` or `narrow`.
        size: width and height.
        x: axis of sizes; `y`: of the budget.
        limit: where the whole budget lies.
        points: models, the one that was taken last.
        line: the best of those that held, as an SVG path.
    """

    name: str
    size: tuple[int, int]
    x: Axis
    y: Axis
    limit: float
    points: tuple[Point, ...]
    line: str

    @property
    def left(self) -> float:
        """Of the plot."""
        return LEFT

    @property
    def right(self) -> float:
        """Of the plot."""
        return self.size[0] - RIGHT

    @property
    def top(self) -> float:
        """Of the plot."""
        return TOP

    @property
    def bottom(self) -> float:
        """Of the plot."""
        return self.size[1] - _BOTTOM


def frontiers(report: Document) -> list[Frontier]:
    """The chart of all models that were tried, wide and narrow; none where there was no search."""
    tried = [one for one in report["tried"] if one["weight_bytes"]]
    weights = report["weights"]
    if not tried or weights is None or not weights["after"] or not weights["before"]:
        return []
    return [
        _frontier(report, name, size)
        for name, size in (("wide", (WIDE, 400)), ("narrow", (NARROW, 360)))
    ]


def _frontier(report: Document, name: str, size: tuple[int, int]) -> Frontier:
    tried = [one for one in report["tried"] if one["weight_bytes"]]
    weights = report["weights"]
    sizes = [weights["before"], weights["after"], *(one["weight_bytes"] for one in tried)]
    low, high = math.log10(min(sizes) / 1.15), math.log10(max(sizes) * 1.15)
    spent = [one["spent"] for one in tried if one["spent"]] + [report["spent"] or 1.0, 1.0]
    floor = math.log10(min(max(min(spent) / 1.5, _LEAST_SPENT), 0.1))
    ceiling = math.log10(max(min(max(spent) * 1.5, _MOST_SPENT), 3.0))

    def x_of(nbytes: float) -> float:
        width = size[0] - LEFT - RIGHT
        return round(LEFT + width * (math.log10(nbytes) - low) / (high - low), 1)

    def y_of(share: float | None) -> float:
        logarithm = ceiling if share is None else math.log10(max(share, 1e-9))
        part = (min(max(logarithm, floor), ceiling) - floor) / (ceiling - floor)
        return round(size[1] - _BOTTOM - (size[1] - TOP - _BOTTOM) * part, 1)

    points = [
        Point(
            x_of(one["weight_bytes"]),
            y_of(one["spent"]),
            "held" if one["holds"] else "broke",
            f"Model {number}, {one['passes']}: {_figures(one)}",
        )
        for number, one in enumerate(tried, 1)
    ]
    words = f"The original: weights {size_text(weights['before'])}"
    points.append(Point(x_of(weights["before"]), y_of(0.0), "original", words))
    if report["spent"] is not None:
        taken = f"The model that was taken: weights {size_text(weights['after'])}, " + _of_budget(
            report["spent"], "on untouched samples"
        )
        points.append(Point(x_of(weights["after"]), y_of(report["spent"]), "taken", taken))
    held = sorted(
        {(one["weight_bytes"], one["spent"] or 0.0) for one in tried if one["holds"]},
    )
    return Frontier(
        name,
        size,
        Axis("bytes of the weights", _size_ticks(low, high, x_of, 4 if size[0] == NARROW else 8)),
        Axis("budget spent", _share_ticks(floor, ceiling, y_of)),
        y_of(1.0),
        tuple(points),
        _steps([(x_of(a), y_of(b)) for a, b in _best(held)]),
    )


def _figures(one: Document) -> str:
    """A model that was tried, in words."""
    parts = [
        forms_in_words(one),
        f"weights {size_text(one['weight_bytes'])}",
        _of_budget(one["spent"], f"on {counted(one['samples'], 'sample')}"),
    ]
    if one["drop"] is not None:
        parts.append(f"metric drop {decimals(one['drop'])} points")
    if one["worst_sqnr_db"] is not None:
        parts.append(f"worst SQNR {one['worst_sqnr_db']:.1f} dB")
    if one["speedup"] is not None:
        parts.append(f"{one['speedup']:.2f} times the speed of the stage before")
    return "; ".join(parts)


def _of_budget(spent: float | None, where: str) -> str:
    amount = "far more than the budget" if spent is None else f"{percent(spent)} of the budget"
    return f"{amount} spent {where}"


def _best(held: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both, from small to large."""
    found: list[tuple[float, float]] = []
    for nbytes, spent in held:
        if not found or spent < found[-1][1]:
            found.append((nbytes, spent))
    return found


def _steps(places: Sequence[tuple[float, float]]) -> str:
    if len(places) < 2:
        return ""
    (x, y), *rest = places
    return f"M{x} {y}" + "".join(f"H{nx}V{ny}" for nx, ny in rest)


def _size_ticks(low: float, high: float, place: Callable[[float], float], most: int) -> Ticks:
    ticks = [
        factor * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for factor in (1, 2, 5)
        if low <= math.log10(factor * 10.0**power) <= high
    ]
    if len(ticks) > most:
        ticks = [tick for tick in ticks if f"{tick:e}"[0] == "1"] or ticks[::2]
    while len(ticks) > most:
        ticks = ticks[::2]
    return tuple((place(tick), size_text(tick)) for tick in ticks)


def _share_ticks(floor: float, ceiling: float, place: Callable[[float], float]) -> Ticks:
    powers = range(math.ceil(floor), math.floor(ceiling) + 1)
    return tuple((place(10.0**power), percent(10.0**power)) for power in powers)
