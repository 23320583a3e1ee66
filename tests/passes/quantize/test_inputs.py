"""What real data and models hold that no quantizer may stumble over."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from generated import hold

import onnxpress
from onnxpress.data import Samples
from onnxpress.errors import DataError
from onnxpress.passes.quantize import Quantize
from onnxpress.runtime import Array, Session, executed_operators

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 8, 10, 10] x, float[16, 8, 3, 3] w, float[16] b, float[16, 16, 1, 1] v,
       float[16, 24] m) => (float[1, 24] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, w, b)  r = Relu (a)  c = Conv (r, v)
        p = GlobalAveragePool (c)  f = Flatten (p)  y = MatMul (f, m) }"""


def model(scale: float = 1.0) -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 8, 3, 3), "b": (16,), "v": (16, 16, 1, 1), "m": (16, 24)}
    drawn = {name: scale * rng.standard_normal(shape) / 4 for name, shape in shapes.items()}
    arrays = {name: array.astype(np.float32) for name, array in drawn.items()}
    return hold(ir.from_onnx_text(MODEL), arrays)


def noise(rng: np.random.Generator) -> Array:
    return rng.standard_normal((12, 8, 10, 10)).astype(np.float32)


def dead(rng: np.random.Generator) -> Array:
    return np.zeros_like(noise(rng))


def constant(rng: np.random.Generator) -> Array:
    return np.full_like(noise(rng), 3.0)


def tiny(rng: np.random.Generator) -> Array:
    return np.multiply(noise(rng), 1e-38, dtype=np.float32)


def huge(rng: np.random.Generator) -> Array:
    return np.multiply(noise(rng), 1e30, dtype=np.float32)


