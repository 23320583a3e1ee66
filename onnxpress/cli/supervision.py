"""The command in a process of its own, for onnx and onnxruntime end theirs on some broken models.

Both check a model in C++: a division by zero, a stack that is too deep or an exception that nobody
catches there ends the process, and Python cannot say anything any more. The process that the user
started is therefore a small one: it forks before anything is loaded, waits, and says what happened.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from onnxpress.cli.exit_status import BAD_INPUT
from onnxpress.ending import FAILURES, signal_name

__all__ = ["supervised"]

assert sys.platform == "linux", "sigwaitinfo and prctl are Linux's"

_WATCHED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
"""`prctl(2)`: the signal that a process gets when its parent ends."""


def supervised(command: Callable[[], None]) -> None:
    """Run a command in a forked process and end as it did, or with a sentence where it was ended.

    Signals that other processes send to this one are passed on; what comes from the terminal goes
    to both anyway.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    child = os.fork()
    if child == 0:
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        command()
        return
    code = os.waitstatus_to_exitcode(_status(child))
    if code >= 0:
        sys.exit(code)
    ended_by = -code
    if signal_name(ended_by) in FAILURES:
        _say(
            "M010",
            f"onnx or onnxruntime ended the process ({signal_name(ended_by)}), as they do on some "
            "broken models; outputs of before are unchanged; export the model again, or see with "
            "onnx.checker what is wrong with it",
        )
        sys.exit(BAD_INPUT)
    if ended_by == signal.SIGKILL:
        _say(
            "M011",
            "the process was killed, as the system does when memory runs out; outputs of before "
            "are unchanged; use a machine with more memory, or less data",
        )
        sys.exit(BAD_INPUT)
    signal.signal(ended_by, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    os.kill(parent, ended_by)


def _status(child: int) -> int:
    """Wait for a process, and pass on to it what is sent to this one."""
    while True:
        found = signal.sigwaitinfo(_WATCHED)
        if found.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
        elif found.si_code <= 0:
            # Sent by a process; the kernel's own, from the terminal, have a positive code.
            os.kill(child, found.si_signo)


def _end_with(parent: int) -> None:
    """End this process when its parent ends, even by SIGKILL, which nobody can pass on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _say(code: str, message: str) -> None:
    sys.stderr.write(f"error[{code}]: {message}\n")
