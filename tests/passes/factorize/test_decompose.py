"""Factors of convolutions against numpy's products."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.factorize.decompose import spatial, tucker

Float64 = npt.NDArray[np.float64]


def product_of(kernels: tuple[Float64, ...]) -> Float64:
    """What two or three convolutions in a row amount to, by their definition."""
    first, *rest = kernels
    whole = first
    for kernel in rest:
        outputs, _, height, width = kernel.shape
        _, inputs, h, w = whole.shape
        made = np.zeros((outputs, inputs, height + h - 1, width + w - 1))
        for i in range(height):
            for j in range(width):
                made[:, :, i : i + h, j : j + w] += np.einsum(
                    "om,mchw->ochw", kernel[:, :, i, j], whole
                )
        whole = made
    return whole


@given(seed=st.integers(0, 500), height=st.integers(2, 5), width=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_convolution_factors_amount_to_the_product_they_state(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((6, 4, height, width))
    rows = rng.standard_normal((300, 4 * height * width)) * rng.uniform(0, 2, 4 * height * width)
    gram = rows.T @ rows / len(rows)
    for found in (spatial(weight, gram, 3), tucker(weight, gram, 3, 4)):
        stated = found.product.reshape(weight.shape)
        np.testing.assert_allclose(product_of(found.factors), stated, atol=1e-8)
        delta = weight.reshape(6, -1) - found.product
        error = np.square(rows @ delta.T).sum() / np.square(rows @ weight.reshape(6, -1).T).sum()
        assert found.error == pytest.approx(error, rel=1e-6)


def test_convolution_factors_of_full_rank_are_exact() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4, 3, 3))
    assert spatial(weight, None, 12).error < 1e-20
    assert tucker(weight, None, 4, 6).error < 1e-20


def test_channels_of_very_different_power_do_not_spoil_a_start_of_full_rank() -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((6, 4, 3, 3))
    rows = rng.standard_normal((500, 36)) * np.repeat([1e-4, 1e-1, 1e1, 1e4], 9)
    gram = rows.T @ rows / len(rows)
    assert spatial(weight, gram, 12).error < 1e-18
    assert tucker(weight, gram, 4, 6).error < 1e-18


def test_the_channel_that_matters_is_kept_where_rank_is_short() -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((4, 4, 3, 3))
    scales = np.repeat([1e2, 1.0, 1.0, 0.0], 9)
    found = tucker(weight, np.diag(scales**2), 1, 4)
    kept = found.product.reshape(weight.shape)[:, 0]
    np.testing.assert_allclose(kept, weight[:, 0], rtol=0.05, atol=0.05)


def test_alternating_beats_the_truncated_svd_it_starts_from() -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((16, 8, 3, 3))
    rows = rng.standard_normal((2000, 72)) @ rng.standard_normal((72, 72))
    gram = rows.T @ rows / len(rows)
    unfolded = weight.transpose(1, 2, 0, 3).reshape(24, 48)
    left, singular, right = np.linalg.svd(unfolded, full_matrices=False)
    cut = (left[:, :8] * singular[:8]) @ right[:8]
    plain = cut.reshape(8, 3, 16, 3).transpose(2, 0, 1, 3).reshape(16, 72)
    delta = weight.reshape(16, 72) - plain
    whole = weight.reshape(16, 72)
    error = np.einsum("oi,ij,oj", delta, gram, delta) / np.einsum("oi,ij,oj", whole, gram, whole)
    assert spatial(weight, gram, 8).error < 0.9 * error
