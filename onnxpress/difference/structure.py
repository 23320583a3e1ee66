"""Pair what is left by how the graph is built, where values say nothing because of an error.

In turn, each only where the one before finds nothing: nodes of one operator that read counterparts;
nodes with nearly the same weights, whatever they read; nodes of two operators that alone read the
same counterparts.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from onnxpress.difference.pairing import Search, root
from onnxpress.difference.tensors import Tensor
from onnxpress.difference.weights import constant_array
from onnxpress.recurrent import RECURRENT
from onnxpress.runtime import Array

__all__ = ["by_structure"]

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)
_FOLDED = ("BatchNormalization", "Add", "Sub", "Mul", "Div")
_ALIKE = 0.9
"""Mean cosine of the rows of two weights that are one, quantized, folded or damaged."""

Groups = dict[tuple[object, ...], tuple[list[Tensor], list[Tensor]]]


def by_structure(search: Search, left_a: Sequence[str], left_b: Sequence[str]) -> dict[str, str]:
    """More pairs: names of tensors of B and of A."""
    ones = [search.a.by_name[name] for name in left_a]
    others = [search.b.by_name[name] for name in left_b if name not in search.copies_b]
    found: dict[str, str] = {}
    for pair in _groups(search, ones, others, same=True).values():
        found.update(_nearest(search, *pair))
    return found or _by_weights(search, ones, others) or _alone(search, ones, others)


def _groups(
    search: Search, ones: Sequence[Tensor], others: Sequence[Tensor], *, same: bool
) -> Groups:
    """Tensors of A and of B by operator, where it has to be the same, and by what they read."""
    groups: Groups = defaultdict(lambda: ([], []))
    of_a = {name: name for name in search.pairs.values()}
    for side, tensors in ((0, ones), (1, others)):
        copies = (search.copies_a, search.copies_b)[side]
        known = (of_a, search.pairs)[side]
        for tensor in tensors:
            reads = [root(read, copies) for read in tensor.reads if read]
            if tensor.node is None or not reads or any(read not in known for read in reads):
                continue
            read = sorted(root(known[name], search.copies_a) for name in reads)
            index = [out.name for out in tensor.node.outputs].index(tensor.name)
            operator = tensor.op_type if same else ""
            groups[operator, index, *read][side].append(tensor)
    return groups


def _nearest(search: Search, ones: Sequence[Tensor], others: Sequence[Tensor]) -> dict[str, str]:
    """Nodes that read the same differ in their weights: the nearest, then the order, decide."""
    ranked = [
        (_weight_distance(one, other), abs(one.position - other.position), one.name, other.name)
        for one in ones
        for other in others
        if _fits(search, one, other)
    ]
    return _assigned(search, ranked)


def _fits(search: Search, one: Tensor, other: Tensor) -> bool:
    pair = other.name, one.name
    return search.comparable(*pair) and pair not in search.dropped


def _assigned(search: Search, ranked: Sequence[tuple[float, int, str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    taken: set[str] = set()
    for _, _, name, other in sorted(ranked):
        if name not in taken and other not in found:
            taken.add(name)
            found[other] = _behind_folded(search, name, other)
    return found


def _by_weights(search: Search, ones: Sequence[Tensor], others: Sequence[Tensor]) -> dict[str, str]:
    """The first pair of nodes with nearly the same weights; its values then lead to more."""
    weights = [(other, weight) for other in others if (weight := _weight(other)) is not None]
    ranked = []
    for one in ones:
        mine = _weight(one)
        if mine is None:
            continue
        for other, weight in weights:
            if mine.size == weight.size and _fits(search, one, other):
                likeness = _likeness(mine, weight)
                if likeness > _ALIKE:
                    ranked.append((-likeness, one.position, one.name, other.name))
    found = _assigned(search, ranked)
    first = min(found, key=lambda name: search.b.by_name[name].position, default=None)
    return {} if first is None else {first: found[first]}


def _weight(tensor: Tensor) -> Array | None:
    if tensor.op_type not in _LINEAR:
        return None
    assert tensor.node is not None
    found = (constant_array(value) for value in reversed(tensor.node.inputs[:2]))
    return next((w for w in found if w is not None and w.ndim > 1 and w.dtype.kind == "f"), None)


def _likeness(one: Array, other: Array) -> float:
    """Mean cosine along the first or the last axis: a scale for each output does not count."""
    best = 0.0
    for axis in (0, -1):
        rows = [
            np.moveaxis(array.astype(np.float64), axis, 0).reshape(one.shape[axis], -1)
            for array in (one, other.reshape(one.shape))
        ]
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
            cosines = np.einsum("ij,ij->i", *rows) / lengths
        best = max(best, float(np.nanmean(np.abs(cosines))) if np.isfinite(cosines).any() else 0)
    return best


def _alone(search: Search, ones: Sequence[Tensor], others: Sequence[Tensor]) -> dict[str, str]:
    """Nodes of two operators, each the only one left that reads the same counterparts."""
    return {
        pair[1][0].name: pair[0][0].name
        for pair in _groups(search, ones, others, same=False).values()
        if len(pair[0]) == len(pair[1]) == 1 and _fits(search, pair[0][0], pair[1][0])
    }


def _behind_folded(search: Search, name: str, other: str) -> str:
    """The tensor of A behind normalizations and scalings that B has folded into the node."""
    readers_a, readers_b = search.a.readers(), search.b.readers()
    next_b = {tensor.op_type for tensor in readers_b[other]}
    while len(readers_a[name]) == 1:
        (reader,) = readers_a[name]
        varies = [read for read in reader.reads if read]
        if reader.op_type not in _FOLDED or reader.op_type in next_b or len(varies) > 1:
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
