"""Rewrites of the simplification against the unoptimized original."""

import collections
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxpress import model_file
from onnxpress.passes.simplify import simplify


def build(text: str, opset: int = 17) -> ir.Model:
    """A model whose inputs but the first become random initializers."""
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    rng = np.random.default_rng(5)
    for value in list(model.graph.inputs)[1:]:
        assert value.shape is not None
        array = rng.standard_normal(tuple(value.shape.numpy())).astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


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


H_SWISH = {
    "product first": "p = Mul (a, c)\n y = Div (p, six)",
    "quotient first": "p = Div (c, six)\n y = Mul (p, a)",
    "times a sixth": "p = Mul (c, a)\n y = Mul (sixth, p)",
    "sigmoid alone": "y = Div (c, six)",
}


@pytest.mark.parametrize("form", H_SWISH)
@pytest.mark.parametrize("opset", [11, 17])
def test_hard_swish_is_put_together(form: str, opset: int) -> None:
    model = build(
        f"""g (float[1, 3, 6, 6] x, float[4, 3, 3, 3] w) => (float[1, 4, 4, 4] y) {{
            three = Constant <value = float {{3}}> ()
            zero = Constant <value = float {{0}}> ()
            six = Constant <value = float {{6}}> ()
            sixth = Constant <value = float {{0.16666667}}> ()
            a = Conv (x, w)
            b = Add (a, three)
            c = Clip (b, zero, six)
            {H_SWISH[form]}
        }}""",
        opset,
    )
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    operators = simplified(model, feed)
    wanted = {"Conv": 1, "HardSigmoid": 1} | ({} if form == "sigmoid alone" else {"Mul": 1})
    assert operators == wanted


def test_clip_that_others_read_is_left() -> None:
    model = build(
        """g (float[1, 8] x) => (float[1, 8] y, float[1, 8] c) {
            three = Constant <value = float {3}> ()
            zero = Constant <value = float {0}> ()
            six = Constant <value = float {6}> ()
            b = Add (x, three)
            c = Clip (b, zero, six)
            y = Div (c, six)
        }"""
    )
    feed = {"x": np.linspace(-5, 5, 8, dtype=np.float32).reshape(1, 8)}
    assert simplified(model, feed)["Clip"] == 1


@given(
    scale=st.sampled_from(["float[1] s", "float[4, 1, 1] s", "float[1, 4, 1, 1] s", "float[5] s"]),
    padding=st.sampled_from([0, 1]),
    group=st.sampled_from([1, 2, 4]),
    order=st.sampled_from(["Mul Add", "Add Mul", "Div Sub", "Sub Div", "Mul Mul"]),
)
@settings(max_examples=40, deadline=None)
def test_scales_and_offsets_move_forward(scale: str, padding: int, group: int, order: str) -> None:
    first, second = order.split()
    # A [5] along the width is no number per channel and has to stay.
    model = build(
        f"""g (float[1, 4, 5, 5] x, {scale}, float[4, {4 // group}, 3, 3] w, float[4] b)
            => (float[1, 4, m, m] y) {{
            a = Relu (x)
            c = {first} (a, s)
            d = {second} (c, s)
            y = Conv <group = {group}, pads = [{padding}, {padding}, {padding}, {padding}]>
                (d, w, b)
        }}"""
    )
    feed = {"x": np.random.default_rng(1).standard_normal((1, 4, 5, 5)).astype(np.float32)}
    operators = simplified(model, feed, offsets_as_convolutions=True)
    if "5]" not in scale.replace("[5] s", "5]"):
        assert operators["Mul"] + operators["Div"] <= 1


