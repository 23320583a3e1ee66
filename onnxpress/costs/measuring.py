"""Rows of the table from profiles of whole models: each node in the midst of those around it.

Few models hold all candidates: one where every site has its first, one where every site has its
second, and so on. Conversions, blocked layouts and what is fused are then measured where they
happen, and not once a layer as by timing layers alone.

onnxruntime tells times of the nodes that it made of the model's. Each is laid at the door of one
node of the model, by the names that survive: the one with the most multiply-adds of those that it
stands for. The others take none.
"""

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.costs.keys import NodeKey, node_keys
from onnxpress.costs.sizes import sizes_of
from onnxpress.costs.table import ModelTime, Row
from onnxpress.runtime import Feed, Session, compare_latency, nodes_of
from onnxpress.runtime.profile import NodeTime, profiled_in_turn
from onnxpress.temporary import temporary_folder

__all__ = ["Measured", "measured_rows"]

_MADE = re.compile(r"(_token_\d+|_nchwc)+$")
"""What onnxruntime adds to a name that it takes over."""
_LOOPS = ("Loop", "Scan")
_LOOPING_S = 0.2
"""For all models together where nodes run often in a run: profiles have a line for each time."""
_PAIRS = 2
_SMALL, _LEAST = 0.1, 0.1
"""The share of nodes that are taken for empty; what is left of any of them at least."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's nodes by the clock.

    Attributes:
        keys: of its nodes.
        rows: what they took, in the same order, without what the profile itself took.
        microseconds: of one run without a profile.
        inputs: shapes by name.
        times: of what onnxruntime made of it, as the profile tells them.
    """

    keys: tuple[NodeKey, ...]
    rows: tuple[Row, ...]
    microseconds: float
    inputs: Mapping[str, tuple[int, ...]]
    times: tuple[NodeTime, ...]

    @property
    def time(self) -> ModelTime:
        """Of the whole, as a table holds it."""
        nodes = sum(row.microseconds for row in self.rows)
        return ModelTime(self.microseconds, nodes, self.inputs)


def measured_rows(
    models: Sequence[Path | ir.Model],
    feeds: Sequence[Feed],
    *,
    threads: int = 0,
    budget_s: float = 2.0,
    reference: float | None = None,
    whole: Sequence[float] | None = None,
) -> list[Measured]:
    """Profile models in turn.

    Args:
        models: not changed.
        feeds: one for each.
        threads: of onnxruntime; 0: all cores.
        budget_s: seconds for all together, about; twice. Less where there are loops.
        reference: microseconds that the first is known to take, so that tables made at other times
            stay comparable; `None`: what it takes now.
        whole: microseconds of each, where they are known already.

    Raises:
        ModelError: a model does not run.
    """
    named = [_named(m if isinstance(m, ir.Model) else model_file.load(m)) for m in models]
    if any(node.op_type in _LOOPS for model in named for node in model.graph.all_nodes()):
        budget_s = min(budget_s, _LOOPING_S)
    with temporary_folder() as folder:
        paths = [folder / f"{number}.onnx" for number in range(len(named))]
        sessions = [
            Session(model, threads=threads, optimized_path=path, profile=path.with_suffix(""))
            for model, path in zip(named, paths, strict=True)
        ]
        times = profiled_in_turn(sessions, feeds, budget_s=budget_s)
        del sessions
        graphs = [onnx.load(path, load_external_data=False).graph for path in paths]
    if whole is None:
        whole = _whole(named, feeds, threads, budget_s, reference)
    found = []
    for model, feed, taken, graph, us in zip(named, feeds, times, graphs, whole, strict=True):
        shapes = {name: array.shape for name, array in feed.items()}
        keys = node_keys(model, sizes_of(model, shapes))
        by_node, lost = _at_their_doors(model, keys, taken, graph)
        by_node = _without_profile(by_node, us, lost)
        rows = tuple(
            Row(
                key.operator,
                key.contexts,
                key.sizes,
                key.multiply_adds,
                key.nbytes,
                by_node.get(key.node, 0.0),
                key.integer,
            )
            for key in keys
        )
        found.append(Measured(tuple(keys), rows, us, shapes, tuple(taken)))
    return found


