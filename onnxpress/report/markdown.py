"""Tables as Markdown, from the same columns: what benchmarks print and commit."""

from collections.abc import Sequence
from typing import Any

from onnxpress.report.columns import Column, Document
from onnxpress.report.text import printable

__all__ = ["markdown_heading", "markdown_line", "markdown_row"]


def markdown_heading(columns: Sequence[Column[Any]]) -> list[str]:
    """The two lines above a table."""
    rule = ["---:" if column.number else "---" for column in columns]
    return [markdown_line([column.heading for column in columns]), markdown_line(rule)]


def markdown_row(columns: Sequence[Column[Any]], row: Document) -> str:
    """One line of a table, from the row as JSON has it."""
    return markdown_line([column.write(row) for column in columns])


def markdown_line(cells: Sequence[str]) -> str:
    """Cells as one line."""
    written = [printable(cell).replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(written)} |"
