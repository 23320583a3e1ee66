"""What models take side by side: time of a run, to load, memory, and how the time grows."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress.data import load_samples, random_samples
from onnxpress.errors import UsageError, nearest
from onnxpress.model_file import load, size_bytes
from onnxpress.runtime import Feed, InputSpec, Session, compare_latency
from onnxpress.runtime.footprint import footprint

__all__ = ["bench", "parsed_sweep"]

Sweep = tuple[str, tuple[int, ...]]
"""A symbolic dimension and the sizes that it is given."""


def bench(
    models: Sequence[Path],
    *,
    data: str | None = None,
    sweeps: Sequence[Sweep] = (),
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time each model against the first, in turn, as JSON-ready data.

    Args:
        models: files; one alone is timed against itself.
        data: samples, of which the first is run; without, a random input.
        sweeps: dimensions that are given several sizes, one after the other.
        threads: of onnxruntime; 0: all cores.
        progress: told in a few words what is being done.

    Raises:
        ModelError: a model is missing or does not run.
        DataError: the samples do not fit.
        UsageError: there is no such dimension.
    """
    for path in models:
        load(path)
    sessions = [Session(path, threads=threads, name=str(path)) for path in models]
    first = sessions[0]
    samples = random_samples(first, 1, 0) if data is None else load_samples(data, first.inputs)
    feed = samples.feeds[0]
    for name, _ in sweeps:
        _require(name, first.inputs)
    rows: list[dict[str, Any]] = []
    for path, session in zip(models, sessions, strict=True):
        progress(f"{path.name}: loading, in a process of its own")
        taken = footprint(path, feed, threads)
        progress(f"{path.name}: running")
        found = compare_latency(first, session, feed)
        rows.append(
            {
                "model": str(path),
                "bytes": size_bytes(path),
                "run_ms": found.median_ms,
                "first_ms": found.reference_ms,
                "speedup": found.speedup,
                "quartiles": [found.low, found.high],
                "load_ms": None if taken is None else taken.load_ms,
                "peak_bytes": None if taken is None else taken.peak_bytes,
                "held_bytes": None if taken is None else taken.held_bytes,
            }
        )
    if len(rows) > 1:
        # In the same rounds as the others.
        rows[0]["run_ms"] = statistics.median(row["first_ms"] for row in rows[1:])
    grown = []
    for name, sizes in sweeps:
        for size in sizes:
            progress(f"{name} = {size}")
            sized = _sized(feed, first.inputs, name, size)
            times = [compare_latency(first, session, sized).median_ms for session in sessions]
            grown.append({"dimension": name, "size": size, "run_ms": times})
    return {"data": samples.source, "models": rows, "sweeps": grown}


def parsed_sweep(text: str) -> Sweep:
    """`batch=1,8,32` as a dimension and its sizes.

    Raises:
        UsageError: it is something else.
    """
    name, equals, sizes = text.rpartition("=")
    try:
        found = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        found = ()
    if not (name and equals and found) or min(found) < 1:
        raise UsageError(f"--sweep {text}: expected DIM=1,8,32, sizes of at least 1 [U004]")
    return name, found


def _require(name: str, inputs: Sequence[InputSpec]) -> None:
    known = sorted({dim for spec in inputs for dim in spec.shape if isinstance(dim, str)})
    if name not in known:
        raise UsageError(
            f"--sweep {name}: the model has no such dimension{nearest(name, known)} "
            f"(it has: {', '.join(known) or 'none with a name'}) [U004]"
        )


def _sized(feed: Feed, inputs: Sequence[InputSpec], name: str, size: int) -> Feed:
    """The feed with a dimension of that size: what is there, again and again."""
    found = dict(feed)
    for spec in inputs:
        array = found[spec.name]
        for axis, dim in enumerate(spec.shape):
            if dim == name and array.shape[axis]:
                array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
        found[spec.name] = array
    return found
