"""Boxes in rows from top to bottom, so that every arrow goes down: a layered drawing.

After K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system
structures", IEEE Trans. SMC 11(2), 1981: rows by the longest path, bends where an arrow passes a
row, order within rows by barycentres in sweeps. Places along a row are the least squares of the
distances to what a box is joined to, under least gaps: isotonic regression, by pooling adjacent
violators. Arrows of one tensor share their bends. All is linear in boxes and bends but the sorting
of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Layout", "layered"]

_SPAN = 60
"""Rows that an arrow may pass with bends; longer ones are far, and drawn when asked for."""
_ORDER_SWEEPS = 10
_PLACE_SWEEPS = 8
_GAP = 18.0
_BEND_WIDTH = 6.0
_BEND_WEIGHT = 4.0
"""Bends are drawn straight before boxes are."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where boxes and bends are.

    Attributes:
        rows: of every box, from 0.
        places: of every box's middle along its row; the least left side is at 0.
        bends: of every net, places in the rows behind its source, one a row.
        far: of every net, its targets that are too far away for bends.
        width: from the first left side to the last right one.
    """

    rows: tuple[int, ...]
    places: tuple[float, ...]
    bends: tuple[tuple[float, ...], ...]
    far: tuple[tuple[int, ...], ...]
    width: float


def layered(widths: Sequence[float], nets: Sequence[tuple[int, Sequence[int]]]) -> Layout:
    """Lay out a graph without cycles.

    Args:
        widths: of the boxes.
        nets: a tensor each: the box it comes from and those that it goes to.
    """
    rows = _rows(len(widths), nets)
    items = _Items(list(widths), rows, nets)
    items.order()
    places = items.placed()
    least = min((p - w / 2 for p, w in zip(places, items.widths, strict=True)), default=0.0)
    right = max((p + w / 2 for p, w in zip(places, items.widths, strict=True)), default=0.0)
    return Layout(
        tuple(rows),
        tuple(place - least for place in places[: len(widths)]),
        tuple(tuple(places[bend] - least for bend in chain) for chain in items.chains),
        tuple(items.far),
        right - least,
    )


def _rows(number: int, nets: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """One below the lowest that a box reads; what reads nothing, right above what reads it."""
    readers: list[list[int]] = [[] for _ in range(number)]
    waiting_for = [0] * number
    for source, targets in nets:
        for target in targets:
            readers[source].append(target)
            waiting_for[target] += 1
    first = [box for box in range(number) if not waiting_for[box]]
    rows, ready = [0] * number, list(first)
    while ready:
        box = ready.pop()
        for reader in readers[box]:
            rows[reader] = max(rows[reader], rows[box] + 1)
            waiting_for[reader] -= 1
            if not waiting_for[reader]:
                ready.append(reader)
    for box in first:
        if readers[box]:
            rows[box] = min(rows[reader] for reader in readers[box]) - 1
    number_of = {row: place for place, row in enumerate(sorted(set(rows)))}
    return [number_of[row] for row in rows]


class _Items:
    """Boxes, and behind them bends, in rows with their neighbours above and below."""

    def __init__(
        self, widths: list[float], rows: list[int], nets: Sequence[tuple[int, Sequence[int]]]
    ) -> None:
        self.boxes = len(widths)
        self.widths = widths
        self.in_row: list[list[int]] = [[] for _ in range(max(rows, default=-1) + 1)]
        for box, row in enumerate(rows):
            self.in_row[row].append(box)
        self.above: list[list[int]] = [[] for _ in widths]
        self.below: list[list[int]] = [[] for _ in widths]
        self.chains: list[list[int]] = []
        self.far: list[tuple[int, ...]] = []
        for source, targets in nets:
            self._join(source, targets, rows)

    def _join(self, source: int, targets: Sequence[int], rows: list[int]) -> None:
        near = [target for target in targets if 0 < rows[target] - rows[source] <= _SPAN]
        self.far.append(tuple(target for target in targets if target not in set(near)))
        last = max((rows[target] for target in near), default=rows[source] + 1)
        chain, upper = [], source
        for row in range(rows[source] + 1, last):
            bend = len(self.widths)
            self.widths.append(_BEND_WIDTH)
            self.in_row[row].append(bend)
            self.above.append([])
            self.below.append([])
            self._link(upper, bend)
            chain.append(bend)
            upper = bend
        for target in near:
            place = rows[target] - rows[source] - 1
            self._link(chain[place - 1] if place else source, target)
        self.chains.append(chain)

    def _link(self, upper: int, lower: int) -> None:
        self.below[upper].append(lower)
        self.above[lower].append(upper)

    def order(self) -> None:
        """Sort each row by the means of the places of what is above, then below, in turn."""
        place = [0.0] * len(self.widths)
        for row in self.in_row:
            _number(row, place)
        for sweep in range(_ORDER_SWEEPS):
            down = sweep % 2 == 0
            near = self.above if down else self.below
            for row in self.in_row if down else reversed(self.in_row):
                key = {
                    item: sum(place[n] for n in near[item]) / len(near[item])
                    if near[item]
                    else place[item]
                    for item in row
                }
                row.sort(key=key.__getitem__)
                _number(row, place)

    def placed(self) -> list[float]:
        """The middles of all items along their rows."""
        places = [0.0] * len(self.widths)
        for row in self.in_row:
            at = 0.0
            for item in row:
                places[item] = at + self.widths[item] / 2
                at += self.widths[item] + _GAP
            for item in row:
                places[item] -= at / 2
        for sweep in range(_PLACE_SWEEPS):
            down = sweep % 2 == 0
            near = self.above if down else self.below
            for row in self.in_row if down else reversed(self.in_row):
                self._place_row(row, near, places)
        for row in self.in_row:
            self._place_row(row, None, places)
        return places

    def _place_row(
        self, row: Sequence[int], near: Sequence[Sequence[int]] | None, places: list[float]
    ) -> None:
        """As near as gaps allow to the means of neighbours: above or below; `None`: of both."""
        offsets, wanted, weights = [], [], []
        at = 0.0
        for item in row:
            at += self.widths[item] / 2
            joined = [*self.above[item], *self.below[item]] if near is None else near[item]
            mean = sum(places[n] for n in joined) / len(joined) if joined else places[item]
            offsets.append(at)
            wanted.append(mean - at)
            weights.append((_BEND_WEIGHT if item >= self.boxes else 1.0) if joined else 0.1)
            at += self.widths[item] / 2 + _GAP
        for item, offset, value in zip(row, offsets, _increasing(wanted, weights), strict=True):
            places[item] = offset + value


def _number(row: Sequence[int], place: list[float]) -> None:
    """Places within a row, from its middle: rows of different lengths are compared."""
    for index, item in enumerate(row):
        place[item] = index - (len(row) - 1) / 2


def _increasing(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest values, in weighted squares, that never fall."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        total, amount, count = value * weight, weight, 1
        while pools and pools[-1][0] / pools[-1][1] > total / amount:
            other = pools.pop()
            total, amount, count = total + other[0], amount + other[1], count + other[2]
        pools.append((total, amount, count))
    return [total / amount for total, amount, count in pools for _ in range(count)]
