"""Axes of charts, and their sizes in pixels.

A chart that carries text is laid out twice, wide and narrow, so that letters keep their size on a
phone; the page shows one of both.
"""

from dataclasses import dataclass

__all__ = ["LEFT", "NARROW", "RIGHT", "TOP", "WIDE", "Axis", "Ticks"]

WIDE, NARROW = 880, 350
"""Widths of the two layouts."""
LEFT, RIGHT, TOP = 62, 12, 14
"""Margins of the plot."""

Ticks = tuple[tuple[float, str], ...]
"""(place, label)."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A title and ticks."""

    title: str
    ticks: Ticks
