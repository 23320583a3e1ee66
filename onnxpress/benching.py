"""What models take side by side: time of a run, to load, memory, and how the time grows."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress.data import load_samples, random_samples
from onnxpress.errors import UsageError, nearest
from onnxpress.model_file import load, size_bytes
from onnxpress.progress import Progress, Tell, followed, unheard
from onnxpress.runtime import Feed, InputSpec, Session, compare_latency
from onnxpress.runtime.footprint import footprint
from onnxpress.runtime.profile import NodeTime, profiled

__all__ = ["bench", "parsed_sweep"]

Sweep = tuple[str, tuple[int, ...]]
"""A symbolic dimension and the sizes that it is given."""


def bench(
    models: Sequence[Path],
    *,
    data: str | None = None,
    sweeps: Sequence[Sweep] = (),
    profile: bool = False,
    threads: int = 0,
    progress: Tell = unheard,
) -> dict[str, Any]:
    """Time each model against the first, in turn, as JSON-ready data.

    Args:
        models: files; one alone is timed against itself.
        data: samples, of which the first is run; without, a random input.
        sweeps: dimensions that are given several sizes, one after the other.
        profile: whether it is told where the time of a run goes, by operators and nodes.
        threads: of onnxruntime; 0: all cores.
        progress: told how far it is, see `Progress`.

    Raises:
        ModelError: a model is missing or does not run.
        DataError: the samples do not fit.
        UsageError: there is no such dimension.
    """
    progress = followed(progress)
    total = 2 * len(models) + sum(len(sizes) for _, sizes in sweeps) + profile
    done = 0

    def tell(what: str) -> None:
        nonlocal done
        progress(Progress(what, fraction=done / total))
        done += 1

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
        tell(f"{path.name}: loading, in a process of its own")
        taken = footprint(path, feed, threads)
        tell(f"{path.name}: running")
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
            tell(f"{name} = {size}")
            sized = _sized(feed, first.inputs, name, size)
            times = [compare_latency(first, session, sized).median_ms for session in sessions]
            grown.append({"dimension": name, "size": size, "run_ms": times})
    document: dict[str, Any] = {"data": samples.source, "models": rows, "sweeps": grown}
    if profile:
        tell("profiling")
        document["profile"] = _profile(profiled(models, feed, threads=threads))
    return document


def _profile(models: Sequence[Sequence[NodeTime]]) -> dict[str, Any]:
    """Times by operators and by nodes, a figure a model; what costs most in any comes first."""
    totals = [sum(node.ms for node in nodes) for nodes in models]
    return {
        "total_ms": totals,
        "operators": _side_by_side("operator", models, totals, lambda node: node.operator),
        "nodes": _side_by_side("node", models, totals, lambda node: node.node),
    }


def _side_by_side(
    key: str,
    models: Sequence[Sequence[NodeTime]],
    totals: Sequence[float],
    named: Callable[[NodeTime], str],
) -> list[dict[str, Any]]:
    """A row a name: how many nodes, milliseconds, share of all nodes; 0 where a model has none."""
    found: dict[str, dict[str, Any]] = {}
    for number, nodes in enumerate(models):
        for node in nodes:
            empty = {key: named(node), "nodes": [0] * len(models), "ms": [0.0] * len(models)}
            row = found.setdefault(named(node), empty)
            if key == "node":
                row.setdefault("operators", [""] * len(models))[number] = node.operator
            row["nodes"][number] += 1
            row["ms"][number] += node.ms
    for row in found.values():
        row["share"] = [
            ms / all_ if all_ else 0.0 for ms, all_ in zip(row["ms"], totals, strict=True)
        ]
    return sorted(found.values(), key=lambda row: (-max(row["ms"]), row[key]))


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
