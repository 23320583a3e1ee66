"""A model in a process of its own: a crash of onnxruntime, or a kill, ends no other.

The task goes to the process on its standard input, pickled; then a byte asks it to take the best so
far, and the end of the input, as when its parent is gone, ends it. Events and the outcome come back
on its standard output.
"""

import contextlib
import os
import pickle
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO

from onnxpress.batch import Outcome, Task, done
from onnxpress.ending import FAILURES, signal_name
from onnxpress.progress import Progress, Tell

__all__ = ["done_apart"]

_LENGTH = struct.Struct("<Q")
_LOOK_S = 0.2
"""Between two looks whether to stop."""
_TOLD_S = 0.1
"""Between two events that are passed on."""
_TAIL = 300
"""Letters of what a process said at its end."""


def done_apart(task: Task, progress: Tell, stop: Callable[[], bool]) -> Outcome:
    """As `batch.done`, in a process of its own; a crash there is an outcome.

    Args:
        task: that can be pickled.
        progress: told how far it is.
        stop: asked five times a second.
    """
    # What is pickled by name has to be found there too.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "onnxpress.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            # Ctrl-C is this process's business, which passes it on.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                given = pickle.dumps(task)
                process.stdin.write(_LENGTH.pack(len(given)) + given)
                process.stdin.flush()
            found = _followed(process, progress, stop)
            process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return found or Outcome(task.source, "fault", _ended(process.returncode, errors), "X002")


def _followed(
    process: "subprocess.Popen[bytes]", progress: Tell, stop: Callable[[], bool]
) -> Outcome | None:
    """Pass on what a process tells, until its outcome; `None`: it ended without one."""
    told: queue.SimpleQueue[Progress | Outcome | None] = queue.SimpleQueue()
    assert process.stdin is not None
    threading.Thread(target=_read, args=(process.stdout, told), daemon=True).start()
    asked = False
    while True:
        try:
            item = told.get(timeout=_LOOK_S)
        except queue.Empty:
            item = Progress("")
        if not isinstance(item, Progress):
            return item
        if item.stage:
            progress(item)
        if not asked and stop():
            asked = True
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b".")
                process.stdin.flush()


def _read(stream: IO[bytes], told: "queue.SimpleQueue[Progress | Outcome | None]") -> None:
    with contextlib.suppress(EOFError, pickle.UnpicklingError, ValueError, OSError):
        while True:
            told.put(pickle.load(stream))  # noqa: S301 - what we have started
    told.put(None)


def _ended(code: int, errors: IO[bytes]) -> str:
    """How a process ended that gave no outcome, and its last words."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    if code < 0:
        how = f"its process was ended by {signal_name(-code)}"
        if signal_name(-code) in FAILURES:
            return f"{how}, as onnx and onnxruntime do on some broken models"
        return how
    return f"its process ended with {code}: {lines[-1][:_TAIL] if lines else 'no message'}"


def _exactly(length: int) -> bytes:
    """So many bytes of standard input."""
    parts: list[bytes] = []
    while length and (part := os.read(0, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _main() -> None:
    """The other side."""
    # What libraries print must not come between.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # By the system's calls: a thread that waits in a buffer of Python's keeps it from ending.
    (length,) = _LENGTH.unpack(_exactly(_LENGTH.size))
    task = pickle.loads(_exactly(length))  # noqa: S301 - from our parent
    wish = threading.Event()

    def listen() -> None:
        while os.read(0, 1):
            wish.set()
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    told = 0.0

    def tell(event: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TOLD_S:
            told = now
            pickle.dump(event, answers)
            answers.flush()

    outcome = done(task, tell, wish.is_set)
    pickle.dump(outcome, answers)
    answers.flush()
    # Nothing is left to be done, and libraries that end may crash.
    os._exit(0)


if __name__ == "__main__":
    _main()
