"""The closing table and what explains it, on a console of at most 80 columns.

Nothing is printed as markup that came from a model, a file or a provider.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxpress.report import columns, difference, rows
from onnxpress.report.columns import Column, Document
from onnxpress.report.text import printable, stage_summary

__all__ = [
    "console_for",
    "print_difference",
    "print_doctor",
    "print_providers",
    "print_result",
    "print_table",
    "print_text",
    "print_validation",
]

_WIDTH = 80
_SHOWN_REASONS = 6
_STYLES = {"": "", "good": "green", "bad": "red", "note": "yellow"}


def console_for(stream: IO[str] | None = None) -> Console:
    """A console that uses at most 80 columns."""
    console = Console(file=stream or sys.stdout, highlight=False)
    console.width = min(console.width, _WIDTH)
    return console


def print_text(text: str, console: Console, *, label: str = "", style: str = "") -> None:
    """Print a sentence, broken at spaces where it can be, later lines indented.

    Args:
        text: leading spaces indent all of it.
        console: where to.
        label: a word before it.
        style: of the label.
    """
    indent = " " * (len(text) - len(text.lstrip(" ")))
    whole = Text.assemble(
        (printable(label), style), " " if label else "", printable(text[len(indent) :])
    )
    for index, line in enumerate(whole.wrap(console, console.width - len(indent) - 2)):
        line.rstrip()
        start = indent if index == 0 else f"{indent}  "
        console.print(Text(start) + line, soft_wrap=True)


def print_table(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], console: Console
) -> None:
    """Print a plain table."""
    table = _table(title)
    for heading in headings:
        _add_column(table, heading)
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    console.print(table)


def print_result(report: Document, *, written: Sequence[str], console: Console) -> None:
    """Print a report as `document` makes it, and where the files are."""
    validation = report["validation"]
    _print_closing(report, validation, console)
    if validation is not None:
        print_providers(validation["providers"], console)
    for stage in report["stages"]:
        print_text(stage_summary(stage), console, label=stage["pass"], style="bold")
    _print_left(report["stages"], console)
    if validation is not None:
        _print_all("warning", validation["warnings"], console, style="yellow")
    _print_all("not met", report["problems"], console, style="red")
    if report["within_budget"] and validation is not None:
        _print_all("within the budget", [validation["budget"]], console, style="green")
    for path in written:
        console.print(Text(f"wrote {printable(path)}"), soft_wrap=True)


def print_validation(validation: Document, console: Console) -> None:
    """Print what `onnxpress validate` found."""
    _print_closing(None, validation, console)
    outputs = columns.output_rows({**validation, "modes": {}})
    if len(outputs) > 1:
        _print_columns("outputs", columns.OUTPUT_COLUMNS, outputs, console)
    print_providers(validation["providers"], console)
    _print_all("warning", validation["warnings"], console, style="yellow")
    _print_all("not met", validation["problems"], console, style="red")
    if validation["within_budget"]:
        _print_all("within the budget", [validation["budget"]], console, style="green")
    elif not validation["problems"]:
        _print_all("not met", [validation["budget"]], console, style="red")


def print_providers(verdicts: Sequence[Document], console: Console) -> None:
    """Print what each execution provider did; an emulator's speed says nothing and is not there."""
    if not verdicts:
        return
    _print_columns("", columns.PROVIDER_COLUMNS, verdicts, console)
    for verdict in verdicts:
        for line in columns.notes(verdict):
            print_text(f"  {verdict['provider']}: {line}", console)


def print_difference(found: Document, console: Console) -> None:
    """Print what tells two models apart: where they part first, then what explains it."""
    same = found["same"]
    label, style = ("the same", "green") if same else ("different", "red")
    print_text(difference.verdict(found), console, label=label, style=style)
    for label, sentence in difference.first_in_words(found):
        print_text(sentence, console, label=label, style="bold")
    if found["worst"]:
        _print_columns(
            "where the error comes in, the worst first",
            [column for column in difference.PARTING_COLUMNS if column.key != "because"],
            found["worst"],
            console,
        )
    keep = difference.line_to_paste(found)
    if keep:
        console.print(Text(printable(keep)), soft_wrap=True)
    if found["outputs"]:
        _print_columns("outputs", difference.OUTPUT_COLUMNS, found["outputs"], console)
    for label, sentence in difference.remarks(found):
        print_text(sentence, console, label=label, style="bold")


def print_doctor(found: Mapping[str, Any], console: Console) -> None:
    """Print what `onnxpress doctor` found."""
    processor = ", ".join(
        f"{name} {'yes' if present else 'no'}" for name, present in found["processor"].items()
    )
    lines = [
        ("python", f"{found['python']} on {found['machine']}"),
        ("packages", ", ".join(f"{name} {v}" for name, v in found["versions"].items())),
        ("processor", processor),
        ("HTML report", found["html_report"]),
    ]
    print_table("this machine", ("what", "found"), lines, console)
    providers = [(e["provider"], e["state"], e["detail"]) for e in found["providers"]]
    print_table("providers", ("name", "here", "with what"), providers, console)
    print_providers(found["verdicts"], console)
    _print_all("not met", found["problems"], console, style="red")


def _table(title: str = "") -> Table:
    return Table(title=title or None, title_justify="left", box=None, pad_edge=False)


def _add_column(table: Table, heading: str, *, number: bool = False) -> None:
    justify: Literal["left", "right"] = "right" if number else "left"
    table.add_column(Text(printable(heading)), overflow="fold", justify=justify)


def _print_all(label: str, texts: Sequence[str], console: Console, *, style: str) -> None:
    for text in texts:
        print_text(text.strip(" "), console, label=label, style=style)


def _print_closing(report: Document | None, validation: Document | None, console: Console) -> None:
    table = _table()
    for heading in rows.LINE_HEADINGS:
        _add_column(table, heading, number=bool(heading))
    for line in rows.closing_lines(report, validation):
        table.add_row(*(Text(printable(cell)) for cell in line.cells))
    if table.row_count:
        console.print(table)


def _print_columns(
    title: str, listed: Sequence[Column[Any]], documents: Sequence[Document], console: Console
) -> None:
    table = _table(title)
    needed = columns.shown(listed, documents)
    for column in needed:
        _add_column(table, column.heading, number=column.number)
    for document in documents:
        table.add_row(*(_cell(column, document) for column in needed))
    console.print(table)


def _cell(column: Column[Any], document: Document) -> Text:
    tone = "" if column.tone is None else column.tone(document)
    return Text(printable(column.write(document)), style=_STYLES[tone])


def _print_left(stages: Sequence[Document], console: Console) -> None:
    reasons: dict[str, list[str]] = {}
    for stage in stages:
        if not stage["changed"]:
            continue
        for skip in stage["left"]:
            reasons.setdefault(f"{stage['pass']}: {skip['reason']}", []).append(skip["site"])
    if not reasons:
        return
    print_text("left alone or treated less:", console)
    most = sorted(reasons.items(), key=lambda item: -len(item[1]))
    for reason, sites in most[:_SHOWN_REASONS]:
        named = sites[0] + (f" and {len(sites) - 1} more" if len(sites) > 1 else "")
        print_text(f"  {named}: {reason}", console)
    if len(most) > _SHOWN_REASONS:
        print_text(f"  and {len(most) - _SHOWN_REASONS} more reasons; --json lists all", console)
