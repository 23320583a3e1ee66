"""Show what is in MODEL, what can be optimized and what cannot, and why."""

from pathlib import Path

import click

from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, debug_option, json_option, overridable_option
from onnxpress.inspection import inspect_model
from onnxpress.report.printing import console_for, print_table, print_text
from onnxpress.report.reading import print_readings
from onnxpress.report.text import opened_by_data

__all__ = ["command"]


@click.command("inspect", help=__doc__)
@click.argument("model", type=PATH)
@click.option("--data", help="Samples; a few are run, whose answers say more of the outputs.")
@overridable_option
@json_option
@debug_option
def command(
    model: Path, *, data: str | None, overridable: bool | None, json_path: str | None
) -> None:
    """Print sizes, how outputs are read, the largest layers, and what each pass says."""
    check_json(json_path, [model])
    found = inspect_model(model, data=data, overridable=overridable)
    if not write_json(found, json_path):
        return
    console = console_for()
    console.print(
        f"opset {found['opset']}, {found['bytes'] / 1e6:.2f} MB, {found['nodes']} nodes, "
        f"{found['layers']} layers with a constant weight"
    )
    print_readings(found["readings"], console)
    rows = [
        (entry["name"], entry["operator"], str(entry["shape"]), f"{entry['bytes']:,}")
        for entry in found["largest"]
    ]
    if rows:
        print_table("largest layers", ("layer", "operator", "shape", "bytes"), rows, console)
    if found["layers"] > len(rows):
        print_text(f"and {found['layers'] - len(rows)} more; --json has the names of all", console)
    for problem in found["problems"]:
        print_text(problem, console, label="warning", style="yellow")
    operators = ", ".join(f"{name} {count}" for name, count in found["operators"].items())
    print_text(f"operators: {operators}", console)
    for reason, counts in found["untreated"].items():
        names = ", ".join(f"{name} {count}" for name, count in counts.items())
        print_text(f"weights {reason}: {names}", console)
    opened = opened_by_data(
        (entry["pass"], reason, count)
        for entry in found["passes"]
        for reason, count in entry["reasons"].items()
    )
    if opened:
        print_text(f"{opened} (onnxpress optimize)", console, label="next", style="bold")
    for entry in found["passes"]:
        sites = f"{entry['sites']} sites without data"
        print_text(sites, console, label=entry["pass"], style="bold")
        for reason, count in entry["reasons"].items():
            print_text(f"  {count} left: {reason}", console)
