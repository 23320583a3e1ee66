"""Components of large weights against their whole decomposition."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from fashion import fashion_data
from onnx import numpy_helper

import onnxpress
from onnxpress.passes.factorize import Factorize, fitting
from onnxpress.passes.factorize.eigen import eigenvalues, leading_vectors
from onnxpress.passes.factorize.large import Inputs, large_low_rank
from onnxpress.reconstruction import low_rank
from onnxpress.runtime import numpy_threads

Matrix = npt.NDArray[np.float64]

CACHE = Path(__file__).parents[3] / "models" / ".cache"
SIZE = 240
SPECTRA = ("drawn", "wide", "equal", "falling", "steep", "outlier", "rank 20", "zeros")
"""From flat, where subspaces converge slowest, to one direction that drowns the others."""


@cache
def weight_of(spectrum: str) -> Matrix:
    """A matrix with such singular values."""
    rng = np.random.default_rng(1)
    drawn: Matrix = rng.standard_normal((SIZE, SIZE))
    if spectrum == "wide":
        return rng.standard_normal((SIZE, 3 * SIZE))
    if spectrum in ("drawn", "rank 20"):
        return drawn if spectrum == "drawn" else drawn[:, :20] @ drawn[:20]
    falling = np.arange(1, SIZE + 1) ** -0.5
    values = {
        "equal": np.ones(SIZE),
        "falling": falling,
        "steep": np.exp(-np.arange(SIZE) / 6),
        "outlier": np.r_[300.0, falling[1:]],
        "zeros": np.zeros(SIZE),
    }
    left, _, right = np.linalg.svd(drawn)
    return np.asarray(left * values[spectrum] @ right, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_leading_vectors_leave_out_a_percent_more_than_the_least(
    spectrum: str, dtype: type[np.floating]
) -> None:
    weight = weight_of(spectrum)
    squared = weight @ weight.T
    values = eigenvalues(squared)
    assert (np.diff(values) <= 0).all()
    total = float(np.trace(squared))
    for count in (1, 8, 40, 90, 200):
        found = leading_vectors(squared.astype(dtype), count)
        assert found.dtype == dtype
        wide = np.asarray(found, np.float64)
        np.testing.assert_allclose(wide.T @ wide, np.eye(count), atol=1e-4)
        left = total - float(np.sum(wide * (squared @ wide)))
        # Of the whole energy, single precision shows what is above its rounding.
        assert left <= 1.01 * values[count:].sum() + 2e-6 * total


@pytest.mark.parametrize("shape", [(600, 1500), (1500, 600)])
def test_factors_are_the_same_for_any_number_of_threads(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    found = []
    for threads in (1, 2):
        with numpy_threads(threads):
            large = large_low_rank([weight], [1.0], None)
            first, second = large.factors(90)
        found.append((large.energies.tobytes(), first.tobytes(), second.tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(90, 240), (240, 90), (120, 120)])
@pytest.mark.parametrize("known", ["nothing", "inputs", "centred inputs"])
def test_large_and_small_components_are_the_same(shape: tuple[int, int], known: str) -> None:
    rng = np.random.default_rng(7)
    weight, width = rng.standard_normal(shape).astype(np.float32), shape[1]
    x = rng.standard_normal((3 * width, width)) * np.exp(rng.standard_normal(width)) + 1.0
    x[:, width // 2] = 0
    gram, mean = x.T @ x / len(x), x.mean(axis=0)
    small, large = low_rank(weight, None, None), large_low_rank([weight], [1.0], None)
    metric = np.eye(width)
    if known == "inputs":
        small, metric = low_rank(weight, gram, None), gram
        large = large_low_rank([weight], [1.0], Inputs(gram.copy, None))
    elif known == "centred inputs":
        small, metric = low_rank(weight, gram, mean), gram - np.outer(mean, mean)
        large = large_low_rank([weight], [1.0], Inputs(metric.copy, mean))
    count = min(shape)
    np.testing.assert_allclose(large.energies, small.energies[:count], rtol=1e-4, atol=1e-4)
    for rank in (3, 30, 70):
        assert large.error(rank) == pytest.approx(small.error(rank), rel=1e-4)
        first, second = large.factors(rank)
        assert first.dtype == second.dtype == np.float32
        delta = weight - np.asarray(second @ first, np.float64)
        lost = np.sum((delta @ metric) * delta) / np.sum((weight @ metric) * weight)
        assert lost == pytest.approx(small.error(rank), rel=1e-2)
        shift = delta @ mean if known == "centred inputs" else np.zeros(shape[0])
        np.testing.assert_allclose(large.bias_shift(first, second), shift, atol=1e-4)


def test_matrices_one_below_the_other_are_one_matrix() -> None:
    rng = np.random.default_rng(8)
    parts = [rng.standard_normal((rows, 70)).astype(np.float32) for rows in (40, 20, 50)]
    scales = [1.0, 0.5, 4.0]
    for count in (2, 3):
        some = list(zip(parts, scales, strict=True))[:count]
        stack = np.concatenate([part / scale for part, scale in some])
        together = large_low_rank(parts[:count], scales[:count], None)
        whole = large_low_rank([stack], [1.0], None)
        np.testing.assert_allclose(together.energies, whole.energies, rtol=1e-5, atol=1e-3)
        first, second = together.factors(9)
        other, another = whole.factors(9)
        np.testing.assert_allclose(second @ first, another @ other, atol=1e-4)


def real_weights(name: str) -> list[Matrix]:
    """The two largest matrices of a fetched model, of different shapes."""
    path = CACHE / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{name} is not there: python models/fetch.py")
    tensors = [item for item in onnx.load(path).graph.initializer if len(item.dims) == 2]
    by_shape = {tuple(item.dims): item for item in tensors if min(item.dims) > 64}
    largest = sorted(by_shape.values(), key=lambda item: -item.dims[0] * item.dims[1])[:2]
    return [np.asarray(numpy_helper.to_array(item), np.float64) for item in largest]


@pytest.mark.public
@pytest.mark.parametrize("name", ["minilm", "vit_focus"])
def test_weights_of_real_models_lose_what_they_must(name: str) -> None:
    for weight in real_weights(name):
        tall = weight if len(weight) > weight.shape[1] else weight.T
        energies = np.linalg.eigvalsh(tall.T @ tall)[::-1]
        large = large_low_rank([weight.astype(np.float32)], [1.0], None)
        for rank in (16, 64, 128):
            least = energies[rank:].sum() / energies.sum()
            assert large.error(rank) == pytest.approx(least, rel=1e-4)
            first, second = large.factors(rank)
            lost = np.square(weight - second @ first).sum() / energies.sum()
            assert lost == pytest.approx(least, rel=1e-2)


@pytest.mark.parametrize("weighting", ["outputs", "inputs"])
def test_a_network_keeps_its_answers_as_well_as_with_whole_decompositions(
    weighting: Literal["outputs", "inputs"], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fashion_data(calibration=200, evaluation=64)
    path = models / "fashion_mlp.onnx"
    found = []
    for largest in (fitting._LARGE, 0):
        monkeypatch.setattr(fitting, "_LARGE", largest)
        passes = [Factorize(ratio=0.5, weighting=weighting, refinement=False)]
        # Above the memory budget nothing but the ratio says what is taken.
        result = onnxpress.optimize(path, passes=passes, max_memory="4MB", **data)
        assert result.validation is not None
        (stage,) = [stage for stage in result.stages if stage.pass_.name == "factorize"]
        ranks = {d.site: d.candidate.parameters["rank"] for d in stage.decisions}
        found.append((ranks, result.validation.measurement.worst_sqnr_db))
    assert found[0][0]
    assert found[0][0] == found[1][0]
    # A percent more or less of what is lost is 0.04 dB a layer.
    assert found[0][1] == pytest.approx(found[1][1], abs=0.2)
