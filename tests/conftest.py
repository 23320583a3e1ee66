"""Shared models and data; nothing here asserts anything."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings

# A slow machine is no failure.
settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine has measured before is not the tests' concern, nor theirs the machine's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def models() -> Path:
    return MODELS


@pytest.fixture
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The providers that a developer has set up are not these tests' concern."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def small_data(tmp_path: Path) -> tuple[Path, Path]:
    """(calibration, evaluation): 48 and 200 Fashion-MNIST images, for quick runs."""
    calibration, evaluation = tmp_path / "calibration.npz", tmp_path / "evaluation.npz"
    with np.load(MODELS / "fashion_calibration.npz") as archive:
        np.savez(calibration, image=archive["image"][:48])
    with np.load(MODELS / "fashion_evaluation.npz") as archive:
        np.savez(evaluation, image=archive["image"][:200], __labels__=archive["__labels__"][:200])
    return calibration, evaluation


@pytest.fixture
def linear_model(tmp_path: Path) -> Path:
    """x[batch, 64] → Gemm → y[batch, 64], opset 17."""
    rng = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(
        rng.standard_normal((64, 64)).astype(np.float32), "weight"
    )
    node = onnx.helper.make_node("Gemm", ["x", "weight"], ["y"], name="gemm", transB=1)
    graph = onnx.helper.make_graph(
        [node],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 64])],
        [weight],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    )
    path = tmp_path / "linear.onnx"
    onnx.save(model, path)
    return path
