"""Show what is in MODEL, what each pass could do with it, and what is left alone and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from onnxpress.cli import completion
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option, overridable_option
from onnxpress.cli.saying import saying_options
from onnxpress.inspection import inspect_model
from onnxpress.report.outlook import (
    next_step,
    print_judged,
    print_outlook,
    print_reasons,
    time_words,
)
from onnxpress.report.printing import conclude, console_for, print_table, print_text
from onnxpress.report.reading import print_readings
from onnxpress.report.saying import some
from onnxpress.report.text import counted, megabytes
from onnxpress.report.transformer import print_transformer

__all__ = ["command"]

_SHOWN = 4
"""Reasons of a target."""


@click.command("inspect", help=__doc__)
@click.argument("model", type=PATH)
@click.option("--data", help="Samples; a few are run, whose answers say more of the outputs.")
@click.option(
    "--target",
    shell_complete=completion.targets,
    default="cpu",
    show_default=True,
    help="What the model is for; says what it refuses.",
)
@overridable_option
@json_option
@saying_options
def command(
    model: Path, *, data: str | None, target: str, overridable: bool | None, json_path: str | None
) -> None:
    """Print sizes, how outputs are read and judged, what passes could do, and why not more."""
    check_json(json_path, [model])
    found = inspect_model(model, target=target, data=data, overridable=overridable)
    if not write_json(found, json_path):
        return
    sizes = megabytes(found["bytes"]), megabytes(found["predicted_bytes"])
    conclude(f"{model}: {sizes[0]}, predicted {sizes[1]} without samples")
    console = console_for()
    print_text(
        f"opset {found['opset']}, {megabytes(found['bytes'])}, {found['nodes']:,} nodes, "
        f"{counted(found['layers'], 'layer')} with a constant weight",
        console,
    )
    print_transformer(found["transformer"], console)
    print_readings(found["readings"], console)
    print_judged(found["judged"], console)
    for problem in found["problems"]:
        print_text(problem, console, label="warning", style="yellow")
    if found["passes"]:
        print_outlook(found["passes"], console)
    if found["predicted_bytes"] < found["bytes"]:
        size = f"{megabytes(found['bytes'])} to about {megabytes(found['predicted_bytes'])}"
        print_text(f"{size} if all of that is kept", console, label="size", style="bold")
    if found["latency"] is not None:
        print_text(time_words(found["latency"]), console, label="time", style="bold")
    _print_largest(found, console)
    operators = ", ".join(f"{name} {count}" for name, count in found["operators"].items())
    print_text(f"operators: {operators}", console)
    _print_refused(found, console)
    for reason, counts in found["untreated"].items():
        names = ", ".join(f"{name} {count}" for name, count in counts.items())
        print_text(f"weights {reason}: {names}", console)
    print_reasons(found["passes"], console)
    step = next_step(found["passes"])
    if step:
        print_text(step, console, label="next", style="bold")


def _print_largest(found: Mapping[str, Any], console: Console) -> None:
    rows = [
        (entry["name"], entry["operator"], str(entry["shape"]), f"{entry['bytes']:,}")
        for entry in found["largest"]
    ]
    if rows:
        print_table("largest layers", ("layer", "operator", "shape", "bytes"), rows, console)
    if found["layers"] > len(rows):
        print_text(
            f"and {found['layers'] - len(rows):,} more; --json has the names of all", console
        )


def _print_refused(found: Mapping[str, Any], console: Console) -> None:
    for report in found["refused"]:
        text = f"takes {report['taken']:,} of {report['nodes']:,} nodes"
        print_text(text, console, label=report["target"], style="bold")
        for item in some(report["reasons"], _SHOWN):
            print_text(f"  {item['count']:,} {item['operator']}: {item['reason']}", console)
