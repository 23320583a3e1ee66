"""Show what MODEL would be fed from DATA, and what looks wrong with it."""

from pathlib import Path

import click

from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option, recipe_option
from onnxpress.cli.pages import check_page
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.feeding import look_at_samples
from onnxpress.recipe import Recipe
from onnxpress.report.data_page import (
    INPUT_HEADINGS,
    input_rows,
    label_line,
    sample_line,
    write_data,
)
from onnxpress.report.printing import conclude, console_for, print_table, print_text
from onnxpress.report.reading import print_readings

__all__ = ["command"]


@click.command("data", help=__doc__)
@click.argument("model", type=PATH)
@click.argument("data")
@click.option(
    "--evaluation", metavar="DATA", help="Other samples, which should have none in common."
)
@recipe_option
@click.option(
    "--report",
    type=PATH,
    metavar="FILE.html",
    help="Write a page that shows three samples as pictures, sounds or texts.",
)
@json_option
@saying_options
def command(
    model: Path,
    data: str,
    *,
    evaluation: str | None,
    recipe: Path | None,
    report: Path | None,
    json_path: str | None,
) -> None:
    """Print names, shapes and ranges, how the outputs are read, and what looks wrong."""
    check_json(json_path, [model, data, evaluation, recipe])
    check_page(report, (model, data, recipe))
    how = None if recipe is None else Recipe.load(recipe).preparation
    with progress_line():
        found = look_at_samples(model, data, evaluation=evaluation, preparation=how)
    if report is not None:
        write_data(found, report)
    if not write_json(found, json_path):
        return
    conclude("; ".join(found["problems"]) or "nothing looks wrong")
    console = console_for()
    print_text(f"{found['samples']:,} samples of {found['source']}", console)
    print_table("what the model is fed", INPUT_HEADINGS, input_rows(found), console)
    if label_line(found):
        print_text(label_line(found), console, label="labels", style="bold")
    for sample in found["shown"]:
        print_text(sample_line(sample), console, label=f"sample {sample['sample']}", style="bold")
    print_readings(found["readings"], console)
    for note in found["notes"]:
        print_text(note, console, label="note", style="bold")
    for problem in found["problems"]:
        print_text(problem, console, label="warning", style="yellow")
    if not found["problems"]:
        print_text("nothing looks wrong", console, style="green")
    if report is not None:
        print_text(f"wrote {report}", console)
