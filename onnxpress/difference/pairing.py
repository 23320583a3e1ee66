"""Pairs of tensors found so far, and what it takes to find more."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxpress.difference.rewriting import rewritten
from onnxpress.difference.tensors import Tensors
from onnxpress.difference.tracing import Sketch, opened, sketches, sketches_given
from onnxpress.graph import is_standard
from onnxpress.runtime import Array, Feed

__all__ = ["Matching", "Search", "root"]

logger = logging.getLogger(__name__)

_KEPT_BYTES = 300_000_000
_COPIES = ("Identity", "Cast", "DequantizeLinear", "Dropout")


@dataclass(frozen=True, slots=True)
class Matching:
    """Pairs of tensors.

    Attributes:
        pairs: names of tensors of B and of their counterparts in A, which may have several.
        how: by which of `name`, `value`, `structure`, `copy` each was found.
        unmatched: tensors of A that have no counterpart; those that were never computed are not
            among them.
        sketches_a: of every tensor of A on the first sample that computes it.
        sketches_b: likewise.
    """

    pairs: Mapping[str, str]
    how: Mapping[str, str]
    unmatched: tuple[str, ...]
    sketches_a: Mapping[str, Sketch]
    sketches_b: Mapping[str, Sketch]

    def comparable(self, name: str) -> bool:
        """Whether a tensor of B has as many elements as its counterpart."""
        a, b = self.sketches_a.get(self.pairs[name]), self.sketches_b.get(name)
        return a is not None and b is not None and comparable_sketches(a, b)

    def forcible(self, a: Tensors, b: Tensors) -> dict[str, str]:
        """The pairs where B can be given A's values."""
        return {
            name: other
            for name, other in self.pairs.items()
            if self.comparable(name)
            and b.by_name[name].forcible
            and (a.by_name[other].forcible or a.by_name[other].node is None)
        }


class Search:
    """Pairs found so far, and what finding more needs."""

    def __init__(
        self, a: Tensors, b: Tensors, feeds: Sequence[tuple[Feed, Feed]], threads: int
    ) -> None:
        self.a, self.b, self.feeds, self.threads = a, b, feeds[0], threads
        self.of_a = sketches(a, list(a.by_name), [one for one, _ in feeds], threads=threads)
        self.of_b = sketches(b, list(b.by_name), [other for _, other in feeds], threads=threads)
        self.pairs: dict[str, str] = {}
        self.how: dict[str, str] = {}
        self.dropped: set[tuple[str, str]] = set()
        self._kept: Mapping[str, list[Array]] = {}
        self.copies_a = _copies(a)
        self.copies_b = _copies(b)

    def add(self, name: str, other: str, how: str) -> None:
        """Pair a tensor of B with one of A."""
        self.pairs[name], self.how[name] = other, how

    def found(self) -> Matching:
        """All pairs so far."""
        taken = set(self.pairs.values())
        left = tuple(name for name in self.of_a if name not in taken)
        how = {name: self.how[name] for name in self.pairs}
        return Matching(dict(self.pairs), how, left, self.of_a, self.of_b)

    def comparable(self, name: str, other: str) -> bool:
        """Whether tensors of B and of A have as many elements."""
        a, b = self.of_a.get(other), self.of_b.get(name)
        return a is not None and b is not None and comparable_sketches(a, b)

    def add_copies(self) -> None:
        """Pair what only repeats a paired tensor."""
        for name, source in self.copies_b.items():
            if name not in self.pairs and source in self.pairs:
                other = self.pairs[source]
                if self.comparable(name, other) and (name, other) not in self.dropped:
                    self.add(name, other, "copy")

    def given(self, names: Sequence[str], pairs: Mapping[str, str]) -> dict[str, Sketch]:
        """Sketches of tensors of B where B has A's values at all pairs that can be given them."""
        forced = {n: o for n, o in self.found().forcible(self.a, self.b).items() if n in pairs}
        return sketches_given(
            self.b,
            names,
            self.feeds[1],
            self._originals,
            forced,
            self.of_b,
            threads=self.threads,
        )

    def _originals(self, names: Sequence[str]) -> Mapping[str, list[Array]]:
        """Tensors of A on the first sample; all are kept where they are not too large."""
        if sum(sketch.nbytes for sketch in self.of_a.values()) > _KEPT_BYTES:
            return opened(self.a, names, {}, threads=self.threads)(self.feeds[0], {})
        if not self._kept:
            run = opened(self.a, list(self.of_a), {}, threads=self.threads)
            self._kept = run(self.feeds[0], {})
        return self._kept

    def drop_rewritten(self) -> None:
        """Forget pairs that a rewrite has made two tensors of."""
        pairs = self.found().forcible(self.a, self.b)
        names = list(pairs)
        for name in rewritten(self.b, pairs, self.of_a, lambda some: self.given(names, some)):
            logger.debug("%s is rewritten", name)
            self.dropped.add((name, self.pairs.pop(name)))

    def left(self) -> tuple[list[str], list[str]]:
        """Tensors of A and of B that are in no pair."""
        taken = set(self.pairs.values())
        a = [name for name in self.of_a if name not in taken]
        return a, [name for name in self.of_b if name not in self.pairs]


def comparable_sketches(a: Sketch, b: Sketch) -> bool:
    return (
        a.size == b.size and a.times == b.times and (a.dtype.kind == "f") == (b.dtype.kind == "f")
    )


def _copies(tensors: Tensors) -> dict[str, str]:
    """Tensors that repeat another: by which."""
    found = {}
    for name, tensor in tensors.by_name.items():
        node = tensor.node
        if node is None or not is_standard(node) or node.op_type not in _COPIES:
            continue
        source = tensor.reads[0]
        if node.op_type == "DequantizeLinear":
            before = tensors.by_name.get(source)
            if before is None or before.op_type != "QuantizeLinear":
                continue
            source = before.reads[0]
        if source and tensor.node is not None and node.outputs[0].name == name:
            found[name] = source
    return found


def root(name: str, copies: Mapping[str, str]) -> str:
    """The tensor that one repeats, or itself."""
    while name in copies:
        name = copies[name]
    return name
