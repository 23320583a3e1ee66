"""Where two models part: the error of every tensor, and how much of it its own node adds.

An error is noise over signal: Σ(a − b)² / Σ(a − mean)², over all samples, where nearly constant
tensors count at least a thousandth of their power as signal. What a tensor *has* is measured in B
as it is; what its node *adds*, in B given A's values before it (see `tracing`). Where values cannot
be given, in Loop and Scan bodies, what a node adds is what its output has beyond its inputs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.difference.pairing import Matching
from onnxpress.difference.tensors import Tensor, Tensors
from onnxpress.difference.tracing import frontier, opened, shaped
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.runtime import Array, Feed

__all__ = ["TensorError", "measure"]

_CHUNK_BYTES = 500_000_000
_LEAST_SIGNAL = 1e-3


@dataclass(frozen=True, slots=True)
class TensorError:
    """A tensor of A, its counterpart in B, and how they differ.

    Attributes:
        tensor: of A.
        counterpart: of B.
        how: they were paired: name, value, structure or copy.
        has: noise over signal in B as it is; infinite where B is not finite or has another shape.
        before: the same of the worst of what B computes it from.
        adds: noise over signal that comes in between.
        runs: how many times the two were compared; 0 in a branch that no sample takes.
    """

    tensor: Tensor
    counterpart: Tensor
    how: str
    has: float
    before: float
    adds: float
    runs: int


@dataclass(slots=True)
class _Sums:
    """Over all samples, of one pair."""

    elements: int = 0
    total: float = 0.0
    power: float = 0.0
    free: float = 0.0
    given: float = 0.0
    runs: int = 0

    def noise(self, amount: float) -> float:
        if amount == 0 or not self.elements:
            return 0.0
        mean = self.total / self.elements
        mean_power = self.power / self.elements
        signal = max(mean_power - mean * mean, _LEAST_SIGNAL * mean_power)
        return amount / self.elements / signal if signal > 0 else math.inf


@dataclass(frozen=True, slots=True)
class _Pair:
    name: str
    other: str
    sums: _Sums = field(default_factory=_Sums)


def measure(
    a: Tensors,
    b: Tensors,
    matching: Matching,
    feeds: Sequence[tuple[Feed, Feed]],
    fixed: Iterable[str],
    *,
    threads: int = 0,
    progress: Tell = unheard,
) -> list[TensorError]:
    """The errors of all pairs that can be compared, in the order in which A computes them.

    Args:
        a: the original.
        b: the other model.
        matching: their pairs.
        feeds: samples, for A and for B.
        fixed: tensors of B that always have A's values: what is drawn at random.
        threads: of onnxruntime.
        progress: told how far it is, see `Progress`.

    Raises:
        ModelError: onnxruntime cannot run one of them.
    """
    forcible = matching.forcible(a, b)
    always = {name: matching.sketches_b[name].dtype for name in fixed if name in forcible}
    pairs = [
        _Pair(name, other)
        for name, other in matching.pairs.items()
        if b.by_name[name].node is not None and matching.comparable(name)
    ]
    pairs.sort(key=lambda pair: b.by_name[pair.name].position)
    chunks = list(_chunks(pairs, matching))
    for number, chunk in enumerate(chunks):
        progress(Progress("comparing tensors", number, len(chunks)))
        _add_chunk(a, b, matching, chunk, feeds, always, threads)
    return _errors(a, b, matching, pairs, forcible)


def _chunks(pairs: Sequence[_Pair], matching: Matching) -> Iterator[list[_Pair]]:
    chunk: list[_Pair] = []
    size = 0
    for pair in pairs:
        more = matching.sketches_a[pair.other].nbytes + 2 * matching.sketches_b[pair.name].nbytes
        if chunk and size + more > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(pair)
        size += more
    if chunk:
        yield chunk


def _add_chunk(
    a: Tensors,
    b: Tensors,
    matching: Matching,
    chunk: Sequence[_Pair],
    feeds: Sequence[tuple[Feed, Feed]],
    always: Mapping[str, np.dtype[np.generic]],
    threads: int,
) -> None:
    names = [pair.name for pair in chunk]
    forcible = matching.forcible(a, b)
    given = opened(b, names, {n: matching.sketches_b[n].dtype for n in forcible}, threads=threads)
    shaped_anew = [n for n in given.given if n not in names and _reshaped(matching, n)]
    free = opened(b, [*names, *shaped_anew], always, threads=threads)
    wanted = {matching.pairs[name] for name in (*names, *given.given, *free.given)}
    original = opened(a, sorted(wanted), {}, threads=threads)
    for feed_a, feed_b in feeds:
        truth = original(feed_a, {})
        as_is = free(
            feed_b, shaped(truth, matching.pairs, _shapes(free.given, truth, matching, {}))
        )
        shapes = _shapes(given.given, truth, matching, as_is)
        found = given(feed_b, shaped(truth, matching.pairs, shapes))
        for pair in chunk:
            _add(pair.sums, truth[pair.other], as_is[pair.name], found[pair.name])


def _reshaped(matching: Matching, name: str) -> bool:
    return matching.sketches_a[matching.pairs[name]].shape != matching.sketches_b[name].shape


def _shapes(
    names: Iterable[str],
    truth: Mapping[str, list[Array]],
    matching: Matching,
    as_is: Mapping[str, list[Array]],
) -> dict[str, tuple[int, ...]]:
    """The shapes that A's values need in B, on one sample."""
    found = {}
    for name in names:
        arrays = truth[matching.pairs[name]]
        if _reshaped(matching, name) and as_is.get(name):
            arrays = as_is[name]
        if arrays:
            found[name] = arrays[0].shape
    return found


