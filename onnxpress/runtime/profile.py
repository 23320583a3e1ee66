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

import onnx_ir as ir

from onnxpress.runtime.session import Feed, Session
from onnxpress.temporary import temporary_folder

__all__ = [
    "LEAST_RUNS",
    "NodeTime",
    "OperatorTime",
    "by_operator",
    "node_times",
    "profiled",
    "profiled_in_turn",
]

_WARM, _LEAST, _MOST = 2, 5, 100
"""Runs that are not counted; at least and at most of those that are, in a turn, and turns."""
_ENOUGH = 200
"""Runs of each model: a median of more says no more, and reading what they wrote takes as long as
they did."""
LEAST_RUNS = _WARM + _LEAST
"""Of each model, however long they take."""
_TURN_S = 0.01
"""Of a model, before the next one runs."""
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


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """What an operator takes in two models, as onnxruntime runs them.

    Attributes:
        operator: type.
        nodes: how many there are in the first, and in the second.
        ms: of all of them in one run, likewise.
        shares: of the time of all nodes, likewise.
    """

    operator: str
    nodes: tuple[int, int]
    ms: tuple[float, float]
    shares: tuple[float, float]


def by_operator(one: Sequence[NodeTime], other: Sequence[NodeTime]) -> tuple[OperatorTime, ...]:
    """Two profiles side by side, what takes most time in any of them first."""
    sides = one, other
    totals = [sum(node.ms for node in side) or 1.0 for side in sides]
    found = []
    for operator in sorted({node.operator for side in sides for node in side}):
        own = [[node.ms for node in side if node.operator == operator] for side in sides]
        (a, b), (all_a, all_b) = (sum(times) for times in own), totals
        nodes = len(own[0]), len(own[1])
        found.append(OperatorTime(operator, nodes, (a, b), (a / all_a, b / all_b)))
    return tuple(sorted(found, key=lambda row: -max(row.ms)))


def profiled(
    models: Sequence[Path | ir.Model], feed: Feed, *, threads: int = 0, budget_s: float = 2.0
) -> list[list[NodeTime]]:
    """The nodes of each model, those that take most time first; models are run in turn.

    Args:
        models: with the same inputs.
        feed: that they run on.
        threads: of onnxruntime; 0: all cores.
        budget_s: seconds for all models together, about.

    Raises:
        ModelError: a model does not run on it.
    """
    with temporary_folder() as folder:
        sessions = [
            Session(
                model,
                threads=threads,
                name=str(model) if isinstance(model, Path) else "the model",
                profile=folder / f"{number}",
            )
            for number, model in enumerate(models)
        ]
        return profiled_in_turn(sessions, [feed] * len(sessions), budget_s=budget_s)


def profiled_in_turn(
    sessions: Sequence[Session], feeds: Sequence[Feed], *, budget_s: float = 2.0
) -> list[list[NodeTime]]:
    """The nodes that sessions run, likewise.

    Args:
        sessions: that were opened to be profiled; they are at their end with it.
        feeds: one for each.
        budget_s: seconds for all together, about.

    Raises:
        ModelError: one does not run.
    """
    started = time.monotonic()
    for session, feed in zip(sessions, feeds, strict=True):
        for _ in range(_WARM):
            session.run(feed)
    turns, fewest = 0, 0
    while turns < _LEAST or (
        turns < _MOST and fewest < _ENOUGH and time.monotonic() - started < budget_s
    ):
        in_turn = []
        for session, feed in zip(sessions, feeds, strict=True):
            # What ran last has its weights in the caches, as it has where it runs alone.
            begun, again = time.monotonic(), 0
            while again < 1 or (again < _MOST and time.monotonic() - begun < _TURN_S):
                session.run(feed)
                again += 1
            in_turn.append(again)
        turns, fewest = turns + 1, fewest + min(in_turn)
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
