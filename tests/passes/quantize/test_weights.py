"""Weights in integers: half a step at most, and every step used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.quantize.weights import quantize_weight


@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
@pytest.mark.parametrize("axis", [0, 1, None])
@given(seed=st.integers(0, 2**31), bits=st.sampled_from([7, 8]))
def test_weight_is_within_half_a_step_and_uses_every_one(
    seed: int, bits: int, axis: int | None, *, unsigned: bool
) -> None:
    w = np.random.default_rng(seed).standard_normal((5, 7)).astype(np.float32)
    found = quantize_weight(w, axis, bits=bits, unsigned=unsigned)
    assert found.values.dtype == (np.uint8 if unsigned else np.int8)
    steps = np.abs(w - found.dequantize()) / found.broadcast_scales()
    assert steps.max() <= 0.5 + 1e-6
    largest = np.abs(found.values.astype(int) - found.zero_point)
    others = None if axis is None else 1 - axis
    assert (largest.max(axis=others) == 2 ** (bits - 1) - 1).all()


@pytest.mark.parametrize("value", [0.0, 1e-42, np.finfo(np.float32).max])
def test_extreme_weights_stay_finite(value: float) -> None:
    found = quantize_weight(np.full((2, 3), value, np.float32), 0)
    assert (found.scales > 0).all()
    wanted = 0.0 if value < 1e-38 else value
    np.testing.assert_allclose(found.dequantize(), wanted, rtol=1e-6)


def test_scale_is_at_least_what_its_bias_needs() -> None:
    found = quantize_weight(np.ones((2, 3), np.float32), 0, least_scales=np.asarray([0.0, 0.5]))
    np.testing.assert_allclose(found.scales, [1 / 127, 0.5])
    np.testing.assert_array_equal(found.values[1], [2, 2, 2])
