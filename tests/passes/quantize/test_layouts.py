"""Activations of 8 and of 16 bits in one model."""

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from generated import hold
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxpress
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.runtime import DEFAULT, EXACT, Array, Session, executed_operators

OPERATORS = ("Conv", "Gemm", "Add", "Concat", "MaxPool", "Sigmoid", "Mul", "GlobalAveragePool")
LAYERS = {
    "stem": (8, 4, 3, 3),
    "left": (8, 8, 1, 1),
    "right": (8, 8, 3, 3),
    "depthwise": (8, 1, 3, 3),
    "last": (6, 16, 1, 1),
}
NETWORK = """<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[1, 4, 12, 12] x, float[8, 4, 3, 3] stem, float[8, 8, 1, 1] left,
       float[8, 8, 3, 3] right, float[8, 1, 3, 3] depthwise, float[6, 16, 1, 1] last)
    => (float[1, 6, 6, 6] y) {{
        a = Conv <pads = [1, 1, 1, 1]> (x, stem)  b = Relu (a)
        c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        d = Conv (c, left)
        e = Conv <pads = [1, 1, 1, 1]> (c, right)  f = Relu (e)
        h = Add (d, f)
        i = Conv <group = 8, pads = [1, 1, 1, 1]> (h, depthwise)
        j = Sigmoid (i)  k = Mul (i, j)
        l = Concat <axis = 1> (k, h)
        y = Conv (l, last) }}"""


def network(opset: int = 21) -> ir.Model:
    """Two branches from a pooled tensor, a residual sum, a gate and a Concat."""
    made = ir.from_onnx_text(NETWORK.format(opset=opset))
    rng = np.random.default_rng(5)
    arrays = {}
    for value in made.graph.inputs[1:]:
        shape = LAYERS[value.name or ""]
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        arrays[value.name or ""] = array.astype(np.float32)
    return hold(made, arrays)


def images(seed: int, count: int = 12) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((count, 4, 12, 12)).astype(np.float32)}


def pressed(
    *sixteen_bit: str,
    opset: int = 21,
    target: str = "cpu",
    layout: Any = "auto",
    min_sqnr: float = 5.0,
) -> onnxpress.Result:
    return onnxpress.optimize(
        network(opset),
        calibration=images(1),
        evaluation=images(2),
        passes=[Quantize(form="static", layout=layout, sixteen_bit=sixteen_bit)],
        metric="none",
        min_sqnr=min_sqnr,
        goal="size",
        clock=BY_WORK,
        target=target,
    )


def worst(result: onnxpress.Result) -> float:
    assert result.validation is not None
    return result.validation.measurement.worst_sqnr_db


def forms(result: onnxpress.Result) -> dict[str, str]:
    stage = next(stage for stage in result.stages if stage.pass_.name == "quantize")
    return {d.site: d.candidate.family for d in stage.decisions}


def widths(model: ir.Model) -> dict[str, set[ir.DataType]]:
    """By operator in integers: the types of the activations it reads and gives."""
    found: dict[str, set[ir.DataType]] = {}
    for node in model.graph:
        if node.op_type not in OPERATORS:
            continue
        kinds = set()
        for value in node.inputs:
            source = None if value is None else value.producer()
            if source is not None and source.op_type == "DequantizeLinear":
                before = source.inputs[0]
                assert before is not None
                if before.const_value is None and before.dtype is not None:
                    kinds.add(before.dtype)
        output = node.outputs[0]
        readers = [user for user, _ in output.uses()]
        if [user.op_type for user in readers] == ["Relu"]:
            readers = [user for user, _ in readers[0].outputs[0].uses()]
        for user in readers:
            kind = user.outputs[0].dtype
            if user.op_type == "QuantizeLinear" and kind is not None:
                kinds.add(kind)
        found[node.name or ""] = kinds
    return found


def conversions(model: ir.Model) -> list[ir.Node]:
    """QuantizeLinear of what was dequantized just before."""
    found = []
    for node in model.graph:
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] else None
        if node.op_type == "QuantizeLinear" and source and source.op_type == "DequantizeLinear":
            found.append(node)
    return found


def check(result: onnxpress.Result) -> None:
    """A valid model whose operators have one width each, the same with fusions and without."""
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert all(len(kinds) <= 1 for kinds in widths(result.model).values()), widths(result.model)
    feed = images(3, 1)
    fused, exact = (
        np.asarray(Session(result.model, config=config).run(feed)["y"], np.float64)
        for config in (DEFAULT, EXACT)
    )
    error = float(np.square(fused - exact).sum() / np.square(exact).sum())
    assert error < 1e-3


@given(names=st.sets(st.sampled_from(sorted(LAYERS)), min_size=1))
@settings(max_examples=6, deadline=None)
def test_any_layers_in_sixteen_bits_give_one_width_to_each_operator(names: set[str]) -> None:
    result = pressed(*sorted(names))
    check(result)
    found = forms(result)
    assert {site for site, form in found.items() if form == "static_16_bit"} == names
    assert worst(result) > worst(pressed()) - 1.0


