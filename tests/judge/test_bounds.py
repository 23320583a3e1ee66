"""Bounds against closed forms, and their coverage by enumeration and by simulation."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from onnxpress.judge.bounds import (
    _acceleration,
    bootstrap_bounds,
    confidence_of_look,
    mean_bounds,
    paired_bounds,
    samples_to_decide,
    share_lower,
    share_upper,
)

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def at_most(failures: int, n: int, share: float) -> float:
    """P(at most so many failures), in exact integers but for the powers."""
    return math.fsum(
        math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(failures + 1)
    )


@pytest.mark.parametrize("n", [1, 43, 1000, 10_000])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_without_failures_the_share_is_bounded_by_the_closed_form(
    n: int, confidence: float
) -> None:
    assert share_upper(0, n, confidence) == 1 - (1 - confidence) ** (1 / n)
    assert share_lower(0, n, confidence) == 0


def test_forty_three_samples_without_a_failure_leave_seven_percent_possible() -> None:
    assert share_upper(0, 43) == pytest.approx(0.0673, abs=5e-5)
    assert 100 * share_upper(0, 100) == pytest.approx(3.0, abs=0.05)  # the rule of three


@pytest.mark.parametrize(("failures", "n"), [(1, 2), (3, 17), (5, 100), (40, 60), (99, 100)])
def test_a_share_at_its_bound_would_give_so_few_failures_in_five_of_a_hundred(
    failures: int, n: int
) -> None:
    assert at_most(failures, n, share_upper(failures, n)) == pytest.approx(0.05, rel=1e-9)
    lower = share_lower(failures, n)
    assert 1 - at_most(failures - 1, n, lower) == pytest.approx(0.05, rel=1e-9)


def test_shares_of_everything_are_bounded_by_the_closed_form() -> None:
    assert share_upper(20, 20) == 1
    assert share_lower(20, 20) == pytest.approx(0.05 ** (1 / 20))
    assert share_upper(19, 20) == pytest.approx(0.95 ** (1 / 20))


@pytest.mark.parametrize("n", [1, 43, 1000])
def test_pairs_that_all_agree_leave_no_less_possible_than_the_rule_of_three(n: int) -> None:
    low, high = paired_bounds(0, 0, n)
    assert 1 - 0.05 ** (1 / n) <= high <= 1.02 * (1 - 0.05 ** (1 / n))
    assert low == -high


@pytest.mark.parametrize(("n", "confidence"), [(7, 0.95), (20, 0.95), (20, 0.8)])
def test_paired_bounds_cover_every_drop_in_at_least_their_confidence(
    n: int, confidence: float
) -> None:
    outcomes = [(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)]
    ends = np.array([paired_bounds(*outcome, n, confidence) for outcome in outcomes])
    ways = [math.comb(n, a) * math.comb(n - a, b) for a, b in outcomes]
    for losing in np.linspace(0, 1, 26):
        for gaining in np.linspace(0, 1 - losing, 26):
            same = max(1 - losing - gaining, 0.0)
            chances = np.array(
                [
                    w * losing**a * gaining**b * same ** (n - a - b)
                    for w, (a, b) in zip(ways, outcomes, strict=True)
                ]
            )
            drop = losing - gaining
            assert chances[ends[:, 1] >= drop - 1e-9].sum() >= confidence - 1e-9
            assert chances[ends[:, 0] <= drop + 1e-9].sum() >= confidence - 1e-9


def test_paired_bounds_of_many_samples_are_near_the_normal_ones() -> None:
    for lost, gained, n in [(20, 20, 1000), (100, 50, 1000), (300, 300, 10_000)]:
        drop = (lost - gained) / n
        error = 1.645 * math.sqrt(lost + gained - (lost - gained) ** 2 / n) / n
        low, high = paired_bounds(lost, gained, n)
        assert drop + error <= high <= drop + 1.1 * error
        assert drop - 1.1 * error <= low <= drop - error


def test_paired_bounds_fall_with_gains_and_rise_with_losses() -> None:
    by_gains = [paired_bounds(6, gained, 200)[1] for gained in range(5)]
    by_losses = [paired_bounds(lost, 3, 200)[1] for lost in range(9)]
    assert by_gains[0] > by_gains[-1]
    assert by_losses == sorted(by_losses)
    assert paired_bounds(30, 0, 200)[0] > 0 > paired_bounds(0, 30, 200)[1]


def mean_of(scores: Floats) -> Callable[[Indices], float]:
    return lambda indices: float(scores[indices].mean())


def ratio_of(above: Indices, below: Indices) -> Callable[[Indices], float]:
    return lambda indices: float(above[indices].sum() / below[indices].sum())


def losses(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, float]:
    """Scores of many trials `[trials, n]`, and their true mean."""
    if kind == "one of a hundred loses all":
        return (rng.random(shape) < 0.01).astype(float), 0.01
    if kind == "one of ten loses a fifth":
        return np.where(rng.random(shape) < 0.1, rng.beta(2, 8, shape), 0.0), 0.02
    if kind == "one of fifty wins or loses all":
        return np.where(rng.random(shape) < 0.02, rng.integers(0, 2, shape), 0.5), 0.5
    return rng.random(shape), 0.5


@pytest.mark.parametrize(("values", "n"), [((0.0, 1.0), 9), ((0.0, 0.3, 1.0), 6)])
def test_bounds_of_means_cover_every_distribution_of_a_few_values(
    values: tuple[float, ...], n: int
) -> None:
    sequences = np.array(list(itertools.product(range(len(values)), repeat=n)))
    ends = np.array([mean_bounds(np.array(values)[each]) for each in sequences])
    for counts in itertools.product(range(21), repeat=len(values)):
        if sum(counts) != 20:
            continue
        shares = np.array(counts) / 20
        chances = shares[sequences].prod(axis=1)
        mean = float(shares @ values)
        assert chances[ends[:, 1] >= mean - 1e-9].sum() >= 0.95 - 1e-9
        assert chances[ends[:, 0] <= mean + 1e-9].sum() >= 0.95 - 1e-9


@pytest.mark.parametrize(("n", "number"), [(30, 400), (200, 200)])
@pytest.mark.parametrize(
    "kind",
    [
        "one of a hundred loses all",
        "one of ten loses a fifth",
        "one of fifty wins or loses all",
        "anything",
    ],
)
def test_bounds_of_means_hold_in_95_of_100_trials(kind: str, n: int, number: int) -> None:
    trials, mean = losses(kind, np.random.default_rng(n), (number, n))
    ends = np.array([mean_bounds(trial) for trial in trials])
    # Three standard deviations of the number of trials in which an exact bound holds.
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / number)
    assert np.mean(ends[:, 1] >= mean) >= least
    assert np.mean(ends[:, 0] <= mean) >= least


@pytest.mark.parametrize("lost", [1, 10, 50])
def test_bounds_of_means_of_0_and_1_are_near_the_exact_ones(lost: int) -> None:
    scores = np.zeros(1000)
    scores[:lost] = 1
    excess = share_upper(lost, 1000) - lost / 1000
    assert mean_bounds(scores)[1] - lost / 1000 == pytest.approx(excess, rel=0.3)


def test_a_bootstrap_alone_misses_rare_losses() -> None:
    # Why `mean_bounds` is there: 0.99^100 = 37% of such sets hold no loss at all.
    trials, mean = losses("one of a hundred loses all", np.random.default_rng(0), (100, 100))
    ends = [bootstrap_bounds(mean_of(trial), 100)[1] for trial in trials]
    assert np.mean(np.array(ends) >= mean) < 0.8


@pytest.mark.parametrize("n", [43, 1000])
def test_no_loss_in_the_mean_is_bounded_by_about_the_rule_of_three(n: int) -> None:
    low, high = mean_bounds(np.zeros(n))
    assert low == pytest.approx(0, abs=1e-9)
    assert share_upper(0, n) <= high <= 1.2 * share_upper(0, n)


def test_bounds_of_means_follow_the_range_of_the_scores() -> None:
    scores = np.random.default_rng(0).random(80)
    low, high = mean_bounds(scores)
    shifted = mean_bounds(4 * scores - 3, least=-3, most=1)
    assert shifted == pytest.approx((4 * low - 3, 4 * high - 3))
    assert low < scores.mean() < high
    assert mean_bounds(1 - scores) == pytest.approx((1 - high, 1 - low))


def test_scores_that_are_all_the_best_are_bounded_by_the_best() -> None:
    low, high = mean_bounds(np.ones(40))
    assert high == 1
    assert 0.9 < low < 0.05 ** (1 / 40)


def test_bounds_of_means_are_the_same_every_time() -> None:
    scores = np.random.default_rng(0).random(80)
    assert mean_bounds(scores, seed=3) == mean_bounds(scores, seed=3)
    assert mean_bounds(scores, seed=3) != mean_bounds(scores, seed=4)


def test_bootstrap_bounds_of_a_normal_mean_are_the_textbook_ones_at_half_the_risk() -> None:
    scores = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_bounds(mean_of(scores), 400, resamples=4000)
    error = 1.96 * scores.std() / 20
    # 4000 resamples give the 2.5% quantile to about 3% of the error.
    assert low == pytest.approx(scores.mean() - error, abs=0.06 * error)
    assert high == pytest.approx(scores.mean() + error, abs=0.06 * error)


def test_bootstrap_bounds_of_a_variance_are_those_of_the_textbook() -> None:
    # Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 14: spatial test data
    # A, variance 171.5, BCa at 90% from 2000 resamples 115.8 to 259.6, acceleration 0.061; the
    # percentiles are 100.8 and 233.9. The upper end varies by about 5 from draw to draw.
    listed = "48 36 20 29 42 42 20 42 22 41 45 14 6 0 33 28 34 4 32 24 47 41 24 26 30 41"
    scores = np.array(listed.split(), np.float64)

    def variance(indices: Indices) -> float:
        return float(scores[indices].var())

    low, high = bootstrap_bounds(variance, len(scores), 0.9, resamples=10_000)
    assert variance(np.arange(26)) == pytest.approx(171.5, abs=0.05)
    assert (low, high) == pytest.approx((115.8, 259.6), rel=0.02)
    assert _acceleration(variance, np.arange(26)) == pytest.approx(0.061, abs=5e-4)


def test_bootstrap_bounds_reach_further_on_the_side_of_the_long_tail() -> None:
    scores = np.random.default_rng(1).exponential(size=60)
    low, high = bootstrap_bounds(mean_of(scores), 60, resamples=4000)
    assert high - scores.mean() > 1.1 * (scores.mean() - low)


def test_bootstrap_bounds_cover_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(2)
    misses = 0
    for _ in range(200):
        objects = rng.integers(1, 9, 150)
        found = rng.binomial(objects, 0.9)
        low, _ = bootstrap_bounds(ratio_of(found, objects), 150, resamples=400)
        misses += low > 0.9
    assert misses <= 10


def test_bootstrap_bounds_without_any_variation_are_the_statistic() -> None:
    assert bootstrap_bounds(lambda _: 0.25, 10) == (0.25, 0.25)
    assert bootstrap_bounds(lambda _: 0.25, 1) == (0.25, 0.25)


def test_resamples_without_a_figure_are_left_out() -> None:
    held = np.array([1.0, 0.0, 0.0])
    hits = np.array([1.0, 0.0, 0.0])

    def recall(indices: Indices) -> float:
        return float(hits[indices].sum() / held[indices].sum()) if held[indices].any() else math.nan

    assert bootstrap_bounds(recall, 3) == (1.0, 1.0)


def test_without_a_drop_the_samples_that_decide_are_those_of_the_rule_of_three() -> None:
    assert samples_to_decide(0, 1, 43) == 299
    assert samples_to_decide(-0.5, 1, 43) == 299
    assert share_upper(0, 299) <= 0.01 < share_upper(0, 298)


@pytest.mark.parametrize(("drop", "budget"), [(0.5, 1.0), (0.8, 1.0), (1.0, 5.0)])
def test_the_samples_that_decide_would_about_decide(drop: float, budget: float) -> None:
    needed = samples_to_decide(drop, budget, 50)
    assert needed is not None
    assert share_upper(math.ceil(drop / 100 * needed), needed) <= budget / 100
    fewer = needed * 3 // 4
    assert share_upper(math.ceil(drop / 100 * fewer), fewer) > budget / 100


def test_no_number_of_samples_decides_for_a_drop_beyond_the_budget() -> None:
    assert samples_to_decide(1.2, 1, 100) is None
    assert samples_to_decide(1, 1, 100) is None
    assert samples_to_decide(0, 0, 100) is None


def test_more_samples_are_asked_for_than_there_were() -> None:
    assert samples_to_decide(0, 1, 5000) == 5001


def test_the_risk_is_shared_out_over_the_looks() -> None:
    assert confidence_of_look(0.95, 1) == 0.95
    assert confidence_of_look(0.95, 5) == pytest.approx(0.99)
