"""Students of every kind that is trained come nearer to their teachers, and keep their form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxpress
from onnxpress import model_file
from onnxpress.data import Samples
from onnxpress.distillation.parameters import trainable

ROWS = 64


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(
    text: str, arrays: Mapping[str, Any], given: tuple[int, list[int | str]], kind: int
) -> ir.Model:
    """Nodes from x, of a type and shape, to y."""
    graph = helper.make_graph(
        onnx.parser.parse_graph(f"g () => () {{ {text} }}").node,
        "student",
        [helper.make_tensor_value_info("x", *given)],
        [helper.make_tensor_value_info("y", kind, [None] * (3 if "hidden" in text else 2))],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


LSTM = {"w": drawn(0, 1, 32, 6) / 2, "r": drawn(1, 1, 32, 8) / 2, "b": drawn(2, 1, 64) / 4}
DYNAMIC = (
    "q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, z) f = Cast<to=1>(i) "
    "t = Mul(s, scale) m = Mul(f, t) y = Add(m, b)"
)
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, list[int | str]], np.ndarray]] = {
    "LSTM": (
        "t, y, c = LSTM<hidden_size=8>(x, w, r, b)",
        LSTM,
        (FLOAT, [5, "n", 6]),
        drawn(9, ROWS, 5, 1, 6),
    ),
    "GRU": (
        "t, y = GRU<hidden_size=8>(x, w, r, b)",
        {"w": LSTM["w"][:, :24], "r": LSTM["r"][:, :24], "b": LSTM["b"][:, :48]},
        (FLOAT, [5, "n", 6]),
        drawn(9, ROWS, 5, 1, 6),
    ),
    "embedding": (
        "e = Gather(w, x) y = ReduceMean<keepdims=0>(e, axes)",
        {"w": drawn(0, 12, 7), "axes": np.asarray([1], np.int64)},
        (TensorProto.INT64, ["n", 6]),
        np.random.default_rng(9).integers(0, 12, (ROWS, 1, 6)),
    ),
    "half": (
        "a = Gemm(x, w, b) c = Relu(a) y = MatMul(c, v)",
        {
            "w": drawn(0, 6, 9).astype(np.float16),
            "b": drawn(1, 9).astype(np.float16),
            "v": drawn(2, 9, 4).astype(np.float16),
        },
        (HALF, ["n", 6]),
        drawn(9, ROWS, 1, 6).astype(np.float16),
    ),
    "dynamic integers": (
        DYNAMIC,
        {
            "w": np.random.default_rng(0).integers(-127, 128, (6, 5)).astype(np.int8),
            "scale": np.full(5, 0.01, np.float32),
            "b": drawn(1, 5),
        },
        (FLOAT, ["n", 6]),
        drawn(9, ROWS, 1, 6),
    ),
    "scales of weights": (
        "v = DequantizeLinear<axis=1>(w, s) y = MatMul(x, v)",
        {
            "w": np.random.default_rng(0).integers(-7, 8, (6, 5)).astype(np.int8),
            "s": np.asarray([0.1, 0.01, 1, 0.1, 0.2], np.float32),
        },
        (FLOAT, ["n", 6]),
        drawn(9, ROWS, 1, 6),
    ),
}


def spoilt(arrays: Mapping[str, Any], seed: int = 5) -> dict[str, Any]:
    """The same with weights that are off by a third, and scales by a tenth."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, array in arrays.items():
        if name in ("w", "r", "v", "b"):
            noise = rng.standard_normal(array.shape) * np.abs(array.astype(np.float32)).mean() / 3
            moved = array.astype(np.float32) + noise
            found[name] = (np.rint(moved) if array.dtype == np.int8 else moved).astype(array.dtype)
        else:
            found[name] = array * array.dtype.type(1.1) if name == "s" else array
    return found


def feeds_of(samples: np.ndarray) -> Samples:
    """Each as a run of its own."""
    return Samples(tuple({"x": sample} for sample in samples), None, "drawn")


@pytest.mark.parametrize("name", CASES)
def test_student_comes_nearer_and_keeps_its_types(name: str, tmp_path: Path) -> None:
    text, arrays, given, samples = CASES[name]
    kind = HALF if name == "half" else FLOAT
    for file, own in (("teacher", arrays), ("student", spoilt(arrays))):
        model_file.save(model_of(text, own, given, kind), tmp_path / f"{file}.onnx")
    found = onnxpress.distill(
        tmp_path / "teacher.onnx",
        tmp_path / "student.onnx",
        calibration=feeds_of(samples),
        steps=150,
        learning_rate=0.02,
        threads=1,
    )
    assert found.better, found.why_not
    assert found.trained.best < found.trained.before / 3
    was, now = (
        model_file.load(tmp_path / "student.onnx").graph.initializers,
        found.model.graph.initializers,
    )
    assert [v.dtype for v in was.values()] == [v.dtype for v in now.values()]
    assert not found.left


def test_scale_is_left_where_an_integer_bias_agrees_with_it() -> None:
    text = (
        "v = DequantizeLinear<axis=0>(w, s) c = DequantizeLinear<axis=0>(b, t) "
        "y = Gemm<transB=1>(x, v, c)"
    )
    arrays = {
        "w": np.ones((5, 6), np.int8),
        "s": np.full(5, 0.1, np.float32),
        "b": np.ones(5, np.int32),
        "t": np.full(5, 0.01, np.float32),
    }
    model = model_of(text, arrays, (FLOAT, ["n", 6]), FLOAT)
    assert "s" not in {p.stands_for for p in trainable(model).parameters.values()}
