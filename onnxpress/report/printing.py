"""Text and tables on a console of at most 80 columns.

Nothing is printed as markup that came from a model, a file or a provider.
"""

import shlex
import sys
from collections.abc import Sequence
from typing import IO, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxpress.codes import once
from onnxpress.report.saying import AMOUNT, Amount
from onnxpress.report.text import printable

__all__ = [
    "add_column",
    "conclude",
    "console_for",
    "new_table",
    "print_all",
    "print_command",
    "print_filled",
    "print_table",
    "print_text",
]

_WIDTH = 80


def console_for(stream: IO[str] | None = None, *, always: bool = False) -> Console:
    """A console that uses at most 80 columns; a silent one where one line is wanted.

    Args:
        stream: where to; `None`: standard output.
        always: what is printed is what was asked for, so that less of it is nothing.
    """
    quiet = AMOUNT.get() is Amount.QUIET and not always
    console = Console(file=stream or sys.stdout, highlight=False, quiet=quiet)
    console.width = min(console.width, _WIDTH)
    return console


def conclude(text: str) -> None:
    """Print the result in a line, where the user wants no more than that."""
    if AMOUNT.get() is Amount.QUIET:
        Console(file=sys.stdout, highlight=False).print(Text(printable(text)), soft_wrap=True)


def print_text(text: str, console: Console, *, label: str = "", style: str = "") -> None:
    """Print a sentence, broken at spaces where it can be, later lines indented.

    Args:
        text: leading spaces indent all of it.
        console: where to.
        label: a word before it.
        style: of the label.
    """
    indent = " " * (len(text) - len(text.lstrip(" ")))
    whole = Text.assemble(
        (printable(label), style), " " if label else "", printable(text[len(indent) :])
    )
    for index, line in enumerate(whole.wrap(console, console.width - len(indent) - 2)):
        line.rstrip()
        start = indent if index == 0 else f"{indent}  "
        console.print(Text(start) + line, soft_wrap=True)


def print_table(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], console: Console
) -> None:
    """Print a plain table."""
    table = new_table()
    for heading in headings:
        add_column(table, heading)
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    print_filled(table, console, title=title)


def print_filled(table: Table, console: Console, *, title: str = "") -> None:
    """Print a table with a title, which may be wider than it."""
    if title:
        print_text("", console, label=title, style="italic")
    console.print(table)


def new_table() -> Table:
    """A table without lines, to be filled."""
    return Table(box=None, pad_edge=False)


def add_column(table: Table, heading: str, *, number: bool = False) -> None:
    """Add a column whose cells are broken, not cut; numbers stand at the right, in one piece."""
    justify: Literal["left", "right"] = "right" if number else "left"
    words = printable(heading).replace(" ", "\n") if number else printable(heading)
    table.add_column(Text(words), overflow="fold", justify=justify, no_wrap=number)


def print_command(words: Sequence[str], console: Console) -> None:
    """Print a command to copy: what does not fit goes on behind a backslash, words in one piece."""
    lines = [""]
    for word in (shlex.quote(printable(word)) for word in words):
        if lines[-1].strip() and len(lines[-1]) + len(word) + 3 > console.width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    for line in lines if words else ():
        console.print(Text(line), soft_wrap=True)


def print_all(label: str, texts: Sequence[str], console: Console, *, style: str) -> None:
    """Print sentences with the same word before each."""
    for text in texts:
        print_text(once(text.strip(" ")), console, label=label, style=style)
