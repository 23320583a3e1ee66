"""Weights of recurrent operators in PyTorch's order of gates, which exporters turn round."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress import model_file
from onnxpress.layers import find_layers
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session
from onnxpress.testing import SAMPLE_MODELS

_REORDERED = """
    wa = Slice (w, zero, one, zero)  wb = Slice (w, two, four, zero)  wc = Slice (w, one, two, zero)
    wd = Concat <axis = 0> (wa, wb, wc)  we = Unsqueeze (wd, axis)
    ra = Slice (r, zero, one, zero)  rb = Slice (r, two, four, zero)  rc = Slice (r, one, two, zero)
    rd = Concat <axis = 0> (ra, rb, rc)  re = Unsqueeze (rd, axis)
    Y, last = LSTM <hidden_size = 64> (x, we, re)"""
_HEAD = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[5, 2, 48] x, float[256, 48] w, float[256, 64] r, bool go) => (float[5, 1, 2, 64] y) {
    zero = Constant <value = int64[1] {0}> ()  one = Constant <value = int64[1] {64}> ()
    two = Constant <value = int64[1] {128}> ()  four = Constant <value = int64[1] {256}> ()
    axis = Constant <value = int64[1] {0}> ()
"""
_PLAIN = _HEAD + _REORDERED + " y = Identity (Y) unused = Not (go) }"
_BRANCHES = (
    _HEAD
    + "y = If (go) < then_branch = yes () => (float[5, 1, 2, 64] yes_out) {"
    + _REORDERED
    + " yes_out = Identity (Y) }, else_branch = no () => (float[5, 1, 2, 64] no_out) {"
    + _REORDERED
    + " no_out = Neg (Y) } > }"
)
_ONE_BRANCH = _BRANCHES.replace("y = If (go)", "always = Equal (zero, zero) y = If (always)")


def built(text: str) -> ir.Model:
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(0)
    for name in ("w", "r"):
        value = next(v for v in model.graph.inputs if v.name == name)
        shape = [dim for dim in value.shape or () if isinstance(dim, int)]
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize(
    "text",
    [_PLAIN, _BRANCHES, _ONE_BRANCH],
    ids=["once", "in both branches", "in a branch that is never taken"],
)
def test_weights_in_another_order_become_layers_and_the_file_no_larger(text: str) -> None:
    model = built(text)
    feed = {"x": np.random.default_rng(1).standard_normal((5, 2, 48)).astype(np.float32)}
    runs = [{**feed, "go": np.asarray(go)} for go in (False, True)]
    before, size = [Session(model).run(run)["y"] for run in runs], len(model_file.to_bytes(model))
    assert [layer for layer in find_layers(model) if layer.op_type == "LSTM"] == []
    simplify(model)
    layers = find_layers(model)
    assert [(layer.op_type, layer.shape) for layer in layers] == [
        ("LSTM", (1, 256, 64)),
        ("LSTM", (1, 256, 48)),
    ]
    assert len(layers[0].uses) == (2 if text is _BRANCHES else 1)
    assert len(model_file.to_bytes(model)) <= size
    for run, y in zip(runs, before, strict=True):
        np.testing.assert_array_equal(Session(model).run(run)["y"], y)


def test_constant_that_is_read_elsewhere_is_not_stored_twice() -> None:
    model = built(
        _PLAIN.replace("unused = Not (go)", "kept = MatMul (x, turned)").replace(
            " y = Identity (Y)", " turned = Transpose (w) y = Identity (Y)"
        )
    )
    kept = next(node for node in model.graph if node.op_type == "MatMul").outputs[0]
    kept.name, kept.type = "kept", ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(kept)
    size = len(model_file.to_bytes(model))
    simplify(model)
    # But for names and shapes.
    assert len(model_file.to_bytes(model)) <= size + 400
    # R can be freed; W cannot.
    assert [layer.shape for layer in find_layers(model) if layer.op_type == "LSTM"] == [
        (1, 256, 64)
    ]


def test_models_without_such_weights_stay_as_they_are() -> None:
    model = SAMPLE_MODELS["recurrent"]()
    simplify(model)
    assert len(find_layers(model)) == 6


@pytest.mark.parametrize("zero", ["ConstantOfShape (shape)", "Expand (nothing, shape)"])
def test_initial_states_of_zeros_are_left_out(zero: str) -> None:
    text = (
        _HEAD.replace("float[5, 2, 48] x", "float[5, batch, 48] x").replace(
            "1, 2, 64", "1, batch, 64"
        )
        + "nothing = Constant <value = float {0.0}> () ends = Constant <value = int64[1] {64}> ()"
        + " axis_1 = Constant <value = int64[1] {1}> ()"
        + " axis_2 = Constant <value = int64[1] {2}> ()"
        + " sizes = Shape (x)  width = Slice (sizes, axis_1, axis_2, axis)"
        + f" shape = Concat <axis = 0> (axis_1, width, ends) h0 = {zero}"
        + _REORDERED.replace("(x, we, re)", "(x, we, re, , , h0, h0)")
        + " y = Identity (Y) unused = Not (go) }"
    )
    model = built(text)
    feed = {
        "x": np.random.default_rng(1).standard_normal((5, 3, 48)).astype(np.float32),
        "go": np.ones((), bool),
    }
    simplify(model)
    assert [node.op_type for node in model.graph] == ["LSTM"]
    assert [v for v in model.graph[0].inputs[3:] if v is not None] == []
    given = built(text)
    np.testing.assert_array_equal(Session(model).run(feed)["y"], Session(given).run(feed)["y"])
