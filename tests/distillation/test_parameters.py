"""What of a student is trained, and how it comes back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.distillation.parameters import trainable, write_back
from onnxpress.runtime import Session


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(text: str, arrays: Mapping[str, Any], shape: list[int | str]) -> ir.Model:
    """Nodes from x to y."""
    graph = helper.make_graph(
        onnx.parser.parse_graph(f"g () => () {{ {text} }}").node,
        "student",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def answer(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(Session(model, threads=1).run({"x": x})["y"], np.float32)


INTEGERS = np.random.default_rng(0).integers(-127, 128, (4, 5)).astype(np.int8)

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "DequantizeLinear of a scale": (
        "w = DequantizeLinear(q, s) y = MatMul(x, w)",
        {"q": INTEGERS, "s": np.asarray(0.01, np.float32)},
    ),
    "DequantizeLinear of a scale a column and zero points": (
        "w = DequantizeLinear<axis=1>(q, s, z) y = MatMul(x, w)",
        {
            "q": (INTEGERS.astype(int) + 128).clip(1, 255).astype(np.uint8),
            "s": np.asarray([0.01, 0.02, 0.03, 0.04, 0.05], np.float32),
            "z": np.asarray([128, 120, 110, 1, 255], np.uint8),
        },
    ),
    "Cast and Mul": (
        "f = Cast<to=1>(q) w = Mul(f, s) y = MatMul(x, w)",
        {"q": INTEGERS, "s": np.asarray([[0.01]], np.float32)},
    ),
    "a packed table": (
        "t = Gather(q, places) f = Cast<to=1>(t) w = Mul(f, s) y = MatMul(x, w)",
        {
            "q": np.asarray([0, 5, -7, 127], np.int8),
            "places": np.random.default_rng(1).integers(0, 4, (4, 5)),
            "s": np.asarray([[0.01]], np.float32),
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_integers_trained_as_floats_compute_the_same_before_any_step(form: str) -> None:
    text, arrays = FORMS[form]
    student = model_of(text, arrays, ["n", 4])
    found = trainable(student)
    assert {p.stands_for for p in found.parameters.values()} >= {"q"}
    assert found.rounds
    x = drawn(2, 3, 4)
    want, have = (answer(m, x) for m in (student, found.model))
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_trained_integers_come_back_as_what_the_training_graph_rounds_to(form: str) -> None:
    text, arrays = FORMS[form]
    student = model_of(text, arrays, ["n", 4])
    found = trainable(student)
    (name,) = (n for n, p in found.parameters.items() if p.stands_for == "q")
    parameter = found.parameters[name]
    noise = drawn(3, *parameter.start.shape) * (0.02 if parameter.start.max() < 10 else 1.4)
    moved = parameter.start + noise * (1 if parameter.mask is None else parameter.mask)
    back = write_back(student, found.parameters, {name: moved.astype(np.float32)})
    found.model.graph.initializers[name].const_value = ir.Tensor(moved.astype(np.float32))
    x = drawn(2, 3, 4)
    have, want = (answer(m, x) for m in (back, found.model))
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
    stored = back.graph.initializers["q"].const_value
    assert stored is not None
    assert stored.dtype == student.graph.initializers["q"].dtype
    assert (stored.numpy() != arrays["q"]).any()


def test_numbers_of_formulas_are_not_trained() -> None:
    text = (
        "c = Sub(x, pixel) a = MatMul(c, w) b = Mul(a, half) m = Add(b, closing) d = Add(m, bias) "
        "y = Clip(d, low)"
    )
    arrays = {
        "pixel": drawn(0, 4),
        "w": drawn(1, 4, 5),
        "half": np.asarray(0.5, np.float32),
        "closing": np.asarray([0, 0, -1e9, 0, 0], np.float32),
        "bias": drawn(2, 5),
        "low": np.asarray(-1, np.float32),
    }
    assert set(trainable(model_of(text, arrays, ["n", 4])).parameters) == {"w", "bias"}


def test_zeros_of_pruned_weights_are_masked_and_those_of_dense_integers_are_not() -> None:
    dense = np.arange(-50, 50).reshape(20, 5).astype(np.int8)
    pruned = np.where(np.arange(20).reshape(4, 5) % 2, drawn(0, 4, 5), 0).astype(np.float32)
    text = "a = MatMul(x, pruned) w = DequantizeLinear(dense, s) y = Gemm<transB=1>(a, w)"
    arrays: dict[str, Any] = {"pruned": pruned, "dense": dense, "s": np.asarray(0.1, np.float32)}
    found = trainable(model_of(text, arrays, ["n", 4])).parameters
    masks = {parameter.stands_for: parameter.mask for parameter in found.values()}
    np.testing.assert_array_equal(masks["pruned"], pruned != 0)
    assert masks["dense"] is None


def test_weights_of_half_precision_are_named_with_the_reason() -> None:
    text = "h = Cast<to=10>(x) a = MatMul(h, w) y = Cast<to=1>(a)"
    found = trainable(model_of(text, {"w": drawn(0, 4, 5).astype(np.float16)}, ["n", 4]))
    assert found.left == {"w": "weights of type FLOAT16 are not trained"}
