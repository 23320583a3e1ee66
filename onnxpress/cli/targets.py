"""List the targets; `show` explains one, `check` asks its rules about a model."""

from pathlib import Path

import click

from onnxpress.cli import completion
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option
from onnxpress.cli.saying import saying_options
from onnxpress.conversion import settle_weights
from onnxpress.model_file import load
from onnxpress.report.printing import console_for
from onnxpress.report.targets import (
    print_static,
    print_target,
    print_targets,
    static_document,
    target_document,
)
from onnxpress.targets import load_target, target_names
from onnxpress.targets.static_rules import static_report

__all__ = ["command"]


@click.group("targets", invoke_without_command=True, help=__doc__)
@json_option
@saying_options
@click.pass_context
def command(ctx: click.Context, *, json_path: str | None) -> None:
    """Without a command of its own: list."""
    if ctx.invoked_subcommand is not None:
        return
    check_json(json_path, [])
    found = [load_target(name) for name in target_names()]
    if write_json({target.name: target_document(target) for target in found}, json_path):
        print_targets(found, console_for(always=True))


@command.command()
@click.argument("name", shell_complete=completion.targets)
@json_option
@saying_options
def show(name: str, *, json_path: str | None) -> None:
    """Explain the target NAME (or the path of a .toml file), or what several share: NAME+NAME."""
    check_json(json_path, [name])
    target = load_target(name)
    if write_json(target_document(target), json_path):
        print_target(target, console_for(always=True))


@command.command()
@click.argument("model", type=PATH)
@click.option(
    "--target",
    "names",
    shell_complete=completion.targets,
    multiple=True,
    required=True,
    help="Whose rules; may be repeated.",
)
@json_option
@saying_options
def check(model: Path, *, names: tuple[str, ...], json_path: str | None) -> None:
    """Ask the rules of targets which nodes of MODEL they would take; nothing is run."""
    check_json(json_path, [model, *names])
    loaded, _ = settle_weights(load(model), None)
    members = [member for name in names for member in load_target(name).members]
    reports = [static_report(loaded, load_target(member)) for member in dict.fromkeys(members)]
    if write_json({report.target: static_document(report) for report in reports}, json_path):
        for report in reports:
            print_static(report, console_for(always=True))
