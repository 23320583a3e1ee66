"""Loss over the steps of a training, on a logarithmic axis, wide and narrow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxpress.report.axes import LEFT, NARROW, RIGHT, TOP, WIDE, Axis
from onnxpress.report.columns import Document

__all__ = ["LossChart", "loss_charts"]

_HEIGHT, _BOTTOM = 240, 40


@dataclass(frozen=True, slots=True)
class LossChart:
    """One layout.

    Attributes:
        name: `wide` or `narrow`.
        size: width and height.
        x: steps.
        y: loss.
        lines: (CSS class, SVG path).
        best: place of the best state, or `None`.
        words: all of it for those who do not see it.
    """

    name: str
    size: tuple[int, int]
    x: Axis
    y: Axis
    lines: tuple[tuple[str, str], ...]
    best: tuple[float, float] | None
    words: str

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, right, top and bottom of the plot."""
        return LEFT, self.size[0] - RIGHT, TOP, self.size[1] - _BOTTOM


def loss_charts(checks: Sequence[Document]) -> list[LossChart]:
    """Both layouts; none where less than two losses are known."""
    known = [one[key] for one in checks for key in ("training", "chosen") if (one[key] or 0) > 0]
    if len(known) < 2 or checks[-1]["step"] <= 0:
        return []
    low, high = math.log10(min(known)), math.log10(max(known))
    room = max(0.05 * (high - low), 0.02)
    chosen = [one for one in checks if (one["chosen"] or 0) > 0]
    best = min(chosen, key=lambda one: float(one["chosen"]), default=None)
    return [
        _chart(name, width, checks, (low - room, high + room), best)
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    ]


def _chart(
    name: str,
    width: int,
    checks: Sequence[Document],
    span: tuple[float, float],
    best: Document | None,
) -> LossChart:
    last: int = checks[-1]["step"]
    plot = _HEIGHT - _BOTTOM - TOP

    def across(step: float) -> float:
        return round(LEFT + (width - LEFT - RIGHT) * step / last, 1)

    def down(loss: float) -> float:
        return round(TOP + plot * (span[1] - math.log10(loss)) / (span[1] - span[0]), 1)

    lines = []
    for key in ("training", "chosen"):
        points = [(across(c["step"]), down(c[key])) for c in checks if (c[key] or 0) > 0]
        lines.append((key, "M" + "L".join(f"{x} {y}" for x, y in points) if points else ""))
    steps = sorted({0, last // 2, last})
    words = f"Loss over {last:,} steps"
    if best is not None:
        words += f"; the best state, after {best['step']:,}, has {best['chosen']:.4g}"
    return LossChart(
        name,
        (width, _HEIGHT),
        Axis("steps", tuple((across(step), f"{step:,}") for step in steps)),
        Axis("loss", tuple((down(loss), f"{loss:.3g}") for loss in _ticks(span))),
        tuple(lines),
        None if best is None else (across(best["step"]), down(best["chosen"])),
        words,
    )


def _ticks(span: tuple[float, float]) -> list[float]:
    """Powers of ten, or the ends where there are not two of them."""
    powers = range(math.ceil(span[0]), math.floor(span[1]) + 1)
    if len(powers) >= 2:
        step = -(-len(powers) // 5)
        return [10.0**power for power in powers[::step]]
    return [10 ** (span[0] + share * (span[1] - span[0])) for share in (0.1, 0.5, 0.9)]