def _whole(
    models: Sequence[ir.Model],
    feeds: Sequence[Feed],
    threads: int,
    budget_s: float,
    reference: float | None,
) -> list[float]:
    """Microseconds of one run of each, without a profile, by its ratio to the first.

    Two sessions of one model differ by some percent, by where their memory lies: each ratio is of
    several pairs. Of one thread by processor time, which other jobs of the machine change least.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    each_s = budget_s / (_PAIRS * len(models))
    taken, speedups = [], []
    for model, feed in zip(models, feeds, strict=True):
        own = []
        for _ in range(_PAIRS):
            pair = Session(models[0], threads=threads), Session(model, threads=threads)
            found = compare_latency(*pair, feeds[0], feed, budget_s=each_s, clock=clock)
            own.append(found.speedup)
            taken.append(found.reference_ms)
        speedups.append(statistics.geometric_mean(own))
    base = statistics.median(taken) * 1e3 if reference is None else reference
    return [base / speedup for speedup in speedups]


def _without_profile(taken: Mapping[str, float], whole: float, lost: float) -> dict[str, float]:
    """What nodes take, so that with what is lost they take as long as a run without a profile.

    Writing a profile takes the same of each node: that is taken off, at most what the smallest
    tenth of them took. The rest of what is too much, or too little, is shared out.
    """
    if not taken:
        return {}
    few = float(np.quantile(list(taken.values()), _SMALL))
    total = sum(taken.values()) + lost
    each = min(max(total - whole, 0.0) / len(taken), few)
    left = {name: max(one - each, _LEAST * one) for name, one in taken.items()}
    factor = whole / (sum(left.values()) + lost)
    return {name: factor * one for name, one in left.items()}


def _named(model: ir.Model) -> ir.Model:
    """A copy with short names, which onnxruntime's own cannot be taken for."""
    copy = model.clone()
    ends = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    for number, node in enumerate(copy.graph.all_nodes()):
        node.name = f"node{number}"
        for place, value in enumerate(node.outputs):
            if value.name and value.name not in ends:
                value.name = f"node{number}.{place}"
    return copy


def _at_their_doors(
    model: ir.Model, keys: Sequence[NodeKey], times: Sequence[NodeTime], graph: onnx.GraphProto
) -> tuple[dict[str, float], float]:
    """Microseconds by the model's nodes, and of what belongs to none."""
    nodes = {node.name or "": node for node in model.graph.all_nodes()}
    makers = {value.name: node for node in nodes.values() for value in node.outputs if value.name}
    work = {key.node: key.multiply_adds for key in keys}
    made = list(nodes_of(graph))
    tails = {node.name: _tail(node, nodes, makers) for node in made}
    ends = {node.name or "" for node in tails.values() if node is not None}
    doors = {
        name: tail if nodes.get(_MADE.sub("", name)) is tail else _heaviest(tail, ends, work)
        for name, tail in tails.items()
        if tail is not None
    }
    readers: dict[str, list[str]] = defaultdict(list)
    for node in made:
        for name in node.input:
            readers[name].append(node.name)
    # Conversions of layouts belong to what reads them.
    for node in reversed(made):
        if node.name not in doors:
            after = [doors[name] for out in node.output for name in readers[out] if name in doors]
            if after:
                doors[node.name] = after[0]
    found: dict[str, float] = defaultdict(float)
    lost = 0.0
    for one in times:
        door = doors.get(one.node) or nodes.get(_MADE.sub("", one.node))
        if door is None or door.name not in work:
            lost += 1e3 * one.ms
        else:
            found[door.name or ""] += 1e3 * one.ms
    return found, lost


def _tail(
    node: onnx.NodeProto, nodes: Mapping[str, ir.Node], makers: Mapping[str, ir.Node]
) -> ir.Node | None:
    """The node of the model whose result a made node gives."""
    for name in (*node.output, node.name):
        found = makers.get(_MADE.sub("", name))
        if found is not None:
            return found
    return nodes.get(_MADE.sub("", node.name))


def _heaviest(tail: ir.Node, ends: set[str], work: Mapping[str, int]) -> ir.Node:
    """Of the nodes that end in this one, back to other made nodes: the one with the most to do."""
    best, waiting, seen = tail, [tail], {tail}
    while waiting:
        node = waiting.pop()
        if work.get(node.name or "", 0) > work.get(best.name or "", 0):
            best = node
        for value in node.inputs:
            before = None if value is None else value.producer()
            if before is not None and before not in seen and before.name not in ends:
                seen.add(before)
                waiting.append(before)
    return best
