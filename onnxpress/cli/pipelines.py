"""`onnxpress optimize` of a pipeline: a description in TOML, or a folder of models."""

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from onnxpress.cli.begun import left_of
from onnxpress.cli.exit_status import INTERRUPTED, NOT_MET
from onnxpress.cli.interruption import interruptible
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.progress import progress_line
from onnxpress.errors import UsageError
from onnxpress.judge import Budget
from onnxpress.pipelines import PipelineResult, optimize_pipeline, read_folder
from onnxpress.pipelines.result import files_read, places_in, require_place
from onnxpress.providers import NO_PROVIDERS
from onnxpress.report.html import require_html
from onnxpress.report.pipeline import FIGURE_HEADINGS, figure_rows, write_pipeline
from onnxpress.report.printing import conclude, console_for, print_all, print_table, print_text
from onnxpress.report.text import megabytes

__all__ = ["optimize_pipeline_and_write"]

_OF_ONE_MODEL: Mapping[str, object] = {
    "external_data": False,
    "per_target": False,
    "opset": None,
    "float16": "no",
    "fix_shapes": (),
    "providers": NO_PROVIDERS,
    "overridable": None,
    "max_size": None,
    "min_speedup": None,
    "max_latency": None,
}
"""Options that a pipeline does not take, with what they are where they are not given."""


def optimize_pipeline_and_write(
    path: Path,
    *,
    output: Path | None,
    report: Path | None,
    json_path: str | None,
    force: bool,
    dry_run: bool,
    targets: tuple[str, ...],
    **options: Any,
) -> None:
    """Optimize all parts within one budget and write a folder; exit status 1 where it falls short.

    Args:
        path: a description, or a folder in a known layout.
        output: a folder; `None`: PATH with .opt behind its name.
        report: an HTML file.
        json_path: a JSON file, or `-`.
        force: replace files that are no earlier results.
        dry_run: print the description and write nothing.
        targets: names.
        options: the others of `onnxpress optimize`.
    """
    for name, usual in _OF_ONE_MODEL.items():
        if options.pop(name) != usual:
            option = {"providers": "ep", "fix_shapes": "fix-shape"}.get(name, name)
            raise UsageError(
                f"--{option.replace('_', '-')} is of one model, and {path} is a pipeline; leave it "
                "out, or optimize the part alone [U008]"
            )
    pipeline = read_folder(path)
    if dry_run:
        click.echo(pipeline.to_toml(beside=_base(path)), nl=False)
        return
    base = _base(path).resolve()
    # A name ends where it ends: `whisper-v1.5` has no suffix.
    folder = output or base.parent / f"{base.name or 'pipeline'}.opt"
    require_place(pipeline, folder, force=force)
    read = [path, *(options.get(name) for name in ("calibration", "evaluation", "recipe"))]
    taken = [*read, *places_in(folder, pipeline), *files_read(pipeline)]
    check_json(json_path, [*taken, report])
    if report is not None:
        require_html()
        check_json(str(report), taken, can_force=force, option="--report")
    budget = Budget(**{field.name: options.pop(field.name) for field in fields(Budget)})
    with interruptible() as interruption:
        options["time_limit"] = left_of(options["time_limit"])
        with progress_line() as progress:
            result = optimize_pipeline(
                pipeline,
                budget=budget,
                target=targets,
                progress=progress,
                stop=interruption,
                **options,
            )
        written = result.save(folder, force=force)
        asked = report is not None or json_path is not None
        found = result.document(["onnxpress", *sys.argv[1:]], figures=asked)
        if report is not None:
            write_pipeline(found, report)
            written.append(report)
        if write_json(found, json_path):
            _print(result, found, folder, written)
    if interruption.wanted:
        sys.exit(INTERRUPTED)
    if not result.within_budget:
        sys.exit(NOT_MET)


def _base(path: Path) -> Path:
    """The folder of a description, or itself."""
    return path if path.is_dir() else path.parent


def _print(
    result: PipelineResult, found: Mapping[str, Any], folder: Path, written: list[Path]
) -> None:
    sizes = f"{megabytes(result.original_bytes)} to {megabytes(result.bytes)}"
    conclude(f"{folder}: {sizes}, {result.judgement.verdict}")
    console = console_for()
    print_text(f"{result.judgement}", console, label="verdict", style="bold")
    print_text(result.budget, console, label="budget", style="bold")
    print_all("not met", list(result.problems), console, style="red")
    rows = [
        [
            part.name,
            megabytes(part.original_bytes),
            megabytes(part.bytes),
            f"{part.spent:.0%}",
            "optimized" if part.result is not None else "as it was",
        ]
        for part in result.parts
    ]
    rows.append(["all", *(megabytes(n) for n in (result.original_bytes, result.bytes)), "", ""])
    print_table("parts", ["part", "original", "result", "budget spent", ""], rows, console)
    rows = [list(line) for line in figure_rows(found)]
    print_table("figures", list(FIGURE_HEADINGS), rows, console)
    print_all("note", list(result.warnings), console, style="yellow")
    print_all("written", [str(path) for path in written], console, style="")
