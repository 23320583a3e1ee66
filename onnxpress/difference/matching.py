"""Which tensors of two models stand for each other: by name, by value, by structure.

What has one name in both is a pair, unless sizes say otherwise. What is left is compared by value
on the first sample, where B is given A's values at all pairs found so far: its tensors carry no
error then but that of the stretch since the last pair, so that fused, folded, renamed, quantized
and factorized nodes are recognized by what they compute. Where that finds nothing more, nodes of
one operator that read counterparts are paired. This is repeated until nothing is found.

Behind a tensor of B that has a counterpart, Identity, Cast and QuantizeLinear with
DequantizeLinear give the same tensor once more: it is paired with the same tensor of A, so that
what quantizing a tensor costs is told apart from what its node costs.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.difference.rewriting import noise_between, rewritten
from onnxpress.difference.tensors import Tensor, Tensors
from onnxpress.difference.tracing import Sketch, sketches, sketches_given
from onnxpress.difference.weights import constant_array
from onnxpress.graph import is_standard
from onnxpress.runtime import Feed

__all__ = ["Matching", "match"]

logger = logging.getLogger(__name__)

_ROUNDS = 12
_NEAR = 0.05
"""Noise over variance up to which two tensors are one: 13 dB, what coarse quantization leaves."""
_FEWEST = 16
"""Elements below which equal values are an accident."""
_COPIES = ("Identity", "Cast", "DequantizeLinear", "Dropout")


@dataclass(frozen=True, slots=True)
class Matching:
    """Pairs of tensors.

    Attributes:
        pairs: names of tensors of B and of their counterparts in A, which may have several.
        how: by which of `name`, `value`, `structure`, `copy` each was found.
        unmatched: tensors of A that have no counterpart; those that were never computed are not
            among them.
        sketches_a: of every tensor of A on the first sample.
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
        return a is not None and b is not None and _comparable(a, b)

    def forcible(self, a: Tensors, b: Tensors) -> dict[str, str]:
        """The pairs where B can be given A's values."""
        return {
            name: other
            for name, other in self.pairs.items()
            if self.comparable(name)
            and b.by_name[name].forcible
            and (a.by_name[other].forcible or a.by_name[other].node is None)
        }


class _Search:
    """Pairs found so far, and what finding more needs."""

    def __init__(self, a: Tensors, b: Tensors, feeds: tuple[Feed, Feed], threads: int) -> None:
        self.a, self.b, self.feeds, self.threads = a, b, feeds, threads
        self.of_a = sketches(a, list(a.by_name), feeds[0], threads=threads)
        self.of_b = sketches(b, list(b.by_name), feeds[1], threads=threads)
        self.pairs: dict[str, str] = {}
        self.how: dict[str, str] = {}
        self.dropped: set[tuple[str, str]] = set()
        self.copies_a = _copies(a)
        self.copies_b = _copies(b)

    def add(self, name: str, other: str, how: str) -> None:
        self.pairs[name], self.how[name] = other, how

    def found(self) -> Matching:
        taken = set(self.pairs.values())
        left = tuple(name for name in self.of_a if name not in taken)
        how = {name: self.how[name] for name in self.pairs}
        return Matching(dict(self.pairs), how, left, self.of_a, self.of_b)

    def comparable(self, name: str, other: str) -> bool:
        a, b = self.of_a.get(other), self.of_b.get(name)
        return a is not None and b is not None and _comparable(a, b)

    def add_copies(self) -> None:
        """Pair what only repeats a paired tensor."""
        for name, source in self.copies_b.items():
            if name not in self.pairs and source in self.pairs:
                other = self.pairs[source]
                if self.comparable(name, other):
                    self.add(name, other, "copy")

    def given(self, names: Sequence[str], pairs: Mapping[str, str]) -> dict[str, Sketch]:
        """Sketches of tensors of B where B has A's values at all pairs that can be given them."""
        forced = {n: o for n, o in self.found().forcible(self.a, self.b).items() if n in pairs}
        return sketches_given(
            self.a, self.b, names, self.feeds, forced, self.of_b, threads=self.threads
        )

    def drop_rewritten(self) -> None:
        """Forget pairs that a rewrite has made two tensors of."""
        pairs = self.found().forcible(self.a, self.b)
        names = list(pairs)
        for name in rewritten(self.b, pairs, self.of_a, lambda some: self.given(names, some)):
            logger.debug("%s is rewritten", name)
            self.dropped.add((name, self.pairs.pop(name)))
        for name, source in self.copies_b.items():
            if self.how.get(name) == "copy" and source not in self.pairs:
                self.pairs.pop(name, None)

    def left(self) -> tuple[list[str], list[str]]:
        taken = set(self.pairs.values())
        a = [name for name in self.of_a if name not in taken]
        return a, [name for name in self.of_b if name not in self.pairs]


def match(
    a: Tensors, b: Tensors, feeds: tuple[Feed, Feed], inputs: Mapping[str, str], *, threads: int = 0
) -> Matching:
    """Pair the tensors of two models.

    Args:
        a: the original.
        b: the other model.
        feeds: the first sample, for A and for B.
        inputs: names of B's inputs and of A's.
        threads: of onnxruntime.

    Raises:
        ModelError: onnxruntime cannot run one of them.
    """
    search = _Search(a, b, feeds, threads)
    for name, other in inputs.items():
        search.add(name, other, "name")
    _by_name(search)
    search.add_copies()
    search.drop_rewritten()
    for number in range(_ROUNDS):
        left_a, left_b = search.left()
        if not left_a or not left_b:
            break
        given = search.given(left_b, search.pairs)
        new = _by_value(search, left_a, left_b, given)
        how = "value"
        if not new:
            new, how = _by_structure(search, left_a, left_b), "structure"
        logger.debug("round %d: %d pairs by %s", number, len(new), how)
        if not new:
            break
        for name, other in new.items():
            search.add(name, other, how)
        search.add_copies()
    search.drop_rewritten()
    return search.found()


