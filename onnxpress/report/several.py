"""What became of several models: one table, then why where it is not as hoped."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from onnxpress.report.columns import Column, Document, sqnr_text, worst_output
from onnxpress.report.printing import add_column, new_table, print_text
from onnxpress.report.text import decimals, megabytes, printable

__all__ = ["SEVERAL_COLUMNS", "print_several"]

_STYLES = {"within the budget": "green", "not met": "red", "failed": "red", "fault": "red"}


def _of_report(write: Callable[[Document], str]) -> Callable[[Document], str]:
    """A cell of the report; nothing where the model failed."""
    return lambda row: "" if row["report"] is None else write(row["report"])


def _of_validation(write: Callable[[Document], str]) -> Callable[[Document], str]:
    return _of_report(
        lambda report: "" if not report["validation"] else write(report["validation"])
    )


def _level(validation: Document) -> str:
    outputs = validation["default"]["outputs"]
    return sqnr_text(worst_output(outputs)[1]).removesuffix(" dB") if outputs else ""


def _drop(validation: Document) -> str:
    found = validation["default"]
    return "" if found["drop"] is None else decimals(found["drop"])


def _speed(validation: Document) -> str:
    speedup = validation["latency"]["speedup"] if validation["timed_on_target"] else None
    return "" if speedup is None else f"{speedup:.2f}"


def _status(row: Document) -> str:
    return "within" if row["status"] == "within the budget" else str(row["status"])


SEVERAL_COLUMNS: tuple[Column[Any], ...] = (
    Column("source", "model", None, number=False),
    Column("from", "from", None, _of_report(lambda r: megabytes(r["size"]["original_bytes"]))),
    Column("to", "to", None, _of_report(lambda r: megabytes(r["size"]["bytes"]))),
    Column("ratio", "times smaller", None, _of_report(lambda r: f"{r['size']['ratio']:.2f}")),
    Column(
        "speedup",
        "times as fast",
        None,
        _of_validation(_speed),
    ),
    Column("drop", "drop", None, _of_validation(_drop)),
    Column("level", "worst dB", None, _of_validation(_level)),
    Column("status", "", None, _status, number=False),
)


def print_several(found: Document, console: Console) -> None:
    """Print the table, and the reasons of models that are not within the budget."""
    table = new_table()
    for column in SEVERAL_COLUMNS:
        add_column(table, column.heading, number=column.number)
    for row in found["models"]:
        style = _STYLES.get(row["status"], "")
        texts = [printable(column.write(row)) for column in SEVERAL_COLUMNS]
        table.add_row(*(Text(text) for text in texts[:-1]), Text(texts[-1], style=style))
    console.print(table)
    for row in found["models"]:
        if row["message"]:
            code = f" [{row['code']}]" if row["code"] else ""
            # An error begins with the file that it is about.
            message = row["message"].removeprefix(f"{row['source']}: ")
            label = f"{row['source']} {row['status']}:"
            print_text(f"{message}{code}", console, label=label, style="red")
