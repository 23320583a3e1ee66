"""The quadratic form against sums over drawn rows."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from generated import statistics_of
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.reconstruction import damped_gram, low_rank, relative_error, repaired
from onnxpress.statistics import LayerStatistics

Float64 = npt.NDArray[np.float64]


def test_error_is_power_over_power_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    w, delta = rng.standard_normal((2, 3, 5))
    x = rng.standard_normal((40, 5))
    wanted = np.square(x @ delta.T).sum() / np.square(x @ w.T).sum()
    assert relative_error(delta, w, (x.T @ x / 40)[None]) == pytest.approx(wanted)
    assert relative_error(-w, w, np.eye(5)[None]) == pytest.approx(1.0)
    assert relative_error(delta, np.zeros((3, 5)), np.eye(5)[None]) == 0


def test_damping_grows_where_few_rows_speak_of_many_inputs() -> None:
    gram = np.diag([1.0, 3.0])[None]
    added = [damped_gram(gram, rows)[0] - gram[0] for rows in (None, 1_000_000, 2)]
    np.testing.assert_allclose(added[0], 0.01 * 2 * np.eye(2))
    np.testing.assert_allclose(added[1], added[0])
    np.testing.assert_allclose(added[2], 0.3 * 2 * np.eye(2))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**31))
def test_low_rank_predicts_its_own_error(out: int, inputs: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((out, inputs)), rng.standard_normal((rows, inputs)) + 0.5
    gram, mean = x.T @ x / rows, x.mean(axis=0)
    found = low_rank(w, gram, mean)
    for rank in range(1, min(out, inputs) + 1):
        first, second = found.factors(rank)
        y = x @ w.T
        changed = x @ (second @ first).T + found.bias_shift(first, second)
        power = np.square(y - y.mean(axis=0)).sum()
        if power > 1e-9 * np.square(y).sum():
            measured = np.square(y - changed).sum() / power
            assert measured == pytest.approx(found.error(rank), rel=1e-6, abs=1e-9)
    assert found.error(min(out, inputs)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_low_rank_is_the_optimum_whatever_side_is_longer(shape: tuple[int, int]) -> None:
    """Against the whitened SVD, which needs an inverse (SVD-LLM)."""
    rng = np.random.default_rng(2)
    weight = rng.standard_normal(shape)
    x = rng.standard_normal((500, shape[1])) @ rng.standard_normal((shape[1], shape[1]))
    gram = x.T @ x / len(x)
    singular = np.linalg.svd(weight @ np.linalg.cholesky(gram), compute_uv=False)
    found = low_rank(weight, gram, None)
    assert found.error(7) == pytest.approx((singular[7:] ** 2).sum() / (singular**2).sum())
    first, second = found.factors(7)
    lost = np.square(x @ (weight - second @ first).T).sum() / np.square(x @ weight.T).sum()
    assert found.error(7) == pytest.approx(lost)


def test_repaired_layer_gives_the_reference_output_from_changed_inputs() -> None:
    """Where x̂ is a linear map of x, the least squares answer undoes the map, offset and all."""
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((5, 12))
    x = rng.standard_normal((4000, 12)) + 1.0
    own = x @ (np.eye(12) + 0.1 * rng.standard_normal((12, 12))) + 0.3
    found, offset = repaired(weight, statistics_of(own, x), biased=True)
    wanted = x @ weight.T
    before = np.square(own @ weight.T - wanted).sum()
    assert np.square(own @ found.T + offset - wanted).sum() < 1e-3 * before
    again, nothing = repaired(weight, statistics_of(own), biased=True)
    assert np.array_equal(again, weight)
    assert not nothing.any()


def in_halves(own: Float64, reference: Float64) -> LayerStatistics:
    """Of rows that belong to two samples, the first half and the second."""
    middle = len(own) // 2
    half = statistics_of(own[:middle], reference[:middle])
    return replace(statistics_of(own, reference), half=half)


@pytest.mark.parametrize("seed", range(5))
def test_what_few_samples_show_by_chance_is_not_fitted(seed: int) -> None:
    """96 rows of 64 inputs, whose noise says nothing of them: a fit to all is worse on others."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((8, 64))
    scales = np.geomspace(0.01, 3, 64)
    x, other = (rng.standard_normal((rows, 64)) * scales for rows in (96, 4000))
    noise, another = (0.02 * rng.standard_normal(a.shape) for a in (x, other))
    wanted = other @ weight.T

    def lost(moments: LayerStatistics) -> float:
        found, offset = repaired(weight, moments, biased=True)
        return float(np.square((other + another) @ found.T + offset - wanted).sum())

    nothing = float(np.square(another @ weight.T).sum())
    assert lost(in_halves(x + noise, x)) < 1.05 * nothing
    assert lost(in_halves(x + noise, x)) < lost(statistics_of(x + noise, x))


def test_what_both_halves_show_is_fitted() -> None:
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((5, 12))
    x, other = rng.standard_normal((2, 4000, 12)) + 1.0
    change = np.eye(12) + 0.1 * rng.standard_normal((12, 12))
    found, offset = repaired(weight, in_halves(x @ change + 0.3, x), biased=True)
    wanted, own = other @ weight.T, other @ change + 0.3
    before = np.square(own @ weight.T - wanted).sum()
    assert np.square(own @ found.T + offset - wanted).sum() < 1e-3 * before


@pytest.mark.parametrize("seed", range(3))
def test_a_part_of_many_outputs_chooses_as_well_as_all(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((700, 48)) * np.geomspace(0.1, 1, 700)[:, None]
    x, other = (rng.standard_normal((rows, 48)) for rows in (120, 2000))
    change = np.eye(48) + 0.1 * rng.standard_normal((48, 48))
    noise, another = (0.3 * rng.standard_normal(rows.shape) for rows in (x, other))
    moments, wanted = in_halves(x @ change + noise, x), other @ weight.T

    def lost() -> float:
        found, offset = repaired(weight, moments, biased=True)
        return float(np.square((other @ change + another) @ found.T + offset - wanted).sum())

    by_some = lost()
    monkeypatch.setattr("onnxpress.reconstruction._OUTPUTS", 700)
    assert by_some != lost(), "the choice was by some"
    assert by_some == pytest.approx(lost(), rel=0.02)


def test_both_halves_are_the_whole() -> None:
    x = np.random.default_rng(1).standard_normal((20, 3))
    whole, half = statistics_of(x, x + 1), statistics_of(x[:8], x[:8] + 1)
    rest, wanted = whole.without(half), statistics_of(x[8:], x[8:] + 1)
    assert rest.rows == 12
    for name in ("mean", "second_moment", "gram", "reference_mean", "cross"):
        np.testing.assert_allclose(getattr(rest, name), getattr(wanted, name), atol=1e-12)
