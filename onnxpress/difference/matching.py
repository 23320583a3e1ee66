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

import numpy as np

from onnxpress.difference.pairing import Matching, Search
from onnxpress.difference.rewriting import noise_between
from onnxpress.difference.structure import by_structure
from onnxpress.difference.tensors import Tensors, stretch
from onnxpress.difference.tracing import Sketch
from onnxpress.runtime import Feed

__all__ = ["match"]

logger = logging.getLogger(__name__)

_ROUNDS = 12
_EQUAL, _USUAL, _NEAR = 1e-6, 100.0, 0.05
"""Noise over variance up to which two tensors are one: after rounding; times the usual noise of
pairs, where all is quantized; and 13 dB where nothing else is found."""
_FEWEST = 16
"""Elements below which equal values are an accident."""


def match(
    a: Tensors,
    b: Tensors,
    feeds: Sequence[tuple[Feed, Feed]],
    inputs: Mapping[str, str],
    *,
    threads: int = 0,
) -> Matching:
    """Pair the tensors of two models.

    Args:
        a: the original.
        b: the other model.
        feeds: samples for A and for B; values are compared on the first.
        inputs: names of B's inputs and of A's.
        threads: of onnxruntime.

    Raises:
        ModelError: onnxruntime cannot run one of them.
    """
    search = Search(a, b, feeds, threads)
    for name, other in inputs.items():
        search.add(name, other, "name")
    _by_name(search)
    search.add_copies()
    search.drop_rewritten()
    for number in range(_ROUNDS):
        new, how = _more(search)
        logger.debug("round %d: %d pairs by %s", number, len(new), how)
        if not new:
            break
        for name, other in new.items():
            search.add(name, other, how)
        search.add_copies()
    if set(search.how.values()) - {"name", "copy"}:
        search.drop_rewritten()
    return search.found()


def _by_name(search: Search) -> None:
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


def _more(search: Search) -> tuple[dict[str, str], str]:
    """More pairs, and how they were found: what is sure first."""
    left_a, left_b = search.left()
    if not left_a or not left_b:
        return {}, "value"
    given = search.given([*left_b, *search.pairs], search.pairs)
    noises = {
        name: noise_between(search.of_a[other], given[name])
        for name, other in search.pairs.items()
        if name in given and given[name].size == search.of_a[other].size
    }
    usual = float(np.median(list(noises.values()))) if noises else 0.0
    near = min(_NEAR, max(_EQUAL, _USUAL * usual))
    new = _by_value(search, left_a, left_b, given, near)
    if new:
        return new, "value"
    right = {name for name, noise in noises.items() if noise <= near}
    new = by_structure(search, left_a, _unsettled(search, left_b, right))
    if new:
        return new, "structure"
    return _by_value(search, left_a, left_b, given, _NEAR), "value"


def _unsettled(search: Search, left: Sequence[str], right: set[str]) -> list[str]:
    """Those of B on the way to pairs that differ; on the way to equal ones, all is explained."""
    settled: set[str] = set()
    open_: set[str] = set()
    for name in search.pairs:
        before = {tensor.name for tensor in stretch(search.b, name, search.pairs)}
        (settled if name in right else open_).update(before)
    return [name for name in left if name in open_ or name not in settled]


def _by_value(
    search: Search,
    left_a: Sequence[str],
    left_b: Sequence[str],
    given: Mapping[str, Sketch],
    near: float,
) -> dict[str, str]:
    """Pairs that are each other's nearest, and near; equal ones in the order of computation."""
    by_size: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in left_b:
        if name in given and given[name].dtype.kind == "f" and given[name].size >= _FEWEST:
            by_size[given[name].size, given[name].times].append(name)
    ranked = []
    for name in left_a:
        one = search.of_a[name]
        if one.dtype.kind != "f" or not np.var(one.values) > 0:
            continue
        for other in by_size.get((one.size, one.times), ()):
            if (other, name) in search.dropped:
                continue
            noise = noise_between(one, given[other])
            if noise < near:
                ranked.append((_rank(search, noise, name, other), name, other))
    found: dict[str, str] = {}
    taken: set[str] = set()
    for _, name, other in sorted(ranked):
        if name not in taken and other not in found:
            found[other] = name
            taken.add(name)
    return found


def _rank(search: Search, noise: float, name: str, other: str) -> tuple[float, bool, float]:
    """The nearer the better; among equally near ones, operator and place decide."""
    one, two = search.a.by_name[name], search.b.by_name[other]
    decade = round(np.log10(max(noise, 1e-12)))
    apart = one.position / len(search.a.by_name) - two.position / len(search.b.by_name)
    return decade, one.op_type != two.op_type, abs(apart)
