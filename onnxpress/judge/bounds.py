"""Confidence bounds for what a model lost, as they follow from a number of samples.

All bounds are one-sided: each end of a pair holds with `confidence` by itself, both together
with 1 − 2·(1 − confidence) at least. "Within the budget" needs the upper end alone.

- shares, and paired shares (right before, right after): exact, `onnxpress.judge.shares`;
- means of bounded scores: betting, Waudby-Smith & Ramdas, "Estimating means of bounded random
  variables by betting", JRSS B 86 (2024), arXiv 2010.09686;
- anything else over a set of samples: BCa, Efron, "Better bootstrap confidence intervals",
  JASA 82 (1987), which holds for many samples only.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from onnxpress.judge.shares import last_that_holds, paired_bounds, share_lower, share_upper

__all__ = [
    "bootstrap_bounds",
    "confidence_of_look",
    "mean_bounds",
    "paired_bounds",
    "samples_to_decide",
    "share_lower",
    "share_upper",
]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_ORDERS = 8
_PRIOR = 0.1
"""Squared deviation that is assumed before the first value: less wins more without losses."""
_LARGEST_BET = 0.95
"""Of all that can be bet: so one total loss costs a factor of 20, not everything."""
_JACKKNIFE_GROUPS = 50
_MANY = 100_000


def mean_bounds(
    values: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    least: float = 0.0,
    most: float = 1.0,
    seed: int = 0,
) -> tuple[float, float]:
    """Bounds on the mean of scores between `least` and `most`, valid for any number of them.

    Losses that are rare but total, where a bootstrap sees none of them, are covered as well: n
    zeros give about 3.3/n. Order does not matter but for the `_ORDERS` seeded permutations.

    Args:
        values: independent scores, `[n]`.
        confidence: of each end by itself.
        least: the lowest score there can be.
        most: the highest score there can be.
        seed: of the permutations.
    """
    scores = np.asarray(values, np.float64).reshape(-1)
    assert most > least
    assert scores.size == 0 or (scores.min() >= least and scores.max() <= most)
    if scores.size == 0:
        return least, most
    scaled = (scores - least) / (most - least)
    low = 1 - _mean_upper(1 - scaled, 1 - confidence, seed)
    high = _mean_upper(scaled, 1 - confidence, seed)
    return least + (most - least) * low, least + (most - least) * high


def _mean_upper(values: Floats, alpha: float, seed: int) -> float:
    """The largest mean m against which a gambler did not win 1/α.

    Who bets the share f of what can be bet on "the mean is below m" holds Π 1 + f·(m − x)/(1 − m)
    in the end, on average at most 1 if the mean is m or more, so 1/α with probability α at most
    (Markov); an average over orders likewise. It grows with m because f does not depend on m.
    """
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(values) for _ in range(_ORDERS)])
    bets = _bets(orders, alpha)

    def is_possible(mean: float) -> bool:
        logs = np.log1p(bets * (mean - orders) / (1 - mean)).sum(axis=1)
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).mean())) < math.log(1 / alpha)

    return last_that_holds(is_possible, float(values.mean()), 1.0)


def _bets(orders: Floats, alpha: float) -> Floats:
    """What to bet on each value, from those before it: √(2·ln(1/α)/(n·σ²)) where that is small.

    With v = n·σ² and l = ln(1/α) the bound will be near (v + √(2vl) + l)/n, and the best bet on
    outcomes of 0 and 1 is one minus the mean over the bound (Kelly): (√(2vl) + l)/(v + √(2vl) + l).
    """
    n = orders.shape[1]
    counts = np.arange(1, n + 1)
    means = (0.5 * _PRIOR + np.cumsum(orders, axis=1)) / (_PRIOR + counts)
    spread = _PRIOR + np.cumsum((orders - means) ** 2, axis=1)
    before = np.concatenate([np.full((len(orders), 1), _PRIOR), spread[:, :-1]], axis=1)
    variance = n * before / counts
    level = math.log(1 / alpha)
    above = np.sqrt(2 * variance * level) + level
    return np.asarray(np.minimum(above / (variance + above), _LARGEST_BET))


def bootstrap_bounds(
    statistic: Callable[[Indices], float],
    n: int,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """BCa bounds of a statistic over a set of samples, such as a ratio of sums.

    They are approximate, and where all resamples agree they are the statistic itself: combine
    them with `share_upper(0, n)` where a loss may be too rare to be seen.

    Args:
        statistic: the figure of the samples at some indices, `[n]`, with repetitions.
        n: number of samples.
        confidence: of each end by itself.
        resamples: how many are drawn.
        seed: of the resamples.
    """
    everything = np.arange(n)
    found = float(statistic(everything))
    rng = np.random.default_rng(seed)
    drawn = np.array([float(statistic(rng.integers(0, n, n))) for _ in range(resamples)])
    # Such as a recall where none of the drawn samples holds an object.
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if drawn.size == 0 or drawn[0] == drawn[-1]:
        return found, found
    normal = NormalDist()
    below = (np.sum(drawn < found) + 0.5 * np.sum(drawn == found)) / drawn.size
    half = 0.5 / drawn.size
    bias = normal.inv_cdf(float(np.clip(below, half, 1 - half)))
    acceleration = _acceleration(statistic, everything)
    ends = []
    for level in (1 - confidence, confidence):
        moved = bias + normal.inv_cdf(level)
        # Beyond the pole of the transformation lies the end of all resamples.
        scale = 1 - acceleration * moved
        adjusted = normal.cdf(bias + moved / scale) if scale > 0 else float(moved > 0)
        ends.append(float(np.quantile(drawn, adjusted)))
    return ends[0], ends[1]


def _acceleration(statistic: Callable[[Indices], float], everything: Indices) -> float:
    """A sixth of the skewness of the jackknife, by groups where samples are many."""
    groups = np.array_split(everything, min(len(everything), _JACKKNIFE_GROUPS))
    if len(groups) < 2:
        return 0.0
    without = np.array([float(statistic(np.setdiff1d(everything, group))) for group in groups])
    pulls = np.nanmean(without) - without[np.isfinite(without)]
    squares = float((pulls**2).sum())
    return float((pulls**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def samples_to_decide(
    drop_points: float, budget_points: float, n: int, confidence: float = 0.95
) -> int | None:
    """About how many samples bring the upper bound within the budget if the drop stays as it is.

    Without a drop, ln(1 − confidence)/ln(1 − budget); else as many as a share of losses needs,
    z²·b·(1 − b)/(b − d)² or a few more. More than `n`, which did not decide.

    Args:
        drop_points: d, of the samples seen, in percent.
        budget_points: b, in percent.
        n: how many samples were seen.
        confidence: of the upper bound.

    Returns:
        The number, or `None` where the drop is no less than the budget.
    """
    drop, budget = max(drop_points, 0.0) / 100, budget_points / 100
    if drop >= budget:
        return None
    if budget >= 1:
        return n + 1
    without = math.log(1 - confidence) / math.log(1 - budget)
    quantile = NormalDist().inv_cdf(confidence)
    with_losses = quantile**2 * budget * (1 - budget) / (budget - drop) ** 2
    needed = max(math.ceil(without), math.ceil(with_losses), n + 1)
    # The score test is right for many losses; few decide later than it says.
    while needed < _MANY:
        if share_upper(math.ceil(drop * needed - 1e-9), needed, confidence) <= budget:
            break
        needed += max(1, needed // 50)
    return needed


def confidence_of_look(confidence: float, looks: int) -> float:
    """The confidence of one of several looks so that all hold together (Bonferroni)."""
    return 1 - (1 - confidence) / max(looks, 1)
