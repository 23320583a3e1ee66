"""Diagonal blocks of Gram matrices that would be too wide."""

from pathlib import Path

import numpy as np
import pytest
from generated import initialized

from onnxpress.contract import LayerStatistics
from onnxpress.data import Samples, random_samples
from onnxpress.layers import find_layers
from onnxpress.runtime import Session
from onnxpress.statistics import Observations, Statistics, collect, kept_on_disk, row_sums

WIDE = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 24] x, float[24, 26] w, float[26, 4] v) => (float[n, 4] z) {
        y = MatMul (x, w)  z = MatMul (y, v) }"""


def observed(limit: int, monkeypatch: pytest.MonkeyPatch, samples: slice = slice(6)) -> Statistics:
    model = initialized(WIDE, seed=1)
    drawn = random_samples(Session(model), 6, seed=2)
    layers = find_layers(model)
    wanted = Observations(layers=frozenset(layer.name for layer in layers), gram=True)
    with monkeypatch.context() as patch:
        patch.setattr(row_sums, "GRAM_LIMIT", limit)
        return collect(model, layers, drawn.take(range(6)[samples]), wanted)


def check_blocks(one: LayerStatistics, whole: LayerStatistics, tiles: int) -> None:
    assert one.gram is None
    assert one.tiles is not None
    assert whole.gram is not None
    assert len(one.tiles) == tiles
    size = one.tiles.shape[1]
    centred, all_centred = one.centred_tiles, whole.centred_gram
    assert centred is not None
    assert all_centred is not None
    for number in range(tiles):
        own = slice(number * size, (number + 1) * size)
        np.testing.assert_allclose(one.tiles[number], whole.gram[0, own, own], rtol=1e-5)
        np.testing.assert_allclose(centred[number], all_centred[0, own, own], rtol=1e-4, atol=1e-6)


def test_tiles_are_the_diagonal_blocks_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tiled = observed(4096, monkeypatch), observed(12, monkeypatch)
    check_blocks(tiled.layers["w"], whole.layers["w"], 2)
    assert whole.layers["w"].tiles is None
    # 26 inputs have no divisor from 3 to 12 that leaves blocks of 12 at most, but 13.
    assert tiled.layers["v"].tiles is None
    assert tiled.layers["v"].gram is None
    np.testing.assert_allclose(
        tiled.layers["v"].second_moment, whole.layers["v"].second_moment, rtol=1e-5
    )


def test_tiles_of_parts_merge_to_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = observed(12, monkeypatch).layers["w"]
    first = observed(12, monkeypatch, slice(2)).layers["w"]
    second = observed(12, monkeypatch, slice(2, 6)).layers["w"]
    joined = first.merged(second)
    assert joined.tiles is not None
    assert whole.tiles is not None
    # Sums in another order, of float32 numbers.
    np.testing.assert_allclose(joined.tiles, whole.tiles, rtol=1e-5, atol=1e-6)
    rest = joined.without(first).tiles
    assert rest is not None
    assert second.tiles is not None
    np.testing.assert_allclose(rest, second.tiles, rtol=1e-5, atol=1e-6)


def test_tiles_are_kept_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statistics = observed(12, monkeypatch)
    tiles = statistics.layers["w"].tiles
    assert tiles is not None
    statistics.save(tmp_path / "statistics.npz")
    kept = kept_on_disk(statistics.layers.items())
    for found in (Statistics.load(tmp_path / "statistics.npz").layers, kept):
        assert found["w"].gram is None
        np.testing.assert_array_equal(np.asarray(found["w"].tiles), tiles)
        assert found["v"].tiles is None


def test_sums_over_numbers_that_stand_for_what_is_missing_are_finite() -> None:
    model = initialized(WIDE, seed=1)
    x = np.random.default_rng(0).standard_normal((6, 1, 24)).astype(np.float32)
    x[2, 0, 3] = 1e20
    layers = find_layers(model)
    wanted = Observations(layers=frozenset(layer.name for layer in layers), gram=True)
    found = collect(model, layers, Samples(tuple({"x": row} for row in x), None, "made"), wanted)
    rows = x[:, 0].astype(np.float64)
    gram = found.layers["w"].gram
    assert gram is not None
    np.testing.assert_allclose(gram[0], rows.T @ rows / 6, rtol=1e-6)
