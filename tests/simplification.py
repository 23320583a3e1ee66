"""Simplify a model in a test, which must not change what it computes."""

import collections
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from generated import initialized
from onnx.reference import ReferenceEvaluator

from onnxpress import model_file
from onnxpress.passes.simplify import simplify

__all__ = ["SINCE_1_22", "SINCE_1_23", "build", "simplified"]

_ONNX = tuple(int(part) for part in onnx.__version__.split(".")[:2])
SINCE_1_22 = pytest.mark.skipif(
    _ONNX < (1, 22), reason="the evaluator that is compared with runs no such Scan before 1.22"
)
SINCE_1_23 = pytest.mark.skipif(
    _ONNX < (1, 23),
    reason="before 1.23 the evaluator that is compared with takes indices of OneHot modulo the "
    "depth, against the standard, and texts have six digits",
)


def build(text: str, opset: int = 17) -> ir.Model:
    """A model whose inputs but the first become random initializers."""
    return initialized(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}', seed=5)


def simplified(
    model: ir.Model, feed: Any, *, offsets_as_convolutions: bool = False
) -> collections.Counter[str]:
    """Operators after simplification, which must not change any output."""
    before = ReferenceEvaluator(onnx.load_from_string(model_file.to_bytes(model)))
    simplify(model, offsets_as_convolutions=offsets_as_convolutions)
    content = onnx.load_from_string(model_file.to_bytes(model))
    onnx.checker.check_model(content, full_check=True)
    after = ReferenceEvaluator(content)
    for found, wanted in zip(after.run(None, feed), before.run(None, feed), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
    return collections.Counter(node.op_type for node in model.graph)