def test_offset_between_padded_convolutions_stays_among_convolutions() -> None:
    text = """g (float[1, 3, 6, 6] x, float[4, 3, 1, 1] v, float[1] s, float[1] o,
               float[4, 1, 3, 3] w) => (float[1, 4, 6, 6] y) {
            a = Conv (x, v)
            r = Relu (a)
            c = Mul (s, r)
            d = Add (c, o)
            y = Conv <group = 4, pads = [1, 1, 1, 1]> (d, w)
        }"""
    feed = {"x": np.random.default_rng(2).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    assert simplified(build(text), feed) == {"Conv": 2, "Relu": 1, "Add": 1}
    wanted = {"Conv": 3, "Relu": 1}
    assert simplified(build(text), feed, offsets_as_convolutions=True) == wanted


@pytest.mark.parametrize(
    ("inner", "padding", "bias", "merged"),
    [(8, 0, True, True), (8, 1, False, True), (8, 1, True, False), (1, 0, True, False)],
)
def test_linear_convolutions_become_one(
    inner: int, padding: int, *, bias: bool, merged: bool
) -> None:
    """Not with a bias behind which padding follows, and not where weights would multiply."""
    model = build(
        f"""g (float[1, 4, 6, 6] x, float[{inner}, 4, 1, 1] v, float[{inner}] b,
               float[4, {inner}, 3, 3] w, float[4] c) => (float[1, 4, m, m] y) {{
            a = Conv (x, v{", b" if bias else ""})
            y = Conv <pads = [{padding}, {padding}, {padding}, {padding}]> (a, w, c)
        }}"""
    )
    feed = {"x": np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype(np.float32)}
    assert simplified(model, feed)["Conv"] == (1 if merged else 2)


def test_squeeze_and_excite_residual_is_one_product() -> None:
    model = build(
        """g (float[1, 4, 6, 6] x, float[4, 4, 1, 1] w) => (float[1, 4, 6, 6] y) {
            p = GlobalAveragePool (x)
            s = Conv (p, w)
            m = Mul (x, s)
            y = Add (x, m)
        }"""
    )
    feed = {"x": np.random.default_rng(4).standard_normal((1, 4, 6, 6)).astype(np.float32)}
    operators = simplified(model, feed)
    # The 1 is moved on into the bias of the Conv that computes s.
    assert operators == {"GlobalAveragePool": 1, "Conv": 1, "Mul": 1}


ONE_HOT = {
    "compared": "v = Unsqueeze (x, last)\n e = Equal (v, classes)",
    "turned round": "v = Unsqueeze (x, last)\n e = Equal (classes, v)",
    "expanded": """v = Unsqueeze (x, last)\n s = Shape (x)\n t = Concat <axis = 0> (s, five)
        u = Expand (v, t)\n e = Equal (u, classes)""",
    "OneHot": "",
}


@pytest.mark.parametrize("form", ONE_HOT)
@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_one_hot_times_a_table_is_looked_up(form: str, kind: str) -> None:
    """Indices outside have no row; OneHot counts negative ones from the end."""
    steps = ONE_HOT[form] + "\n h = Cast <to = 1> (e)"
    if form == "OneHot":
        steps = "depth = Constant <value = int64 {5}> ()\n"
        steps += "h = OneHot <axis = -1> (x, depth, values)"
    classes = ", ".join(str(n) for n in range(5))
    model = build(
        f"""g ({kind}[n, 3] x, float[5, 4] w) => (float[n, 3, 4] y) {{
            last = Constant <value = int64[1] {{2}}> ()
            five = Constant <value = int64[1] {{5}}> ()
            values = Constant <value = float[2] {{0, 1}}> ()
            classes = Constant <value = {kind}[1, 1, 5] {{{classes}}}> ()
            {steps}
            y = MatMul (h, w)
        }}"""
    )
    feed = {"x": np.asarray([[0, 4, 2], [-1, 5, 3], [-6, 100, 1]], kind)}
    found = simplified(model, feed)
    assert found["Gather"] == 1
    assert not found["MatMul"] + found["Equal"] + found["OneHot"]


def test_other_comparisons_are_no_lookup() -> None:
    model = build(
        """g (int64[n, 1] x, float[3, 4] w) => (float[n, 4] y) {
            classes = Constant <value = int64[1, 3] {0, 2, 1}> ()
            e = Equal (x, classes)
            h = Cast <to = 1> (e)
            y = MatMul (h, w)
        }"""
    )
    assert simplified(model, {"x": np.asarray([[1], [2], [7]])})["MatMul"] == 1


def test_table_takes_up_what_follows_element_by_element() -> None:
    model = build(
        """g (int64[n, 3] x, float[5, 4] w, float[1, 1, 4] b) => (float[n, 3, 4] y) {
            half = Constant <value = float {0.5}> ()
            r = Gather (w, x)
            a = Add (r, b)
            t = Tanh (a)
            m = Mul (half, t)
            y = Mul (a, m)
        }"""
    )
    assert simplified(model, {"x": np.asarray([[0, 4, 2], [1, 1, 3]])}) == {"Gather": 1}


def test_table_stays_where_two_tensors_leave() -> None:
    model = build(
        """g (int64[n] x, float[5, 4] w) => (float[n, 4] y, float[n, 4] z) {
            y = Gather (w, x)
            z = Tanh (y)
        }"""
    )
    assert simplified(model, {"x": np.asarray([0, 4, 2])}) == {"Gather": 1, "Tanh": 1}
