"""Slices: what is lost in one is seen, whatever the others hold."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zoo.builder import floats

from onnxpress.judge import fidelity
from onnxpress.judge.budget import DEFAULT_MIN_SQNR
from onnxpress.judge.cuts import beside, cut
from onnxpress.judge.fidelity import FidelitySum, OutputFidelity
from onnxpress.judge.kinds import Form, Kind, Reading
from onnxpress.judge.slices import SLICE_ALLOWANCE_DB, SliceSum, in_unit, softmax

Array = npt.NDArray[np.float32]
SAMPLES, SLICES, VALUES = 24, 6, 20
VALUES_READING = Reading("y", Kind.VALUES, "", "")
SCALES = st.lists(st.floats(-2.5, 2.5), min_size=SLICES, max_size=SLICES)
"""Five decades, which float32 still resolves."""


def reading(kind: Kind, form: Form, axis: int | None = None) -> Reading:
    return Reading("y", kind, "", "", form=form, axis=axis)


def answers(scales: list[float], seed: int = 0, number: int = SAMPLES) -> list[Array]:
    """[1, slices, values] each; slices of powers of ten."""
    rng = np.random.default_rng(seed)
    size = (10.0 ** np.array(scales))[:, None]
    return [
        (size * rng.standard_normal((1, SLICES, VALUES))).astype(np.float32) for _ in range(number)
    ]


def judged(kind: Reading, original: list[Array], found: list[Array]) -> OutputFidelity:
    total = FidelitySum(SliceSum(cut(kind, original), kind.axis))
    for one, other in zip(original, found, strict=True):
        total.add(one, other)
    return total.finish()


@given(SCALES, st.integers(0, SLICES - 1), st.integers(0, 99))
def test_destroyed_slice_is_seen_whatever_the_scale_of_the_others(
    scales: list[float], lost: int, seed: int
) -> None:
    original = answers(scales, seed)
    found = [array.copy() for array in original]
    for array in found:
        array[:, lost] = 0
    figure = judged(VALUES_READING, original, found)
    # By default budget: where slices look alike they share a variance.
    assert figure.sqnr_db < DEFAULT_MIN_SQNR - 5


def test_quiet_signals_among_loud_ones_are_not_lost() -> None:
    rng = np.random.default_rng(0)
    size = 10.0 ** np.repeat([0.0, -1.0], 8)
    original = [(s * rng.standard_normal((1, 1, 400))).astype(np.float32) for s in size]
    found = [
        a + np.float32(0.05) * rng.standard_normal(a.shape).astype(np.float32) for a in original
    ]
    figure = judged(VALUES_READING, original, found)
    # Over all 0.5 / 0.0025, of the quiet ones 0.01 / 0.0025 and the allowance of a slice.
    assert figure.whole_db == pytest.approx(23, abs=1)
    assert figure.sqnr_db == pytest.approx(16, abs=1)
    fine = [a * np.float32(1.05) for a in original]
    assert judged(VALUES_READING, original, fine).sqnr_db > 25


def test_quantity_beside_one_a_milliard_times_as_large_is_seen() -> None:
    # A price beside a share: each column is a sum of its own, as exact as its own size.
    rng = np.random.default_rng(0)
    size = np.array([1e6, 1.0, 1e-3], np.float32)
    original = [(size * rng.standard_normal((1, 3))).astype(np.float32) for _ in range(64)]
    found = [array * np.array([1.0, 1.0, 0.5], np.float32) for array in original]
    assert judged(VALUES_READING, original, found).sqnr_db == pytest.approx(6.0, abs=0.5)


def test_what_large_terms_cancel_to_is_no_quantity() -> None:
    rng = np.random.default_rng(0)
    large = [(1e6 * rng.standard_normal((1, 1))).astype(np.float32) for _ in range(64)]
    # The last place of a million is a sixteenth.
    rest = [np.float32(1 / 16) * rng.integers(-1, 2, (1, 1)).astype(np.float32) for _ in large]
    original = [np.concatenate(pair, axis=1) for pair in zip(large, rest, strict=True)]
    found = [array * np.array([1.0, 0.0], np.float32) for array in original]
    assert judged(VALUES_READING, original, found).sqnr_db > DEFAULT_MIN_SQNR


def test_feature_that_died_is_rounding_beside_a_hundred_others() -> None:
    rng = np.random.default_rng(0)
    size = np.where(np.arange(100) == 7, 1e-8, 1.0).astype(np.float32)
    original = [(size * rng.standard_normal((1, 100))).astype(np.float32) for _ in range(64)]
    found = [array * np.where(np.arange(100) == 7, 2, 1).astype(np.float32) for array in original]
    assert judged(VALUES_READING, original, found).sqnr_db > DEFAULT_MIN_SQNR


@given(SCALES, st.integers(0, 99))
def test_scaling_slices_does_not_change_the_figure(scales: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = [1 + 0.05 * rng.standard_normal((1, SLICES, VALUES)) for _ in range(SAMPLES)]
    figures = []
    for powers in ([0.0] * SLICES, scales):
        original = answers(powers, seed)
        found = [(a * s).astype(np.float32) for a, s in zip(original, shares, strict=True)]
        head = reading(Kind.VALUES, "values", 1)
        figures.append(judged(head, original, found).sqnr_db)
    # Groups are of slices of like power, so their figures lie between those of their slices.
    assert figures[0] == pytest.approx(figures[1], abs=3)


@given(st.integers(0, 999))
def test_figure_is_that_of_a_plain_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    original = answers([0.0] * SLICES, seed)
    noise = 10 ** rng.uniform(-2, -0.5, (SLICES, 1))
    found = [(a + noise * rng.standard_normal(a.shape)).astype(np.float32) for a in original]
    signal = np.stack(original)[:, 0].transpose(1, 0, 2).reshape(SLICES, -1).astype(np.float64)
    error = np.stack(found)[:, 0].transpose(1, 0, 2).reshape(SLICES, -1) - signal
    variance, power = signal.var(axis=1), (error**2).mean(axis=1)
    pooled = 10 * math.log10(variance.sum() / power.sum())
    worst = 10 * math.log10((variance / power).min()) + SLICE_ALLOWANCE_DB
    kind = reading(Kind.REGRESSION, "values", 1)
    one = SliceSum(cut(kind, original)[:1], 1)
    for a, b in zip(original, found, strict=True):
        one.add(a, b)
    decades = len(one.cuts[0].groups) > 1
    assert decades or one.finish()[0] == pytest.approx(min(pooled, worst), abs=1e-6)


@given(
    SCALES,
    st.integers(0, 99),
    st.sampled_from([("values", None), ("values", 1), ("values", -1), ("logits", 1)]),
    st.sampled_from([0.0, np.nan]),
)
def test_samples_together_give_the_figures_of_one_after_the_other(
    scales: list[float], seed: int, how: tuple[Form, int | None], odd: float
) -> None:
    original, noise = answers(scales, seed), answers([-2.0] * SLICES, seed + 1)
    found = [one + more for one, more in zip(original, noise, strict=True)]
    for arrays in (original, found):
        arrays[5][0, 2, 3] = odd
        arrays[9] = arrays[9][:, :, :3]
    kind = reading(Kind.VALUES, *how)
    figures = []
    for together in (0, fidelity._TOGETHER_BYTES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fidelity, "_TOGETHER_BYTES", together)
            figures.append(judged(kind, original, found))
    one, other = figures
    assert one.noise is not None
    assert other.noise is not None
    np.testing.assert_allclose(other.noise, one.noise, rtol=1e-9)
    same = [(f.sqnr_db, f.whole_db, f.cosine, f.max_error, f.equal_share) for f in figures]
    np.testing.assert_allclose(same[1], same[0], rtol=1e-9)
    assert other.worst == one.worst


def test_equal_outputs_give_infinity_and_nan_minus_infinity() -> None:
    original = answers([0.0] * SLICES)
    assert judged(VALUES_READING, original, original).sqnr_db == math.inf
    broken = [array.copy() for array in original]
    broken[3][0, 2, 5] = np.nan
    assert judged(VALUES_READING, original, broken).sqnr_db == -math.inf


def test_nan_and_infinity_where_the_original_has_them_are_right() -> None:
    original = answers([0.0] * SLICES)
    original[0][0, 1, 1], original[0][0, 1, 2] = np.nan, -np.inf
    assert judged(VALUES_READING, original, [a.copy() for a in original]).sqnr_db == math.inf
    found = [array.copy() for array in original]
    found[0][0, 1, 2] = np.inf
    assert judged(VALUES_READING, original, found).sqnr_db == -math.inf


def test_one_dead_feature_of_many_alike_is_seen() -> None:
    rng = np.random.default_rng(0)
    original = [rng.standard_normal((1, 10, 400)).astype(np.float32) for _ in range(8)]
    found = [array.copy() for array in original]
    for array in found:
        array[..., 123] = 0
    figure = judged(VALUES_READING, original, found)
    assert figure.whole_db > 20
    assert figure.sqnr_db < 20
    assert figure.worst == "slice 123 of axis 2"


def test_feature_that_rests_in_the_samples_and_looks_like_others_may_have_noise() -> None:
    """Sound with short bursts: at some times there is none in any sample."""
    rng = np.random.default_rng(0)
    bursts = rng.random((20, 1, 1, 400)) < 0.1
    original = list((bursts * rng.standard_normal(bursts.shape)).astype(np.float32))
    noise = 0.003 * rng.standard_normal(bursts.shape).astype(np.float32)
    found = [a + n for a, n in zip(original, noise, strict=True)]
    assert judged(VALUES_READING, original, found).sqnr_db > 30


def test_dim_channel_of_a_picture_with_bright_rows_is_seen() -> None:
    rng = np.random.default_rng(0)
    rows = 10 ** np.linspace(-2, 0, 16)[:, None]
    channels = np.array([1, 0.05, 1])[:, None, None]
    original = [
        (rows * channels * rng.standard_normal((1, 3, 16, 16))).astype(np.float32) for _ in range(8)
    ]
    found = [array * floats([1, 0, 1]).reshape(3, 1, 1) for array in original]
    figure = judged(VALUES_READING, original, found)
    assert figure.whole_db > 20
    assert figure.sqnr_db < 20


def test_log_odds_are_those_of_the_textbook() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.01, 0.01, 0.98]])
    expected = np.log(p / (1 - p))
    np.testing.assert_allclose(in_unit(p, "probabilities", 1), expected, rtol=1e-12)
    np.testing.assert_allclose(in_unit(p, "sigmoid", None), expected, rtol=1e-12)
    np.testing.assert_allclose(in_unit(np.log(p) + 5, "logits", 1), expected, rtol=1e-9)
    np.testing.assert_allclose(softmax(np.log(p), 1), p, rtol=1e-12)


def test_log_odds_of_zero_and_one_are_finite_and_of_nan_are_not() -> None:
    found = in_unit(np.array([[0.0, 1.0, np.nan]]), "probabilities", 1)
    assert np.isfinite(found[0, :2]).all()
    assert np.isnan(found[0, 2])


def test_scores_that_are_certain_are_compared_as_they_are() -> None:
    # Random inputs drive logits so far apart that every probability is 0 or 1.
    logits = [np.array([[90.0, -40.0, 10.0]], np.float32) * sign for sign in (1, -1)]
    found = [array * np.float32(1.01) for array in logits]
    figure = judged(reading(Kind.CLASSIFICATION, "logits", axis=-1), logits, found)
    assert figure.sqnr_db == pytest.approx(40, abs=0.01)
    assert figure.sqnr_db == figure.whole_db


def test_rare_class_counts_as_much_as_a_frequent_one() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((200, 3)) + np.array([5, 5, -5])
    original = [softmax(row[None], 1).astype(np.float32) for row in logits]
    # The rare class is a constant; nothing else changes by more than a ten-thousandth.
    found = [array.copy() for array in original]
    for array in found:
        array[0, 2] = 3e-5
    figure = judged(reading(Kind.CLASSIFICATION, "probabilities", 1), original, found)
    assert figure.whole_db > 60
    assert figure.sqnr_db < SLICE_ALLOWANCE_DB + 1


@pytest.mark.parametrize("dropped", range(8))
def test_every_row_of_a_detectors_head_is_seen(dropped: int) -> None:
    rng = np.random.default_rng(0)
    head = Reading("y", Kind.DETECTION, "", "", axis=1, role="head", group=1, classes=4)
    scale = np.array([300, 300, 100, 100, 0.3, 0.3, 0.3, 0.3])[:, None]
    original = [(scale * rng.random((1, 8, 50))).astype(np.float32) for _ in range(SAMPLES)]
    found = [array.copy() for array in original]
    for array in found:
        array[:, dropped] = array[:, dropped].mean()
    figure = judged(head, original, found)
    assert figure.sqnr_db < 20
    assert ("boxes" if dropped < 4 else "class scores") in figure.worst


def test_constant_output_may_change_by_a_hundredth_and_not_by_half() -> None:
    original = [np.full((1, 5), 7.0, np.float32) for _ in range(SAMPLES)]
    kind = reading(Kind.REGRESSION, "values", 1)
    near = judged(kind, original, [a * np.float32(1.005) for a in original])
    far = judged(kind, original, [a * np.float32(1.5) for a in original])
    assert near.sqnr_db > 20
    assert far.sqnr_db < 0


def test_slice_that_rests_on_a_few_inputs_is_judged_by_what_it_does_on_others() -> None:
    usual = answers([0.0] * SLICES)
    resting = [array.copy() for array in usual[:6]]
    for array in resting:
        array[:, 2] *= np.float32(1e-3)
    here = cut(VALUES_READING, resting)
    moved = beside(here, cut(VALUES_READING, usual))
    sums = SliceSum(moved, None), SliceSum(here, None)
    for array in resting:
        for total in sums:
            total.add(array, array + np.float32(1e-3))
    assert sums[0].finish()[0] > 40
    assert sums[1].finish()[0] < 20


def test_noise_of_each_sample_is_kept_for_the_bound() -> None:
    original = answers([0.0] * SLICES)
    found = [array.copy() for array in original]
    found[5] = found[5] * np.float32(0.5)
    figure = judged(VALUES_READING, original, found)
    assert figure.noise is not None
    assert figure.noise.shape[0] == SAMPLES
    assert set(np.flatnonzero(figure.noise.max(axis=1))) == {5}
    assert figure.bound_db(0.95) < figure.sqnr_db


@pytest.mark.parametrize("kind", ["few samples have the signal", "noise is large with the signal"])
def test_bound_holds_where_samples_differ_much(kind: str) -> None:
    """Of lots of 32 from one population, as many may keep less than was said as 95% leave."""
    rng = np.random.default_rng(0)
    wrong, lots = 0, 120
    if kind.startswith("few"):
        # E of the square of a log-normal number, beside noise of 1.
        truth = 10 * np.log10(np.exp(2 * 1.2**2))
    else:
        # A hundredth of each sample's own signal, times a log-normal number.
        truth = 20 - 10 * np.log10(np.exp(2 * 0.5**2))
    for _ in range(lots):
        if kind.startswith("few"):
            loud = rng.lognormal(0.0, 1.2, 32)
            noise = np.ones(32)
        else:
            loud = rng.gamma(0.7, 1.0, 32)
            noise = 0.1 * loud * rng.lognormal(0.0, 0.5, 32)
        original = [scale * rng.choice([-1.0, 1.0], (1, 64)) for scale in loud]
        found = [
            one + scale * rng.choice([-1.0, 1.0], (1, 64))
            for one, scale in zip(original, noise, strict=True)
        ]
        figure = judged(reading(Kind.VALUES, "values", None), original, found)
        wrong += figure.bound_db(0.95) > truth
    assert wrong / lots < 0.1
