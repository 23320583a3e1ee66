"""Exit statuses, and the one place where an error becomes a message and a status.

0 done; 1 done, but the budget, a required provider or a named pass could not be met; 2 bad usage or
bad input; 3 a fault of onnxpress or of a pass; 130 interrupted, with the best so far or none. An
error is written as `error[M002]: …`; `onnxpress explain M002` says more.
"""

import contextlib
import errno
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

import click

from onnxpress.codes import split
from onnxpress.entry_points import LeftOutWarning
from onnxpress.errors import OnnxpressError, PassError, brief

__all__ = [
    "BAD_INPUT",
    "FAULT",
    "INTERRUPTED",
    "NOT_MET",
    "exit_statuses",
    "show_details",
    "show_steps",
]

NOT_MET, BAD_INPUT, FAULT, INTERRUPTED = 1, 2, 3, 130

logger = logging.getLogger(__name__)


def show_steps() -> None:
    """From here on, log what is done."""
    logging.getLogger("onnxpress").setLevel(logging.INFO)


def show_details() -> None:
    """From here on, log everything, and the traceback of an error."""
    logging.getLogger().setLevel(logging.DEBUG)


@contextlib.contextmanager
def exit_statuses() -> Iterator[None]:
    """Leave the process with a message and a status where something goes wrong."""
    logging.basicConfig(
        level=logging.CRITICAL, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        with _short_warnings():
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt as error:
        _leave(error, INTERRUPTED, "interrupted")
    except PassError as error:
        what = f"this is a fault of a pass: {error}"
        _leave(error, FAULT, f"{what}; report it with --debug's output [X001]")
    except OnnxpressError as error:
        _leave(error, BAD_INPUT, f"error[{error.code}]: {split(str(error))[0]}")
    except MemoryError as error:
        _leave(error, BAD_INPUT, "error[M011]: this needs more memory than the machine gives")
    except Exception as error:
        # A reader of our output that has gone away, such as `head`, is click's business.
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        # Folders that cannot be read, names that are too long: the surroundings, not a fault.
        if isinstance(error, OSError) and error.filename is not None:
            _leave(error, BAD_INPUT, f"error: {error.filename}: {error.strerror}")
        what = f"this is a fault of onnxpress: {type(error).__name__}: {brief(error)}"
        _leave(error, FAULT, f"{what}; report it with --debug's output [X002]")


def _leave(error: BaseException, status: int, message: str) -> None:
    logger.debug("the traceback", exc_info=error)
    click.echo(_printable(message), err=True)
    sys.exit(status)


def _printable(message: str) -> str:
    """On one line; what a terminal would obey, as names from a file may hold it, is escaped."""
    if message.isprintable():
        return message
    from onnxpress.report.text import printable  # noqa: PLC0415 - loads onnxruntime

    return printable(message)


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Show our own warnings as one sentence, without a line of our source."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, LeftOutWarning):
            click.echo(_printable(f"warning: {message}"), err=True)
        else:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual
