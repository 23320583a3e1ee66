"""8-bit floats around products: the numbers of ONNX's types, scales of least error, valid files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Skip
from onnxpress.conversion.opset import raise_opset
from onnxpress.conversion.rewrites import drop_performed_activations
from onnxpress.data import Samples, random_samples
from onnxpress.enforcement import offered
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.float8 import FLOAT8, choose_scale, float8_weight, levels_of
from onnxpress.pool import Pool
from onnxpress.recipe import Recipe
from onnxpress.runtime import Session
from onnxpress.statistics import TensorStatistics
from onnxpress.targets import load_target

FAMILIES = tuple(FLOAT8)
TYPES = {"float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}
LARGEST = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
"""arXiv 2209.05433, table 1."""
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 8, 6, 6] x) => (float[n, 16] y, float[n, 16] z)
<float[16, 4, 3, 3] conv, float[16] conv_bias, float[16, 64] gemm, float[16] gemm_bias,
 float[64, 16] product> {
   c = Conv <group: int = 2> (x, conv, conv_bias)
   r = Relu (c)
   p = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2]> (r)
   f = Flatten (p)
   y = Gemm <transB: int = 1> (f, gemm, gemm_bias)
   z = MatMul (f, product)
}
"""


def made(rng: np.random.Generator) -> ir.Model:
    """A grouped Conv, a Gemm with its weight turned, and a MatMul that reads the same tensor."""
    model = onnx.parser.parse_model(TEXT)
    shapes: dict[str, tuple[int, ...]] = {
        "conv": (16, 4, 3, 3),
        "conv_bias": (16,),
        "gemm": (16, 64),
        "gemm_bias": (16,),
        "product": (64, 16),
    }
    for name, shape in shapes.items():
        array = (rng.standard_t(4, shape) * rng.lognormal(0, 1, shape[-1:])).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array * 0.2, name))
    return ir.from_proto(model)


def pressed(
    model: ir.Model, family: str, target: str = "cuda", **settings: Any
) -> tuple[ir.Model, Pool, Context, Samples]:
    """Every layer in the form, not refined."""
    pool = Pool((Quantize(form=family, **settings),))  # type: ignore[arg-type] # one of its forms
    raised, refused = raise_opset(model, 21)
    assert not refused
    samples = random_samples(Session(raised), 16, seed=0)
    context = pool.context(raised, load_target(target), samples)
    offer = pool.offer(context)
    decisions = [Decision(p.site, c) for p in offer.proposals for c in p.candidates]
    assert {decision.candidate.family for decision in decisions} == {family}
    return pool.rewrite(context, decisions), pool, context, samples


