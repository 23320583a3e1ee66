"""A command in a process of its own, forked from one that has imported all, within bounds."""

import faulthandler
import importlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MOST_BYTES", "MOST_SECONDS", "Outcome", "run"]

MOST_BYTES = 2_000_000_000
MOST_SECONDS = 20
"""Of processor time."""
_ADDRESS_SPACE = 24_000_000_000
"""Beyond, an allocation fails; it keeps the machine from harm."""
_WALL_SECONDS = 240
_FINE = (0, 1, 2)
_ENDED = re.compile(r"ended the process \(SIG|process was killed")
_UNTIDY = re.compile(r"Traceback \(most recent call last\)|\.py:\d+: \w*Warning: ")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command.

    Attributes:
        problem: `fault` (exit status 3 or above, or a signal), `memory`, `time`, `ended` (onnx or
            onnxruntime did it, and the command says so), `untidy` (a traceback or a warning with
            its line of source); empty where all is well.
        text: what it printed.
        status: of its exit, or minus the signal.
        seconds: of processor time.
        peak_bytes: of memory, resident.
    """

    problem: str
    text: str
    status: int
    seconds: float
    peak_bytes: int


def run(arguments: Sequence[str], folder: Path, most_s: int = MOST_SECONDS) -> Outcome:
    """Run the command line in a fork of this process, which starts no threads of its own.

    Args:
        arguments: after the name of the command.
        folder: which is the current one.
        most_s: of processor time.
    """
    _import_all()
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            _be_the_command(arguments, folder, log.fileno(), most_s)
        status, usage = _wait(child)
        log.seek(0)
        text = log.read().decode(errors="replace")
    seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL) or seconds > most_s:
        problem = "time"
    elif peak > MOST_BYTES:
        problem = "memory"
    elif code not in _FINE:
        problem = "fault"
    elif _ENDED.search(text):
        problem = "ended"
    elif _UNTIDY.search(text):
        problem = "untidy"
    else:
        problem = ""
    return Outcome(problem, text, code, seconds, peak)


def _import_all() -> None:
    from onnxpress import registry  # noqa: PLC0415 - only where trials are run

    for name in (*registry.COMMANDS, "single_pass"):
        importlib.import_module(f"onnxpress.cli.{name}")
    for name in registry.names():
        registry.load(name)
    importlib.import_module("onnxpress.pipeline")


def _be_the_command(arguments: Sequence[str], folder: Path, log: int, most_s: int) -> None:
    status = 99
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (most_s + 5, most_s + 6))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(all_threads=False)
        faulthandler.register(signal.SIGXCPU, all_threads=False, chain=True)
        from onnxpress.cli import main  # noqa: PLC0415 - in the child

        sys.argv = ["onnxpress", *arguments]
        main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - what nobody caught is what is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    """Wait for the process, and end it where it sleeps too long."""
    deadline = time.monotonic() + _WALL_SECONDS
    pause = 0.002
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
