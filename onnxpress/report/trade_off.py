"""Models of a frontier side by side: one document, its table and its plot."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from rich.console import Console
from rich.text import Text

from onnxpress.report.columns import Column, Document, number_or_none, sqnr_text, worst_output
from onnxpress.report.document import validation_document
from onnxpress.report.layer_columns import percent, size_text
from onnxpress.report.markdown import markdown_heading, markdown_row
from onnxpress.report.printing import add_column, new_table, print_text
from onnxpress.report.rows import RESULT_ROWS
from onnxpress.report.text import confidence_text, counted, decimals, megabytes, printable
from onnxpress.result import Result
from onnxpress.version import __version__

__all__ = [
    "MARK",
    "TRADE_OFF_COLUMNS",
    "print_trade_off",
    "trade_off_document",
    "trade_off_markdown",
    "trade_off_plot",
]

MARK = "a frontier that onnxpress has written"
"""By which a file of ours is known."""
_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 24, 52
"""Margins of the plot, in pixels."""
_LEAST = 1e-5
"""Of the budget: what spends less is drawn as if it did."""


def _drop(row: Document) -> str:
    if row["drop"] is None:
        return "-"
    most = row["drop_interval"][1]
    return decimals(row["drop"]) + ("" if most is None else f" ({decimals(most)})")


def _level(row: Document) -> str:
    outputs = row["validation"] and row["validation"]["default"]["outputs"]
    return sqnr_text(worst_output(outputs)[1]).removesuffix(" dB") if outputs else "-"


def _share(spent: float | None) -> str:
    return "-" if spent is None else percent(spent)


TRADE_OFF_COLUMNS: tuple[Column[Any], ...] = (
    Column("file", "model", None, number=False),
    Column("bytes", "size", None, lambda row: megabytes(row["bytes"])),
    Column("ratio", "times smaller", None, lambda row: f"{row['ratio']:.2f}"),
    Column("speedup", "times as fast", None, lambda row: decimals(row["speedup"])),
    Column("drop", "drop (at most)", None, _drop),
    Column("validation", "worst dB", None, _level),
    Column("spent", "of the budget", None, lambda row: _share(row["spent"])),
)


def trade_off_document(
    models: Sequence[tuple[str, Result]], judged: int, notes: Sequence[str]
) -> dict[str, Any]:
    """A frontier as JSON-ready data, from the smallest model on.

    Args:
        models: names of their files, and the models.
        judged: how many were judged on the same untouched samples.
        notes: what was left out, in sentences.
    """
    return {
        "format": 1,
        "onnxpress": __version__,
        "source": models[0][1].source if models else "",
        "judged": judged,
        "notes": list(notes),
        "models": [_row(name, result) for name, result in models],
    }


def _row(name: str, result: Result) -> dict[str, Any]:
    found = None if result.validation is None else validation_document(result.validation)
    default = None if found is None else found["default"]
    size = RESULT_ROWS[0].value(result)
    return {
        "file": name,
        "recipe": name.removesuffix(".onnx") + ".recipe.toml",
        "passes": [stage.pass_.name for stage in result.stages if stage.decisions],
        "bytes": size["bytes"],
        "ratio": size["ratio"],
        "speedup": found["latency"]["speedup"] if found and found["timed_on_target"] else None,
        "metric": None if default is None else default["metric"],
        "drop": None if default is None else default["drop"],
        "drop_interval": [None, None] if default is None else default["drop_interval"],
        "spent": number_or_none(result.spent),
        "within_budget": result.within_budget,
        "problems": list(result.problems),
        "warnings": list(result.warnings),
        "validation": found,
    }


def print_trade_off(found: Document, console: Console) -> None:
    """Print the table, and on what it rests."""
    table = new_table()
    for column in TRADE_OFF_COLUMNS:
        add_column(table, column.heading, number=column.number)
    for row in found["models"]:
        table.add_row(*(Text(printable(column.write(row))) for column in TRADE_OFF_COLUMNS))
    console.print(table)
    for sentence in _sentences(found):
        print_text(sentence, console)


def _sentences(found: Document) -> list[str]:
    known = [row["validation"] for row in found["models"] if row["validation"]]
    said = [*found["notes"]]
    if known:
        default = known[0]["default"]
        kind = "random input" if default["source"].startswith("random") else "untouched sample"
        text = f"All on the same {counted(default['samples'], kind)}"
        if default["confidence"] is not None and default["metric"] is not None:
            sure = confidence_text(default["confidence"])
            text += f"; drops are of {default['metric']}, each bound with {sure} confidence"
        said.insert(0, f"{text}. The budget: {known[0]['budget']}.")
    return said


def trade_off_markdown(found: Document) -> str:
    """The table as a page of Markdown, with the plot beside it."""
    lines = [f"<!-- {MARK} -->", f"# What {printable(found['source'])} can be", ""]
    lines += markdown_heading(TRADE_OFF_COLUMNS)
    lines += [markdown_row(TRADE_OFF_COLUMNS, row) for row in found["models"]]
    lines += ["", *_sentences(found), "", "![models by size and loss](frontier.svg)", ""]
    return "\n".join(lines)


def trade_off_plot(found: Document) -> str:
    """The models by size and share of the budget, both in logarithms, as SVG."""
    rows = [row for row in found["models"] if row["bytes"]]
    sizes = [math.log10(row["bytes"]) for row in rows] or [0.0]
    spent = [math.log10(max(row["spent"] or 0.0, _LEAST)) for row in rows] or [0.0]
    low, high = min(sizes) - 0.08, max(sizes) + 0.08
    floor, ceiling = min(spent) - 0.3, max(*spent, 0.0) + 0.3

    def place(size: float, share: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (size - low) / (high - low)
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (ceiling - share) / (ceiling - floor)
        return round(x, 1), round(y, 1)

    points = [place(size, share) for size, share in zip(sizes, spent, strict=True)]
    best = math.inf
    stairs: list[tuple[float, float]] = []
    for point, share in zip(points, spent, strict=True):
        # From the smallest on only what loses less is on the line.
        if share < best:
            best = share
            stairs.append(point)
    line = " ".join(f"{'L' if index else 'M'}{x} {y}" for index, (x, y) in enumerate(stairs))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            'font-family="system-ui, sans-serif" font-size="13" fill="#1a2230">'
        ),
        f"<!-- {MARK} -->",
        f"<title>{escape(printable(found['source']))}: models by size and loss</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for tick in _ticks(low, high):
        x, _ = place(math.log10(tick), floor)
        parts.append(
            f'<path d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#d5dbe3"/>'
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{size_text(tick)}</text>"
        )
    for power in range(math.ceil(floor), math.floor(ceiling) + 1):
        _, y = place(low, power)
        parts.append(
            f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="#d5dbe3"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{percent(10.0**power)}</text>'
        )
    parts += [
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">size of the file</text>',
        f'<text x="{_LEFT}" y="{_TOP - 8}">share of the budget that is spent</text>',
        f'<path d="{line}" fill="none" stroke="#255fa6" stroke-width="2"/>',
    ]
    for row, (x, y) in zip(rows, points, strict=True):
        speed = "" if row["speedup"] is None else f", {row['speedup']:.2f} times as fast"
        words = f"{row['file']}: {megabytes(row['bytes'])}{speed}, {_share(row['spent'])}"
        label = "" if row["speedup"] is None else f"{row['speedup']:.1f}x"
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="5" fill="#255fa6"><title>{escape(printable(words))}'
            f'</title></circle><text x="{x + 8}" y="{y - 6}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Round sizes between two logarithms."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = [factor * 10.0**power for power in powers for factor in (1, 1.5, 2, 3, 5, 7)]
    found = [tick for tick in every if low <= math.log10(tick) <= high]
    return found if len(found) <= 9 else found[:: math.ceil(len(found) / 9)]
