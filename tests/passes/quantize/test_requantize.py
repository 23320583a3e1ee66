"""Operators on integers are named, and with `requantize` they become float layers first."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime import quantization

import onnxpress
from onnxpress import model_file
from onnxpress.context import Context
from onnxpress.enforcement import offered
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.restoring import integer_weights, restored
from onnxpress.runtime import Session
from onnxpress.targets import load_target


class _Feeds(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def _saved(text: str, path: Path, **weights: tuple[int, ...]) -> Path:
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    rng = np.random.default_rng(11)
    for value in [value for value in model.graph.inputs if value.name in weights]:
        shape = weights[value.name or ""]
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 9)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array.astype(np.float32), name=value.name)
        model.graph.register_initializer(value)
    model_file.save(model, path)
    return path


def _cnn(folder: Path) -> Path:
    """Relu, Clip at 6, a residual sum, pooling, Concat and Gemm."""
    return _saved(
        """g (float[b, 3, 12, 12] x, float[16, 3, 3, 3] w1, float[16] b1, float[16, 16, 3, 3] w2,
            float[10, 32] w3, float[10] b3) => (float[b, 10] y) {
            low = Constant <value = float {0.0}> ()
            high = Constant <value = float {6.0}> ()
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r = Relu (a)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            c = Conv <pads = [1, 1, 1, 1]> (p, w2)
            k = Clip (c, low, high)
            s = Add (p, k)
            t = Concat <axis = 1> (s, k)
            m = GlobalAveragePool (t)
            f = Flatten (m)
            y = Gemm <transB = 1> (f, w3, b3)
        }""",
        folder / "float.onnx",
        w1=(16, 3, 3, 3),
        b1=(16,),
        w2=(16, 16, 3, 3),
        w3=(10, 32),
        b3=(10,),
    )


def _feeds(number: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {"x": rng.standard_normal((1, 3, 12, 12)).astype(np.float32) * 2} for _ in range(number)
    ]


def _decibels(one: Session, other: Session, feeds: list[dict[str, np.ndarray]]) -> float:
    pairs = [(one.run(feed)["y"], other.run(feed)["y"]) for feed in feeds]
    wanted = np.concatenate([np.asarray(a, np.float64).ravel() for a, _ in pairs])
    found = np.concatenate([np.asarray(b, np.float64).ravel() for _, b in pairs])
    return float(10 * np.log10(np.var(wanted) / max(np.mean((wanted - found) ** 2), 1e-20)))


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("form", ["QOperator", "QDQ"])
def test_a_statically_quantized_network_comes_back_in_float(
    form: str, tmp_path: Path, *, per_channel: bool
) -> None:
    path, made = _cnn(tmp_path), tmp_path / "integers.onnx"
    quantization.quantize_static(
        path,
        made,
        _Feeds(_feeds(16)),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        weight_type=quantization.QuantType.QInt8,
    )
    model = model_file.load(made)
    assert len(integer_weights(model)) == 3
    back = restored(model)
    kinds = {node.op_type for node in back.graph}
    assert not {kind for kind in kinds if "QLinear" in kind or "Integer" in kind or kind == "QGemm"}
    assert integer_weights(back) == []
    onnx.checker.check_model(onnx.load_from_string(model_file.to_bytes(back)), full_check=True)
    # Eight bits of weights are left, the rounding of activations is not.
    assert _decibels(Session(path), Session(back), _feeds(8)) > 30


def test_a_dynamically_quantized_network_comes_back_in_float(tmp_path: Path) -> None:
    path = _saved(
        """g (float[b, 64] x, float[64, 48] w, float[48] c, float[48, 32] v) => (float[b, 32] y) {
            m = MatMul (x, w)
            a = Add (m, c)
            r = Tanh (a)
            y = MatMul (r, v)
        }""",
        tmp_path / "float.onnx",
        w=(64, 48),
        c=(48,),
        v=(48, 32),
    )
    made = tmp_path / "integers.onnx"
    quantization.quantize_dynamic(path, made, per_channel=True)
    model = model_file.load(made)
    assert len(integer_weights(model)) == 2
    back = restored(model)
    assert {node.op_type for node in back.graph} == {"MatMul", "Add", "Tanh"}
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.standard_normal((4, 64)).astype(np.float32)} for _ in range(4)]
    assert _decibels(Session(path), Session(back), feeds) > 35


def test_integer_operators_are_named_with_the_option_that_treats_them(tmp_path: Path) -> None:
    path, made = _cnn(tmp_path), tmp_path / "integers.onnx"
    quantization.quantize_static(
        path, made, _Feeds(_feeds(8)), quant_format=quantization.QuantFormat.QOperator
    )
    samples = {"x": np.concatenate([feed["x"] for feed in _feeds(48, 2)])}
    left = onnxpress.optimize(made, passes=["quantize"], calibration=samples)
    (stage,) = [stage for stage in left.stages if stage.pass_.name == "quantize"]
    assert len(stage.left) == 3
    assert all("requantize" in skip.reason for skip in stage.left)
    pass_ = Quantize(requantize=True, form="weight_only")
    context = Context(pass_.prepare(model_file.load(made)), load_target("cpu"))
    assert len(offered(pass_, context).proposals) == 3
