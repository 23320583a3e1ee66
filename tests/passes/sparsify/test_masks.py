"""Masks against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.sparsify.masks import Pattern, keep_highest, keep_n_of_m


@given(
    seed=st.integers(0, 100),
    kernel=st.sampled_from([1, 9]),
    pattern=st.sampled_from(["2:4", "4:8", "1:4"]),
)
@settings(max_examples=20, deadline=None)
def test_n_of_m_holds_along_the_input_channels(seed: int, kernel: int, pattern: str) -> None:
    parsed = Pattern.parse(pattern)
    assert parsed is not None
    scores = np.random.default_rng(seed).standard_normal((3, 5, 16 * kernel))
    mask = keep_n_of_m(scores, parsed, kernel)
    grouped = mask.reshape(15, 16 // parsed.group, parsed.group, kernel)
    assert (grouped.sum(axis=2) == parsed.kept).all()
    values = scores.reshape(grouped.shape)
    highest_out = np.where(grouped, -np.inf, values).max(axis=2)
    assert (highest_out <= np.where(grouped, values, np.inf).min(axis=2)).all()


def test_exactly_the_share_goes_even_among_equals() -> None:
    assert keep_highest(np.zeros((4, 5)), 7).sum() == 13
    assert (keep_highest(np.zeros((4, 5)), 2, by_row=True).sum(axis=1) == 3).all()


def test_rows_and_groups_of_any_shape_keep_their_own_highest() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 3, 10))
    mask = keep_highest(scores, 4, by_row=True)
    for group in range(2):
        for row in range(3):
            wanted = np.sort(scores[group, row])[4:]
            np.testing.assert_array_equal(np.sort(scores[group, row][mask[group, row]]), wanted)
    whole = keep_highest(scores, 25)
    np.testing.assert_array_equal(np.sort(scores[whole]), np.sort(scores, axis=None)[25:])
    assert keep_highest(scores, 0).all()


@pytest.mark.parametrize("text", ["2:", ":4", "a:4", "2:b", "4:2", "4:4", "0:4", "2/4", ""])
def test_what_is_no_pattern_is_none(text: str) -> None:
    assert Pattern.parse(text) is None