def outlier(rng: np.random.Generator) -> Array:
    array = noise(rng)
    array[0, 0, 0, 0] = np.float32(1e6)
    return array


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("make", "form"),
    [
        (noise, "static"),
        (dead, "weight_only"),
        (constant, "weight_only"),
        (tiny, "weight_only"),
        (huge, None),
        (outlier, None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_odd_calibration_data_gives_a_model_within_the_budget(
    make: Callable[[np.random.Generator], Array], form: str | None
) -> None:
    """What such data say of the first layer is no use on others, which the evaluation shows."""
    result = onnxpress.optimize(
        model(),
        calibration={"x": make(np.random.default_rng(1))},
        evaluation={"x": noise(np.random.default_rng(2))},
        passes=[Quantize()],
        metric="none",
        min_sqnr=10.0,
        clock=BY_WORK,
    )
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert result.within_budget, result.problems
    decided = {d.site: d.candidate.family for stage in result.stages for d in stage.decisions}
    left = {skip.site for stage in result.stages for skip in stage.left}
    assert decided.get("w") == form
    assert {"w", "v", "m"} <= decided.keys() | left


@pytest.mark.parametrize(
    ("value", "said"), [(np.inf, "infinity in sample"), (np.nan, "NaN in sample 3")]
)
def test_calibration_data_that_is_not_finite_is_refused(value: float, said: str) -> None:
    array = noise(np.random.default_rng(1))
    array[3, 0, 0, 0] = value
    with pytest.raises(DataError, match=said):
        onnxpress.optimize(model(), calibration={"x": array})


def test_layer_that_is_never_exercised_is_named() -> None:
    result = onnxpress.optimize(
        model(),
        calibration={"x": dead(np.random.default_rng(1))},
        evaluation={"x": noise(np.random.default_rng(2))},
        passes=[Quantize(form="static")],
        metric="none",
        min_sqnr=0.0,
        clock=BY_WORK,
    )
    reasons = {skip.site: skip.reason for stage in result.stages for skip in stage.left}
    assert "never exercises it" in reasons["w"]


def test_weights_so_small_that_scales_of_products_underflow_give_finite_answers() -> None:
    data = noise(np.random.default_rng(2))
    result = onnxpress.optimize(
        model(scale=1e-30),
        calibration={"x": noise(np.random.default_rng(1))},
        evaluation={"x": data},
        passes=[Quantize()],
        metric="none",
        min_sqnr=10.0,
        clock=BY_WORK,
    )
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    assert result.within_budget, result.problems
    answer = np.asarray(Session(result.model).run({"x": data[:1]})["y"], np.float64)
    assert np.abs(answer).max() < 1e-30


@pytest.mark.parametrize("layout", ["u8s8", "u8u8", "s8s8", "u8s7"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_layout_is_what_was_asked_for(layout: Any, *, per_channel: bool) -> None:
    result = onnxpress.optimize(
        model(),
        calibration={"x": noise(np.random.default_rng(1))},
        evaluation={"x": noise(np.random.default_rng(2))},
        passes=[Quantize(form="static", layout=layout, per_channel=per_channel)],
        metric="none",
        min_sqnr=15.0,
        goal="size",
        clock=BY_WORK,
    )
    assert result.within_budget, result.problems
    types = {"u": ir.DataType.UINT8, "s": ir.DataType.INT8}
    zero_points = {
        node.inputs[2].dtype
        for node in result.model.graph
        if node.op_type == "QuantizeLinear" and node.inputs[2] is not None
    }
    assert zero_points == {types[layout[0]]}
    weights = [
        value.const_value.numpy()
        for value in result.model.graph.initializers.values()
        if value.const_value is not None and len(value.const_value.shape) == 4
    ]
    assert {str(weight.dtype) for weight in weights} == {"uint8" if layout[2] == "u" else "int8"}
    if layout == "u8s7":
        assert max(int(np.abs(weight).max()) for weight in weights) <= 63
    # A signed range about zero does not stand for Relu, which then stays between float tensors.
    expected = 1 if layout == "s8s8" else 2
    assert executed_operators(result.model, integer_only=True).get("QLinearConv", 0) == expected


@pytest.mark.parametrize("layout", ["u16s8", "u16u8"])
def test_sixteen_bit_activations_are_nearer_and_in_onnx_own_operators(layout: Any) -> None:
    given: dict[str, Any] = {
        "calibration": {"x": noise(np.random.default_rng(1))},
        "evaluation": {"x": noise(np.random.default_rng(2))},
        "metric": "none",
        "min_sqnr": 15.0,
        "goal": "size",
        "clock": BY_WORK,
    }
    wide, narrow = (
        onnxpress.optimize(model(), passes=[Quantize(form="static", layout=name)], **given)
        for name in (layout, "u8s8")
    )
    pairs = [node for node in wide.model.graph if node.op_type == "QuantizeLinear"]
    assert pairs
    assert {(node.domain, node.outputs[0].dtype) for node in pairs} == {("", ir.DataType.UINT16)}
    onnx.checker.check_model(ir.to_proto(wide.model), full_check=True)
    assert wide.validation is not None
    assert narrow.validation is not None
    nearer = wide.validation.measurement.worst_sqnr_db - narrow.validation.measurement.worst_sqnr_db
    assert nearer > 3


GATE = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 8, 10, 10] x, float[8, 8, 1, 1] w) => (float[1, 8, 10, 10] y) {
        c = Conv (x, w)  s = Sigmoid (c)  y = Mul (c, s) }"""


def test_sigmoid_has_the_range_of_the_function_and_gates_in_integers() -> None:
    """Whatever the calibration data reached: small inputs keep the gate near one half."""
    array = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    made = hold(ir.from_onnx_text(GATE), {"w": array})
    result = onnxpress.optimize(
        made,
        calibration={"x": np.multiply(noise(np.random.default_rng(1)), 0.1, dtype=np.float32)},
        evaluation={"x": np.multiply(noise(np.random.default_rng(2)), 0.1, dtype=np.float32)},
        passes=[Quantize(form="static")],
        metric="none",
        min_sqnr=10.0,
        goal="size",
        clock=BY_WORK,
    )
    assert result.within_budget, result.problems
    scale = (result.named or result.model).graph.initializers["s_scale"].const_value
    assert scale is not None
    assert float(scale.numpy()) == pytest.approx(1 / 255)
    kernels = executed_operators(result.model)
    assert kernels["QLinearSigmoid"] == 1
    assert kernels["QLinearMul"] == 1


def test_integers_that_are_there_are_left_unless_asked_for() -> None:
    """Unsigned weights replace the signed ones only with `requantize`, and stay near."""
    given: dict[str, Any] = {
        "calibration": {"x": noise(np.random.default_rng(1))},
        "evaluation": {"x": noise(np.random.default_rng(2))},
        "metric": "none",
        "min_sqnr": 10.0,
        "goal": "size",
        "clock": BY_WORK,
    }
    first = onnxpress.optimize(model(), passes=[Quantize(form="static")], **given)
    settings = (Quantize(), Quantize(form="static", layout="u8u8", requantize=True))
    left, anew = (onnxpress.optimize(first.model, passes=[s], **given) for s in settings)

    def kinds(found: ir.Model) -> set[str]:
        stored = (value.const_value for value in found.graph.initializers.values())
        return {str(t.dtype) for t in stored if t is not None and len(t.shape) == 4}

    assert kinds(left.model) == {"INT8"}
    assert "is in integers already" in left.problems[0]
    assert kinds(anew.model) == {"UINT8"}
    assert anew.within_budget, anew.problems
    assert anew.validation is not None
    assert anew.validation.measurement.worst_sqnr_db > 30


JOINED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 8, 10, 10] x, float[8, 8, 1, 1] w, float[8, 8, 1, 1] v) => (float[1, 16, 10, 10] y)
    { a = Conv (x, w)  b = Conv (x, v)  y = Concat <axis = 1> (a, b) }"""


@pytest.mark.parametrize(("spread", "shared"), [(1.5, True), (50.0, False)])
def test_concat_shares_a_scale_where_that_costs_at_most_a_bit(
    spread: float, *, shared: bool
) -> None:
    array = np.random.default_rng(0).standard_normal((8, 8, 1, 1))
    arrays = {"w": array.astype(np.float32), "v": (spread * array).astype(np.float32)}
    made = hold(ir.from_onnx_text(JOINED), arrays)
    result = onnxpress.optimize(
        made,
        calibration={"x": noise(np.random.default_rng(1))},
        evaluation={"x": noise(np.random.default_rng(2))},
        passes=[Quantize(form="static")],
        metric="none",
        min_sqnr=-40.0,  # one scale of the output leaves little of its small channels
        goal="size",
        clock=BY_WORK,
    )
    assert result.within_budget, result.problems
    scales = {
        name: float(value.const_value.numpy())
        for name, value in (result.named or result.model).graph.initializers.items()
        if name in ("a_scale", "b_scale") and value.const_value is not None
    }
    assert (scales["a_scale"] == scales["b_scale"]) is shared
    assert executed_operators(result.model)["QLinearConcat"] == 1


EMPTY = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 8] x, float[8, 16] w, float[16, 4] v, float[0, 16] e, float[8, 0] z)
    => (float[M, 4] y, float[N, 0] q) {
        a = MatMul (x, w)  r = Relu (a)  c = Concat <axis = 0> (r, e)
        y = MatMul (c, v)  q = MatMul (x, z) }"""


def test_weights_and_tensors_without_elements_are_left() -> None:
    made = ir.from_onnx_text(EMPTY)
    rng = np.random.default_rng(0)
    for value in list(made.graph.inputs)[1:]:
        assert value.shape is not None
        made.graph.inputs.remove(value)
        array = rng.standard_normal([int(str(d)) for d in value.shape]).astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        made.graph.register_initializer(value)
    result = onnxpress.optimize(
        made,
        calibration={"x": rng.standard_normal((12, 3, 8)).astype(np.float32)},
        passes=[Quantize()],
        metric="none",
        min_sqnr=10.0,
        goal="size",
        clock=BY_WORK,
    )
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    reasons = {skip.site: skip.reason for stage in result.stages for skip in stage.left}
    assert reasons["z"] == "its weight has no elements [L004]"
    assert any(stage.decisions for stage in result.stages if stage.pass_.name == "quantize")


def test_choice_that_breaks_on_untouched_samples_is_made_again_with_less_of_the_budget() -> None:
    """Static ranges clip what is three times as large, and no sample that chooses is."""
    array = noise(np.random.default_rng(2))
    feeds = [{"x": array[i : i + 1], "index": np.array(i)} for i in range(len(array))]
    _, judging = Samples(tuple(feeds), None, "made").parts((1, 1), seed=0)
    for feed in judging.feeds:
        array[int(feed["index"])] *= 3
    result = onnxpress.optimize(
        model(),
        calibration={"x": noise(np.random.default_rng(1))},
        evaluation={"x": array},
        passes=[Quantize()],
        metric="none",
        min_sqnr=25.0,
        seed=0,
        clock=BY_WORK,
    )
    assert result.validation is not None
    assert result.validation.within_budget, result.validation.problems
    said = " ".join(result.validation.warnings)
    assert "a first choice broke the budget (" in said
    assert "what is written" in said
