"""Charts along the depth of a graph: predicted errors and bytes of the layers, in order."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxpress.enumeration import few
from onnxpress.report.axes import LEFT, NARROW, RIGHT, TOP, WIDE, Axis, Ticks
from onnxpress.report.columns import Document
from onnxpress.report.layer_columns import percent, size_text

__all__ = ["Strip", "depth_charts"]

_HEIGHT, _BOTTOM = 170, 24
_BARS = {"wide": 220, "narrow": 80}
"""As many as can be told apart."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Bars along the depth: (x, width, top, height, CSS class, words)."""

    name: str
    size: tuple[int, int]
    y: Axis
    bars: tuple[tuple[float, float, float, float, str, str], ...]
    title: str
    words: str

    @property
    def left(self) -> float:
        """Of the plot."""
        return LEFT

    @property
    def right(self) -> float:
        """Of the plot."""
        return self.size[0] - RIGHT

    @property
    def bottom(self) -> float:
        """Of the plot."""
        return self.size[1] - _BOTTOM


def depth_charts(layers: Sequence[Document]) -> list[Strip]:
    """Errors and bytes along the depth, each wide and narrow."""
    found: list[Strip] = []
    for name, size in (("wide", (WIDE, _HEIGHT)), ("narrow", (NARROW, _HEIGHT))):
        groups = _grouped(layers, _BARS[name])
        errors = _error_strip(groups, name, size)
        found += [errors] if errors is not None else []
        found += [_bytes_strip(groups, name, size)] if groups else []
    return found


def _grouped(layers: Sequence[Document], most: int) -> list[list[Document]]:
    """Neighbours together where there are more layers than bars."""
    if not layers:
        return []
    number = min(most, len(layers))
    cuts = [round(index * len(layers) / number) for index in range(number + 1)]
    return [list(layers[a:b]) for a, b in itertools.pairwise(cuts)]


def _named(group: Sequence[Document]) -> str:
    return few(row["layer"] for row in group)


def _error_strip(
    groups: Sequence[Sequence[Document]], name: str, size: tuple[int, int]
) -> Strip | None:
    largest = [max((row["predicted_error"] or 0.0 for row in group), default=0) for group in groups]
    known = [value for value in largest if value > 0]
    if not known:
        return None
    high = math.log10(max(known) * 1.3)
    low = max(math.log10(min(known) / 2), high - 6)
    plot = size[1] - _BOTTOM - TOP
    wide = (size[0] - LEFT - RIGHT) / len(groups)
    bars = []
    for index, (group, value) in enumerate(zip(groups, largest, strict=True)):
        part = max(0.02, (math.log10(value) - low) / (high - low)) if value > 0 else 0.0
        words = f"{_named(group)}: {percent(value) if value else 'no error predicted'}"
        bars.append(_bar(index, wide, part * plot, size, "error", words))
    return Strip(
        name,
        size,
        Axis("predicted error", _share_ticks(low, high, plot, size)),
        tuple(bars),
        "Predicted error of each layer along the depth, of its output's power (logarithmic)",
        f"The largest is {percent(max(known))}, the smallest {percent(min(known))}.",
    )


def _share_ticks(low: float, high: float, plot: float, size: tuple[int, int]) -> Ticks:
    powers = range(math.ceil(low), math.floor(high) + 1)
    return tuple(
        (round(size[1] - _BOTTOM - plot * (power - low) / (high - low), 1), percent(10.0**power))
        for power in powers
    )


def _bytes_strip(groups: Sequence[Sequence[Document]], name: str, size: tuple[int, int]) -> Strip:
    before = [sum(row["bytes_before"] for row in group) for group in groups]
    after = [sum(row["bytes_after"] for row in group) for group in groups]
    most = max(*before, *after, 1)
    plot = size[1] - _BOTTOM - TOP
    wide = (size[0] - LEFT - RIGHT) / len(groups)
    bars = []
    for index, group in enumerate(groups):
        words = f"{_named(group)}: {size_text(before[index])} to {size_text(after[index])}"
        for amounts, style in ((before, "before"), (after, "after")):
            bars.append(_bar(index, wide, plot * amounts[index] / most, size, style, words))
    ticks = tuple(
        (round(size[1] - _BOTTOM - plot * part, 1), size_text(most * part))
        for part in (0.0, 0.5, 1.0)
    )
    words = f"In all {size_text(sum(before))} before and {size_text(sum(after))} after."
    return Strip(
        name,
        size,
        Axis("bytes", ticks),
        tuple(bars),
        "Bytes of each layer along the depth, before (light) and after (dark)",
        words,
    )


def _bar(
    index: int, wide: float, height: float, size: tuple[int, int], style: str, words: str
) -> tuple[float, float, float, float, str, str]:
    gap = min(2.0, wide * 0.2)
    left = LEFT + index * wide + gap / 2
    return (
        round(left, 2),
        round(wide - gap, 2),
        round(size[1] - _BOTTOM - height, 2),
        round(height, 2),
        style,
        words,
    )