def _add(sums: _Sums, truth: list[Array], free: list[Array], given: list[Array]) -> None:
    if len(truth) != len(free) or len(truth) != len(given):
        sums.free = sums.given = math.inf
        sums.elements += 1
        return
    for one, other, local in zip(truth, free, given, strict=True):
        if one.dtype.kind not in "fiub":
            continue
        reference = one.astype(np.float64).reshape(-1)
        usual = np.where(np.isfinite(reference), reference, 0.0)
        sums.elements += reference.size
        sums.total += float(usual.sum())
        # Not `@`: the threads of BLAS wait for each other where others compute too.
        sums.power += float(np.einsum("i,i", usual, usual))
        sums.free += _noise(reference, other)
        sums.given += _noise(reference, local)
        sums.runs += 1


def _noise(reference: np.ndarray[tuple[int, ...], np.dtype[np.float64]], found: Array) -> float:
    """Σ(a − b)²; infinite where only one is finite or B has another number of elements."""
    if found.size != reference.size:
        return math.inf
    other = found.reshape(-1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = reference - other
    if not np.isfinite(difference).all():
        same = (reference == other) | (np.isnan(reference) & np.isnan(other))
        difference = np.where(same, 0.0, difference)
        if not np.isfinite(difference).all():
            return math.inf
    return float(np.einsum("i,i", difference, difference))


def _errors(
    a: Tensors,
    b: Tensors,
    matching: Matching,
    pairs: Sequence[_Pair],
    forcible: Mapping[str, str],
) -> list[TensorError]:
    has = {pair.name: pair.sums.noise(pair.sums.free) for pair in pairs}
    local = {pair.name: pair.sums.noise(pair.sums.given) for pair in pairs}
    found = []
    for pair in pairs:
        sources = frontier(b, [pair.name], has)
        before = max((has[name] for name in sources), default=0.0)
        carried = max((local[name] for name in sources if name not in forcible), default=0.0)
        adds = local[pair.name]
        adds = adds if math.isinf(adds) and not math.isinf(carried) else _beyond(adds, carried)
        found.append(
            TensorError(
                a.by_name[pair.other],
                b.by_name[pair.name],
                matching.how[pair.name],
                has[pair.name],
                before,
                adds,
                pair.sums.runs,
            )
        )
    found.sort(key=lambda error: (error.tensor.position, error.counterpart.position))
    return found


def _beyond(adds: float, carried: float) -> float:
    return 0.0 if math.isinf(carried) else max(0.0, adds - carried)
