"""How much of an output the network adds to what it was given: y = x + f(x).

A picture made sharper, a series forecast about its mean: what was given is most of y, and y without
the network keeps 20 dB and more. So noise is compared with the variance of f(x), as a share of y's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.judge.kinds import Reading
from onnxpress.runtime import Array, Feed, Session

__all__ = ["learned_shares"]

_LEAST = 1e-4
"""A network that adds less hardly does anything; 20 dB of it are 60 dB of the output."""


def learned_shares(
    model: ir.Model, readings: Iterable[Reading], feeds: Sequence[Feed], threads: int = 0
) -> Mapping[str, float]:
    """Variance of f(x) over that of x + f(x), at most 1, by output that is such a sum.

    Args:
        model: the original.
        readings: of its outputs.
        feeds: of some samples.
        threads: of onnxruntime.
    """
    sums = {reading.output: reading.added for reading in readings if reading.added is not None}
    copy = model.clone() if sums else model
    made = {value.name: value for node in copy.graph for value in node.outputs}
    sums = {name: pair for name, pair in sums.items() if all(part in made for part in pair)}
    if not sums:
        return {}
    shown = {value.name for value in copy.graph.outputs}
    wanted = dict.fromkeys(part for pair in sums.values() for part in pair)
    copy.graph.outputs.extend(made[name] for name in wanted if name not in shown)
    session = Session(copy, threads=threads)
    spreads = {name: _Spread() for name in wanted}
    for feed in feeds:
        answers = session.run(feed)
        for name, spread in spreads.items():
            spread.add(answers[name])
    shares = {}
    for name, (whole, part) in sums.items():
        total = spreads[whole].variance
        shares[name] = min(max(spreads[part].variance / total, _LEAST), 1.0) if total > 0 else 1.0
    return shares


@dataclass(slots=True)
class _Spread:
    """Running variance of all values."""

    count: int = 0
    total: float = 0.0
    square: float = 0.0

    def add(self, array: Array) -> None:
        values = array[np.isfinite(array)].astype(np.float64)
        self.count += values.size
        self.total += float(values.sum())
        self.square += float(values @ values)

    @property
    def variance(self) -> float:
        count = max(self.count, 1)
        return max(self.square / count - (self.total / count) ** 2, 0.0)
