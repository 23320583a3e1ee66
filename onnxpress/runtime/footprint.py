"""How long a model takes to load and how much memory, each in a process of its own.

A process keeps what it once took, so a figure of memory belongs to one model alone.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress.runtime.session import Feed, Session
from onnxpress.temporary import temporary_folder

__all__ = ["Footprint", "footprint", "measure"]

_LOADS = 3
_RUNS = 3
_CHILD = "from onnxpress.runtime.footprint import measure; import sys; measure(*sys.argv[1:])"
_STATUS = Path("/proc/self/status")
"""Of Linux: `getrusage` would count what the parent took before it started this process."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes besides the time of a run.

    Attributes:
        load_ms: to open a session, the median of some.
        peak_bytes: that loading it once and running it add to the process at most; `None` where
            the system does not say it.
        held_bytes: of these, what is still held after the runs. A model whose weights are expanded
            as it is loaded takes more for a moment than it keeps.
    """

    load_ms: float
    peak_bytes: int | None
    held_bytes: int | None


def footprint(model: Path, feed: Feed, threads: int) -> Footprint | None:
    """Load and run a model in a process of its own; `None` where that process ends otherwise.

    Args:
        model: the file.
        feed: that it runs on.
        threads: of onnxruntime; 0: all cores.
    """
    with temporary_folder() as folder:
        place = Path(folder, "feed.npz")
        texts = {name: a.astype(str) if a.dtype == object else a for name, a in feed.items()}
        np.savez(place, **texts)  # type: ignore[arg-type] # allow_pickle is no input's name
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-c", _CHILD, str(model), str(place), str(threads)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        return None
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def measure(model: str, feed: str, threads: str) -> None:
    """In the process of its own: measure, and print what was found."""
    with np.load(feed) as arrays:
        fed = {name: a.astype(object) if a.dtype.kind == "U" else a for name, a in arrays.items()}
    before = _memory("VmRSS")
    session = Session(Path(model), threads=int(threads))
    for _ in range(_RUNS):
        session.run(fed)
    peak, after = _memory("VmHWM"), _memory("VmRSS")
    del session
    took = []
    for _ in range(_LOADS):
        started = time.perf_counter()
        Session(Path(model), threads=int(threads))
        took.append(1000 * (time.perf_counter() - started))
    found = {
        "load_ms": statistics.median(took),
        "peak_bytes": _added(before, peak),
        "held_bytes": _added(before, after),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def _added(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _memory(key: str) -> int | None:
    """Bytes of an entry of the process's status."""
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return 1024 * int(value.split()[0])
    return None
