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

from collections.abc import Iterable, Mapping, Sequence
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
    _parents: list[int] = field(default_factory=list)
    _blocked: dict[int, str] = field(default_factory=dict)
    _heads: set[int] = field(default_factory=set)
    _products: list[_Product] = field(default_factory=list)

    def fresh(self, size: int) -> Atoms:
        """An axis of atoms that nothing is known of; an axis of one index always stays."""
        if size == 1:
            return fixed(1)
        start = len(self._parents)
        self._parents.extend(range(start, start + size))
        return np.arange(start, start + size)

    def stated(self, size: int) -> Atoms | Dynamic:
        """`fresh` for a size that only stands in the file, and may be any number."""
        return self.fresh(size) if 0 <= size <= LARGEST else Dynamic()

    def root(self, atom: int) -> int:
        """What stands for the unit of an atom."""
        parents = self._parents
        while parents[atom] != atom:
            parents[atom] = parents[parents[atom]]
            atom = parents[atom]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        """The units along an axis; −1 where an index always stays."""
        return np.fromiter(
            (-1 if atom < 0 else self.root(int(atom)) for atom in atoms), np.int64, len(atoms)
        )

    def unite(self, first: Atoms, second: Atoms, reason: str) -> None:
        """Index by index the same; where one of them stays the other is blocked."""
        if first is second:
            return
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            if one < 0 or other < 0:
                self._block_atom(max(one, other), reason)
                continue
            a, b = self.root(one), self.root(other)
            if a == b:
                continue
            low, high = min(a, b), max(a, b)
            self._parents[high] = low
            if high in self._blocked:
                self._blocked.setdefault(low, self._blocked.pop(high))
            if high in self._heads:
                self._heads.add(low)

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
            for atom in axis.tolist():
                self._block_atom(atom, reason)

    def block_all(self, axes: Iterable[Atoms | Dynamic], reason: str) -> None:
        """`block` for each."""
        for axis in axes:
            self.block(axis, reason)

    def _block_atom(self, atom: int, reason: str) -> None:
        if atom >= 0:
            self._blocked.setdefault(self.root(atom), reason)

    def reason(self, root: int) -> str | None:
        """Why the unit has to stay, or `None`."""
        return self._blocked.get(root)

    def mark_heads(self, axis: Atoms | Dynamic) -> None:
        """Attention runs over this axis in parallel."""
        if not isinstance(axis, Dynamic):
            self._heads.update(self.root(atom) for atom in axis.tolist() if atom >= 0)

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
            if not choices or any(self._is_blocked(int(atom)) for atom in product.whole):
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
            if len(factor) > 1 and not any(self._is_blocked(int(atom)) for atom in factor)
        ]

    def _is_blocked(self, atom: int) -> bool:
        return atom < 0 or self.root(atom) in self._blocked

    def _preference(self, factor: Atoms) -> tuple[bool, int]:
        return any(self.root(int(atom)) in self._heads for atom in factor), len(factor)

    def groups(self, names: Mapping[ir.Value, int]) -> list[Group]:
        """All groups.

        Args:
            names: the constants in the order of the graph, with the axis along which each
                produces something new (−1: none).
        """
        places: dict[int, list[tuple[int, int]]] = {}
        order = list(names)
        first: dict[int, tuple[int, int]] = {}
        for number, value in enumerate(order):
            for axis, atoms in enumerate(self.constants.get(value, [])):
                if isinstance(atoms, Dynamic):
                    continue
                for index, root in enumerate(self.roots(atoms).tolist()):
                    if root < 0:
                        continue
                    known = places.setdefault(root, [])
                    if (number, axis) not in known[-1:]:
                        known.append((number, axis))
                    if axis == names[value]:
                        first.setdefault(root, (number, index))
        alike: dict[tuple[tuple[tuple[int, int], ...], str | None], list[int]] = {}
        for root, where in places.items():
            if root in first:
                key = tuple(sorted(set(where))), self._blocked.get(root)
                alike.setdefault(key, []).append(root)
        found = []
        for (shared, reason), units in alike.items():
            units.sort(key=lambda root: first[root])
            found.append(
                Group(
                    name=order[first[units[0]][0]].name or "",
                    units=tuple(units),
                    kind="head" if any(root in self._heads for root in units) else "channel",
                    blocked=reason,
                    constants=tuple((order[at].name or "", axis) for at, axis in shared),
                )
            )
        taken: dict[str, int] = {}
        named = []
        for group in found:
            # Several groups may begin in one constant (a projection that is split later).
            count = taken.get(group.name, 0)
            taken[group.name] = count + 1
            suffix = f":{count}" if count else ""
            named.append(
                Group(group.name + suffix, group.units, group.kind, group.blocked, group.constants)
            )
        return named
