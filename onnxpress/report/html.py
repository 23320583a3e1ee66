"""The report as one HTML file that needs nothing else: tables and bars inside it.

Needs the extra `report` (jinja2), imported when used.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress.errors import UsageError
from onnxpress.output_file import FileSet, replace_file
from onnxpress.report import columns, difference, rows
from onnxpress.report.columns import Column, Document
from onnxpress.report.text import costly_layers, counted, judged_text, printable, stage_summary

__all__ = ["require_html", "write_difference", "write_html"]

_BARS = 20


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell; `style` names CSS classes."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class _TableRow:
    """A row, and the sentences that stand below it."""

    cells: tuple[_Cell, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as the page shows it, folded away under `summary` where there is one."""

    headings: tuple[_Cell, ...]
    rows: tuple[_TableRow, ...]
    summary: str = ""


@dataclass(frozen=True, slots=True)
class _Bars:
    """Bars of one unit: (label, share of the longest in percent, figure)."""

    title: str
    bars: tuple[tuple[str, float, str], ...]


def require_html() -> None:
    """Refuse before any work when the extra is not installed.

    Raises:
        UsageError: jinja2 is missing.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError(
            "--report needs jinja2: install it with pip install 'onnxpress[report]', "
            "or use --json [U007]"
        )


def write_html(report: Document, path: Path, files: FileSet) -> None:
    """Write a report as `document` makes it, as one of a set of files."""
    page = _page(
        "report.html.j2",
        report=report,
        validation=report["validation"],
        judged=_judged(report["validation"]),
        closing=_closing(report),
        bars=_closing_bars(report),
        outputs=_outputs(report),
        providers=_providers(report),
        stages=[(stage, *_stage(stage)) for stage in report["stages"]],
        costly=costly_layers(report["stages"]),
        recipe=report["recipe"].splitlines(),
    )
    with files.stage(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_difference(found: Document, path: str | Path) -> None:
    """Write what tells two models apart, whole or not at all."""
    parted = found["worst"]
    amounts = [min(row["adds"] or 1.0, 1.0) for row in parted]
    figures = [difference.decibels(row["adds"], row["adds_db"]) for row in parted]
    title = "Noise over signal that comes in at a tensor, of the worst; shorter is better"
    page = _page(
        "difference.html.j2",
        found=found,
        verdict=difference.verdict(found),
        first=difference.first_in_words(found),
        keep=difference.line_to_paste(found),
        remarks=difference.remarks(found),
        worst=_table(difference.PARTING_COLUMNS, parted) if parted else None,
        bars=_bars(title, [row["node"] for row in parted], amounts, figures) if parted else None,
        outputs=_table(difference.OUTPUT_COLUMNS, found["outputs"]),
        weights=_table(difference.WEIGHT_COLUMNS, found["weights"]["changed"])
        if found["weights"]["changed"]
        else None,
        tensors=_table(
            difference.TENSOR_COLUMNS, found["tensors"], f"all {len(found['tensors'])} tensors"
        ),
    )
    with replace_file(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _page(template: str, **content: object) -> str:
    import jinja2  # noqa: PLC0415 - an extra

    def escaped(value: object) -> object:
        return printable(value) if type(value) is str else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnxpress", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=escaped,
        trim_blocks=True,
    )
    return environment.get_template(template).render(**content)


def _judged(validation: Document | None) -> list[str]:
    """How outputs were read, and how far the figures carry, in sentences."""
    if validation is None:
        return []
    found = [
        f"{reading['output']}: {reading['words']} ({reading['kind']}: {reading['why']})."
        for reading in validation["readings"]
    ]
    judged = judged_text(validation)
    return [judged, *found] if judged else found


def _closing(report: Document) -> _Table:
    styles = ["number" if heading else "" for heading in rows.LINE_HEADINGS]
    return _Table(
        tuple(map(_Cell, rows.LINE_HEADINGS, styles)),
        tuple(
            _TableRow(tuple(map(_Cell, line.cells, styles)))
            for line in rows.closing_lines(report, report["validation"])
        ),
    )


def _closing_bars(report: Document) -> list[_Bars]:
    return [
        _bars(
            line.heading,
            ("original", "optimized"),
            line.amounts,
            (line.original, line.optimized),
        )
        for line in rows.closing_lines(report, report["validation"])
        if line.amounts is not None
    ]


def _bars(
    title: str, labels: Sequence[str], amounts: Sequence[float], figures: Sequence[str]
) -> _Bars:
    longest = max(amounts) or 1.0
    shares = [round(100 * amount / longest, 2) for amount in amounts]
    return _Bars(title, tuple(zip(labels, shares, figures, strict=True)))


def _outputs(report: Document) -> _Table | None:
    validation = report["validation"]
    if validation is None:
        return None
    return _table(columns.OUTPUT_COLUMNS, columns.output_rows(validation))


def _providers(report: Document) -> _Table | None:
    validation = report["validation"]
    if validation is None or not validation["providers"]:
        return None
    verdicts = validation["providers"]
    found = _table(columns.PROVIDER_COLUMNS, verdicts)
    noted = [
        _TableRow(row.cells, tuple(columns.notes(verdict)))
        for row, verdict in zip(found.rows, verdicts, strict=True)
    ]
    return _Table(found.headings, tuple(noted))


def _stage(stage: Document) -> tuple[str, list[_Table], _Bars | None]:
    """(what it did, tables of its decisions and of what it left, bars of the largest errors)."""
    decisions, left = stage["decisions"], stage["left"]
    tables = []
    if decisions:
        summary = (
            f"{counted(len(decisions), 'decision')}, {counted(stage['tried'], 'model')} measured"
        )
        tables.append(_table(columns.DECISION_COLUMNS, decisions, summary))
    if left:
        summary = f"{counted(len(left), 'site')} left alone or treated less"
        tables.append(_table(columns.SKIP_COLUMNS, left, summary))
    errors = [(decision["predicted_error"] or 0.0, decision["site"]) for decision in decisions]
    errors = sorted((error for error in errors if error[0] > 0), reverse=True)[:_BARS]
    if len(errors) < 2:
        return stage_summary(stage), tables, None
    amounts, sites = zip(*errors, strict=True)
    figures = [f"{100 * amount:.3g}%" for amount in amounts]
    title = f"Predicted error, in percent of a layer's output power: the largest {len(errors)}"
    return stage_summary(stage), tables, _bars(title, sites, amounts, figures)


def _table(
    listed: Sequence[Column[Any]], documents: Sequence[Document], summary: str = ""
) -> _Table:
    needed = columns.shown(listed, documents)
    return _Table(
        tuple(_Cell(column.heading, _style(column)) for column in needed),
        tuple(
            _TableRow(tuple(_Cell(column.write(row), _style(column, row)) for column in needed))
            for row in documents
        ),
        summary,
    )


def _style(column: Column[Any], row: Document | None = None) -> str:
    tone = column.tone(row) if column.tone is not None and row is not None else ""
    return f"{'number' if column.number else ''} {tone}".strip()
