"""Tables as the page shows them: plain ones, which a script makes sortable and searchable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxpress.report.columns import Column, Document, shown

__all__ = ["Cell", "Table", "TableRow", "table_of"]

_MOST_ROWS = 300
"""Of a table of one pass: a page with tens of thousands of rows takes seconds to open."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell.

    Attributes:
        text: what it says.
        style: CSS classes.
        order: what rows are sorted by, where that is a number; empty: the text.
    """

    text: str
    style: str = ""
    order: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row, and the sentences that stand below it."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        headings: of the columns.
        rows: that are shown.
        summary: what it is about; it is folded away under it where the page does so.
        rest: how many rows are not shown, in a sentence; empty where all are.
        searchable: whether the script adds sorting and a search.
    """

    headings: tuple[Cell, ...]
    rows: tuple[TableRow, ...]
    summary: str = ""
    rest: str = ""
    searchable: bool = False


def table_of(
    listed: Sequence[Column[Any]],
    documents: Sequence[Document],
    summary: str = "",
    *,
    most: int = _MOST_ROWS,
    searchable: bool = False,
) -> Table:
    """A table with the columns that say something.

    Args:
        listed: the columns.
        documents: rows as JSON has them.
        summary: what it is about.
        most: rows that are shown, the first; the others are counted.
        searchable: whether rows can be sorted and searched.
    """
    needed = shown(listed, documents)
    left = len(documents) - most
    rest = f"{left:,} more rows are in the JSON document (--json)." if left > 0 else ""
    return Table(
        tuple(Cell(column.heading, _style(column, searchable=searchable)) for column in needed),
        tuple(
            TableRow(
                tuple(
                    Cell(
                        column.write(row),
                        _style(column, row, searchable=searchable),
                        _order(column, row),
                    )
                    for column in needed
                )
            )
            for row in documents[:most]
        ),
        summary,
        rest,
        searchable,
    )


def _style(column: Column[Any], row: Document | None = None, *, searchable: bool = False) -> str:
    tone = column.tone(row) if column.tone is not None and row is not None else ""
    own = f"of-{column.key}" if searchable else ""
    return " ".join(filter(None, ("number" if column.number else "", tone, own)))


def _order(column: Column[Any], row: Document) -> str:
    value = row.get(column.key)
    return repr(value) if column.number and isinstance(value, int | float) else ""
