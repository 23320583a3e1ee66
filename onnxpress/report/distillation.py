"""What `onnxpress distill` found, as plain data and on the console."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from onnxpress.distillation.distilling import Distilled
from onnxpress.enumeration import few
from onnxpress.judge import Measurement
from onnxpress.report.columns import number_or_none
from onnxpress.report.document import validation_document
from onnxpress.report.printing import add_column, new_table, print_all, print_text
from onnxpress.report.text import counted, printable
from onnxpress.version import __version__

__all__ = ["distillation_document", "figure_lines", "print_distillation"]

_SHOWN = 4


def distillation_document(
    found: Distilled, *, teacher: str = "", student: str = "", command: Sequence[str] = ()
) -> dict[str, Any]:
    """A distillation as JSON-ready data.

    Args:
        found: what `distill` gave back.
        teacher: what it is called.
        student: likewise.
        command: the command line that asked for it, where there was one.
    """
    trained = found.trained
    return {
        "onnxpress": __version__,
        "command": shlex.join(command),
        "teacher": teacher,
        "student": student,
        "better": found.better,
        "why_not": found.why_not,
        "seconds": round(found.seconds, 2),
        "before": _figures(found.before),
        "after": _figures(found.after.measurement),
        "training": {
            "targets": list(found.targets),
            "samples": dict(zip(("training", "choosing", "judging"), found.samples, strict=True)),
            "mixtures": found.made_up,
            "batch": found.batch,
            "steps": trained.steps,
            "ended": trained.ended,
            "rate_halved": trained.halvings,
            "loss_before": number_or_none(trained.before),
            "loss_best": number_or_none(trained.best),
            "checks": [
                {
                    "step": check.step,
                    "training": number_or_none(check.training),
                    "chosen": number_or_none(check.chosen),
                }
                for check in trained.checks
            ],
        },
        "blocks": [
            {
                "end": block.end,
                "loss_before": number_or_none(block.before),
                "loss_best": number_or_none(block.after),
            }
            for block in found.blocks
        ],
        "trained": list(found.parameters),
        "left": dict(found.left),
        "missing": dict(found.missing),
        "gradients": [
            {
                "parameter": each.parameter,
                "by_rules": number_or_none(each.by_rules),
                "by_differences": number_or_none(each.by_differences),
            }
            for each in found.comparisons
        ],
        "warnings": list(found.warnings),
        "validation": validation_document(found.after),
    }


def _figures(measurement: Measurement) -> dict[str, Any]:
    return {
        "worst_sqnr_db": number_or_none(measurement.worst_sqnr_db),
        "metrics": [
            {
                "name": figure.name,
                "outputs": list(figure.outputs),
                "value": number_or_none(figure.value),
                "teacher": number_or_none(figure.reference),
            }
            for figure in measurement.metrics
        ],
    }


def print_distillation(
    found: Mapping[str, Any], *, written: Sequence[str], console: Console
) -> None:
    """Print a document of `distillation_document`, and where the files are."""
    table = new_table()
    for heading in ("", "student", "trained", "teacher"):
        add_column(table, heading, number=bool(heading))
    for line in figure_lines(found):
        table.add_row(*(Text(printable(cell)) for cell in line))
    console.print(table)
    training = found["training"]
    samples = training["samples"]
    print_text(
        f"{counted(training['steps'], 'step')} of {counted(training['batch'], 'sample')} in "
        f"{found['seconds']:.0f} s; {training['ended']}; {samples['training']} samples and "
        f"{training['mixtures']} mixtures of them trained, "
        f"{samples['choosing']} chose, {samples['judging']} judged",
        console,
        label="distill",
        style="bold",
    )
    if found["blocks"]:
        better = sum(block["loss_best"] < block["loss_before"] for block in found["blocks"])
        words = f"{better} of {counted(len(found['blocks']), 'block')} alone came nearer first"
        print_text(words, console, label="blocks", style="bold")
    print_text("; ".join(training["targets"]), console, label="followed", style="bold")
    reasons: dict[str, list[str]] = {}
    for name, reason in found["left"].items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in list(reasons.items())[:_SHOWN]:
        print_text(f"{few(names)}: {reason}", console, label="not trained", style="yellow")
    print_all("warning", found["warnings"], console, style="yellow")
    print_all("warning", found["validation"]["warnings"], console, style="yellow")
    if not found["better"]:
        print_text(
            f"{found['why_not']}; the student is written as it was",
            console,
            label="not better",
            style="red",
        )
    for path in written:
        console.print(Text(f"wrote {printable(path)}"), soft_wrap=True)


def figure_lines(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Figures of student, trained student and teacher, in words."""
    before, after, training = found["before"], found["after"], found["training"]
    lines = [
        (
            f"{was['name']} %",
            _number(was["value"]),
            _number(now["value"]),
            _number(was["teacher"]),
        )
        for was, now in zip(before["metrics"], after["metrics"], strict=True)
    ]
    sqnr = _number(before["worst_sqnr_db"]), _number(after["worst_sqnr_db"])
    lines.append(("worst output, dB", *sqnr, ""))
    best = training["loss_best"] if found["better"] else training["loss_before"]
    lines.append(("loss", _number(training["loss_before"]), _number(best), "0"))
    return lines


def _number(value: float | None) -> str:
    return "exact" if value is None else f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
