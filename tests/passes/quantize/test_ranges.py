"""Ranges of activations: what they cover, and the squared error they leave."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.passes.quantize.ranges import (
    BOUNDS,
    RANGE_METHODS,
    ActivationRange,
    choose_range,
    range_between,
)
from onnxpress.runtime import Array
from onnxpress.statistics import TensorStatistics


def observed(array: Array) -> TensorStatistics:
    statistics = TensorStatistics()
    statistics.update(float(array.min()), float(array.max()), array.astype(np.float32))
    return statistics


def chosen(
    array: Array, *, signed: bool = False, bits: int = 8, method: str = "mse"
) -> ActivationRange:
    found = choose_range(observed(array), signed=signed, bits=bits, method=method)
    assert found is not None
    return found


def rounded(array: Array, found: ActivationRange, *, signed: bool = False, bits: int = 8) -> Array:
    """What QuantizeLinear and DequantizeLinear make of it, in float64."""
    lowest, highest = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    integers = np.round(array.astype(np.float64) / found.scale) + found.zero_point
    return (np.clip(integers, lowest, highest) - found.zero_point) * found.scale


values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=200)


@given(numbers=values, signed=st.booleans(), bits=st.sampled_from([8, 16]))
def test_minmax_rounds_every_value_to_the_nearest_and_zero_to_itself(
    numbers: list[float], bits: int, *, signed: bool
) -> None:
    array = np.asarray([*numbers, 0.0], np.float32)
    found = chosen(array, signed=signed, bits=bits, method="minmax")
    made = rounded(array, found, signed=signed, bits=bits)
    assert made[-1] == 0
    # Half a step, and what float32 and a half step at the very edge of the range round away.
    step = found.scale * (0.5 + 1e-6 * 2**bits) + np.finfo(np.float32).tiny * 2**bits
    assert np.abs(np.asarray(made, np.float64) - array).max() <= step
    largest = float(np.abs(array).max() if signed else array.max() - array.min())
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    if largest > 1e-30:
        assert found.scale == pytest.approx(largest / levels, rel=1e-6), "no coarser than needed"


@given(numbers=values, signed=st.booleans())
def test_least_squared_error_is_predicted_to_be_at_most_that_of_minmax(
    numbers: list[float], *, signed: bool
) -> None:
    array = np.asarray(numbers, np.float32)
    found, widest = (chosen(array, signed=signed, method=name) for name in ("mse", "minmax"))
    assert rounded(np.zeros(1), found, signed=signed)[0] == 0
    assert found.noise <= widest.noise
    assert found.scale <= widest.scale


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Array]] = {
    "uniform": lambda rng: rng.uniform(-1, 3, 100_000),
    "normal": lambda rng: rng.standard_normal(100_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(100_000), 0),
    "heavy_tailed": lambda rng: rng.standard_t(3, 100_000),
    "outlier": lambda rng: np.append(rng.standard_normal(99_999), 40.0),
}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_least_squared_error_is_least_on_the_samples_themselves(name: str, *, signed: bool) -> None:
    array = DISTRIBUTIONS[name](np.random.default_rng(3)).astype(np.float32)
    errors = {}
    for method in RANGE_METHODS:
        found = chosen(array, signed=signed, method=method)
        made = np.asarray(rounded(array, found, signed=signed), np.float64)
        errors[method] = float(np.square(made - array).mean())
        assert found.noise == pytest.approx(errors[method], rel=0.05), method
    # Within what the histogram does not resolve.
    assert errors["mse"] <= 1.01 * min(errors.values())
    if name in ("heavy_tailed", "outlier"):
        assert errors["mse"] < 0.9 * errors["minmax"]


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_outlier_is_cut_off(method: str) -> None:
    array = DISTRIBUTIONS["outlier"](np.random.default_rng(3))
    found = chosen(array, method=method)
    assert 2.5 < (255 - found.zero_point) * found.scale < 10


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_bounds_of_a_function_are_its_range_whatever_was_seen(low: float) -> None:
    seen = observed(np.asarray([0.4, 0.6], np.float32))
    found = choose_range(seen, signed=False, bounds=(low, 1.0))
    assert found is not None
    assert found.scale == pytest.approx((1 - low) / 255)
    assert found.zero_point in ((0,) if low == 0 else (127, 128))
    assert (low, 1.0) in BOUNDS.values()


def test_range_between_covers_zero_too() -> None:
    found = range_between(2.0, 3.0, signed=False)
    assert found.scale == pytest.approx(3 / 255)
    assert found.zero_point == 0
    assert found.noise == pytest.approx(found.scale**2 / 12)


def test_tensor_of_zeros_or_of_infinities() -> None:
    found = choose_range(observed(np.zeros(3)), signed=False)
    assert found is not None
    assert (found.scale, found.zero_point, found.error) == (1.0, 0, 0.0)
    unbounded = TensorStatistics(minimum=-1.0, maximum=np.inf)
    assert choose_range(unbounded, signed=False) is None
