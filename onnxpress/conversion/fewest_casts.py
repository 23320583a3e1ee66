"""Where float32 ends and half begins, so that as little as possible is cast.

Given operators that must stay in float32 and operators that gain by half, the others go to the side
where casts and operators kept in float32 are fewest. That is a minimum cut of a graph whose nodes
are units: a tensor that its giver makes in one precision and readers want in the other costs one
Cast, however many readers there are. (Cuts with edges of several ends as in Ihler, Wagner, Wagner,
"Modeling hypergraphs by graphs with the same mincut properties", 1993; flow by shortest augmenting
paths, Edmonds and Karp 1972.)
"""

from collections import deque
from collections.abc import Collection, Hashable, Iterator

from onnxpress.conversion.precision import GAINS, Flow, Slot, Unit

__all__ = ["kept_in_float32"]

_MOVES = frozenset(
    [
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
        *("Unsqueeze", "Pad", "Cast"),
    ]
)
"""Operators that only move numbers: in which precision is all the same."""
_CAST, _OPERATOR, _ENDLESS = 2, 1, 1 << 30
"""Costs: a Cast reads and writes a tensor, an operator in float32 moves twice the bytes."""
_SOURCE, _SINK = "float32", "half"


def kept_in_float32(flow: Flow, wide: Collection[Unit]) -> frozenset[Unit]:
    """The units to keep in float32, `wide` among them: of all best answers the smallest."""
    if not wide:
        return frozenset()
    network = _Network()
    for unit in flow.units:
        if unit in wide:
            network.join(_SOURCE, unit, _ENDLESS)
        else:
            network.join(unit, _SINK, _cost(unit))
    for value, giver in flow.givers.items():
        places = flow.places.get(value, ())
        readers = {_SOURCE if place.unit is None else place.unit for place in places}
        if not readers:
            continue
        first: Hashable = _SOURCE if giver is None else giver
        down, up = (value, "down"), (value, "up")
        network.join(first, down, _CAST)
        network.join(up, first, _CAST)
        for reader in readers:
            network.join(down, reader, _ENDLESS)
            network.join(reader, up, _ENDLESS)
    side = network.source_side()
    return frozenset(unit for unit in flow.units if unit in side)


def _cost(unit: Unit) -> int:
    """Of keeping a unit in float32."""
    if isinstance(unit, Slot) or unit.op_type in _MOVES:
        return 0
    return _ENDLESS if unit.op_type in GAINS else _OPERATOR


class _Network:
    """Capacities, and what is left of them."""

    def __init__(self) -> None:
        self.left: dict[Hashable, dict[Hashable, int]] = {_SOURCE: {}, _SINK: {}}

    def join(self, start: Hashable, end: Hashable, capacity: int) -> None:
        """Add an edge; what flows through it may flow back."""
        if start == end or not capacity:
            return
        forward = self.left.setdefault(start, {})
        forward[end] = forward.get(end, 0) + capacity
        self.left.setdefault(end, {}).setdefault(start, 0)

    def source_side(self) -> set[Hashable]:
        """What the source still reaches once as much flows as can."""
        while True:
            before = self._reached()
            if _SINK not in before:
                return set(before)
            path = list(_back(before))
            flow = min(self.left[start][end] for start, end in path)
            for start, end in path:
                self.left[start][end] -= flow
                self.left[end][start] += flow

    def _reached(self) -> dict[Hashable, Hashable]:
        """Each node that the source reaches, and the one before it on a shortest path."""
        before: dict[Hashable, Hashable] = {_SOURCE: _SOURCE}
        queue: deque[Hashable] = deque([_SOURCE])
        while queue:
            node = queue.popleft()
            for end, capacity in self.left[node].items():
                if capacity and end not in before:
                    before[end] = node
                    if end == _SINK:
                        return before
                    queue.append(end)
        return before


def _back(before: dict[Hashable, Hashable]) -> Iterator[tuple[Hashable, Hashable]]:
    end: Hashable = _SINK
    while end != _SOURCE:
        start = before[end]
        yield start, end
        end = start
