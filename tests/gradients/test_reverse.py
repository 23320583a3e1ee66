"""Which parameters get a gradient, and why others do not."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from finite_differences import Case, by_differences, by_rules, derivative
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.gradients import differentiate
from onnxpress.runtime import Session


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agree(case: Case) -> None:
    found, expected = by_rules(case), by_differences(case)
    for parameter, gradient in expected.items():
        looked_at = ~np.isnan(gradient)
        scale = np.abs(gradient[looked_at]).max(initial=0) + 1e-3
        # float32 against float64.
        np.testing.assert_allclose(
            found[parameter][looked_at] / scale, gradient[looked_at] / scale, atol=3e-4
        )


@settings(max_examples=25)
@given(data=st.data())
def test_convolution_of_any_window_has_the_gradients_of_differences(data: st.DataObject) -> None:
    draw = data.draw
    axes, group = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3]))
    kernel, strides, dilations = (
        draw(st.lists(st.integers(1, most), min_size=axes, max_size=axes)) for most in (3, 3, 2)
    )
    pads = draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes))
    sizes = [
        draw(st.integers(max(1, (k - 1) * d + 1), 8))
        for k, d in zip(kernel, dilations, strict=True)
    ]
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    nodes = (
        f"y = Conv<group={group}, strides={strides}, dilations={dilations}, pads={pads}>(x, w, b)"
    )
    parameters = {
        "x": drawn(0, 2, group * inputs, *sizes),
        "w": drawn(1, group * outputs, inputs, *kernel),
        "b": drawn(2, group * outputs),
    }
    agree(Case(nodes, parameters, dynamic=draw(st.booleans())))


@settings(max_examples=25)
@given(data=st.data())
def test_broadcasting_sums_over_what_was_repeated(data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    parts = []
    for seed in range(2):
        own = [draw(st.sampled_from([1, size])) for size in shape]
        kept = own[draw(st.integers(0, len(own))) :]
        parts.append(drawn(seed, *kept))
    operator = draw(st.sampled_from(["Add", "Sub", "Mul"]))
    case = Case(f"y = {operator}(a, b)", {"a": parts[0], "b": parts[1]})
    agree(replace(case, dynamic=draw(st.booleans()) and parts[0].ndim > 0))


def test_what_is_read_twice_gets_the_sum() -> None:
    agree(Case("square = Mul(x, x) y = Add(square, x)", {"x": drawn(0, 3, 4)}))


def test_weight_before_an_operator_without_a_rule_is_named_with_it() -> None:
    nodes = "a = MatMul(x, v) b = Det(a) y = MatMul(b, w)"
    arrays = {"x": drawn(0, 2, 3, 3), "v": drawn(1, 3, 3), "w": drawn(2, 2)}
    derived = derivative(Case(nodes, arrays))
    assert set(derived.gradients) == {"w"}
    assert derived.untrained == dict.fromkeys(["x", "v"], "Det: its operator has no rule")
    assert derived.missing == {"Det": "its operator has no rule"}


def test_weight_with_one_way_through_an_operator_without_a_rule_has_no_part_of_a_gradient() -> None:
    nodes = "a = MatMul(x, v) b = Det(a) c = Add(b, w) d = ReduceSum<keepdims=0>(a) y = Add(c, d)"
    derived = derivative(Case(nodes, {"x": drawn(0, 2, 3, 3), "v": drawn(1, 3, 3), "w": drawn(2)}))
    assert set(derived.gradients) == {"w"}


def test_weight_that_no_output_depends_on_is_named() -> None:
    derived = derivative(Case("unread = Neg(a) y = Neg(b)", {"a": drawn(0, 2), "b": drawn(1, 2)}))
    assert derived.untrained == {"a": "no output depends on it"}


def test_sizes_that_depend_on_a_weight_stop_no_gradient() -> None:
    agree(
        Case(
            "shape = Shape(x) flat = Reshape(x, to) y = Reshape(flat, shape)",
            {"x": drawn(0, 2, 3)},
            {"to": np.asarray([-1], np.int64)},
        )
    )


@pytest.mark.parametrize("axis", [None, 1])
def test_rounded_values_have_the_gradients_of_learned_step_sizes(axis: int | None) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (2, 3, 4)).astype(np.float32)
    scale = np.float32(0.011) if axis is None else np.asarray([0.01, 0.008, 0.02], np.float32)
    upstream = rng.standard_normal(x.shape).astype(np.float32)
    found = _quantized_gradients(x, np.asarray(scale), upstream, axis)
    column = scale if axis is None else np.reshape(scale, (1, 3, 1))
    steps = x / column
    inside = (steps >= -128.5) & (steps <= 127.5)
    assert 0 < inside.mean() < 1
    np.testing.assert_allclose(found["x"], upstream * inside, rtol=1e-5)
    # Esser et al., arXiv:1902.08153, equation 3.
    rounded = np.clip(np.rint(steps), -128, 127)
    each = upstream * np.where(inside, rounded - steps, rounded)
    wanted = each.sum() if axis is None else each.sum(axis=(0, 2))
    np.testing.assert_allclose(found["scale"], wanted, rtol=1e-4)


def _quantized_gradients(
    x: np.ndarray, scale: np.ndarray, upstream: np.ndarray, axis: int | None
) -> dict[str, np.ndarray]:
    """Of a pair of QuantizeLinear and DequantizeLinear by x and the scale."""
    along = "" if axis is None else f"<axis={axis}>"
    nodes = onnx.parser.parse_graph(
        f"g () => () {{ q = QuantizeLinear{along}(x, scale, zero) "
        f"y = DequantizeLinear{along}(q, scale, zero) z = Mul(y, upstream) "
        "loss = ReduceSum<keepdims=0>(z) }"
    ).node
    arrays = {"x": x, "scale": scale, "zero": np.zeros(scale.shape, np.int8), "upstream": upstream}
    graph = onnx.helper.make_graph(
        nodes,
        "pair",
        [],
        [onnx.helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, [])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    derived = differentiate(
        ir.from_proto(onnx.shape_inference.infer_shapes(proto)), "loss", ["x", "scale"]
    )
    found = Session(derived.model, threads=1).run({"x": x, "scale": scale})
    return {name: np.asarray(found[output]) for name, output in derived.gradients.items()}
