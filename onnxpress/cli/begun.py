"""When the command began: a time limit counts from there, imports included."""

import time

__all__ = ["begin", "left_of"]

_begun: list[float] = []


def begin() -> None:
    """The command begins now."""
    _begun[:] = [time.monotonic()]


def left_of(limit_s: float | None) -> float | None:
    """What is left of a limit; all of it where no command has begun, as in tests."""
    if limit_s is None or limit_s < 0 or not _begun:
        # What means nothing is refused by who is given it.
        return limit_s
    return max(limit_s - (time.monotonic() - _begun[0]), 0.0)
