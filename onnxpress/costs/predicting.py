"""A model's latency as the sum over its nodes: of the table's rows, of like ones, of rates.

A row of the same sizes in the same context is a measurement; one of other sizes is scaled by what
rates say of both; where there is none, rates alone are an estimate. The sum is corrected by what
whole models took: profiles cost time of their own, and what lies between nodes is in no row.
"""

import functools
import heapq
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxpress.costs.keys import CONTEXTS, NodeKey, digest
from onnxpress.costs.rates import Rates, fitted, shipped
from onnxpress.costs.table import CostTable, Row

__all__ = ["Basis", "Prediction", "model_digest", "predict"]

Basis = Literal["measured", "scaled", "estimate"]
"""Of a node's time: a row of just such a node, rows of other sizes, or rates."""
_NEAREST, _CLOSE = 8, 0.1
"""Rows of other sizes that are scaled; the nearer counts for more, until it is as close as this."""
_APART = (2.0, 1.0, 0.5, 0.25, 0.0)
"""Of rows that share a context, by its place: as if their sizes differed by that, in logarithms."""
_USUAL_SLOPE, _FIRM, _STEEPEST = 0.8, 0.3, 1.2
"""Of log time over log rated time, without rows that say otherwise; how firm that is."""
_FORMS = frozenset(("QuantizeLinear", "DequantizeLinear"))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run of a model takes.

    Attributes:
        ms: of one run.
        nodes: milliseconds by nodes, corrected likewise.
        shares: of the time, by what they rest on.
        rates: by which rows of other sizes were scaled.
        known: the milliseconds that the model itself was measured to take; `None` where it was not.
    """

    ms: float
    nodes: Mapping[str, float]
    shares: Mapping[Basis, float]
    rates: Rates
    known: float | None = None


def predict(keys: Sequence[NodeKey], table: CostTable, *, like: str = "") -> Prediction:
    """Sum up the nodes of a model.

    Args:
        keys: of its nodes.
        table: of the machine.
        like: digest of the model that it was made of (`model_digest`): corrected as that one.
    """
    rates = fitted(table.rows.values(), shipped(table.machine.threads))
    found = [_node(key, table, rates) for key in keys]
    factor = _factor(table, like)
    shares: dict[Basis, float] = {"measured": 0.0, "scaled": 0.0, "estimate": 0.0}
    for microseconds, basis in found:
        shares[basis] += microseconds
    total = sum(shares.values())
    own = table.models.get(model_digest(keys))
    return Prediction(
        factor * total / 1e3,
        {k.node: factor * us / 1e3 for k, (us, _) in zip(keys, found, strict=True)},
        {basis: part / total if total else 0.0 for basis, part in shares.items()},
        rates,
        None if own is None else own.microseconds / 1e3,
    )


def model_digest(keys: Sequence[NodeKey]) -> str:
    """What a model's latency depends on, as a short text."""
    text = "\n".join(f"{key.contexts[-1]} {key.sizes}" for key in keys)
    return digest(text)


def _factor(table: CostTable, like: str) -> float:
    """What whole models took over the sums of their rows."""
    if like in table.models:
        own = table.models[like]
        return own.microseconds / own.nodes
    ratios = [model.microseconds / model.nodes for model in table.models.values()]
    return statistics.median(ratios) if ratios else 1.0


def _node(key: NodeKey, table: CostTable, rates: Rates) -> tuple[float, Basis]:
    exact = table.exact(key)
    if exact is not None:
        return exact, "measured"
    rows = table.alike(key)
    if rows:
        return _scaled(key, rows, rates), "scaled"
    if key.operator in _FORMS:
        # Beside integer kernels they are part of these.
        return 0.0, "estimate"
    return rates.microseconds(key), "estimate"


def _scaled(key: NodeKey, rows: Sequence[Row], rates: Rates) -> float:
    """What rows of other sizes say: a line through the nearest, log time over log rated time.

    Small nodes take longer than their rated time, large ones less: the slope is what the rows say
    it is, and where they say little, a little below one.
    """
    own = _logarithms(key.sizes)
    far = ((_distance(own, _logarithms(row.sizes)) + _apart(key, row), row) for row in rows)
    nearest = heapq.nsmallest(_NEAREST, far, key=lambda one: (one[0], one[1].sizes))
    weights = np.asarray([(distance + _CLOSE) ** -2 for distance, _ in nearest])
    times = np.asarray([row.microseconds for _, row in nearest])
    some = times > 0
    if weights[some].sum() <= weights.sum() / 2:
        return 0.0
    weights = weights[some] / weights[some].sum()
    y = np.log(times[some])
    x = np.log([rates.microseconds(row) for _, row in nearest])[some]
    middle, height = float(weights @ x), float(weights @ y)
    along = float(weights @ ((x - middle) * (y - height))) + _FIRM * _USUAL_SLOPE
    slope = along / (float(weights @ (x - middle) ** 2) + _FIRM)
    slope = min(max(slope, 0.0), _STEEPEST)
    return math.exp(height + slope * (math.log(rates.microseconds(key)) - middle))


def _apart(key: NodeKey, row: Row) -> float:
    """How far a row is for its context: by the most precise one that it shares."""
    for place in range(CONTEXTS - 1, 0, -1):
        if key.contexts[place] == row.contexts[place]:
            return _APART[place]
    return _APART[0]


@functools.lru_cache(maxsize=100_000)
def _logarithms(sizes: str) -> tuple[float, ...]:
    """Of all dimensions in turn."""
    return tuple(math.log(max(int(number), 1)) for number in re.findall(r"\d+", sizes))


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two lists of sizes; of other ranks, by what they come to in all."""
    if len(one) != len(other):
        return abs(sum(one) - sum(other)) + 1.0
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
