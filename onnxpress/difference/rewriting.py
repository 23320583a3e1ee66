"""Pairs of one name that are not one tensor, because a rewrite has moved work from node to node.

Where a bias is folded into a convolution that keeps its name, or a scale is moved over several
nodes, the tensors in between have other values in B though nothing is lost. With A's values given
at such a tensor, its readers are off as well; left alone, they come out right. An error is the
other way around: its readers, given A's values, are right, and left alone they are wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.difference.tensors import Tensors
from onnxpress.difference.tracing import Sketch, frontier

__all__ = ["noise_between", "rewritten"]

_SUSPICIOUS = (1e-7, 1e-5, 1e-3, 0.03)
"""Noise over signal above which a pair may be two tensors, tried in turn: a rewrite changes some
tensors little and the next ones much, but among quantized tensors all that is small is noise."""
_FEW = 20
"""Pairs; where more than these and than half are off, as when all is quantized, a low threshold
says nothing."""
_NO_EFFECT = 0.01
"""Of a tensor's noise, what its readers have at most where it does not matter to them."""
_HEALED = 0.25
"""Of the readers' noise, what is left at most where the tensor was only rewritten."""


def noise_between(one: Sketch, other: Sketch) -> float:
    """Noise over variance; infinite where one is not finite or the tensor is constant."""
    with np.errstate(all="ignore"):
        noise = float(np.mean(np.square(one.values - other.values)))
    spread = float(np.var(one.values))
    if noise == 0:
        return 0.0
    return noise / spread if spread > 0 and np.isfinite(noise) else np.inf


def rewritten(
    b: Tensors,
    pairs: Mapping[str, str],
    of_a: Mapping[str, Sketch],
    given: Callable[[Mapping[str, str]], Mapping[str, Sketch]],
) -> list[str]:
    """The tensors of B that are not their counterparts.

    Args:
        b: the other model.
        pairs: names of tensors of B and of A, that can be given values.
        of_a: sketches of all tensors of A.
        given: sketches of all of these of B, where those in a mapping have A's values.
    """
    left = dict(pairs)
    found: list[str] = []
    before = _noises(given(left), left, of_a)
    for threshold in _SUSPICIOUS:
        many = sum(noise > threshold for noise in before.values()) > max(_FEW, len(before) // 2)
        if many and threshold < _SUSPICIOUS[-1]:
            continue
        healed = _healed(b, left, of_a, given, before, threshold)
        if healed:
            found += healed
            left = {name: other for name, other in left.items() if name not in set(healed)}
            before = _noises(given(left), left, of_a)
    return found


def _healed(
    b: Tensors,
    pairs: Mapping[str, str],
    of_a: Mapping[str, Sketch],
    given: Callable[[Mapping[str, str]], Mapping[str, Sketch]],
    before: Mapping[str, float],
    threshold: float,
) -> list[str]:
    """What is off by more than a threshold and whose readers come right when it is left alone.

    First the readers next to it, then those behind tensors that hand a scale on (a Relu is right
    whatever it is given).
    """
    suspicious = [name for name in pairs if before.get(name, 0.0) > threshold]
    tried: dict[str, _Link] = {}
    for stops in (set(pairs), set(suspicious)):
        links = {name: _link(b, name, stops, set(suspicious)) for name in suspicious}
        inner = {source for link in links.values() for source in link.sources}
        if not inner or links == tried:
            continue
        tried = links
        alone = inner.union(*(link.between for link in links.values()))
        after = _noises(given({n: o for n, o in pairs.items() if n not in alone}), pairs, of_a)
        ends = {name: _ends(name, links) for name in inner}
        healed = {n for n in inner if all(_fell(before[e], after[e]) for e in ends[n])}
        for link in links.values():
            if link.sources and link.sources <= healed:
                healed |= {name for name in link.between if after.get(name, 0.0) > threshold}
        if healed:
            return [name for name in pairs if name in healed]
    return _without_effect(b, pairs, of_a, given, before, suspicious)


def _without_effect(
    b: Tensors,
    pairs: Mapping[str, str],
    of_a: Mapping[str, Sketch],
    given: Callable[[Mapping[str, str]], Mapping[str, Sketch]],
    before: Mapping[str, float],
    suspicious: Sequence[str],
) -> list[str]:
    """What is off and yet right for all that read it, such as a Relu left to a clipping scale."""
    readers: dict[str, list[str]] = {name: [] for name in suspicious}
    for name in pairs:
        for source in frontier(b, [name], pairs):
            if source in readers:
                readers[source].append(name)
    read = [name for name in suspicious if readers[name]]
    if not read:
        return []
    after = _noises(given({n: o for n, o in pairs.items() if n not in readers}), pairs, of_a)
    return [
        name
        for name in read
        if all(after[reader] <= _NO_EFFECT * min(before[name], 1) for reader in readers[name])
    ]


def _fell(before: float, after: float) -> bool:
    return math.isfinite(after) and after <= _HEALED * before


@dataclass(frozen=True, slots=True)
class _Link:
    """The suspicious tensors before one, and what lies between; empty where there are none."""

    sources: frozenset[str]
    between: frozenset[str]


def _link(b: Tensors, name: str, stops: set[str], suspicious: set[str]) -> _Link:
    sources = suspicious.intersection(frontier(b, [name], stops))
    if not sources:
        return _Link(frozenset(), frozenset())
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for read in b.by_name[waiting.pop()].reads:
            if read and read not in stops and read not in seen:
                seen.add(read)
                waiting.append(read)
    return _Link(frozenset(sources), frozenset(seen))


def _ends(name: str, links: Mapping[str, _Link]) -> set[str]:
    """The last suspicious tensors behind one."""
    found, seen, waiting = set(), {name}, [name]
    while waiting:
        current = waiting.pop()
        readers = [other for other, link in links.items() if current in link.sources]
        if not readers:
            found.add(current)
        new = [reader for reader in readers if reader not in seen]
        seen.update(new)
        waiting += new
    return found


def _noises(
    sketches: Mapping[str, Sketch], pairs: Mapping[str, str], of_a: Mapping[str, Sketch]
) -> dict[str, float]:
    return {
        name: noise_between(of_a[other], sketches[name])
        for name, other in pairs.items()
        if name in sketches and other in of_a and of_a[other].size == sketches[name].size
    }
