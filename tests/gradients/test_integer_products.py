"""Gradients through integers are those of the real numbers that they stand for."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.blocks.sizes import with_types
from onnxpress.distillation.plain import without_packed_products
from onnxpress.gradients import differentiate
from onnxpress.runtime import Session

RNG = np.random.default_rng(0)
PACKED = RNG.integers(0, 256, (5, 2, 8)).astype(np.uint8)
IMAGE = RNG.standard_normal((2, 3, 6, 5)).astype(np.float32)
KERNEL = RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
ROWS = RNG.standard_normal((2, 7, 32)).astype(np.float32)
MATRIX = RNG.integers(0, 256, (32, 5)).astype(np.uint8)
POINTS = RNG.integers(100, 150, 5).astype(np.uint8)
QUANTIZED = "q, s, z = DynamicQuantizeLinear(p) "
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "MatMulInteger": (
        QUANTIZED + "i = MatMulInteger(q, w, z, o) f = Cast<to=1>(i) y = Mul(f, s)",
        "y = MatMul(p, real)",
        {
            "p": ROWS,
            "w": MATRIX,
            "o": POINTS,
            "real": (MATRIX.astype(np.float32) - POINTS),
        },
    ),
    "ConvInteger": (
        QUANTIZED + "i = ConvInteger<pads=[1,0,1,1]>(q, w, z) f = Cast<to=1>(i) y = Mul(f, s)",
        "y = Conv<pads=[1,0,1,1]>(p, real)",
        {"p": IMAGE, "w": KERNEL, "real": KERNEL.astype(np.float32)},
    ),
    "MatMulNBits": (
        "y = com.microsoft.MatMulNBits<K=32, N=5, bits=4, block_size=16>(p, packed, scales)",
        "y = MatMul(p, real)",
        {
            "p": ROWS,
            "packed": PACKED,
            "scales": RNG.uniform(0.5, 1.5, (5, 2)).astype(np.float32),
        },
    ),
}


def gradient_of(text: str, arrays: dict[str, Any]) -> np.ndarray:
    """Of Σ y·weights by p."""
    nodes = list(onnx.parser.parse_graph(f"g () => () {{ {text} }}").node)
    nodes.append(helper.make_node("Mul", ["y", "weights"], ["weighted"]))
    nodes.append(helper.make_node("ReduceSum", ["weighted"], ["loss"], keepdims=0))
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "case", [], [loss], initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    model = ir.from_proto(proto)
    without_packed_products(model)
    derived = differentiate(with_types(model), "loss", ["p"])
    assert not derived.untrained, derived.untrained
    found = Session(derived.model, threads=1).run({"p": arrays["p"]})
    return np.asarray(found[derived.gradients["p"]], np.float64)


def unpacked(scales: np.ndarray) -> np.ndarray:
    """[K, N] of MatMulNBits: the first code of a byte in its lower bits, 8 for zero."""
    codes = np.stack([PACKED & 15, PACKED >> 4], axis=-1).reshape(5, 2, 16).astype(np.float32)
    return np.asarray(((codes - 8) * scales[..., None]).reshape(5, 32).T)


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_real_numbers(name: str) -> None:
    integers, reals, arrays = CASES[name]
    real = unpacked(arrays["scales"]) if name == "MatMulNBits" else arrays["real"]
    shape = (2, 4, 6, 4) if name == "ConvInteger" else (2, 7, 5)
    arrays = {**arrays, "real": real, "weights": RNG.standard_normal(shape).astype(np.float32)}
    found, expected = (gradient_of(text, arrays) for text in (integers, reals))
    np.testing.assert_allclose(
        found / np.abs(expected).max(), expected / np.abs(expected).max(), atol=1e-5
    )
