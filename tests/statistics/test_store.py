"""Histograms that merge exactly, and the file of statistics."""

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from generated import statistics_of
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.errors import DataError
from onnxpress.statistics import Statistics, TensorStatistics


def seen(parts: list[list[float]]) -> TensorStatistics:
    found = TensorStatistics()
    for part in parts:
        array = np.asarray(part, np.float32)
        found.update(float(array.min()), float(array.max()), array)
    return found


eighths = st.integers(-(2**20), 2**20).map(lambda number: number / 8)
"""So that float32 adds them up exactly."""


@given(st.lists(st.lists(eighths, min_size=1, max_size=40), min_size=2, max_size=5))
def test_histogram_does_not_depend_on_the_order_of_merging(chunks: list[list[float]]) -> None:
    whole = seen(chunks)
    joined = seen(chunks[1:])
    joined.merge(seen(chunks[:1]))
    assert (joined.minimum, joined.maximum) == (whole.minimum, whole.maximum)
    assert joined.exponent == whole.exponent
    assert joined.counts.sum() == whole.counts.sum() == sum(map(len, chunks))
    # The upper end of a range is counted in its last bin, not in the one behind.
    ends = sum(math.frexp(value)[0] == 0.5 for chunk in chunks for value in chunk)
    assert np.abs(np.cumsum(joined.counts) - np.cumsum(whole.counts)).max() <= ends


def test_values_lie_in_the_bins_they_are_counted_in() -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    found = seen([values[:10].tolist(), values[10:].tolist()])
    half = 2.0**found.exponent / len(found.counts)
    edges = np.append(found.centers - half, found.centers[-1] + half)
    np.testing.assert_array_equal(found.counts, np.histogram(values, edges)[0])


def test_file_holds_everything(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, reference = rng.standard_normal((2, 30, 4))
    statistics = Statistics(
        {"a/range/b": seen([[1.0, -3.0], [7.0]])},
        {"own": statistics_of(rows), "beside/rows/it": statistics_of(rows, reference)},
        samples=3,
    )
    statistics.save(tmp_path / "statistics.npz")
    found = Statistics.load(tmp_path / "statistics.npz")
    assert found.samples == 3
    assert found.tensors.keys() == statistics.tensors.keys()
    assert found.layers.keys() == statistics.layers.keys()
    for kind in ("tensors", "layers"):
        for name, one in getattr(statistics, kind).items():
            other = getattr(found, kind)[name]
            for field in fields(one):
                np.testing.assert_array_equal(
                    getattr(other, field.name), getattr(one, field.name), err_msg=field.name
                )


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "statistics.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no file of statistics"):
        Statistics.load(path)
