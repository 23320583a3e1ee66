"""Rows from profiles: each made node's time is one node's of the model, and nothing is lost."""

import numpy as np
import onnx_ir as ir
import pytest
from costs_of import mlp, model_of

from onnxpress.costs import measured_rows
from onnxpress.costs.measuring import _without_profile


def conv() -> ir.Model:
    """Conv → Relu → Conv → Add → Relu: onnxruntime makes two nodes of it and two conversions."""
    model = model_of(
        """g (float[1, 16, 8, 8] x, float[16, 16, 3, 3] w, float[16, 16, 3, 3] v)
        => (float[1, 16, 8, 8] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, w)
            b = Relu(a)
            c = Conv<pads = [1, 1, 1, 1]>(b, v)
            d = Add(c, x)
            y = Relu(d)
        }"""
    )
    for value in list(model.graph.inputs[1:]):
        array = np.full((16, 16, 3, 3), 0.01, np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def test_what_is_fused_takes_none_and_the_product_all() -> None:
    feed = {"x": np.ones((1, 16, 8, 8), np.float32)}
    (found,) = measured_rows([conv()], [feed], threads=1, budget_s=0.0, whole=[100.0])
    took = {key.operator: 0.0 for key in found.keys}
    for row in found.rows:
        took[row.operator] += row.microseconds
    assert took["Conv"] > 0
    assert took["Conv"] + took["Add"] + took["Relu"] == pytest.approx(100.0)
    # Which of them are fused is onnxruntime's to say; the first Relu is, wherever it runs.
    assert found.rows[1].operator == "Relu"
    assert found.rows[1].microseconds == 0.0
    assert found.time.nodes == pytest.approx(found.microseconds)


def test_models_are_profiled_in_turn_and_told_in_order() -> None:
    feed = {"x": np.ones((3, 64), np.float32)}
    wide, narrow = measured_rows([mlp(128), mlp(32)], [feed] * 2, threads=1, budget_s=0.0)
    assert wide.keys[0].sizes == "3x64,64x128>3x128"
    assert narrow.keys[0].sizes == "3x64,64x32>3x32"
    assert wide.inputs == {"x": (3, 64)}


def test_bodies_are_measured_too() -> None:
    model = model_of(
        """g (bool c, float[64, 64] x) => (float[64, 64] y) {
            y = If (c) <
                then_branch = a () => (float[64, 64] p) { p = MatMul(x, x) },
                else_branch = b () => (float[64, 64] q) { q = Relu(x) }
            >
        }"""
    )
    feed = {"c": np.ones((), np.bool_), "x": np.ones((64, 64), np.float32)}
    (found,) = measured_rows([model], [feed], threads=1, budget_s=0.0, whole=[50.0])
    took = {row.operator: row.microseconds for row in found.rows}
    assert took["MatMul"] > 0
    assert took["Relu"] == 0.0


def test_what_a_profile_takes_itself_is_taken_off_every_node() -> None:
    found = _without_profile({"a": 110.0, "b": 15.0, "c": 12.0, "d": 12.0}, 109.0, 0.0)
    # Ten of each: the whole took 40 less than the sum.
    assert found == pytest.approx({"a": 100.0, "b": 5.0, "c": 2.0, "d": 2.0})
    slower = _without_profile({"a": 100.0, "b": 100.0}, 300.0, 50.0)
    assert sum(slower.values()) == pytest.approx(300.0 * 200 / 250)
