"""Check what was made of MODEL against what a team has agreed on: budget, size, speed."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnxpress.checking import check
from onnxpress.cli.choice import Choice
from onnxpress.cli.exit_status import NOT_MET
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option, judging_options, threads_option
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.constraints import Requirement
from onnxpress.judge import Budget
from onnxpress.report.printing import conclude, console_for, print_table
from onnxpress.report.text import printable

__all__ = ["command"]

_ESCAPED = {"%": "%25", "\r": "%0D", "\n": "%0A"}
"""What workflow commands of GitHub Actions take for their own."""


@click.command("check", help=__doc__)
@click.argument("model", type=PATH)
@click.option("--recipe", type=PATH, metavar="FILE.toml", help="Makes the model anew.")
@click.option("--optimized", type=PATH, metavar="FILE.onnx", help="Was made of it earlier.")
@click.option("--max-size", metavar="SIZE", help="Of the file, as 4MB; 4MiB is a little more.")
@click.option(
    "--min-speedup",
    type=click.FloatRange(min=0, min_open=True),
    metavar="TIMES",
    help="As fast as MODEL at least, on this machine: 1.5.",
)
@judging_options
@click.option(
    "--format",
    "form",
    type=Choice(["text", "github"]),
    default="text",
    show_default=True,
    help="github: annotations of a workflow.",
)
@json_option
@threads_option
@saying_options
def command(
    model: Path,
    *,
    recipe: Path | None,
    optimized: Path | None,
    max_size: str | None,
    min_speedup: float | None,
    calibration: str | None,
    evaluation: str | None,
    form: str,
    json_path: str | None,
    threads: int,
    **budget: Any,
) -> None:
    """Print what was wanted and found; exit status 1 where something is not met."""
    check_json(json_path, [model, recipe, optimized, calibration, evaluation])
    with progress_line() as progress:
        found = check(
            model,
            recipe=recipe,
            optimized=optimized,
            calibration=calibration,
            evaluation=evaluation,
            budget=Budget(**budget),
            max_size=max_size,
            min_speedup=min_speedup,
            threads=threads,
            progress=progress,
        )
    met = all(requirement.met for requirement in found)
    document = {"met": met, "requirements": [asdict(requirement) for requirement in found]}
    if write_json(document, json_path):
        if form == "github":
            for requirement in found:
                click.echo(_annotation(requirement, model))
        else:
            unmet = [f"{r.name}: {r.found}, wanted: {r.wanted}" for r in found if not r.met]
            conclude(f"NOT MET: {'; '.join(unmet)}" if unmet else f"all {len(found)} are met")
            rows = [("met" if r.met else "NOT MET", r.name, r.wanted, r.found) for r in found]
            print_table("", ("", "what", "wanted", "found"), rows, console_for())
    if not met:
        sys.exit(NOT_MET)


def _annotation(requirement: Requirement, model: Path) -> str:
    """A line that GitHub Actions shows beside a run: an error, or a notice."""
    level = "notice" if requirement.met else "error"
    text = f"{model}: {requirement.name}: {requirement.found}; wanted: {requirement.wanted}"
    escaped = "".join(_ESCAPED.get(letter, letter) for letter in printable(text))
    return f"::{level} title=onnxpress check::{escaped}"