def arrays_of(proto: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Initializers in their own types."""
    return {t.name: ir.from_proto(t).numpy() for t in proto.graph.initializer}


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_are_the_finite_numbers_of_the_type(family: str) -> None:
    every = np.arange(256, dtype=np.uint8).view(TYPES[family]).astype(np.float64)
    assert set(levels_of(family)) == set(every[np.isfinite(every)])
    assert levels_of(family)[-1] == LARGEST[family]


@given(st.sampled_from(FAMILIES), st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e20]))
def test_a_scale_errs_no_more_than_that_of_the_largest_number(
    family: str, seed: int, size: float
) -> None:
    values = (np.random.default_rng(seed).standard_t(3, 2000) * size).astype(np.float32)
    seen = TensorStatistics()
    seen.update(float(values.min()), float(values.max()), values)
    found = choose_scale(seen, family)
    assert found is not None
    limit = LARGEST[family]

    def error(scale: float) -> float:
        step = np.float32(scale)
        kept = np.clip(values / step, -limit, limit).astype(TYPES[family]).astype(np.float32)
        return float(np.square(kept * step - values, dtype=np.float64).mean())

    # A histogram stands for what lies in a bin by its middle: a hundredth beside it.
    assert error(found.scale) <= 1.05 * error(float(np.abs(values).max() / limit)) + 1e-30
    assert found.zero_point == 0


@pytest.mark.parametrize("seen", [TensorStatistics(), TensorStatistics(0.0, 0.0)])
def test_tensors_without_numbers_have_a_usable_scale_or_none(seen: TensorStatistics) -> None:
    found = choose_scale(seen, "float8_e4m3fn")
    assert found is None or found.scale > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_files_are_valid_and_three_ways_of_running_them_agree(
    family: str, *, per_channel: bool
) -> None:
    model = made(np.random.default_rng(1))
    found, _, context, samples = pressed(model, family, per_channel=per_channel)
    if not context.target.per_channel:
        # The CUDA provider's table has no integer layouts, and so no scales per channel.
        per_channel = False
    proto = ir.to_proto(found)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version >= 10
    arrays = arrays_of(proto)
    for name in ("conv", "gemm", "product"):
        assert arrays[f"{name}_float8"].dtype == TYPES[family]
        assert name not in arrays
    session, reference = Session(found), ReferenceEvaluator(proto)
    for feed in samples.feeds:
        wanted = reference.run(None, dict(feed))
        ours = session.run(feed)
        for name, array in zip(("y", "z"), wanted, strict=True):
            size = float(np.abs(array).max())
            assert np.abs(ours[name] - array).max() <= 1e-5 * size
    # By hand, of ml_dtypes' numbers.
    limit = LARGEST[family]
    scale = arrays["f_float8_scale"]
    hidden = ir.to_proto(found)
    hidden.graph.output.append(onnx.helper.make_tensor_value_info("f", 1, None))
    run = dict(zip(("y", "z", "f"), ReferenceEvaluator(hidden).run(None, dict(feed)), strict=True))
    read = np.clip(run["f"] / scale, -limit, limit).astype(TYPES[family]).astype(np.float32) * scale
    weight = arrays["product_float8"].astype(np.float32) * arrays["product_float8_scale"]
    offset = run["z"] - read @ weight
    # MatMul has no bias: it is the product alone.
    assert np.abs(offset).max() <= 1e-5 * float(np.abs(run["z"]).max())


def test_tensorrt_has_a_scale_for_each_output() -> None:
    found, *_ = pressed(made(np.random.default_rng(2)), "float8_e4m3fn", "tensorrt")
    arrays = arrays_of(ir.to_proto(found))
    assert arrays["conv_float8_scale"].shape == (16,)
    assert arrays["gemm_float8_scale"].shape == (16,)
    assert arrays["product_float8_scale"].shape == (16,)
    axes = {
        str(node.inputs[0] and node.inputs[0].name): node.attributes["axis"].as_int()
        for node in found.graph
        if node.op_type == "DequantizeLinear" and "axis" in node.attributes
    }
    assert axes == {"conv_float8": 0, "gemm_float8": 0, "product_float8": 1}


def test_two_products_of_one_tensor_read_one_pair() -> None:
    found, *_ = pressed(made(np.random.default_rng(3)), "float8_e4m3fn", "tensorrt")
    assert sum(node.op_type == "QuantizeLinear" for node in found.graph) == 2


def test_columns_that_make_up_for_each_other_err_less_than_the_nearest() -> None:
    rng = np.random.default_rng(4)
    _, _, context, _ = pressed(made(rng), "float8_e4m3fn", "tensorrt")
    for layer in context.layers:
        near = float8_weight(replace(context, draft=True), layer, "float8_e4m3fn").error
        fitted = float8_weight(context, layer, "float8_e4m3fn").error
        assert fitted <= near * (1 + 1e-6)
        # A mantissa of 3 bits: a step of an eighth, uniform within it.
        assert 10 * np.log10(1 / near) > 28


def test_what_is_predicted_is_what_is_lost() -> None:
    rng = np.random.default_rng(5)
    model = made(rng)
    found, _, context, samples = pressed(model, "float8_e4m3fn", "tensorrt")
    before, after = Session(context.model), Session(found)
    noise = power = 0.0
    for feed in samples.feeds:
        wanted = np.asarray(before.run(feed)["y"], np.float64)
        lost = np.asarray(after.run(feed)["y"], np.float64) - wanted
        noise += float(np.square(lost).sum())
        power += float(np.square(wanted - wanted.mean()).sum())
    assert 15 < 10 * np.log10(power / noise) < 45


def test_numbers_beyond_the_calibrated_ones_saturate() -> None:
    model = made(np.random.default_rng(6))
    found, _, _, samples = pressed(model, "float8_e5m2")
    feed = {"x": np.asarray(samples.feeds[0]["x"], np.float32) * np.float32(1e6)}
    assert all(np.isfinite(array).all() for array in Session(found).run(feed).values())


@pytest.mark.parametrize("numbers", [0.0, 1e-42])
def test_outputs_of_zeros_and_denormals_become_zeros(numbers: float) -> None:
    model = made(np.random.default_rng(7))
    weight = model.graph.initializers["product"]
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[:, 3] = numbers
    weight.const_value = ir.tensor(array, name="product")
    found, _, _, samples = pressed(model, "float8_e4m3fn", "tensorrt")
    result = Session(found).run(samples.feeds[0])["z"]
    assert np.isfinite(result).all()
    assert np.abs(result[:, 3]).max() < 1e-30


def test_without_samples_nothing_is_offered_and_why_is_said() -> None:
    raised, _ = raise_opset(made(np.random.default_rng(8)), 21)
    offer = offered(Quantize(form="float8_e4m3fn"), Context(raised, load_target("tensorrt")))
    assert not offer.proposals
    why = "without calibration data the ranges of its activations are unknown [Q003]"
    assert Skip("gemm", why) in offer.left


@pytest.mark.parametrize(
    ("family", "target", "words"),
    [
        ("float8_e5m2", "tensorrt", "lists float8e4m3fn, int8; expected float8_e4m3fn there"),
        ("float8_e4m3fn", "cpu", "lists none by name; expected auto, static"),
        ("float8_e4m3fn", "qnn", "uint16, uint8; expected auto"),
    ],
)
def test_a_target_without_the_type_refuses_it_with_what_it_has(
    family: str, target: str, words: str
) -> None:
    context = Context(made(np.random.default_rng(9)), load_target(target))
    with pytest.raises(UsageError, match=r"\[U008\]") as raised:
        offered(Quantize(form=family), context)  # type: ignore[arg-type] # one of its forms
    assert words in str(raised.value)


def test_bits_of_integers_say_nothing_of_floats() -> None:
    assert Quantize(form="float8_e5m2").aimed_at("size").weight_bits == ()
    with pytest.raises(UsageError, match="are of integers"):
        Quantize(form="float8_e4m3fn", weight_bits=(4,))


def test_one_layer_in_floats_beside_integers_and_the_recipe_repeats_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model_file.save(made(np.random.default_rng(10)), path)
    samples = random_samples(Session(path), 24, seed=1)
    np.savez(tmp_path / "data.npz", x=np.concatenate([feed["x"] for feed in samples.feeds]))
    result = onnxpress.optimize(
        path,
        passes=[Quantize(form="static", layer_forms=("gemm=float8_e4m3fn", "product=float"))],
        calibration=str(tmp_path / "data.npz"),
        target="tensorrt",
        goal="size",
        min_sqnr=5,
    )
    stage = next(s for s in result.recipe.stages if s.pass_.name == "quantize")
    families = {item.site: item.candidate.family for item in stage.decisions or ()}
    assert families.get("gemm", "float8_e4m3fn") == "float8_e4m3fn"
    assert "product" not in families
    text = result.recipe.to_toml()
    again = onnxpress.optimize(
        path, recipe=Recipe.from_toml(text), calibration=str(tmp_path / "data.npz")
    )
    assert ir.to_proto(again.model) == ir.to_proto(result.model)


def test_a_model_in_floats_already_is_read_and_left() -> None:
    found, *_ = pressed(made(np.random.default_rng(11)), "float8_e4m3fn", "tensorrt")
    offer = offered(Quantize(form="weight_only"), Context(found, load_target("cpu")))
    assert not offer.proposals


@pytest.mark.parametrize("activation", ["Relu (h)", "Clip (h, low, high)"])
def test_activations_before_a_pair_are_computed_with_default_options(activation: str) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[n, 32] x) => (float[n, 32] y)
    <float[32, 32] first, float[32, 32] second, float low = {{0.0}}, float high = {{6.0}}> {{
       h = MatMul (x, first)
       r = {activation}
       y = MatMul (r, second)
    }}
    """
    proto, rng = onnx.parser.parse_model(text), np.random.default_rng(13)
    for name in ("first", "second"):
        array = rng.normal(0, 0.2, (32, 32)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    found, _, _, samples = pressed(ir.from_proto(proto), "float8_e4m3fn", "tensorrt")
    written = ir.to_proto(found)
    for feed in samples.feeds:
        (wanted,) = map(np.asarray, ReferenceEvaluator(written).run(None, dict(feed)))
        ours = np.asarray(Session(found).run(feed)["y"], np.float32)
        assert np.abs(ours - wanted).max() <= 1e-5 * float(np.abs(wanted).max())


def test_a_relu_before_floats_of_others_is_no_fault() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 19]>
    net (float[n, 8] x) => (float[n, 8] y) <float scale = {0.5}> {
       r = Relu (x)
       q = QuantizeLinear (r, scale, zero)
       y = DequantizeLinear (q, scale, zero)
    }
    """
    proto = onnx.parser.parse_model(text)
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    proto.graph.initializer.append(zero)
    assert drop_performed_activations(ir.from_proto(proto)) == 0


def test_a_body_that_reads_a_tensor_outside_stays_valid() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[n, 32] x, bool go) => (float[n, 32] y)
    <float[32, 32] outer> {
       h = MatMul (x, outer)
       y = If (go) <
          then_branch = yes () => (float[n, 32] a) <float[32, 32] inner> { a = MatMul (h, inner) },
          else_branch = no () => (float[n, 32] b) { b = Identity (h) }
       >
    }
    """
    proto, rng = onnx.parser.parse_model(text), np.random.default_rng(12)
    branch = proto.graph.node[1].attribute[0].g
    for graph, name in ((proto.graph, "outer"), (branch, "inner")):
        array = rng.normal(0, 0.2, (32, 32)).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    pool = Pool((Quantize(form="float8_e4m3fn"),))
    feeds = [{"x": rng.normal(0, 1, (4, 32)).astype(np.float32), "go": np.array(v)} for v in (1, 0)]
    samples = Samples(tuple({**f, "go": f["go"].astype(bool)} for f in feeds), None, "made")
    context = pool.context(model, load_target("tensorrt"), samples)
    decisions = [Decision(p.site, c) for p in pool.offer(context).proposals for c in p.candidates]
    assert any(isinstance(d.candidate, Candidate) and d.site == "outer" for d in decisions)
    found = pool.rewrite(context, decisions)
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    for feed in samples.feeds:
        wanted = np.asarray(Session(context.model).run(feed)["y"], np.float64)
        lost = np.asarray(Session(found).run(feed)["y"], np.float64) - wanted
        assert np.square(lost).sum() < 0.01 * np.square(wanted).sum()
