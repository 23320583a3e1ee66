"""How far Gram matrices are from those of all samples, and what damping follows."""

import numpy as np
import numpy.typing as npt
import pytest
from generated import initialized, statistics_of
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.data import Samples
from onnxpress.layers import find_layers
from onnxpress.passes.quantize.rounding import Compensation
from onnxpress.reconstruction import output_energy, shrinkage
from onnxpress.statistics import Observations, collect
from onnxpress.statistics.sampling import Sketch, noise_between

Float64 = npt.NDArray[np.float64]


def covariance(inputs: int, decay: float) -> Float64:
    """With eigenvalues that fall as powers."""
    basis, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((inputs, inputs)))
    return np.asarray((basis * np.arange(1, inputs + 1) ** -decay) @ basis.T, np.float64)


def drawn(covariance: Float64, rows: int, seed: int) -> Float64:
    """`[rows, in]`, normal."""
    root = np.linalg.cholesky(covariance)
    return np.asarray(
        np.random.default_rng(seed).standard_normal((rows, len(root))) @ root.T, np.float64
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), inputs=st.sampled_from([8, 40]), mean=st.floats(0, 3))
def test_the_sketch_comes_near_the_difference_of_both_halves(
    seed: int, inputs: int, mean: float
) -> None:
    x = drawn(covariance(inputs, 1.0), 60, seed) + mean
    halves = np.arange(60) % 3 % 2
    sketch = Sketch(1, inputs)
    # In two parts, as runs come.
    for part in (slice(0, 25), slice(25, None)):
        sketch.add(x[part][halves[part] == 0][:, None].astype(np.float32))
    whole = len(x), x.mean(axis=0)[None], (x.T @ x / len(x))[None]
    found, exact = (
        sketch.noise(*whole),
        noise_between(*(statistics_of(x[halves == h]) for h in (0, 1))),
    )
    assert found is not None
    assert exact is not None
    first, second = x[halves == 0], x[halves == 1]
    apart = first.T @ first / len(first) - second.T @ second / len(second)
    share = len(first) * len(second) / 60**2
    assert exact[0][0] == pytest.approx(share * np.square(apart).sum())
    apart = np.cov(first.T, bias=True) - np.cov(second.T, bias=True)
    assert exact[1][0] == pytest.approx(share * np.square(apart).sum())
    for one, other in zip(found, exact, strict=True):
        # 32 probes of a matrix that may be of rank one: a standard deviation is a quarter.
        assert one[0] == pytest.approx(other[0], rel=1.0)


@pytest.mark.parametrize(
    ("node", "shape", "weight"),
    [
        ("MatMul (x, w)", (9, 4), "4, 3"),
        ("Conv (x, w)", (1, 4, 60, 60), "3, 4, 1, 1"),
        ("ConvTranspose (x, w)", (1, 4, 5, 5), "4, 3, 1, 1"),
    ],
)
def test_rows_are_of_the_half_of_their_sample(
    node: str, shape: tuple[int, ...], weight: str
) -> None:
    """Every other sample has another input that is not zero, and no row has both."""
    sizes = ", ".join("abcdef"[: len(shape)])
    model = initialized(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[{sizes}] x, float[{weight}] w) => (float y) {{ y = {node} }}"
    )
    feeds = []
    for number in range(6):
        x = np.zeros(shape, np.float32)
        x[:, number % 2] = 1.0
        feeds.append({"x": x})
    layers = find_layers(model)
    wanted = Observations(layers=frozenset(layer.name for layer in layers), gram=True)
    found = collect(model, layers, Samples(tuple(feeds), None, "made"), wanted)
    (moments,) = found.layers.values()
    assert moments.noise is not None
    # H₁ − H₂ = diag(1, −1, 0, 0), of which every probe of signs sees 2.
    assert moments.noise[0] == pytest.approx(2 / 4, rel=0.01)


def test_of_one_half_alone_nothing_is_told() -> None:
    sketch = Sketch(1, 4)
    sketch.add(np.ones((3, 1, 4), np.float32))
    assert sketch.noise(3, np.ones((1, 4)), np.ones((1, 4, 4))) is None
    np.testing.assert_array_equal(shrinkage(np.eye(4)[None], None), [0.0])


@pytest.mark.parametrize(("rows", "decay"), [(20, 0.3), (20, 0.5), (40, 1.0), (400, 1.0)])
def test_the_damped_matrix_is_as_near_to_that_of_all_samples_as_any(
    rows: int, decay: float
) -> None:
    true = covariance(24, decay)
    chosen, best = 0.0, np.zeros(101)
    for seed in range(40):
        x = drawn(true, rows, seed)
        gram, mean = x.T @ x / rows, np.square(x).mean() * np.eye(24)
        noise = noise_between(statistics_of(x[::2]), statistics_of(x[1::2]))
        assert noise is not None
        share = shrinkage(gram[None], noise[0])[0]
        part = share / (1 + share)
        chosen += np.square((1 - part) * gram + part * mean - true).sum()
        best += [np.square((1 - p) * gram + p * mean - true).sum() for p in np.linspace(0, 1, 101)]
    # The best single one for all draws, which nobody who has one draw can know.
    assert chosen < 1.1 * best.min()


def test_rounding_by_few_samples_is_no_worse_on_others_than_to_the_nearest() -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((64, 128))
    scales = np.abs(weights).max(axis=1) / 7
    x = drawn(covariance(128, 0.1), 24, 0)
    noise = noise_between(statistics_of(x[::2]), statistics_of(x[1::2]))
    assert noise is not None
    gram, true = (x.T @ x / len(x))[None], covariance(128, 0.1)[None]

    def lost(shares: Float64 | None) -> float:
        found = Compensation.of(gram, shares).rounded(weights, scales, 7)
        return output_energy(found * scales[:, None] - weights, true)

    nearest = np.clip(np.round(weights / scales[:, None]), -7, 7) * scales[:, None]
    without = output_energy(nearest - weights, true)
    assert lost(None) > 1.1 * without
    assert lost(shrinkage(gram, noise[0])) < 1.02 * without
