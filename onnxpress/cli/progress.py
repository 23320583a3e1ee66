"""What is being done, on one line, while a person watches."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.text import Text

from onnxpress.report.saying import AMOUNT, Amount
from onnxpress.report.text import printable

__all__ = ["progress_line"]


@contextlib.contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """A function that shows a text: on one line of a terminal, or each on its own with -v.

    With -q, and where standard error is no terminal, it shows nothing.
    """
    if AMOUNT.get() is Amount.VERBOSE:
        yield lambda text: click.echo(printable(text), err=True)
        return
    if not sys.stderr.isatty() or AMOUNT.get() is Amount.QUIET:
        yield lambda _: None
        return
    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(Text(printable(text)))
