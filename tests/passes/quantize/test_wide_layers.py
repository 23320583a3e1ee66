"""Weights of wide layers, rounded block by block of their inputs."""

from dataclasses import replace

import numpy as np
import pytest
from generated import initialized, statistics_of
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.contract import Context, LayerStatistics
from onnxpress.memory import Memory
from onnxpress.passes.quantize import integer_rounding, integers
from onnxpress.passes.quantize.goals import layer_energy
from onnxpress.passes.quantize.integers import weight_only_integers
from onnxpress.passes.quantize.tiles import tiled, untiled
from onnxpress.statistics import Statistics
from onnxpress.targets import load_target

LAYER = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 48] x, float[48, 16] w, float[16] b) => (float[n, 16] y) { y = Gemm (x, w, b) }"""


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_tiles_are_put_together_as_they_were_taken_apart(tiles: int, out: int, size: int) -> None:
    matrix = np.arange(out * tiles * size, dtype=np.float64).reshape(out, -1)
    apart = tiled(matrix, tiles)
    assert apart.shape == (tiles * out, size)
    np.testing.assert_array_equal(apart[-1], matrix[-1, -size:])
    np.testing.assert_array_equal(untiled(np.asarray(apart, np.float64), tiles), matrix)


def observed(tiles: int) -> tuple[Context, LayerStatistics]:
    """Inputs that go together within a block alone, seen as a whole and in such blocks."""
    rng = np.random.default_rng(3)
    size = 48 // tiles
    parts = [
        rng.standard_normal((5000, size)) @ rng.standard_normal((size, size)) + shift
        for shift in (0.3, -0.2, -0.2)[:tiles]
    ]
    whole = statistics_of(np.concatenate(parts, axis=1))
    assert whole.gram is not None
    blocks = [whole.gram[0, at : at + size, at : at + size] for at in range(0, 48, size)]
    context = Context(initialized(LAYER, seed=4), load_target("cpu"))
    return context, replace(whole, gram=None, tiles=np.stack(blocks))


def seen(context: Context, moments: LayerStatistics) -> Context:
    return replace(context, statistics=Statistics(layers={"w": moments}), memory=Memory())


def test_rounding_by_tiles_gains_nearly_what_the_whole_would() -> None:
    context, moments = observed(3)
    assert moments.tiles is not None
    plain = seen(context, replace(moments, tiles=None))
    by_tiles = seen(context, moments)
    layer = context.layer("w")
    gram = np.zeros((48, 48))
    for number, block in enumerate(moments.tiles):
        gram[number * 16 : number * 16 + 16, number * 16 : number * 16 + 16] = block

    def lost(found: integer_rounding.Rounded) -> float:
        delta = (found.weight.dequantize() - layer.array).T
        centred = gram - np.outer(moments.mean[0], moments.mean[0]) * (gram != 0)
        return float(np.einsum("oi,ij,oj->", delta, centred, delta))

    nearest, blocks = weight_only_integers(plain, layer), weight_only_integers(by_tiles, layer)
    assert lost(blocks) < 0.5 * lost(nearest)
    predicted = blocks.error * layer_energy(by_tiles, layer)
    assert predicted == pytest.approx(lost(blocks), rel=1e-6)


@pytest.mark.parametrize("tiles", [2, 3])
def test_large_weights_are_rounded_by_tiles_some_outputs_at_a_time(
    tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, moments = observed(tiles)
    layer = context.layer("w")
    whole = weight_only_integers(seen(context, moments), layer)
    monkeypatch.setattr(integers, "_LARGE", 0)
    monkeypatch.setattr(integer_rounding, "_AT_A_TIME", layer.array.size // 3)
    pieces = weight_only_integers(seen(context, moments), layer)
    np.testing.assert_array_equal(pieces.weight.values, whole.weight.values)
    assert pieces.error == pytest.approx(whole.error, rel=1e-4)
    assert pieces.offset is not None
    assert whole.offset is not None
    np.testing.assert_allclose(pieces.offset, whole.offset, rtol=1e-9, atol=1e-12)
