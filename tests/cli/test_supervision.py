"""The command runs in a process of its own; whatever ends that one, a sentence is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

_START = "import os, signal, sys, time\nfrom onnxpress.cli.supervision import supervised\n"


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _START + code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("number", ["SIGABRT", "SIGSEGV", "SIGFPE", "SIGKILL"])
def test_process_that_is_ended_leaves_a_sentence(number: str) -> None:
    done = python(f"supervised(lambda: os.kill(os.getpid(), signal.{number}))")
    assert done.returncode == 2
    assert done.stderr.startswith("error[M011]: " if number == "SIGKILL" else "error[M010]: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("status", [0, 1, 2, 3, 130])
def test_status_of_the_command_is_the_status(status: int) -> None:
    assert python(f"supervised(lambda: sys.exit({status}))").returncode == status


def test_what_is_printed_comes_once() -> None:
    done = python("print('before', flush=True)\nsupervised(lambda: print('inside'))")
    assert (done.returncode, done.stdout) == (0, "before\ninside\n")


def _waiting() -> tuple["subprocess.Popen[str]", int]:
    """A supervised process that waits, and the number of the one that does the work."""
    code = "supervised(lambda: (print(os.getpid(), flush=True), time.sleep(60)))"
    process = subprocess.Popen(
        [sys.executable, "-c", _START + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_both(number: signal.Signals) -> None:
    process, worker = _waiting()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    with contextlib.suppress(ProcessLookupError):
        for _ in range(1000):
            os.kill(worker, 0)
            time.sleep(0.01)
        pytest.fail("the work goes on")
