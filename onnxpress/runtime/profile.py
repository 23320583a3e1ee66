"""Where the time of a run goes: onnxruntime's own profile, node by node, models in turn.

A node with bodies (If, Loop, Scan) is told without what its bodies take, which are nodes of their
own; a body that runs several times in one run counts with all of them. A figure is the median over
the runs. What lies between the nodes, and what profiling itself costs, is in none of them.
"""

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress.runtime.session import Feed, Session
from onnxpress.temporary import temporary_folder

__all__ = ["NodeTime", "node_times", "profiled"]

_WARM, _LEAST, _MOST = 2, 5, 100
"""Runs that are not counted; at least and at most of those that are."""
_KERNEL = "_kernel_time"


@dataclass(frozen=True, slots=True)
class NodeTime:
    """A node of the graph that onnxruntime really runs.

    Attributes:
        node: its name, or its operator and place where it has none.
        operator: type.
        ms: of one run, alone.
    """

    node: str
    operator: str
    ms: float


def profiled(
    models: Sequence[Path], feed: Feed, *, threads: int = 0, budget_s: float = 2.0
) -> list[list[NodeTime]]:
    """The nodes of each model, those that take most time first; models are run in turn.

    Args:
        models: files with the same inputs.
        feed: that they run on.
        threads: of onnxruntime; 0: all cores.
        budget_s: seconds for all models together, about.

    Raises:
        ModelError: a model does not run on it.
    """
    with temporary_folder() as folder:
        sessions = [
            Session(path, threads=threads, name=str(path), profile=folder / f"{number}")
            for number, path in enumerate(models)
        ]
        runs, started = 0, time.monotonic()
        while runs < _WARM + _LEAST or (
            runs < _WARM + _MOST and time.monotonic() - started < budget_s
        ):
            for session in sessions:
                session.run(feed)
            runs += 1
        files = [session.end_profile() for session in sessions]
        return [node_times(json.loads(file.read_text(encoding="utf-8"))) for file in files]


def node_times(events: Sequence[dict[str, Any]]) -> list[NodeTime]:
    """The nodes of a profile, those that take most first.

    Args:
        events: as onnxruntime writes them; `ts` and `dur` in microseconds.
    """
    runs = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("name") == "model_run"
    )[_WARM:]
    kernels = sorted(
        (event for event in events if str(event.get("name", "")).endswith(_KERNEL)),
        key=lambda event: (event["ts"], -event["dur"]),
    )
    alone = _without_bodies(kernels)
    taken: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * len(runs))
    place = 0
    for event, microseconds in zip(kernels, alone, strict=True):
        while place < len(runs) and event["ts"] > runs[place][1]:
            place += 1
        if place < len(runs) and event["ts"] >= runs[place][0]:
            taken[_named(event)][place] += microseconds / 1000
    found = [NodeTime(*key, statistics.median(times)) for key, times in taken.items()]
    return sorted(found, key=lambda one: (-one.ms, one.node))


def _without_bodies(kernels: Sequence[dict[str, Any]]) -> list[float]:
    """Microseconds of each without those of the nodes inside it, which begin and end in it."""
    alone = [float(event["dur"]) for event in kernels]
    around: list[int] = []
    for number, event in enumerate(kernels):
        while around and event["ts"] >= _end(kernels[around[-1]]):
            around.pop()
        if around and _end(event) <= _end(kernels[around[-1]]):
            alone[around[-1]] -= event["dur"]
        around.append(number)
    return [max(one, 0.0) for one in alone]


def _end(event: dict[str, Any]) -> float:
    return float(event["ts"] + event["dur"])


def _named(event: dict[str, Any]) -> tuple[str, str]:
    told = event.get("args", {})
    operator = str(told.get("op_name", "?"))
    name = str(event["name"]).removesuffix(_KERNEL)
    return name or f"{operator} #{told.get('node_index', '?')}", operator
