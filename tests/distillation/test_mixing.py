"""Samples made up of others."""

import numpy as np
import pytest

from onnxpress.distillation.mixing import mixed


def images(number: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.uniform(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(number)]


def test_mixtures_lie_between_samples_and_are_none_of_them() -> None:
    feeds = images(8)
    found = mixed(feeds, 0)
    assert len(found) == 24
    stack = np.concatenate([feed["x"] for feed in feeds])
    for feed in found:
        assert feed["x"].dtype == np.float32
        assert (feed["x"] >= stack.min(axis=0) - 1e-6).all()
        assert (feed["x"] <= stack.max(axis=0) + 1e-6).all()
    assert any(not (stack == feed["x"]).all(axis=(1, 2, 3)).any() for feed in found)


def test_same_seed_gives_the_same_mixtures() -> None:
    one, same, other = (mixed(images(8), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one[0]["x"], same[0]["x"])
    assert (one[0]["x"] != other[0]["x"]).any()


def test_none_is_made_up_where_there_are_enough() -> None:
    feeds = images(8) * 200
    assert mixed(feeds, 0) == ()


@pytest.mark.parametrize(
    "made", [np.arange(64).reshape(1, 64), np.ones((1, 64), np.int64)], ids=["tokens", "mask"]
)
def test_what_is_no_signal_is_not_mixed(made: np.ndarray) -> None:
    feeds = [{**feed, "ids": made} for feed in images(8)]
    assert mixed(feeds, 0) == ()
