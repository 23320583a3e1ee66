"""Layers inside If, Loop and Scan bodies are observed and computed in integers like any other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from bodies import (
    HEAD,
    IF,
    Float32,
    built,
    draw,
    feeds,
    if_model,
    loop_model,
    nested_model,
    scan_model,
)
from clocks import BY_WORK

import onnxpress
from onnxpress.graph import standard_opset
from onnxpress.layers import find_layers
from onnxpress.passes.quantize import Quantize
from onnxpress.runtime import Session, executed_operators
from onnxpress.search.layer_timing import _alone


def quantized(
    model: ir.Model,
    data: Mapping[str, Float32] | None = None,
    least: float = 15.0,
    **settings: Any,
) -> onnxpress.Result:
    # The goal of size would take 4 bits.
    settings = {"form": "static", "weight_bits": (8,), **settings}
    result = onnxpress.optimize(
        model,
        calibration=dict(data or draw(model)),
        evaluation=draw(model, seed=2),
        passes=[Quantize(**settings)],
        goal="size",
        clock=BY_WORK,
        metric="none",
        min_sqnr=least,
    )
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    return result


def signal_to_noise(original: ir.Model, result: onnxpress.Result) -> float:
    """Of the worst output, in dB, of the result as it is written: pair by pair, nothing fused.

    From opset 19 onnx's own reference knows DequantizeLinear; before, onnxruntime's operators.
    """
    proto = ir.to_proto(result.model)
    names = [output.name for output in proto.graph.output]
    exact, literal = Session(original), Session(result.model, optimize=False)
    known = standard_opset(original) >= 19
    reference = onnx.reference.ReferenceEvaluator(proto) if known else None

    def near(feed: dict[str, Float32]) -> Mapping[str, Any]:
        if reference is None:
            return literal.run(feed)
        return dict(zip(names, reference.run(None, feed), strict=True))

    runs = [(exact.run(feed), near(feed)) for feed in feeds(draw(original, 10, seed=3))]
    ratios = []
    for name in names:
        signal = np.stack([np.asarray(wanted[name], np.float64) for wanted, _ in runs])
        # The reference joins scan outputs of a Loop along an axis that is there already.
        found = np.stack([np.asarray(given[name], np.float64) for _, given in runs])
        found = found.reshape(signal.shape)
        ratios.append(10 * np.log10((signal**2).sum() / ((signal - found) ** 2).sum()))
    return float(min(ratios))


def reasons(result: onnxpress.Result) -> dict[str, str]:
    return {skip.site: skip.reason for stage in result.stages for skip in stage.left}


def integer_kernels(result: onnxpress.Result) -> int:
    return sum(executed_operators(result.model, integer_only=True).values())


@pytest.mark.parametrize(
    ("make", "layers"),
    [(if_model, 4), (nested_model, 2), (loop_model, 1), (scan_model, 3)],
    ids=["if", "nested_if", "loop", "scan"],
)
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_layers_in_bodies_run_as_integer_kernels(make: Any, layers: int, opset: int) -> None:
    original = make(opset)
    result = quantized(original)
    forms = [d.candidate.family for d in result.stages[1].decisions]
    assert forms.count("static") >= layers, reasons(result)
    assert integer_kernels(result) >= layers
    assert signal_to_noise(original, result) > 20


@pytest.mark.parametrize("opset", [11, 12])
def test_low_opset_that_subgraphs_keep_gets_one_scale_a_weight(opset: int) -> None:
    """Only outside the bodies: theirs carry no sequences, so nothing is known of their tensors."""
    text = IF.replace("float[1, 64] x,", "float[1, 64] z, float[64, 64] w,").replace(
        "zero =", "x = MatMul (z, w) zero ="
    )
    original = built(text, opset, w=(64, 64), a=(64, 96), b=(96, 64), c=(64, 96), d=(96, 64))
    result = quantized(original, least=5.0)
    assert standard_opset(result.model) == opset
    assert [d.site for d in result.stages[1].decisions if not d.candidate.carried] == ["w"]
    assert integer_kernels(result) == 1
    assert "cannot be observed" in reasons(result)["a"]
    assert signal_to_noise(original, result) > 20


@pytest.mark.parametrize("form", ["static", "dynamic", "auto"])
def test_branch_that_the_data_never_takes_is_left_with_the_reason(form: str) -> None:
    data = {"x": draw(if_model())["x"] + np.float32(1.0)}
    result = quantized(if_model(), data, form=form)
    for name in ("c", "d"):
        assert "the calibration data never exercises it" in reasons(result)[name]
    decided = {d.site: d.candidate.family for d in result.stages[1].decisions}
    assert decided["a"] == decided["b"] == ("dynamic" if form == "dynamic" else "static")
    assert decided.get("c") == ("weight_only" if form == "auto" else None)


def test_dynamic_layers_in_branches_run_as_integer_kernels() -> None:
    original = if_model()
    result = quantized(original, form="dynamic")
    assert integer_kernels(result) >= 4
    assert signal_to_noise(original, result) > 25


def test_tensor_of_the_outer_graph_is_quantized_once_for_both_branches() -> None:
    result = quantized(if_model())
    quantizing = [n for n in result.model.graph if n.op_type == "QuantizeLinear"]
    assert len(quantizing) == 1
    readers = quantizing[0].outputs[0].consumers()
    assert [node.op_type for node in readers] == 2 * ["DequantizeLinear"]
    assert {node.graph for node in readers} == set(result.model.graph.subgraphs())


def test_weights_in_constant_nodes_of_bodies_are_layers() -> None:
    original = loop_model()
    body = next(original.graph.subgraphs())
    for name in ("w", "b"):
        value = original.graph.initializers.pop(name)
        assert value.const_value is not None
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)])
        ir.convenience.replace_all_uses_with(value, node.outputs[0])
        node.outputs[0].name = name
        body.insert_before(body[0], node)
    result = quantized(original)
    assert executed_operators(result.model)["QLinearConv"] == 1
    assert signal_to_noise(original, result) > 20


def test_weights_that_are_initializers_of_bodies_are_layers() -> None:
    original = loop_model()
    body = next(original.graph.subgraphs())
    for name in ("w", "b"):
        value = original.graph.initializers.pop(name)
        body.register_initializer(value)
    result = quantized(original)
    assert executed_operators(result.model)["QLinearConv"] == 1


def test_layers_in_functions_run_as_integer_kernels() -> None:
    original = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[1, 64] x, float[64, 64] w) => (float[1, 64] y) { y = own.linear (x, w) }
        <opset_import: ["" : 17], domain: "own"> linear (v, m) => (r) {
            s = MatMul (v, m)  r = Relu (s) }"""
    )
    value = original.graph.inputs.pop(1)
    array = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    value.const_value = ir.Tensor(array, name="w")
    original.graph.register_initializer(value)
    result = quantized(original)
    assert integer_kernels(result) == 1


