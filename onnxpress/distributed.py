"""Several models on several workers of Dask distributed, here or on other machines.

Each model is a task of its own; a worker carries it out in a process of its own (`apart`), and its
clock waits for others on the same machine (`batch.AloneClock`). What a lost worker was doing is
done again by another one; files appear whole or not at all, so that nothing is half done. Workers
read and write the same paths as this process: on other machines these lie in a shared folder.
"""

import contextlib
import importlib
import logging
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onnxpress.apart import done_apart
from onnxpress.batch import Outcome, Task
from onnxpress.errors import UsageError
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.version import __version__

__all__ = ["done_by_workers", "require_scheduler"]

_LOCAL = re.compile(r"local:([1-9]\d*)")
_REMOTE = re.compile(r"(tcp|tls|ws|wss|ucx)://.+")
_CONNECTING_S = 20
_LOOK_S = 0.5
"""Between two looks whether a model is done, or all is to stop."""
_ASKED_S = 2.0
"""Between two questions of a worker whether to stop."""


def require_scheduler(scheduler: str) -> None:
    """Refuse before any work what is no scheduler, or cannot be used here.

    Args:
        scheduler: `local:N` for so many workers on this machine, or the address of a scheduler.

    Raises:
        UsageError: it is neither, or the package is missing.
    """
    if not (_LOCAL.fullmatch(scheduler) or _REMOTE.fullmatch(scheduler)):
        raise UsageError(
            f"scheduler is {scheduler!r}; expected local:N with a number of workers, as local:4, "
            "or the address of a Dask scheduler, as tcp://10.0.0.1:8786 [U009]"
        )
    _dask()


def _dask() -> Any:  # noqa: ANN401 - a package without types of its own
    """The package, which few need and none needs early."""
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise UsageError(
            "--scheduler needs the package distributed: pip install 'onnxpress[distributed]' [U007]"
        ) from error


def done_by_workers(
    tasks: Sequence[Task], scheduler: str, progress: Tell, stop: Callable[[], bool]
) -> list[Outcome]:
    """Carry out all tasks; the outcomes are in their order, whichever is done first.

    Args:
        tasks: that can be pickled, with paths that the workers have too.
        scheduler: see `require_scheduler`.
        progress: told how many are done.
        stop: asked twice a second; then workers take the best so far and begin nothing new.

    Raises:
        UsageError: the scheduler does not answer, has no workers, or these have another version.
    """
    with _connected(scheduler) as client:
        _require_workers(client, scheduler)
        dask = _dask()
        name = f"onnxpress-{uuid.uuid4().hex}"
        wish = dask.Event(name, client=client)
        futures = [
            client.submit(_on_worker, task, name, key=f"{name}-{place}", pure=False)
            for place, task in enumerate(tasks)
        ]
        _await(client, futures, progress, stop, wish.set)
        return [_outcome(f, task) for f, task in zip(futures, tasks, strict=True)]


def _await(
    client: Any,  # noqa: ANN401
    futures: Sequence[Any],
    progress: Tell,
    stop: Callable[[], bool],
    wish: Callable[[], object],
) -> None:
    """Wait until all are done, and pass on a wish to stop."""
    known, wished = -1, False
    while known < len(futures):
        over = sum(future.done() for future in futures)
        if over != known:
            known = over
            progress(Progress("models done", over, len(futures), over / len(futures)))
        if stop() and not wished:
            wished = True
            wish()
        if client.status != "running":
            raise UsageError("the scheduler ended before all models were done [U019]")
        time.sleep(_LOOK_S if known < len(futures) else 0)


def _outcome(future: Any, task: Task) -> Outcome:  # noqa: ANN401
    """Of a task; a worker that is lost again and again is an outcome too."""
    error = future.exception()
    if error is None:
        found: Outcome = future.result()
        return found
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Outcome(task.source, "fault", message, "X002")


def _on_worker(task: Task, name: str) -> Outcome:
    """What a worker does: a process of its own, and a look at the scheduler now and then."""
    wish = _dask().Event(name)
    if wish.is_set():
        return Outcome(task.source, "stopped", "the run was ended before its turn")
    asked = [time.monotonic()]
    said = threading.Event()

    def stop() -> bool:
        if time.monotonic() - asked[0] > _ASKED_S:
            asked[0] = time.monotonic()
            # Without a scheduler the worker ends anyway.
            with contextlib.suppress(OSError):
                if wish.is_set():
                    said.set()
        return said.is_set()

    return done_apart(task, unheard, stop)


@contextlib.contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A client, of workers that are started here where that is asked for."""
    dask = _dask()
    # What it says of connections and workers is for who asks with -v.
    logger = logging.getLogger("distributed")
    if not logging.getLogger("onnxpress").isEnabledFor(logging.INFO):
        logger.setLevel(logging.CRITICAL)
    local = _LOCAL.fullmatch(scheduler)
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if local is not None:
            with _ignoring_interrupts():
                address = stack.enter_context(
                    dask.LocalCluster(
                        n_workers=int(local[1]),
                        threads_per_worker=1,
                        dashboard_address=None,
                        silence_logs=logging.CRITICAL,
                    )
                )
        try:
            client = stack.enter_context(dask.Client(address, timeout=_CONNECTING_S))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no scheduler answers at {scheduler} within {_CONNECTING_S} s: "
                f"{' '.join(str(error).split())[:200]}; start one with `dask scheduler` [U019]"
            ) from error
        yield client


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes that are started within do not end by Ctrl-C: it is this one's business."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _require_workers(client: Any, scheduler: str) -> None:  # noqa: ANN401
    """Refuse workers that would make other bytes.

    Raises:
        UsageError: there are none, or they have another version of onnxpress, or none.
    """
    found = client.run(_version, on_error="return")
    if not found:
        raise UsageError(
            f"the scheduler at {scheduler} has no workers: start some with `dask worker "
            f"{scheduler} --nthreads 1` [U019]"
        )
    for address, version in found.items():
        if version != __version__:
            raise UsageError(
                f"the worker {address} has onnxpress {version!s}; expected {__version__}, as here: "
                "install the same on all machines [U019]"
            )


def _version() -> str:
    return __version__
