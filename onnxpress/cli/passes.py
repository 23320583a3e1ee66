"""List the installed passes."""

import click

from onnxpress import registry
from onnxpress.cli.saying import saying_options

__all__ = ["command"]


@click.command("passes", help=__doc__)
@saying_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Print a line for each, without importing any."""
    rows = [(name, registry.describe(name)) for name in registry.names()]
    if not rows:
        click.echo("none is installed; install onnxpress again: entry points are read at install")
        return
    formatter = ctx.make_formatter()
    formatter.write_dl(rows)
    click.echo(formatter.getvalue(), nl=False)
