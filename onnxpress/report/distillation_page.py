"""The page of a distillation, made of the document that `--json` writes."""

from collections import defaultdict
from pathlib import Path

from onnxpress.enumeration import few
from onnxpress.output_file import FileSet
from onnxpress.report import columns
from onnxpress.report.columns import Document
from onnxpress.report.distillation import figure_lines
from onnxpress.report.headline import readings
from onnxpress.report.loss_chart import loss_charts
from onnxpress.report.rendering import rendered
from onnxpress.report.tables import Cell, Table, TableRow, table_of
from onnxpress.report.text import counted

__all__ = ["write_distillation"]

_NAMED = 3


def write_distillation(found: Document, path: Path, files: FileSet) -> None:
    """Write a document of `distillation_document` as a page, as one of a set of files."""
    training, validation = found["training"], found["validation"]
    page = rendered(
        "distillation.html.j2",
        found=found,
        verdict=_verdict(found),
        figures=_figures(found),
        charts=loss_charts(training["checks"]),
        steps=_steps(found),
        left=_left(found["left"]),
        warnings=[*found["warnings"], *validation["warnings"]],
        readings=readings(validation),
        outputs=table_of(columns.OUTPUT_COLUMNS, columns.output_rows(validation)),
    )
    with files.stage(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _verdict(found: Document) -> str:
    if not found["better"]:
        return f"Not better: {found['why_not']}. The student is written as it was."
    changes = [
        f"{now['name']} {was['value']:.2f} to {now['value']:.2f}% (teacher {was['teacher']:.2f})"
        for was, now in zip(found["before"]["metrics"], found["after"]["metrics"], strict=True)
        if None not in (was["value"], now["value"], was["teacher"])
    ]
    sides = [found[key]["worst_sqnr_db"] for key in ("before", "after")]
    if None not in sides:
        changes.append(f"the worst output {sides[0]:.1f} to {sides[1]:.1f} dB")
    return f"Better: {'; '.join(changes)}." if changes else "Better."


def _figures(found: Document) -> Table:
    styles = ("", "number", "number", "number")
    headings = ("figure", "student", "trained", "teacher")
    return Table(
        tuple(map(Cell, headings, styles)),
        tuple(TableRow(tuple(map(Cell, line, styles))) for line in figure_lines(found)),
    )


def _steps(found: Document) -> str:
    training = found["training"]
    samples = training["samples"]
    return (
        f"{counted(training['steps'], 'step')} of {counted(training['batch'], 'sample')} in "
        f"{found['seconds']:.0f} s; {training['ended']}. {counted(samples['training'], 'sample')} "
        f"and {counted(training['mixtures'], 'mixture')} of them trained, "
        f"{samples['choosing']:,} chose, {samples['judging']:,} judged."
    )


def _left(left: Document) -> list[tuple[str, str]]:
    """Why weights were not trained, and some of their names."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in left.items():
        reasons[reason].append(name)
    return [(reason, few(names, _NAMED)) for reason, names in reasons.items()]
