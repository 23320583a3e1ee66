"""Weights drawn anew: their spread by operator, and what is reset."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.distillation.initializing import drawn_anew
from onnxpress.errors import ModelError

TEXT = """
    c = Conv<pads=[1,1,1,1]>(x, w, b) n = BatchNormalization(c, s, o, m, v) r = Relu(n)
    p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, u, t)
"""
ARRAYS: dict[str, Any] = {
    "w": np.ones((64, 16, 3, 3), np.float32),
    "u": np.ones((40, 64), np.float32),
    **{name: np.full(64, 3, np.float32) for name in ("b", "s", "o", "m", "v")},
    "t": np.full(40, 3, np.float32),
}


def model_of(text: str, arrays: dict[str, Any], shape: list[int | str]) -> ir.Model:
    graph = helper.make_graph(
        onnx.parser.parse_graph(f"g () => () {{ {text} }}").node,
        "student",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def drawn(seed: int) -> dict[str, np.ndarray]:
    found = drawn_anew(model_of(TEXT, ARRAYS, ["n", 16, 8, 8]), seed).graph.initializers
    return {name: np.asarray(v.const_value) for name, v in found.items()}


def test_spread_is_that_of_he_before_a_relu_and_of_glorot_elsewhere() -> None:
    found = drawn(0)
    assert found["w"].std() == pytest.approx(np.sqrt(2 / (16 * 9)), rel=0.03)
    assert found["u"].std() == pytest.approx(np.sqrt(2 / (64 + 40)), rel=0.05)
    assert abs(found["w"].mean()) < 0.01


def test_biases_are_zero_norms_one_and_statistics_forgotten() -> None:
    found = drawn(0)
    for name, number in (("b", 0), ("o", 0), ("t", 0), ("s", 1), ("m", 0), ("v", 1)):
        np.testing.assert_array_equal(found[name], number, err_msg=name)


def test_seed_decides() -> None:
    np.testing.assert_array_equal(drawn(4)["w"], drawn(4)["w"])
    assert (drawn(4)["w"] != drawn(5)["w"]).any()


def test_integers_are_refused_by_name() -> None:
    text = "v = DequantizeLinear(w, s) y = MatMul(x, v)"
    arrays = {"w": np.ones((4, 5), np.int8), "s": np.asarray(0.1, np.float32)}
    with pytest.raises(ModelError, match="'w' is stored in integers"):
        drawn_anew(model_of(text, arrays, ["n", 4]), 0)
