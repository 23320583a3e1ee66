"""The closing table and what explains it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from onnxpress.enumeration import few
from onnxpress.report import columns, difference, rows
from onnxpress.report.columns import Column, Document
from onnxpress.report.printing import (
    add_column,
    new_table,
    print_all,
    print_command,
    print_filled,
    print_table,
    print_text,
)
from onnxpress.report.reading import print_readings
from onnxpress.report.saying import some
from onnxpress.report.text import (
    costly_layers,
    counted,
    judged_text,
    printable,
    stage_summary,
)

__all__ = [
    "print_difference",
    "print_doctor",
    "print_providers",
    "print_result",
    "print_validation",
    "result_line",
    "unmet_budget",
]

_SHOWN_REASONS = 6
_FIGURES = re.compile(r"\d[\d.,]*")
_STYLES = {"": "", "good": "green", "bad": "red", "note": "yellow"}


def print_result(report: Document, *, written: Sequence[str], console: Console) -> None:
    """Print a report as `document` makes it, and where the files are."""
    validation = report["validation"]
    if validation is not None:
        print_readings(validation["readings"], console)
        _print_verdict(validation, console, within=report["within_budget"])
    reached = [
        f"{r['name']} {r['wanted']}: {r['found']}" for r in report["requirements"] if r["met"]
    ]
    print_all("reached", reached, console, style="green")
    print_all("not met", report["problems"], console, style="red")
    _print_closing(report, validation, console)
    if validation is not None:
        print_providers(validation["providers"], console)
    for stage in report["stages"]:
        print_text(stage_summary(stage), console, label=stage["pass"], style="bold")
    _print_left(report["stages"], console)
    costly = costly_layers(report["stages"])
    if costly:
        print_text("layers that cost most fidelity:", console)
    for line in costly:
        print_text(f"  {line}", console)
    if validation is not None:
        print_all("warning", validation["warnings"], console, style="yellow")
    print_all("warning", report["warnings"], console, style="yellow")
    if report["next"]:
        print_text(report["next"], console, label="next", style="bold")
    for path in written:
        console.print(Text(f"wrote {printable(path)}"), soft_wrap=True)


def result_line(report: Document) -> str:
    """The verdict, the size and the speed."""
    parts = ["within the budget"]
    if not report["within_budget"]:
        parts = [f"not met: {'; '.join(report['problems'])}"]
    parts += [
        f"{line.heading} {line.original} to {line.optimized}"
        for line in rows.closing_lines(report, report["validation"])
        if line.heading in ("size", "latency")
    ]
    return ", ".join(parts)


def print_validation(
    validation: Document, console: Console, sizes: tuple[int, int] | None = None
) -> None:
    """Print what `onnxpress validate` found; `sizes`: bytes of the original and of the model."""
    print_readings(validation["readings"], console)
    _print_verdict(validation, console, within=validation["within_budget"])
    print_all("not met", validation["problems"], console, style="red")
    if not validation["within_budget"] and not validation["problems"]:
        print_all("not met", [unmet_budget(validation)], console, style="red")
    size = None
    if sizes is not None:
        before, after = sizes
        size = {"size": {"original_bytes": before, "bytes": after, "ratio": before / after}}
    _print_closing(size, validation, console)
    outputs = columns.output_rows({**validation, "modes": {}})
    if len(outputs) > 1:
        told = [column for column in columns.OUTPUT_COLUMNS if column.key != "options"]
        _print_columns("outputs", told, outputs, console)
    print_providers(validation["providers"], console)
    print_all("warning", validation["warnings"], console, style="yellow")


def unmet_budget(validation: Document) -> str:
    """What of the budget is broken."""
    found = validation["judgement"]
    return str(found["reason"] if found and found["reason"] else validation["budget"])


def _print_verdict(validation: Document, console: Console, *, within: bool) -> None:
    """Print whether the budget is held, and how far the samples carry that."""
    if not within:
        return
    text = f"{validation['budget']}. {judged_text(validation)}".strip()
    print_all("within the budget", [text], console, style="green")


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
    print_command(difference.command_to_paste(found), console)
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
        *((f"reads {kind}", state) for kind, state in found["readers"].items()),
    ]
    print_table("this machine", ("what", "found"), lines, console)
    providers = [(e["provider"], e["state"], e["detail"]) for e in found["providers"]]
    print_table("providers", ("name", "here", "with what"), providers, console)
    print_providers(found["verdicts"], console)
    print_all("not met", found["problems"], console, style="red")


def _print_closing(report: Document | None, validation: Document | None, console: Console) -> None:
    table = new_table()
    for heading in rows.LINE_HEADINGS:
        add_column(table, heading, number=bool(heading))
    for line in rows.closing_lines(report, validation):
        table.add_row(*(Text(printable(cell)) for cell in line.cells))
    if table.row_count:
        console.print(table)


def _print_columns(
    title: str, listed: Sequence[Column[Any]], documents: Sequence[Document], console: Console
) -> None:
    table = new_table()
    needed = columns.shown(listed, documents)
    for column in needed:
        add_column(table, column.heading, number=column.number)
    for document in documents:
        table.add_row(*(_cell(column, document) for column in needed))
    print_filled(table, console, title=title)


def _cell(column: Column[Any], document: Document) -> Text:
    tone = "" if column.tone is None else column.tone(document)
    return Text(printable(column.write(document)), style=_STYLES[tone])


def _print_left(stages: Sequence[Document], console: Console) -> None:
    reasons: dict[str, tuple[str, list[str]]] = {}
    for stage in stages:
        if not stage["changed"]:
            continue
        for skip in stage["left"]:
            code = f" [{skip['code']}]" if skip["code"] else ""
            reason = f"{stage['pass']}: {skip['reason']}{code}"
            # Reasons that differ in their figures alone are told once, with the first ones.
            alike = reasons.setdefault(_FIGURES.sub("#", reason), (reason, []))
            alike[1].append(skip["site"])
    if not reasons:
        return
    print_text("left alone or treated less:", console)
    most = sorted(reasons.values(), key=lambda item: -len(item[1]))
    shown = some(most, _SHOWN_REASONS)
    for reason, sites in shown:
        print_text(f"  {few(sites)}: {reason}", console)
    if len(most) > len(shown):
        more = counted(len(most) - len(shown), "more reason")
        print_text(f"  and {more}; -v lists all", console)
