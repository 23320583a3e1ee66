"""Show what MODEL would be fed from DATA, and what looks wrong with it."""

from pathlib import Path
from typing import Any

import click

from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option, recipe_option
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.feeding import look_at_samples
from onnxpress.recipe import Recipe
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
@json_option
@saying_options
def command(
    model: Path, data: str, *, evaluation: str | None, recipe: Path | None, json_path: str | None
) -> None:
    """Print names, shapes and ranges, how the outputs are read, and what looks wrong."""
    check_json(json_path, [model, data, evaluation, recipe])
    how = None if recipe is None else Recipe.load(recipe).preparation
    with progress_line():
        found = look_at_samples(model, data, evaluation=evaluation, preparation=how)
    if not write_json(found, json_path):
        return
    conclude("; ".join(found["problems"]) or "nothing looks wrong")
    console = console_for()
    print_text(f"{found['samples']:,} samples of {found['source']}", console)
    rows = [(e["name"], e["type"], _shapes(e), *_values(e)) for e in found["inputs"]]
    headings = ("input", "type", "shape", "range", "mean and deviation")
    print_table("what the model is fed", headings, rows, console)
    labels = found["labels"]
    if labels is not None:
        text = f"{labels['classes']:,} classes, {labels['fewest']:,} to {labels['most']:,} of each"
        print_text(text, console, label="labels", style="bold")
    print_readings(found["readings"], console)
    for note in found["notes"]:
        print_text(note, console, label="note", style="bold")
    for problem in found["problems"]:
        print_text(problem, console, label="warning", style="yellow")
    if not found["problems"]:
        print_text("nothing looks wrong", console, style="green")


def _shapes(entry: dict[str, Any]) -> str:
    texts = [str(shape) for shape in entry["shapes"]]
    if entry["more_shapes"]:
        texts.append(f"and {entry['more_shapes']} more")
    return " ".join(texts)


def _values(entry: dict[str, Any]) -> tuple[str, str]:
    if "first" in entry:
        return repr(entry["first"]), ""
    if entry["low"] is None:
        return "empty", ""
    low, high = entry["low"], entry["high"]
    whole = low.is_integer() and high.is_integer()
    reach = f"{low:,.0f} to {high:,.0f}" if whole else f"{low:.4g} to {high:.4g}"
    return reach, f"{entry['mean']:.4g}, {entry['deviation']:.4g}"
