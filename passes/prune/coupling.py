"""Which indices of which axes must go together when channels are removed.

Every index of an axis that could get shorter is an *atom*. Operators say which atoms of their
inputs and outputs are one and the same (`operators.py`); union-find (Tarjan, 1975) puts them
together. What cannot get shorter (an input of the model, an axis that is normalized over) blocks
its atoms, with the reason. The sets that remain are *units*: a channel through a whole residual
stream, the positions of an attention head in four projections. Units that touch the same axes of
the same constants are alternatives to each other and form a *group*.

A Reshape that takes an axis apart (or puts axes together) leaves a choice: an index of the whole
goes with the index of one of its factors. It is settled when everything else is known: for the
axis that attention runs over in parallel (heads), else for the factor with the most indices.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["LARGEST", "Atoms", "Axes", "Coupling", "Dynamic", "Group", "fixed", "still"]

Atoms = npt.NDArray[np.int64]
"""An axis of known size: an atom for each index; −1 for one that always stays."""


class Dynamic:
    """An axis whose size is known only at run time; equal objects are equal sizes."""


Axes = list[Atoms | Dynamic]

LARGEST = 1 << 20
"""Indices that are followed one by one: an axis that a file says is longer counts as dynamic."""


def fixed(size: int) -> Atoms:
    """An axis of which nothing can be removed."""
    return np.full(size, -1, np.int64)


def still(size: int) -> Atoms | Dynamic:
    """`fixed` for a size that only stands in the file, and may be any number."""
    return fixed(size) if 0 <= size <= LARGEST else Dynamic()


@dataclass(frozen=True)
class Group:
    """Units that are alternatives to each other.

    Attributes:
        name: of the first constant that produces them, which is the site's name.
        units: roots of the units, in the order of their first index there.
        kind: `head` where attention runs over them in parallel, else `channel`.
        blocked: why they have to stay, or `None`.
        constants: `(name of the constant, axis)` of all constants that get shorter.
    """

    name: str
    units: tuple[int, ...]
    kind: str
    blocked: str | None
    constants: tuple[tuple[str, int], ...]


@dataclass
class _Product:
    """An axis that is the product of several, in row-major order."""

    whole: Atoms
    factors: list[Atoms]
    reason: str


@dataclass
class Coupling:
    """The atoms of a model's tensors.

    Attributes:
        axes: of every tensor that was understood.
        vanishes: whether a tensor is zero wherever all constants of a unit are set to zero.
        failures: `(operator, reason)` of nodes that block what they touch.
    """

    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    vanishes: dict[ir.Value, bool] = field(default_factory=dict)
    constants: dict[ir.Value, Axes] = field(default_factory=dict)
    _parents: Atoms = field(default_factory=lambda: np.arange(0))
    _count: int = 0
    _blocked: dict[int, str] = field(default_factory=dict)
    _heads: set[int] = field(default_factory=set)
    _products: list[_Product] = field(default_factory=list)

    def fresh(self, size: int) -> Atoms:
        """An axis of atoms that nothing is known of; an axis of one index always stays."""
        if size == 1:
            return fixed(1)
        made = np.arange(self._count, self._count + size)
        self._count += size
        if self._count > len(self._parents):
            more = np.arange(len(self._parents), 2 * self._count)
            self._parents = np.concatenate((self._parents, more))
        return made

    def stated(self, size: int) -> Atoms | Dynamic:
        """`fresh` for a size that only stands in the file, and may be any number."""
        return self.fresh(size) if 0 <= size <= LARGEST else Dynamic()

    def roots(self, atoms: Atoms) -> Atoms:
        """The units along an axis; −1 where an index always stays."""
        free = atoms >= 0
        found = atoms[free]
        while True:
            above = self._parents[found]
            if np.array_equal(above, found):
                break
            found = above
        # Shorter ways for the next time.
        self._parents[atoms[free]] = found
        result = np.full(len(atoms), -1, np.int64)
        result[free] = found
        return result

    def unite(self, first: Atoms, second: Atoms, reason: str) -> None:
        """Index by index the same; where one of them stays the other is blocked."""
        if first is second:
            return
        one, other = self.roots(first), self.roots(second)
        stays = (one < 0) | (other < 0)
        self.block(np.maximum(one, other)[stays], reason)
        while True:
            low, high = np.minimum(one, other)[~stays], np.maximum(one, other)[~stays]
            apart = low != high
            low, high = low[apart], high[apart]
            if not len(low):
                return
            # Each is put below one other at most; what is left over comes in the next round.
            high, places = np.unique(high, return_index=True)
            low = low[places]
            self._parents[high] = low
            for above, below in zip(low.tolist(), high.tolist(), strict=True):
                if below in self._blocked:
                    self._blocked.setdefault(above, self._blocked.pop(below))
                if below in self._heads:
                    self._heads.add(above)
            one, other = self.roots(first), self.roots(second)

    def relate(self, first: Atoms | Dynamic, second: Atoms | Dynamic, reason: str) -> None:
        """`unite` for axes that may be dynamic or, by broadcasting, of size one."""
        if isinstance(first, Dynamic) or isinstance(second, Dynamic):
            for axis in (first, second):
                if not isinstance(axis, Dynamic) and len(axis) > 1:
                    self.block(axis, reason)
        elif len(first) == len(second):
            self.unite(first, second, reason)
        elif min(len(first), len(second)) > 1:
            self.block(first, reason)
            self.block(second, reason)

    def block(self, axis: Atoms | Dynamic, reason: str) -> None:
        """Its indices have to stay."""
        if not isinstance(axis, Dynamic):
            for root in self.roots(axis).tolist():
                if root >= 0:
                    self._blocked.setdefault(root, reason)

    def block_all(self, axes: Iterable[Atoms | Dynamic], reason: str) -> None:
        """`block` for each."""
        for axis in axes:
            self.block(axis, reason)

    def reason(self, root: int) -> str | None:
        """Why the unit has to stay, or `None`."""
        return self._blocked.get(root)

    def mark_heads(self, axis: Atoms | Dynamic) -> None:
        """Attention runs over this axis in parallel."""
        if not isinstance(axis, Dynamic):
            self._heads.update(root for root in self.roots(axis).tolist() if root >= 0)

    def product(self, whole: Atoms, factors: Sequence[Atoms], reason: str) -> None:
        """`whole` is all combinations of `factors`, the last running fastest."""
        self._products.append(_Product(whole, list(factors), reason))

    def settle(self) -> None:
        """Decide for each product with which of its factors its indices go."""
        waiting = list(self._products)
        self._products = []
        while waiting:
            options = [self._open_factors(product) for product in waiting]
            # Those without a choice first: what they settle may leave others without one.
            place = min(range(len(waiting)), key=lambda at: len(options[at]) > 1)
            product, choices = waiting.pop(place), options[place]
            if not choices or self._is_blocked(product.whole):
                self.block_all([product.whole, *product.factors], product.reason)
                continue
            free = max(choices, key=lambda at: self._preference(product.factors[at]))
            sizes = [len(factor) for factor in product.factors]
            indices = np.unravel_index(np.arange(len(product.whole)), sizes)[free]
            self.unite(product.whole, product.factors[free][indices], product.reason)
            for at, factor in enumerate(product.factors):
                if at != free:
                    self.block(factor, product.reason)

    def _open_factors(self, product: _Product) -> list[int]:
        return [
            at
            for at, factor in enumerate(product.factors)
            if len(factor) > 1 and not self._is_blocked(factor)
        ]

    def _is_blocked(self, axis: Atoms) -> bool:
        """Whether any of its indices has to stay; mostly all have to, or none."""
        return any(
            root < 0 or root in self._blocked
            for part in (axis[:1], axis[1:])
            for root in self.roots(part).tolist()
        )

    def _preference(self, factor: Atoms) -> tuple[bool, int]:
        return not self._heads.isdisjoint(self.roots(factor).tolist()), len(factor)

    def groups(self, names: Mapping[ir.Value, int]) -> list[Group]:
        """All groups.

        Args:
            names: the constants in the order of the graph, with the axis along which each
                produces something new (−1: none).
        """
        order = list(names)
        touched = _Touched(self._count)
        for number, value in enumerate(order):
            for axis, atoms in enumerate(self.constants.get(value, [])):
                if not isinstance(atoms, Dynamic):
                    touched.add(self.roots(atoms), (number, axis), makes=axis == names[value])
        found = []
        taken: dict[str, int] = {}
        for units, shared, reason in touched.alike(self._blocked):
            name = order[touched.maker[units[0]]].name or ""
            # Several groups may begin in one constant (a projection that is split later).
            count = taken.get(name, 0)
            taken[name] = count + 1
            found.append(
                Group(
                    name=f"{name}:{count}" if count else name,
                    units=tuple(units),
                    kind="channel" if self._heads.isdisjoint(units) else "head",
                    blocked=reason,
                    constants=tuple((order[at].name or "", axis) for at, axis in shared),
                )
            )
        return found


class _Touched:
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

    def add(self, roots: Atoms, place: tuple[int, int], *, makes: bool) -> None:
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
