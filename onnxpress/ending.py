"""By which signal a process ended, in words."""

import signal

__all__ = ["FAILURES", "signal_name"]

FAILURES = ("SIGABRT", "SIGSEGV", "SIGFPE", "SIGBUS", "SIGILL")
"""Those by which faults of compiled code end a process; not every system has all."""


def signal_name(number: int) -> str:
    """A signal's name; those of real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
