"""Bounds on shares of samples, exact: of failures, and of drops between two models.

Without pairs: Clopper & Pearson, "The use of confidence or fiducial limits illustrated in the
case of the binomial", Biometrika 26 (1934); without failures 1 − (1 − confidence)^(1/n), 3/n.

With pairs, of n samples the first model alone was right on `lost`, the second alone on `gained`,
and the drop is p_lost − p_gained. Its upper bound is the largest drop under which an outcome at
most as bad as the one seen has a probability above α, whatever the share d of samples on which
the models differ (Buehler's bound): Lloyd & Moldovan, "Exact one-sided confidence limits for the
difference between two correlated proportions", Statistics in Medicine 26 (2007). Outcomes are
ordered by an approximate bound, lost − gained + z·√(lost + gained + z²/2), which falls with every
gain. The d considered are those of a Clopper–Pearson interval, whose own risk is taken off α:
Berger & Boos, "P values maximized over a confidence set for the nuisance parameter", JASA 89
(1994).
"""

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["paired_bounds", "share_lower", "share_upper"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_SHARE_OF_RISK = 0.02
_SHARES = 16
"""Values of d that are tried; the probability is smooth in it."""
_PAIRED_HALVINGS = 20
_WIDTH = 7.0
"""Standard deviations of what is summed; beyond are 1e-10 of the probability at most."""
_HALVINGS = 60


@functools.lru_cache(maxsize=8)
def _log_factorials(most: int) -> Floats:
    """Ln k! for k = 0 to `most`."""
    return np.array([math.lgamma(k + 1) for k in range(most + 1)])


def share_upper(failures: int, n: int, confidence: float = 0.95) -> float:
    """What the true share of failures is at most, where `failures` of `n` were seen.

    Without any it is exactly 1 − (1 − confidence)^(1/n).
    """
    assert 0 <= failures <= n
    alpha = 1 - confidence
    if failures == n:
        return 1.0
    if failures == 0:
        return float(1 - alpha ** (1 / n))
    few = np.arange(failures + 1)
    logs = _log_factorials(n)
    ways = logs[n] - logs[few] - logs[n - few]

    def is_likely(share: float) -> bool:
        terms = ways + few * math.log(share) + (n - few) * math.log1p(-share)
        return float(np.exp(terms).sum()) > alpha

    return _last_that_holds(is_likely, failures / n, 1.0)


def share_lower(failures: int, n: int, confidence: float = 0.95) -> float:
    """What the true share of failures is at least."""
    return 1 - share_upper(n - failures, n, confidence) if failures else 0.0


@functools.lru_cache(maxsize=4096)
def paired_bounds(lost: int, gained: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds on p_lost − p_gained, each of which holds with `confidence` by itself.

    Where nothing can be gained, because the first model is the measure, `share_upper` is tighter.

    Args:
        lost: samples on which only the first model is right.
        gained: samples on which only the second model is right.
        n: all samples.
        confidence: of each end by itself.
    """
    assert lost >= 0
    assert gained >= 0
    assert lost + gained <= n
    return -_upper(gained, lost, n, 1 - confidence), _upper(lost, gained, n, 1 - confidence)


def _upper(lost: int, gained: int, n: int, alpha: float) -> float:
    if n == 0:
        return 1.0
    risk = alpha * _SHARE_OF_RISK
    differ = lost + gained
    fewest, most = (bound(differ, n, 1 - risk / 2) for bound in (share_lower, share_upper))
    probability = _probability(lost, gained, n, alpha, (fewest, most))

    def is_possible(drop: float) -> bool:
        shares = np.linspace(max(fewest, abs(drop)), most, _SHARES)
        return any(probability(drop, float(share)) > alpha - risk for share in shares)

    low, high = max((lost - gained) / n, -most), most
    for _ in range(_PAIRED_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_possible(middle) else (low, middle)
    return high


def _probability(
    lost: int, gained: int, n: int, alpha: float, between: tuple[float, float]
) -> Callable[[float, float], float]:
    """P(an outcome at most as bad | drop, share that differs), by summing over the outcomes."""
    fewest, most = (n * share for share in between)
    # Numbers of samples that differ; beyond is what no d of the interval gives.
    every = np.arange(
        max(0, math.floor(fewest - _reach(fewest))), min(n, math.ceil(most + _reach(most))) + 1
    )
    least = lost - gained
    direction = max(-1.0, least / (most if least > 0 else max(fewest, 1e-9)))
    differ, losses = _no_worse(every, lost, gained, alpha, direction)
    logs = _log_factorials(n)
    gains = differ - losses
    ways = logs[n] - logs[losses] - logs[gains] - logs[n - differ]

    def probability(drop: float, share: float) -> float:
        losing, gaining, same = ((share + drop) / 2, max((share - drop) / 2, 0.0), 1 - share)
        terms = ways + _times(losses, losing) + _times(gains, gaining) + _times(n - differ, same)
        return float(np.exp(terms).sum())

    return probability


def _times(counts: Counts, share: float) -> Floats:
    """Counts · ln(share), where 0 · ln 0 is 0."""
    if share > 0:
        return np.asarray(counts * math.log(share))
    return np.where(counts > 0, -np.inf, 0.0)


def _no_worse(
    every: Counts, lost: int, gained: int, alpha: float, direction: float
) -> tuple[Counts, Counts]:
    """Outcomes (samples that differ, lost among them) that are ordered no higher than the one seen.

    Losses far below what the drop seen makes likely are left out: larger drops make them less
    likely still.

    Args:
        every: numbers of samples that differ.
        lost: samples that were lost.
        gained: samples that were gained.
        alpha: what the order is made for.
        direction: the least of p_lost − p_gained over the share that differs, −1 to 1.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    seen = lost - gained + z * math.sqrt(lost + gained + z * z / 2)
    last = np.floor((every + seen - z * np.sqrt(every + z * z / 2)) / 2 + 1e-9)
    last = np.minimum(last, every).astype(np.int64)
    likely = (1 + direction) / 2 * every
    first = np.maximum(0, np.floor(likely - 0.5 * _WIDTH * np.sqrt(every))).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return np.repeat(every, counts), starts + np.arange(counts.sum())


def _reach(expected: float) -> float:
    return _WIDTH * math.sqrt(expected) + 4 * _WIDTH


def _last_that_holds(holds: Callable[[float], bool], start: float, end: float) -> float:
    """Where a condition that holds from `start` on ceases to hold, by halving; rounded upwards."""
    for _ in range(_HALVINGS):
        middle = (start + end) / 2
        if not start < middle < end:
            break
        start, end = (middle, end) if holds(middle) else (start, middle)
    return end