def _comparable(a: Sketch, b: Sketch) -> bool:
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


def _root(name: str, copies: Mapping[str, str]) -> str:
    while name in copies:
        name = copies[name]
    return name


def _by_name(search: _Search) -> None:
    """Pair what has one name, unless names mean nothing from one file to the other."""
    common = [n for n in search.b.by_name if n in search.a.by_name and n not in search.pairs]
    known = [name for name in common if name in search.of_a and name in search.of_b]
    fitting = [name for name in known if search.comparable(name, name)]
    trusted = len(fitting) >= 0.9 * len(known)
    outputs = {value.name for value in search.a.model.graph.outputs}
    for name in common:
        one, other = search.a.by_name[name], search.b.by_name[name]
        if name not in outputs and not trusted and one.op_type != other.op_type:
            continue
        search.add(name, name, "name")


def _by_value(
    search: _Search, left_a: Sequence[str], left_b: Sequence[str], given: Mapping[str, Sketch]
) -> dict[str, str]:
    """Pairs that are each other's nearest, and near; equal ones in the order of computation."""
    by_size: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in left_b:
        if name in given and given[name].dtype.kind == "f" and given[name].size >= _FEWEST:
            by_size[given[name].size, given[name].times].append(name)
    ranked = []
    for name in left_a:
        one = search.of_a[name]
        spread = float(np.var(one.values)) if one.dtype.kind == "f" else 0.0
        if not spread > 0:
            continue
        for other in by_size.get((one.size, one.times), ()):
            noise = noise_between(one, given[other])
            if noise < _NEAR:
                ranked.append((_rank(search, noise, name, other), name, other))
    found: dict[str, str] = {}
    taken: set[str] = set()
    for _, name, other in sorted(ranked):
        if name not in taken and other not in found:
            found[other] = name
            taken.add(name)
    return found


def _rank(search: _Search, noise: float, name: str, other: str) -> tuple[float, bool, float]:
    """The nearer the better; among equally near ones, operator and place decide."""
    one, two = search.a.by_name[name], search.b.by_name[other]
    decade = round(np.log10(max(noise, 1e-12)))
    apart = one.position / len(search.a.by_name) - two.position / len(search.b.by_name)
    return decade, one.op_type != two.op_type, abs(apart)


def _by_structure(search: _Search, left_a: Sequence[str], left_b: Sequence[str]) -> dict[str, str]:
    """Pairs of outputs of one operator that reads counterparts at the same places."""
    groups: dict[tuple[object, ...], tuple[list[Tensor], list[Tensor]]] = defaultdict(
        lambda: ([], [])
    )
    of_a = {name: name for name in search.pairs.values()}
    for side, names, tensors in ((0, left_a, search.a), (1, left_b, search.b)):
        copies = search.copies_a if side == 0 else search.copies_b
        known = of_a if side == 0 else search.pairs
        for name in names:
            tensor = tensors.by_name[name]
            reads = [_root(read, copies) if read else "" for read in tensor.reads]
            if tensor.node is None or any(read and read not in known for read in reads):
                continue
            read = [_root(known[r], search.copies_a) if r else "" for r in reads]
            index = [out.name for out in tensor.node.outputs].index(name)
            groups[tensor.op_type, index, *sorted(read)][side].append(tensor)
    found: dict[str, str] = {}
    for ones, others in groups.values():
        found.update(_nearest_weights(search, ones, others))
    return found


def _nearest_weights(
    search: _Search, ones: Sequence[Tensor], others: Sequence[Tensor]
) -> dict[str, str]:
    """Nodes that read the same differ in their weights: the nearest, then the order, decide."""
    ranked = []
    for one in ones:
        for other in others:
            if (
                search.comparable(other.name, one.name)
                and (other.name, one.name) not in search.dropped
            ):
                distance = _weight_distance(one, other)
                ranked.append((distance, abs(one.position - other.position), one.name, other.name))
    found: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, name, other_name in sorted(ranked):
        if name not in taken and other_name not in found:
            found[other_name] = _behind_folded(search, name, other_name)
            taken.add(name)
    return found


def _behind_folded(search: _Search, name: str, other: str) -> str:
    """The tensor of A behind normalizations and scalings that B has folded into the node."""
    readers_a, readers_b = search.a.readers(), search.b.readers()
    while len(readers_a[name]) == 1:
        (reader,) = readers_a[name]
        next_b = {tensor.op_type for tensor in readers_b[other]}
        if reader.op_type != "BatchNormalization" or reader.op_type in next_b:
            break
        name = reader.name
    return name


def _weight_distance(one: Tensor, other: Tensor) -> float:
    assert one.node is not None
    assert other.node is not None
    total = 0.0
    for left, right in zip(one.node.inputs, other.node.inputs, strict=False):
        a, b = constant_array(left), constant_array(right)
        if a is None or b is None or a.dtype.kind != "f" or b.dtype.kind != "f":
            continue
        if a.size != b.size:
            return 1.0
        power = float(np.mean(np.square(a, dtype=np.float64))) or 1.0
        difference = np.subtract(a.reshape(-1), b.reshape(-1), dtype=np.float64)
        total += min(1.0, float(np.mean(np.square(difference))) / power)
    return total
