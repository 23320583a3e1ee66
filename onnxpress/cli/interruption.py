"""Ctrl-C: the first one stops the search with the best so far, the second ends the process.

Before the search there is nothing to keep: then the first one ends it too.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interruption", "interruptible"]

_MESSAGE = b"\nstopping: the best so far is judged and written; Ctrl-C again ends at once\n"


class Interruption:
    """Whether the user wants to end.

    Attributes:
        wanted: it was said.
    """

    def __init__(self) -> None:
        """Nothing was said, and nobody asks yet."""
        self.wanted = False
        self._asked = False

    def __call__(self) -> bool:
        """Whether to stop; from the first time that this is asked, one interruption is a wish."""
        self._asked = True
        return self.wanted

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal.

        Raises:
            KeyboardInterrupt: nobody asks for a wish, or it was said before.
        """
        if self.wanted or not self._asked:
            raise KeyboardInterrupt
        self.wanted = True
        # The handler may have interrupted a print.
        with contextlib.suppress(OSError):
            os.write(2, _MESSAGE)


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within it, SIGINT is taken so; where it is ignored, as in background jobs, it stays so."""
    found = Interruption()
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or before is not signal.default_int_handler:
        yield found
        return
    signal.signal(signal.SIGINT, found.handle)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)
