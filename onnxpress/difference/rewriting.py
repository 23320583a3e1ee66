"""Pairs of one name that are not one tensor, because a rewrite has moved work from node to node.

Where a bias is folded into a convolution that keeps its name, or a scale is moved over several
nodes, the tensors in between have other values in B though nothing is lost. With A's values given
at such a tensor, its readers are off as well; left alone, they come out right. An error is the
other way around: its readers, given A's values, are right, and left alone they are wrong.
"""

from collections.abc import Callable, Mapping

import numpy as np

from onnxpress.difference.tensors import Tensors
from onnxpress.difference.tracing import Sketch, frontier

__all__ = ["noise_between", "rewritten"]

_SUSPICIOUS = (1e-7, 1e-5, 1e-3, 0.03)
"""Noise over signal above which a pair may be two tensors, tried in turn: a rewrite changes some
tensors little and the next ones much, but among quantized tensors all that is small is noise."""
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
    """What is off by more than a threshold and whose readers come right when it is left alone."""
    suspicious = [name for name in pairs if before.get(name, 0.0) > threshold]
    readers: dict[str, list[str]] = {name: [] for name in suspicious}
    for name in suspicious:
        for source in frontier(b, [name], pairs):
            if source in readers:
                readers[source].append(name)
    inner = [name for name in suspicious if readers[name]]
    if not inner:
        return []
    kept = {name: other for name, other in pairs.items() if name not in set(inner)}
    after = _noises(given(kept), pairs, of_a)
    return [
        name
        for name in inner
        if all(after[end] <= _HEALED * before[end] for end in _ends(name, readers))
    ]


def _ends(name: str, readers: Mapping[str, list[str]]) -> set[str]:
    """The last suspicious tensors behind one."""
    found, seen, waiting = set(), {name}, [name]
    while waiting:
        current = waiting.pop()
        if not readers[current]:
            found.add(current)
        new = [reader for reader in readers[current] if reader not in seen]
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
