"""What a node takes by what it computes and moves, where no row says it.

microseconds = node + multiply_adds / rate + bytes / rate, a roofline's two slopes added (Williams
et al. 2009). Rates are of floats and of integers, fitted to the rows of a table, or shipped
(`rates.toml`, which says where they are from).
"""

import functools
import statistics
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources

from onnxpress.costs.keys import NodeKey
from onnxpress.costs.table import Row

__all__ = ["Rates", "fitted", "shipped"]

_ENOUGH = 8
"""Rows that a rate is fitted to; fewer are no better than what is shipped."""
_PRODUCTS, _MOVES = 16.0, 0.1
"""Multiply-adds per byte above which a node's time is that of its products, and below which of what
it moves."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What a processor does in a microsecond.

    Attributes:
        node: microseconds of a node that does next to nothing.
        products: multiply-adds of floats.
        integers: of integers.
        moved: bytes.
    """

    node: float
    products: float
    integers: float
    moved: float

    def microseconds(self, node: NodeKey | Row) -> float:
        """What a node takes that is not fused into another."""
        rate = self.integers if node.integer else self.products
        return self.node + node.multiply_adds / rate + node.nbytes / self.moved


@functools.cache
def shipped(threads: int = 1) -> Rates:
    """Of the machine that the shipped file is from, its products spread over threads."""
    text = resources.files("onnxpress.costs").joinpath("rates.toml").read_text(encoding="utf-8")
    told = tomllib.loads(text)
    products = told["multiply_adds_per_microsecond"]
    return Rates(
        told["node_microseconds"],
        products["float"] * threads,
        products["integer"] * threads,
        told["bytes_per_microsecond"],
    )


def fitted(rows: Iterable[Row], otherwise: Rates) -> Rates:
    """Rates of the rows: medians of those whose time is mostly one of the three.

    Args:
        rows: of a table.
        otherwise: where there are too few.
    """
    taken = [row for row in rows if row.microseconds > 0]
    small = [row.microseconds for row in taken if not row.multiply_adds and row.nbytes < 1024]
    node = statistics.median(small) if len(small) >= _ENOUGH else otherwise.node
    rates = replace(otherwise, node=node)
    above = [(row, row.microseconds - node) for row in taken if row.microseconds > 2 * node]
    moved = [r.nbytes / t for r, t in above if r.multiply_adds < _MOVES * r.nbytes]
    if len(moved) >= _ENOUGH:
        rates = replace(rates, moved=statistics.median(moved))
    for integer, name in ((False, "products"), (True, "integers")):
        found = [
            row.multiply_adds / time
            for row, time in above
            if row.integer == integer and row.multiply_adds > _PRODUCTS * row.nbytes
        ]
        if len(found) >= _ENOUGH:
            rates = replace(rates, **{name: statistics.median(found)})
    return rates
