"""The real providers: `pytest -m ep` after `onnxpress doctor --install all`.

What is not set up is skipped with the reason that `onnxpress doctor` gives.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxpress
from onnxpress import model_file, registry, targets
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.providers import (
    PROVIDERS,
    ProviderOptions,
    ProviderVerdict,
    Status,
    check_providers,
    survey,
)
from onnxpress.runtime import EXACT, Session

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "onnxpress.toml"
HERE = [name for name, entry in PROVIDERS.items() if entry.execution_provider]

pytestmark = pytest.mark.ep


@pytest.fixture(scope="session")
def states() -> dict[str, tuple[str, str]]:
    found = survey(CONFIG if CONFIG.exists() else None)
    return {entry.provider: (entry.state, entry.detail) for entry in found}


@pytest.fixture(scope="session")
def cnn() -> tuple[ir.Model, Evaluator]:
    """The Fashion-MNIST network and its evaluator on 64 labelled images."""
    path = ROOT / "models" / "fashion_cnn.onnx"
    session = Session(path)
    samples = load_samples(ROOT / "models" / "fashion_evaluation.npz", session.inputs)
    return model_file.load(path), Evaluator(session, samples.take(range(64)), Budget())


def quantized(layout: str, *, per_channel: bool, sixteen_bit: tuple[str, ...] = ()) -> ir.Model:
    """The network with every layer in a layout, whatever it costs."""
    settings: dict[str, Any] = {
        "form": "static",
        "layout": layout,
        "per_channel": per_channel,
        "sixteen_bit": sixteen_bit,
    }
    return onnxpress.optimize(
        ROOT / "models" / "fashion_cnn.onnx",
        calibration=ROOT / "models" / "fashion_calibration.npz",
        passes=[registry.create("quantize", settings)],
        goal="size",
        max_drop=100,
    ).model


@pytest.fixture(scope="session")
def common() -> ir.Model:
    """In the layout that most providers take."""
    return quantized("u8u8", per_channel=False)


def check(
    states: dict[str, tuple[str, str]],
    name: str,
    model: ir.Model,
    original: ir.Model,
    evaluator: Evaluator,
) -> ProviderVerdict:
    state, detail = states[name]
    if state not in ("runs", "emulated"):
        pytest.skip(f"{name}: {detail}")
    options = ProviderOptions((name,), config=CONFIG if CONFIG.exists() else None, time_limit=240)
    (verdict,) = check_providers(options, model, original, evaluator, threads=1)
    return verdict


@pytest.fixture(scope="session")
def verdict_on(
    states: dict[str, tuple[str, str]], cnn: tuple[ir.Model, Evaluator], common: ir.Model
) -> Callable[[str], ProviderVerdict]:
    """The verdict on the common model by provider; each runs once, for all tests."""
    return functools.cache(lambda name: check(states, name, common, *cnn))


@pytest.mark.parametrize("name", HERE)
def test_quantized_network_really_runs_there_and_agrees(
    verdict_on: Callable[[str], ProviderVerdict], name: str
) -> None:
    verdict = verdict_on(name)
    assert verdict.counts, str(verdict)
    assert verdict.placement is not None
    assert verdict.placement.multiply_add_share > 0.99
    assert verdict.measurement is not None
    assert verdict.measurement.worst_sqnr_db > 30
    assert verdict.exact_sqnr_db is not None
    assert verdict.exact_sqnr_db > 30


@pytest.mark.parametrize("name", ["cpu", "cpu-arm64", "cpu-avx2", "ort", "ort-arm64", "web", "qnn"])
def test_convolutions_are_proven_to_compute_in_integers(
    verdict_on: Callable[[str], ProviderVerdict], name: str
) -> None:
    kernels = verdict_on(name).integer_kernels
    assert kernels is not None
    assert kernels["Conv2d" if name == "qnn" else "QLinearConv"] == 15


def test_layers_of_both_widths_compute_in_integers_on_one_npu(
    states: dict[str, tuple[str, str]], cnn: tuple[ir.Model, Evaluator]
) -> None:
    """16-bit activations in a residual block and in the last convolution, 8-bit elsewhere."""
    names = ("stage2.block0.conv2.weight", "stage3.block1.conv2.weight")
    model = quantized("u8s8", per_channel=True, sixteen_bit=names)
    kinds = [node.outputs[0].dtype for node in model.graph if node.op_type == "QuantizeLinear"]
    assert {ir.DataType.UINT8, ir.DataType.UINT16} == set(kinds)
    verdict = check(states, "qnn", model, *cnn)
    assert verdict.counts, str(verdict)
    assert verdict.integer_kernels is not None
    assert verdict.integer_kernels["Conv2d"] == 15
    assert verdict.exact_sqnr_db is not None
    assert verdict.exact_sqnr_db > 30


@pytest.mark.parametrize("name", ["qnn", "webgpu"])
def test_an_operator_the_provider_lacks_is_caught_though_the_session_runs(
    states: dict[str, tuple[str, str]], tmp_path: Path, name: str
) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Det", ["x"], ["y"], name="det")],
        "lacking",
        [value("x", onnx.TensorProto.FLOAT, [2, 3, 3])],
        [value("y", onnx.TensorProto.FLOAT, [2])],
    )
    path = tmp_path / "det.onnx"
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    session = Session(path)
    feed = np.random.default_rng(0).standard_normal((1, 2, 3, 3)).astype(np.float32)
    evaluator = Evaluator(session, load_samples({"x": feed}, session.inputs), Budget())
    model = model_file.load(path)
    verdict = check(states, name, model, model, evaluator)
    assert verdict.status is Status.FAILED
    assert "took none of the 1 nodes" in verdict.detail


def test_signed_weights_saturate_without_vnni_and_seven_bits_do_not(
    states: dict[str, tuple[str, str]], cnn: tuple[ir.Model, Evaluator]
) -> None:
    original, evaluator = cnn
    eight = check(states, "cpu-avx2", quantized("u8s8", per_channel=True), original, evaluator)
    seven = check(states, "cpu-avx2", quantized("u8s7", per_channel=True), original, evaluator)
    assert any("against exact arithmetic" in warning for warning in eight.warnings)
    assert seven.counts
    assert not any("against exact arithmetic" in warning for warning in seven.warnings)


@pytest.mark.parametrize("network", ["fashion_cnn", "fashion_mlp", "fashion_mobile"])
def test_default_of_optimize_loses_less_than_a_decibel_without_vnni(
    states: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    """The target is read as on a Haswell; the model then runs on an emulated one."""
    if states["cpu-avx2"][0] != "emulated":
        pytest.skip(states["cpu-avx2"][1])
    flags = frozenset({"avx", "avx2", "fma"})
    monkeypatch.setattr(targets.reader, "processor_features", lambda: flags)
    path = ROOT / "models" / f"{network}.onnx"
    result = onnxpress.optimize(
        path,
        calibration=ROOT / "models" / "fashion_calibration.npz",
        evaluation=ROOT / "models" / "fashion_evaluation.npz",
        time_limit=60,
    )
    session = Session(path)
    samples = load_samples(ROOT / "models" / "fashion_evaluation.npz", session.inputs)
    evaluator = Evaluator(session, samples.take(range(64)), Budget())
    verdict = check(states, "cpu-avx2", result.model, model_file.load(path), evaluator)
    assert verdict.counts, str(verdict)
    assert not any("against exact arithmetic" in warning for warning in verdict.warnings)


@pytest.fixture(scope="session")
def phone_model() -> ir.Model:
    result = onnxpress.optimize(
        ROOT / "models" / "fashion_cnn.onnx",
        calibration=ROOT / "models" / "fashion_calibration.npz",
        target="mobile",
        fix_shapes=["image=1x1x28x28"],
        time_limit=60,
    )
    assert result.within_budget, result.problems
    return result.model


@pytest.mark.parametrize("name", ["qnn", "cpu-arm64", "ort-arm64", "web", "xnnpack", "nnapi"])
def test_phone_model_passes_on_every_phone_provider(
    states: dict[str, tuple[str, str]],
    cnn: tuple[ir.Model, Evaluator],
    phone_model: ir.Model,
    name: str,
) -> None:
    original, evaluator = cnn
    if name in ("xnnpack", "nnapi"):
        (verdict,) = check_providers(
            ProviderOptions((name,)), phone_model, original, evaluator, threads=1
        )
        assert verdict.status is Status.STATIC
    else:
        verdict = check(states, name, phone_model, original, evaluator)
        assert verdict.counts, str(verdict)
        assert verdict.measurement is not None
        exact = evaluator.measure(
            Session(phone_model, config=EXACT), most=verdict.measurement.samples
        )
        assert verdict.measurement.worst_sqnr_db > exact.worst_sqnr_db - 3  # half the power
    assert verdict.placement is not None
    assert verdict.placement.multiply_add_share > 0.99
    assert verdict.placement.partitions in (1, None)
