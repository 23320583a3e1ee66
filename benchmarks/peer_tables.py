"""The peers' benchmark as a page: what each tool takes, a table a model, a chart."""

import json
import math
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peer_cells import CONFIGURATIONS
from peer_environments import HERE, interpreter

__all__ = ["draw", "draw_points", "page", "point"]

HEADINGS = (
    "what", "worst metric lost, points (at most)", "worst slice, dB", "MB", "MB in memory",
    "times as fast (quartiles)", "s", "peak MB", "budget",
)  # fmt: skip
TOOL_HEADINGS = ("environment", "version", "MB", "packages", "begins in s")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(headings), _row(["---"] * len(headings)), *map(_row, rows)]


def _said(text: str) -> str:
    """A message in a cell of a table: no line, no bar, no path of one machine."""
    words = " ".join(text.replace("|", "/").replace("<", "‹").split())
    return words if len(words) <= 160 else words[:159] + "…"


def _tool(environment: str, tool: dict[str, Any]) -> list[str]:
    starts = tool["start_s"]
    begins = _said(tool["error"]) if starts is None else f"{starts:.1f}"
    name = f"**{environment}**" if environment == "onnxpress" else environment
    return [name, tool["version"], f"{tool['megabytes']:,.0f}", str(tool["packages"]), begins]


def _decibels(cell: dict[str, Any]) -> str:
    if cell["identical"]:
        return "the same"
    return "–" if cell["worst_db"] is None else f"{cell['worst_db']:.1f}"


def _lost(cell: dict[str, Any]) -> str:
    if cell["metric"] is None:
        return "–"
    lost, most = cell["lost"], cell["lost_at_most"]
    return f"{lost:.2f}" + ("" if math.isnan(most) else f" ({most:.2f})")


def _cell(name: str, cell: dict[str, Any]) -> list[str]:
    label = f"**{name}**" if name.startswith("onnxpress") else name
    if "error" in cell:
        took = ["", ""]
        if "processor_s" in cell:
            took = [f"{cell['processor_s']:.1f}", f"{cell['peak_mb']:.0f}"]
        return [label, *[""] * 5, *took, _said(cell["error"])]
    held = "–" if cell["held_bytes"] is None else f"{cell['held_bytes'] / 1e6:.1f}"
    speeds = "–"
    if "clock" in cell:
        speeds = f"{cell['speed']:.2f} ({cell['speed_low']:.2f} to {cell['speed_high']:.2f})"
    return [
        label,
        _lost(cell),
        _decibels(cell),
        f"{cell['bytes'] / 1e6:.2f}",
        held,
        speeds,
        f"{cell['processor_s']:.1f}",
        f"{cell['peak_mb']:.0f}",
        "held" if cell["within_budget"] else "broken",
    ]


def _ahead(own: dict[str, dict[str, Any] | None]) -> list[str]:
    """Which peers keep the budget and are faster, smaller or nearer than `onnxpress optimize`."""
    ours = own["onnxpress optimize"]
    if ours is None or "error" in ours:
        return []

    def named(better: Callable[[dict[str, Any], dict[str, Any]], bool]) -> str:
        found = [
            one
            for one, cell in own.items()
            if cell is not None and not one.startswith("onnxpress") and "error" not in cell
            if cell["within_budget"] and better(cell, ours)
        ]
        return ", ".join(found) or "none"

    faster = named(lambda cell, other: "clock" in cell and cell["speed_low"] > other["speed_high"])
    smaller = named(lambda cell, other: cell["bytes"] < other["bytes"])
    if "clock" not in ours:
        return [f"Within the budget and smaller than `onnxpress optimize`: {smaller}."]
    return [
        f"Within the budget and faster than `onnxpress optimize`, quartiles apart: {faster}.",
        f"Smaller: {smaller}.",
    ]


def _model(name: str, cells: dict[str, Any]) -> list[str]:
    own = {one.name: cells.get(f"{name}/{one.name}") for one in CONFIGURATIONS}
    measured = [cell for cell in own.values() if cell is not None and "error" not in cell]
    first = next(iter(measured), None)
    words = [f"## {name}", ""]
    if first is not None:
        metric = first["metric"] or "no metric"
        words.append(
            f"{first['original_bytes'] / 1e6:.2f} MB, {first['samples']:,} fresh samples, {metric}."
        )
    absent = [one for one, cell in own.items() if cell is None]
    if absent:
        words.append(f"Not run: {', '.join(absent)}.")
    words += _ahead(own)
    rows = [_cell(one, cell) for one, cell in own.items() if cell is not None]
    return [*words, "", *_table(HEADINGS, rows), ""]


def page(
    kept: dict[str, Any], models: Sequence[str], missing: Sequence[str], chart: Path | None
) -> str:
    """Everything as Markdown.

    Args:
        kept: tools and cells.
        models: that have cells, in order.
        missing: those that have none.
        chart: beside the page; `None` where it could not be drawn.
    """
    dates = sorted({cell["date"] for cell in kept["cells"].values()})
    loads = sorted(cell["load"] for cell in kept["cells"].values())
    tools = [_tool(name, tool) for name, tool in sorted(kept["tools"].items())]
    typed = [[one.name, one.typed] for one in CONFIGURATIONS]
    lines = [
        f"# Peers beside us, {dates[-1]}",
        "",
        f"`python benchmarks/peers.py`, measured {' to '.join({dates[0]: 0, dates[-1]: 0})},",
        f"{platform.machine()}; load {loads[0]:.1f} to {loads[-1]:.1f} while it ran.",
        "",
        (HERE / "peers" / "how.md").read_text(encoding="utf-8").strip(),
        "",
    ]
    if missing:
        lines += [f"Not run, for want of time or data: {', '.join(missing)}.", ""]
    if chart is not None:
        lines += [f"![How much smaller, and what the worst slice keeps]({chart.name})", ""]
    lines += ["## What the tools take", "", *_table(TOOL_HEADINGS, tools), ""]
    lines += [*_table(("what", "typed"), typed), ""]
    for name in models:
        lines += _model(name, kept["cells"])
    return "\n".join(lines).rstrip() + "\n"


def draw(kept: dict[str, Any], models: Sequence[str], out: Path) -> Path | None:
    """The chart, by matplotlib in an environment of its own; `None` where that fails."""
    points = {
        name: [
            point(one.name, cell)
            for one in CONFIGURATIONS
            if "bytes" in (cell := kept["cells"].get(f"{name}/{one.name}", {}))
        ]
        for name in models
    }
    return draw_points(points, out)


def point(what: str, cell: dict[str, Any]) -> dict[str, Any]:
    """A cell as the chart takes it."""
    size = cell["original_bytes"] / cell["bytes"]
    return {
        "what": what,
        "size": size,
        "kept_db": cell["worst_db"],
        "held": cell["within_budget"],
    }


def draw_points(points: dict[str, list[dict[str, Any]]], out: Path) -> Path | None:
    """A field a model; `None` where that fails."""
    try:
        subprocess.run(
            [interpreter("charts"), HERE / "peers" / "chart.py", out],
            input=json.dumps(points),
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no chart: {error}")
        return None
    return out
