"""Options of every command: how much is said."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from onnxpress.cli.exit_status import show_details, show_steps
from onnxpress.report.saying import AMOUNT, Amount

__all__ = ["saying_options"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click
    if value:
        show_details()


def _said(ctx: click.Context, option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click
    """How much is said until the command ends."""
    if value:
        token = AMOUNT.set(Amount(option.name))
        ctx.call_on_close(lambda: AMOUNT.reset(token))
        if AMOUNT.get() is Amount.VERBOSE:
            show_steps()


_OPTIONS = (
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_said,
        help="Print one line with the result, and errors.",
    ),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_said,
        help="Print all of every list, and what is done.",
    ),
    click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_debug,
        help="Show tracebacks, and what is done in detail.",
    ),
)


def saying_options(function: Function) -> Function:
    """Add them, in the order of the help."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