def test_float16_layers_in_bodies_stay_with_the_reason() -> None:
    original = if_model()
    half = ir.DataType.FLOAT16
    cast = ir.Node("", "Cast", [original.graph.inputs[0]], [ir.AttrInt64("to", int(half))])
    cast.outputs[0].name = "x_half"
    for node in original.graph.all_nodes():
        if node.op_type == "MatMul" and node.inputs[0] is original.graph.inputs[0]:
            node.replace_input_with(0, cast.outputs[0])
    original.graph.insert_before(original.graph[0], cast)
    for name, value in original.graph.initializers.items():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16), name=name)
        value.type = ir.TensorType(half)
    for body in original.graph.subgraphs():
        back = ir.Node("", "Cast", [body.outputs[0]], [ir.AttrInt64("to", 1)])
        body.append(back)
        back.outputs[0].name = f"{body.name}_float"
        back.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        body.outputs[0] = back.outputs[0]
        for node in body:
            node.outputs[0].type = ir.TensorType(half) if node is not back else back.outputs[0].type
    result = quantized(original, form="auto")
    assert "float16" in reasons(result)["a"]
    assert integer_kernels(result) == 0
    assert {d.candidate.family for d in result.stages[1].decisions} == {"weight_only"}


def test_recipe_repeats_integer_kernels_in_bodies() -> None:
    data = draw(if_model())
    first = quantized(if_model(), data)
    again = onnxpress.optimize(
        if_model(),
        recipe=first.recipe,
        calibration=data,
        evaluation=draw(if_model(), seed=2),
        goal="size",
        clock=BY_WORK,
    )
    assert onnxpress.model_file.to_bytes(again.model) == onnxpress.model_file.to_bytes(first.model)


def test_integers_in_bodies_can_be_taken_out_and_quantized_anew() -> None:
    original = if_model()
    once = quantized(original).model
    result = quantized(once, requantize=True)
    assert executed_operators(result.model, integer_only=True) == executed_operators(
        once, integer_only=True
    )
    assert signal_to_noise(original, result) > 20


def test_scan_whose_iterations_differ_in_shape_is_left_with_the_reason() -> None:
    """A Scan stacks only equal shapes; what cannot be observed does not stop the others."""
    model = built(
        HEAD
        + """ g (float[1, 64] h, float[5, 1, 64] x, float[1, 64] w, float[64, 64] v)
        => (float[1, 64] y, float[1, 64] z) {
            y = Scan <num_scan_inputs = 1,
                body = step (float[1, 64] before, float[1, 64] now) => (float[1, 64] after) {
                    where = NonZero (now)  turned = Transpose (where)
                    some = GatherND (now, turned)  one = Constant <value = int64[1] {1}> ()
                    column = Unsqueeze (some, one)  same = Unsqueeze (some, one)
                    product = Mul (column, same)
                    m = MatMul (product, w)
                    sum = ReduceSum <keepdims = 1> (m)
                    after = Add (before, sum) }
            > (h, x)
            z = MatMul (h, v) }""".replace("row)", "w)").replace(
            "float[64, 64] w,", "float[1, 64] w,"
        ),
        w=(1, 64),
        v=(64, 64),
    )
    data = draw(model)
    data["x"] = np.maximum(data["x"], 0)
    result = quantized(model, data)
    assert "cannot be observed" in reasons(result)["w"]
    assert [d.site for d in result.stages[1].decisions] == ["v"]


@pytest.mark.parametrize("make", [if_model, nested_model, loop_model, scan_model])
def test_layers_in_bodies_can_be_timed_alone(make: Any) -> None:
    model = make()
    for layer in find_layers(model):
        alone = _alone(model, [layer])
        assert alone is not None
        assert [node.op_type for node in alone.graph] == [layer.op_type]
        feed = feeds(draw(alone, 1))[0]
        assert np.isfinite(Session(alone).run(feed)[layer.node.outputs[0].name or ""]).all()
