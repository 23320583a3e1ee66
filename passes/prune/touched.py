"""Units by the axes of constants that they run through, counted for whole axes at once."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["Touched"]

Units = npt.NDArray[np.int64]


class Touched:
    """Which axes of which constants each unit runs through.

    Attributes:
        maker: `[atoms]` the number of the first constant that produces a unit; −1: none.
    """

    def __init__(self, count: int) -> None:
        self.maker = np.full(count, -1, np.int64)
        self._index = np.zeros(count, np.int64)
        self._rank = np.full(count, -1, np.int64)
        # Of each unit the number of a set of places; a set is an earlier one and one place more.
        self._set = np.zeros(count, np.int64)
        self._sets: list[tuple[int, tuple[int, int]]] = [(0, (-1, -1))]
        self._numbers: dict[tuple[int, tuple[int, int]], int] = {}
        self._seen = 0

    def add(self, roots: Units, place: tuple[int, int], *, makes: bool) -> None:
        """The units along an axis; `place`: the constant's number, and which of its axes."""
        units, first = np.unique(roots, return_index=True)
        order = np.argsort(first)
        units, first = units[order], first[order]
        units, first = units[units >= 0], first[units >= 0]
        new = units[self._rank[units] < 0]
        self._rank[new] = np.arange(self._seen, self._seen + len(new))
        self._seen += len(new)
        before, which = np.unique(self._set[units], return_inverse=True)
        self._set[units] = np.array([self._with(s, place) for s in before.tolist()] or [0])[which]
        if makes:
            unmade = self.maker[units] < 0
            self.maker[units[unmade]] = place[0]
            self._index[units[unmade]] = first[unmade]

    def _with(self, known: int, place: tuple[int, int]) -> int:
        found = self._numbers.setdefault((known, place), len(self._sets))
        if found == len(self._sets):
            self._sets.append((known, place))
        return found

    def alike(
        self, blocked: Mapping[int, str]
    ) -> Iterator[tuple[list[int], list[tuple[int, int]], str | None]]:
        """Units with the same places and the same reason to stay, those places, that reason.

        Args:
            blocked: reasons, by unit.
        """
        made = np.flatnonzero(self.maker >= 0)
        made = made[np.argsort(self._rank[made])]
        groups: dict[tuple[int, str | None], list[int]] = {}
        for unit, of_places in zip(made.tolist(), self._set[made].tolist(), strict=True):
            groups.setdefault((of_places, blocked.get(unit)), []).append(unit)
        for (of_places, reason), units in groups.items():
            ordered = np.lexsort((self._index[units], self.maker[units]))
            yield np.asarray(units)[ordered].tolist(), self._places(of_places), reason

    def _places(self, number: int) -> list[tuple[int, int]]:
        found = []
        while number:
            number, place = self._sets[number]
            found.append(place)
        return found[::-1]
