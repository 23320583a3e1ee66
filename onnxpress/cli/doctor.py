"""Show versions, the processor, and what this machine can run or emulate."""

import sys
from pathlib import Path

import click

from onnxpress.cli.exit_status import NOT_MET
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.doctor import examine
from onnxpress.installer import install as install_providers
from onnxpress.report.console import print_doctor
from onnxpress.report.printing import console_for

__all__ = ["command"]


@click.command("doctor", help=__doc__)
@click.option("--run", is_flag=True, help="Run a small model on every provider that is there.")
@click.option(
    "--install",
    multiple=True,
    metavar="NAME",
    help="Make this provider's environment in .venv-ep first and note it in onnxpress.toml; "
    "`all` for every one that can be.",
)
@click.option("--ep-config", type=PATH, metavar="FILE", help="Where the providers are.")
@json_option
@saying_options
def command(
    *, run: bool, install: tuple[str, ...], ep_config: Path | None, json_path: str | None
) -> None:
    """Install what is asked for, print what there is; exit status 1 where something clashes."""
    check_json(json_path, [ep_config])
    for name, outcome in install_providers(install):
        click.echo(f"{name}: {outcome}", err=True)
    with progress_line() as progress:
        found = examine(ep_config, run=run, progress=progress)
    if write_json(found, json_path):
        print_doctor(found, console_for(always=True))
    if found["problems"]:
        sys.exit(NOT_MET)
