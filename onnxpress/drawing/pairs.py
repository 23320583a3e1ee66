"""Which boxes of two graphs stand for each other: by name, by value where known, by structure.

In turn, each with what is left:

1. a node that gives a tensor of the same name by the same operator, or has the same name and
   operator; inputs and outputs of one name;
2. a node whose tensor is the counterpart of another by value (`onnxpress.difference`), where
   samples were run;
3. a node of the same operator that reads counterparts, or is read by them, and is the only such
   one, or whose constants are the same; again and again until nothing is found;
4. a node that gives a tensor of the same name by another operator: that of the same operator a
   little before, into which what lay between was folded, or else this one, which was rewritten.

Names say nothing where a tool has numbered tensors anew: they are left out where most operators of
one name differ.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from onnxpress.drawing.graphs import Box, Picture, root

__all__ = ["pair_boxes"]

_TRUSTED = 0.5
"""Share of the names in both files that have to have one operator."""
_FEWEST = 4
"""Of these names, below which that says nothing."""
_FOLDED = 12
"""Nodes that are looked through for what was folded into one."""


def pair_boxes(a: Picture, b: Picture, by_value: Mapping[str, str]) -> dict[int, int]:
    """Places of boxes of A and of their counterparts in B; each is in one pair at most.

    Args:
        a: a graph of the original.
        b: the graph that became of it.
        by_value: names of tensors of A and of their counterparts in B.
    """
    pairing = _Pairing(a, b)
    for kind in ("input", "outer", "output"):
        pairing.by_key(lambda box, kind=kind: _named(box) if box.kind == kind else None)  # type: ignore[misc]
    trusted = _names_hold(a, b)
    if trusted:
        pairing.by_key(lambda box: (_gives(box), box.op_type) if _gives(box) else None)
        pairing.by_key(_own_name)
    pairing.by_tensors(by_value, same=True)
    while pairing.by_structure():
        pass
    for names in (by_value, _same_names(a) if trusted else {}):
        pairing.by_folding(names)
    while pairing.by_structure():
        pass
    for names in (by_value, _same_names(a) if trusted else {}):
        pairing.by_tensors(names, same=False)
    return pairing.found


def _own_name(box: Box) -> Hashable | None:
    return None if box.node is None or not box.node.name else (box.node.name, box.op_type)


def _named(box: Box) -> str | None:
    return None if box.value is None else box.value.name


def _gives(box: Box) -> str | None:
    """The name of its first tensor."""
    return box.node.outputs[0].name if box.node is not None and box.node.outputs else None


def _same_names(picture: Picture) -> dict[str, str]:
    return {value.name: value.name for box in picture.boxes for value in box.gives if value.name}


def _names_hold(a: Picture, b: Picture) -> bool:
    operators = {name: box.op_type for box in a.boxes if (name := _gives(box))}
    common = [
        operators[name] == box.op_type for box in b.boxes if (name := _gives(box)) in operators
    ]
    return len(common) < _FEWEST or sum(common) >= _TRUSTED * len(common)


class _Pairing:
    """Pairs found so far.

    Attributes:
        found: places in A and in B.
    """

    def __init__(self, a: Picture, b: Picture) -> None:
        self.pictures = a, b
        self.found: dict[int, int] = {}
        self._back: dict[int, int] = {}
        self._from = tuple(_sources(picture) for picture in (a, b))
        self._readers = tuple(_read_by(sources) for sources in self._from)

    def _left(self, side: int) -> Iterator[tuple[int, Box]]:
        taken = self._back if side else self.found
        return (
            (place, box)
            for place, box in enumerate(self.pictures[side].boxes)
            if place not in taken
        )

    def _add(self, one: int, other: int) -> bool:
        if one in self.found or other in self._back:
            return False
        self.found[one] = other
        self._back[other] = one
        return True

    def by_key(self, key: Callable[[Box], Hashable | None]) -> None:
        """Pair what has one key, in the order of computation."""
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for place, box in self._left(1):
            if (mine := key(box)) is not None:
                waiting[mine].append(place)
        for place, box in list(self._left(0)):
            mine = key(box)
            if mine is not None and waiting.get(mine):
                self._add(place, waiting[mine].pop(0))

    def by_tensors(self, by_value: Mapping[str, str], *, same: bool) -> None:
        """Pair the nodes that give tensors which are counterparts."""
        giving = {value.name: place for place, box in self._left(1) for value in box.gives}
        for place, box in list(self._left(0)):
            for value in box.gives:
                other = giving.get(by_value.get(value.name or "", ""))
                if other is None:
                    continue
                if not same or self.pictures[1].boxes[other].op_type == box.op_type:
                    self._add(place, other)

    def by_folding(self, names: Mapping[str, str]) -> None:
        """Pair nodes of B with the nearest of their operator on the way to their tensors in A."""
        giving = {value.name: place for place, box in self._left(1) for value in box.gives}
        for place, box in list(self._left(0)):
            for value in box.gives:
                other = giving.get(names.get(value.name or "", ""))
                if other is None or other in self._back or place in self.found:
                    continue
                found = self._before(place, self.pictures[1].boxes[other].op_type)
                if found is not None:
                    self._add(found, other)

    def _before(self, place: int, operator: str) -> int | None:
        """The nearest box of A of an operator, with none that has a counterpart in between."""
        waiting, seen = [place], {place}
        for current in waiting:
            if self.pictures[0].boxes[current].op_type == operator:
                return current
            new = [s for s in self._from[0][current] if s not in self.found and s not in seen]
            seen.update(new)
            waiting += new[: _FOLDED - len(waiting)] if len(waiting) < _FOLDED else []
        return None

    def by_structure(self) -> bool:
        """Pair nodes that read, or are read by, counterparts; whether any was found."""
        found = False
        for near in (self._from, self._readers):
            groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
            for side in (0, 1):
                for place, box in self._left(side):
                    mine = self._key(side, place, box, near[side])
                    if mine is not None:
                        groups[mine][side].append(place)
            for ones, others in groups.values():
                if len(ones) == len(others) == 1:
                    found |= self._add(ones[0], others[0])
                elif ones and others:
                    found |= self._by_constants(ones, others)
        return found

    def _key(
        self, side: int, place: int, box: Box, near: Mapping[int, Sequence[int]]
    ) -> Hashable | None:
        """Operator and counterparts; `None` where a neighbour has none, or there is none."""
        if box.node is None or not near.get(place):
            return None
        if side:
            known = [self._back.get(other) for other in near[place]]
        else:
            known = [one if one in self.found else None for one in near[place]]
        if any(one is None for one in known):
            return None
        return box.op_type, tuple(sorted(one for one in known if one is not None))

    def _by_constants(self, ones: Sequence[int], others: Sequence[int]) -> bool:
        """Of several that are built alike, those with the same constants; then in order."""
        waiting = list(others)
        pairs = []
        for one in ones:
            mine = _constants(self.pictures[0].boxes[one])
            for other in waiting:
                if mine and mine == _constants(self.pictures[1].boxes[other]):
                    pairs.append((one, other))
                    waiting.remove(other)
                    break
        if not pairs and len(ones) == len(others):
            pairs = list(zip(ones, others, strict=True))
        return sum(self._add(one, other) for one, other in pairs) > 0


def _constants(box: Box) -> list[tuple[str, bytes]]:
    return [
        (str(found.tensor.shape), found.tensor.tobytes()[:4096])
        for found in box.constants.values()
        if found.tensor is not None and found.tensor.dtype.name != "STRING"
    ]


def _sources(picture: Picture) -> dict[int, list[int]]:
    """Which boxes each reads from, behind copies."""
    made = {value: place for place, box in enumerate(picture.boxes) for value in box.gives}
    return {
        place: [made[first] for value in box.reads.values() if (first := root(value)) in made]
        for place, box in enumerate(picture.boxes)
    }


def _read_by(sources: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for place, read in sources.items():
        for source in read:
            found[source].append(place)
    return found
