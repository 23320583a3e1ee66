"""Messages of libraries are passed on in brief."""

import pytest

from onnxpress.errors import brief

RESHAPE = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. "
    "Name:'/a/b' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/"
    "reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&,"
    " onnxruntime::TensorShapeVector&, bool) input_shape_size == requested_shape_size was false. "
    "The input tensor cannot be reshaped to the requested shape. Input shape:{1,4}, requested "
    "shape:{7,7}\n"
)
STACK = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
    "/onnxruntime_src/core/session.cc:12 void f(int) a == b was false. It does not fit.\n"
    "Stacktrace:\n#0 in f(int)\n" + "#1 in g(std::vector<int>)\n" * 40
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Node () Op (MatMul) [ShapeInferenceError] no\n",
            "Node () Op (MatMul) [ShapeInferenceError] no",
        ),
        (
            RESHAPE,
            (
                "Reshape '/a/b': The input tensor cannot be reshaped to the requested shape: Input "
                "shape:{1,4}, requested shape:{7,7}"
            ),
        ),
        (
            (
                "Non-zero status code returned while running MatMul node. Name:'' Status Message: "
                "matmul_helper.h:59 Compute MatMul dimension mismatch"
            ),
            "MatMul: Compute MatMul dimension mismatch",
        ),
        (STACK, "Exception during initialization: It does not fit"),
        (
            "weights.v1.2 of No. 5 are absent. Copy them",
            "weights.v1.2 of No. 5 are absent: Copy them",
        ),
        ("A first one. " * 40, "A first one: A first one"),
        ("", "ValueError"),
    ],
)
def test_a_library_is_quoted_in_a_sentence(text: str, wanted: str) -> None:
    assert brief(ValueError(text)) == wanted


def test_quotation_is_bounded() -> None:
    assert len(brief(ValueError("word " * 1000))) <= 300