def test_more_layers_in_sixteen_bits_are_nearer() -> None:
    chosen: list[list[str]] = [[], ["last"], ["last", "depthwise"], list(LAYERS)]
    reached = [worst(pressed(*names)) for names in chosen]
    assert all(after > before for before, after in pairwise(reached)), reached
    assert reached[-1] > reached[0] + 6


def test_what_a_wide_layer_reads_was_not_rounded_to_eight_bits_before() -> None:
    """The gate, the sum and the Concat before the last layer are wide, the stem is not."""
    result = pressed("last")
    kinds = widths(result.model)
    by_operator = {node.name: node.op_type for node in result.model.graph}
    wide = {by_operator[name] for name, kind in kinds.items() if kind == {ir.DataType.UINT16}}
    assert wide >= {"Concat", "Mul", "Add"}
    assert {ir.DataType.UINT8} in kinds.values()
    assert conversions(result.model)


def test_pairs_are_in_onnxruntimes_domain_below_opset_21() -> None:
    made = pressed(opset=17, target="qnn", min_sqnr=36.0)
    check(made)
    domains = {
        node.domain
        for node in made.model.graph
        if node.op_type == "QuantizeLinear" and node.outputs[0].dtype == ir.DataType.UINT16
    }
    assert domains == {"com.microsoft"}


def test_worst_layers_alone_are_kept_in_sixteen_bits_where_the_target_has_them() -> None:
    """8 bits leave too little, 16 bits more than is asked for: some layers take each."""
    low = worst(pressed(target="qnn", min_sqnr=0.0))
    high = worst(pressed(*LAYERS, target="qnn", min_sqnr=0.0))
    result = pressed(target="qnn", min_sqnr=(low + high) / 2)
    assert result.within_budget, result.problems
    found = forms(result)
    layers = [found[name] for name in LAYERS]
    assert set(layers) == {"static", "static_16_bit"}
    check(result)


@pytest.mark.parametrize(("target", "layout"), [("cpu", "auto"), ("qnn", "u8s8")])
def test_sixteen_bits_are_not_offered_in_float_nor_beside_a_layout_that_was_named(
    target: str, layout: str
) -> None:
    """Onnxruntime's CPU provider has no kernels for them."""
    result = pressed(target=target, layout=layout, min_sqnr=36.0)
    assert "static_16_bit" not in forms(result).values()


CLIPPED = """<ir_version: 8, opset_import: ["" : 21]>
    g (float[1, 4, 12, 12] x, float[8, 4, 3, 3] stem, float low, float six)
    => (float[1, 8, 10, 10] y) { a = Conv (x, stem)  y = Clip (a, low, six) }"""


def test_sixteen_bit_range_performs_the_clip_and_otherwise_reaches_beyond_what_was_seen() -> None:
    """So that a kernel for integers takes Conv and Clip together."""
    made = ir.from_onnx_text(CLIPPED)
    arrays = {
        "stem": 2 * np.random.default_rng(0).standard_normal((8, 4, 3, 3)),
        "low": np.asarray(0.0),
        "six": np.asarray(6.0),
    }
    hold(made, {name: array.astype(np.float32) for name, array in arrays.items()})
    data = images(1)
    result = onnxpress.optimize(
        made,
        calibration=data,
        evaluation=images(2),
        passes=[Quantize(form="static", sixteen_bit=("stem",))],
        min_sqnr=20.0,
        goal="size",
        clock=BY_WORK,
    )
    top = {}
    for name, value in (result.named or result.model).graph.initializers.items():
        if name.endswith("_wide_scale") and value.const_value is not None:
            top[name[0]] = float(value.const_value.numpy()) * 65535
    assert top["y"] == pytest.approx(6.0)
    seen = data["x"].max() - data["x"].min()
    assert top["x"] == pytest.approx(2 * seen, rel=0.02)


def test_unknown_layer_is_named() -> None:
    with pytest.raises(UsageError, match="sixteen_bit names 'nowhere'"):
        pressed("stem", "nowhere")


HALF = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 12, 12] x, float16[8, 4, 3, 3] stem, float16[8, 8, 3, 3] right)
    => (float[1, 8, 8, 8] y) {
        h = Cast <to = 10> (x)  a = Conv (h, stem)  b = Relu (a)  c = Conv (b, right)
        y = Cast <to = 1> (c) }"""


def test_half_precision_model_gets_weights_that_are_expanded_at_load() -> None:
    """A Mul of half types would be left in the graph: 0.44 times the speed on fashion_cnn."""
    made = ir.from_onnx_text(HALF)
    rng = np.random.default_rng(0)
    names = [value.name or "" for value in made.graph.inputs[1:]]
    drawn = {name: rng.standard_normal(LAYERS[name]) / 8 for name in names}
    hold(made, {name: array.astype(np.float16) for name, array in drawn.items()})
    result = onnxpress.optimize(
        made,
        calibration=images(1),
        evaluation=images(2),
        passes=[Quantize()],
        min_sqnr=30.0,
        goal="size",
        clock=BY_WORK,
    )
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert forms(result) == {"stem": "weight_only", "right": "weight_only"}
    reasons = {skip.site: skip.reason for stage in result.stages for skip in stage.left}
    assert "float16" in reasons["stem"]
    assert executed_operators(result.model) == executed_operators(made)
