"""Say what the codes of messages mean, why it is so and what helps; without CODE, list all."""

import click

from onnxpress.cli import completion
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import json_option
from onnxpress.cli.saying import saying_options
from onnxpress.codes import explained
from onnxpress.errors import UsageError, nearest
from onnxpress.report.printing import console_for, print_text

__all__ = ["command"]


@click.command("explain", help=__doc__)
@click.argument("codes", metavar="[CODE]...", nargs=-1, shell_complete=completion.codes)
@json_option
@saying_options
def command(*, codes: tuple[str, ...], json_path: str | None) -> None:
    """Print an entry of the catalogue for each code."""
    check_json(json_path, [])
    known = explained()
    wanted = [code.strip("[]").upper() for code in codes]
    for code in wanted:
        if code not in known:
            raise UsageError(
                f"there is no code {code}{nearest(f'{code[:1]}{code[1:]:0>3}', list(known))} "
                "(onnxpress explain lists all) [U017]"
            )
    found = {code: known[code] for code in wanted or known}
    document = {
        code: {"title": entry.title, "why": entry.why, "do": entry.do}
        for code, entry in found.items()
    }
    if not write_json(document, json_path):
        return
    console = console_for(always=True)
    for code, entry in found.items():
        print_text(entry.title, console, label=code, style="bold")
        if wanted:
            print_text(f"  {entry.why}", console)
            print_text(f"  What to do: {entry.do}", console)
