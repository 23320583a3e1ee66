"""Folding and fusing where it is proven, and where it would only make the file larger."""

import numpy as np
import onnx_ir as ir
import pytest
from generated import hold
from simplification import build, simplified

from onnxpress import model_file
from onnxpress.data import random_samples
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session


def test_bomb_is_not_materialized() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        bomb (float[4] x) => (float[4] y) {
            shape = Constant <value = int64[2] {1000000, 1000000}> ()
            huge = ConstantOfShape (shape)
            start = Constant <value = int64[2] {0, 0}> ()
            end = Constant <value = int64[2] {1, 4}> ()
            few = Slice (huge, start, end)
            axes = Constant <value = int64[1] {0}> ()
            row = Squeeze (few, axes)
            y = Add (x, row)
        }"""
    )
    simplify(model)
    assert "ConstantOfShape" in {node.op_type for node in model.graph}
    assert model_file.weight_bytes(model) < 1000


@pytest.mark.parametrize("fixed", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize(
    ("addend", "fused"), [((8,), True), ((1, 8), True), ((2, 1, 8), False), ((1,), False)]
)
def test_matmul_and_add_become_gemm_only_where_shapes_of_a_constant_prove_it(
    addend: tuple[int, ...], *, fused: bool, fixed: bool
) -> None:
    dims = ", ".join(map(str, addend))
    out = "2, 3, 8" if len(addend) == 3 else "3, 8"
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[3, 4] x, float[4, 8] w, float[{dims}] b) => (float[{out}] y) {{
            h = MatMul (x, w)
            y = Add (h, b)
        }}"""
    )
    arrays = {"b": np.random.default_rng(0).standard_normal(addend).astype(np.float32)}
    model = hold(model, arrays if fixed else {})
    drawn = random_samples(Session(model), 1, 0).feeds[0]
    assert ("Gemm" in simplified(model, drawn)) is (fused and fixed)


def test_batchnorm_is_folded_through_a_separate_bias() -> None:
    rng = np.random.default_rng(0)
    model = build(
        """g (float[1, 3, 8, 8] x, float[6, 3, 3, 3] w, float[1, 6, 1, 1] c, float[6] s,
               float[6] b, float[6] m, float[6] v) => (float[1, 6, 6, 6] out) {
            h = Conv (x, w)
            i = Add (h, c)
            j = BatchNormalization (i, s, b, m, v)
            k = Dropout (j)
            out = Relu (k)
        }"""
    )
    variance = rng.uniform(0.1, 1.1, 6).astype(np.float32)
    model.graph.initializers["v"].const_value = ir.Tensor(variance, name="v")
    feed = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    assert simplified(model, feed) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize(
    ("operator", "number", "left"),
    [
        *(("Add", 1e-12, 1), ("Sub", 1e-12, 1), ("Mul", 1.000001, 1), ("Div", 1.000001, 1)),
        *(("Add", 0.0, 0), ("Sub", 0.0, 0), ("Mul", 1.0, 0), ("Div", 1.0, 0)),
    ],
)
def test_only_arithmetic_that_changes_nothing_at_all_goes(
    operator: str, number: float, left: int
) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 8] x) => (float[n, 8] y) <float c = {{{number:.12f}}}> {{
            a = Relu (x)
            b = {operator} (a, c)
            y = Sqrt (b)
        }}"""
    )
    simplify(model)
    assert [node.op_type for node in model.graph].count(operator) == left


def test_a_norm_keeps_the_epsilon_that_rows_of_equal_numbers_need() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 8] x) => (float[n, 8] y) <float e = {0.000000000001}> {
            m = ReduceMean <axes = [-1]> (x)
            c = Sub (x, m)
            s = Mul (c, c)
            v = ReduceMean <axes = [-1]> (s)
            a = Add (v, e)
            q = Sqrt (a)
            y = Div (c, q)
        }"""
    )
    simplify(model)
    found = Session(model).run({"x": np.ones((2, 8), np.float32)})["y"]
    np.testing.assert_array_equal(found, np.zeros((2, 8), np.float32))
