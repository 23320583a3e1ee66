"""The group of all commands: ours, a module each, and one for every installed pass.

Nothing of a command is imported before it is asked for; the list of commands shows the first
lines of their modules. `registry.COMMANDS` names the modules of this package that hold a click
command called `command`.
"""

import gc
import importlib
import io
import sys

import click
from click.shell_completion import CompletionItem

from onnxpress import registry
from onnxpress.cli.begun import begin
from onnxpress.cli.exit_status import exit_statuses
from onnxpress.cli.late_imports import load_late
from onnxpress.entry_points import first_line
from onnxpress.errors import nearest
from onnxpress.registry import COMMANDS
from onnxpress.version import __version__

__all__ = ["COMMANDS", "cli", "main"]

_COLLECTED_AFTER = 20_000
"""New objects after which Python looks for garbage: a graph has hundreds of thousands that live
long, and at the usual 700 a third of the time goes into walking them."""

_RENAMED = {"shrink": "prune"}
"""Names of before the first release, by which scripts still call."""


class Commands(click.Group):
    """Our commands and, after them, one command for each installed pass."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return [*COMMANDS, *(name for name in registry.names() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        found: click.Command | None = None
        if cmd_name in COMMANDS:
            found = importlib.import_module(f"onnxpress.cli.{cmd_name}").command
        elif cmd_name in registry.names():
            found = importlib.import_module("onnxpress.cli.single_pass").command_of(cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a name that does not exist."""
        known = self.list_commands(ctx)
        if args and args[0] in _RENAMED and args[0] not in known:
            click.echo(f"{args[0]} is called {_RENAMED[args[0]]} now", err=True)
            args = [_RENAMED[args[0]], *args[1:]]
        if args and args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], known)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, without importing them, and what click completes besides."""
        rows = [(name, first_line(f"onnxpress.cli.{name}")) for name in COMMANDS]
        rows += [(n, registry.describe(n)) for n in registry.names() if n not in COMMANDS]
        found = [
            CompletionItem(name, help=text) for name, text in rows if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        own = [(name, first_line(f"onnxpress.cli.{name}")) for name in COMMANDS]
        passes = [(n, registry.describe(n)) for n in registry.names() if n not in COMMANDS]
        for title, rows in (("Commands", own), ("One pass alone", passes)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what goes wrong becomes a message and an exit status."""
        with exit_statuses():
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnxpress")
def cli() -> None:
    """Make an ONNX model smaller and faster, and prove what it cost.

    Start with: onnxpress optimize model.onnx --calibration samples.npz
    """


def main() -> None:
    """Run the command line, on Linux in a process of its own."""
    if sys.platform == "linux":
        from onnxpress.cli.supervision import supervised  # noqa: PLC0415 - nowhere else

        supervised(_main)
    else:
        _main()


def _main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A pipe of Windows has a code page without arrows and signs of mathematics.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    begin()
    gc.set_threshold(_COLLECTED_AFTER)
    load_late()
    with exit_statuses():
        cli()
