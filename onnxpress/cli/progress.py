"""How far a run is, on one line, while a person watches: a callback as `onnxpress.optimize` takes.

⠋ 42%, about 12 s left; quantize: models tried: 3; best: 3.9x smaller, 2.1x faster
"""

import contextlib
import sys
import time
from collections.abc import Iterator

import click
from rich.console import Console
from rich.text import Text

from onnxpress.progress import Best, Progress, Tell, unheard
from onnxpress.report.saying import AMOUNT, Amount
from onnxpress.report.text import printable, speed_in_words

__all__ = ["line_of", "progress_line"]

_LEAST_LEFT_S = 1.0


@contextlib.contextmanager
def progress_line() -> Iterator[Tell]:
    """Who shows events: on one line of a terminal, or each on its own with -v.

    With -q, and where standard error is no terminal, nothing is shown.
    """
    if AMOUNT.get() is Amount.VERBOSE:
        yield lambda event: click.echo(line_of(event), err=True)
        return
    if not sys.stderr.isatty() or AMOUNT.get() is Amount.QUIET:
        yield unheard
        return
    with Console(stderr=True).status("starting") as status:
        yield lambda event: status.update(_Line(event))


class _Line:
    """The line of an event; the time that is left gets less until the next one."""

    def __init__(self, event: Progress) -> None:
        self._event, self._since = event, time.monotonic()

    def __rich__(self) -> Text:
        passed = time.monotonic() - self._since
        return Text(line_of(self._event, passed), no_wrap=True, overflow="ellipsis")


def line_of(event: Progress, passed_s: float = 0.0) -> str:
    """An event in words: percent, time left, what is being done, the best so far.

    Args:
        event: the latest.
        passed_s: seconds since.
    """
    parts = []
    if event.fraction is not None:
        # What is not over is not all done, whatever the estimate.
        parts.append(f"{min(event.fraction, 0.99):.0%}")
    for left, words in ((event.left_s, "left"), (event.stage_left_s, "left of this step")):
        if left is not None:
            rest = left - passed_s
            parts.append(f"{_duration(rest)} {words}" if rest >= _LEAST_LEFT_S else "")
            break
    ahead = ", ".join(filter(None, parts))
    best = "" if event.best is None else _best(event.best)
    return printable("; ".join(filter(None, (ahead, best, str(event)))))


def _best(best: Best) -> str:
    speed = "" if best.speed_ratio is None else f", {speed_in_words(best.speed_ratio)}"
    return f"best {best.size_ratio:.1f}x smaller{speed}"


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
