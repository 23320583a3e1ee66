"""Weights in blocks that operators read at every run: DequantizeLinear, MatMulNBits, Gather."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from low_bit_models import evaluated, initializers, model_with
from onnxruntime.capi import _pybind_state as ort_c
from weights_anywhere import checked, model_of

import onnxpress
from onnxpress import model_file
from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Layer,
    Proposal,
    RecipeError,
    StoredWeight,
)
from onnxpress.data import random_samples
from onnxpress.enforcement import offered, rewritten
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.block_operators import operator_for
from onnxpress.passes.quantize.low_bit_weights import low_bit_weight
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session
from onnxpress.targets import load_target

CONTRIB = ("right", "gemm", "turned", "table")
ALONG_AN_AXIS = ("right", "batch", "left", "gemm", "turned", "table", "einsum", "shared", "lstm")


def raised(model: ir.Model) -> ir.Model:
    model.graph.opset_imports[""] = 21
    return model


def context_of(model: ir.Model, target: str = "cpu") -> Context:
    return Context(model, load_target(target))


def written(model: ir.Model, bits: int, layout: str, **parameters: Any) -> ir.Model:
    candidate = Candidate(parameters, family=f"weight_only_{bits}_bit_{layout}")
    return rewritten(Quantize(), context_of(model), [Decision("w", candidate)])


def weight_of(model: ir.Model, form: LowBitForm) -> npt.NDArray[np.float32]:
    """What the codes stand for, in the shape of the weight."""
    context = context_of(model)
    sites: list[Layer | StoredWeight] = [*context.layers, *context.stored]
    site = next(item for item in sites if item.name == "w")
    low = low_bit_weight(context, site, form).weight
    stored = low.blocks.stored(low.dequantize()[:, :, None])
    return np.asarray(stored.reshape(site.shape), np.float32)


@pytest.mark.parametrize("kind", ALONG_AN_AXIS)
@settings(max_examples=10, deadline=None)
@given(bits=st.sampled_from([4, 8]), block=st.sampled_from([16, 32]), symmetric=st.booleans())
def test_dequantize_linear_in_blocks_gives_what_the_codes_stand_for(
    kind: str, bits: int, block: int, *, symmetric: bool
) -> None:
    model = raised(model_with(kind))
    smaller = written(model, bits, "blocked", block_size=block, symmetric=symmetric)
    (node,) = [node for node in smaller.graph if node.op_type == "DequantizeLinear"]
    assert node.attributes["block_size"].as_int() == block
    plain = model.clone()
    found = weight_of(model, LowBitForm(bits, block, symmetric, layout="blocked"))
    plain.graph.initializers["w"].const_value = ir.Tensor(found, name="w")
    (feed,) = random_samples(Session(model), 1, 0, model).feeds
    wanted = np.asarray(Session(plain).run(feed)["y"], np.float32)
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(evaluated(smaller, feed), wanted, rtol=1e-4, atol=1e-5 * largest)
    # By default onnxruntime makes MatMulNBits of it, which rounds what it reads to 8 bits.
    answer = np.asarray(Session(smaller).run(feed)["y"], np.float32)
    np.testing.assert_allclose(answer, wanted, atol=2e-2 * largest)


@pytest.mark.parametrize("kind", CONTRIB)
@settings(max_examples=10, deadline=None)
@given(
    bits=st.sampled_from([2, 4, 8]), block=st.sampled_from([16, 32, 64]), symmetric=st.booleans()
)
def test_contrib_operators_give_what_the_codes_stand_for(
    kind: str, bits: int, block: int, *, symmetric: bool
) -> None:
    model = model_with(kind)
    if kind == "table" and bits == 2:
        with pytest.raises(RecipeError, match="no operator of target cpu reads there"):
            written(model, bits, "nbits", block_size=block, symmetric=symmetric)
        return
    smaller = written(model, bits, "nbits", block_size=block, symmetric=symmetric)
    assert not any(node.op_type in ("MatMul", "Gemm", "Gather") for node in smaller.graph)
    plain = model.clone()
    found = weight_of(model, LowBitForm(bits, block, symmetric, layout="nbits"))
    plain.graph.initializers["w"].const_value = ir.Tensor(found, name="w")
    (feed,) = random_samples(Session(model), 1, 0, model).feeds
    wanted = np.asarray(Session(plain).run(feed)["y"], np.float32)
    largest = np.abs(wanted).max()
    answer = np.asarray(Session(smaller).run(feed)["y"], np.float32)
    np.testing.assert_allclose(answer, wanted, atol=2e-2 * largest)
    for node in smaller.graph:
        if "accuracy_level" in node.attributes:
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    exact = np.asarray(Session(smaller).run(feed)["y"], np.float32)
    np.testing.assert_allclose(exact, wanted, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("inputs", [64, 80])
def test_bytes_are_those_of_the_packer_of_onnxruntime(inputs: int, *, symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    blocks = -(-inputs // 32)
    codes = rng.integers(0, 16, (blocks * 32, 24))
    # Both ends occur in each block, so that there is one step and one zero point to be found.
    codes[::32], codes[1::32] = 0, 15
    zeros = np.full((blocks, 24), 8) if symmetric else rng.integers(1, 15, (blocks, 24))
    scales = 2.0 ** rng.integers(-5, 0, (1, 24))
    w = ((codes - np.repeat(zeros, 32, axis=0)) * scales)[:inputs].astype(np.float32)
    model = model_of(f"float[b, {inputs}] x", "float y", "y = MatMul (x, w)", w=(inputs, 24))
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    arrays = initializers(written(model, 4, "nbits", block_size=32, symmetric=symmetric))
    packed = np.zeros((24, blocks, 16), np.uint8)
    found_scales = np.zeros((24, blocks), np.float32)
    points = np.zeros((24, -(-blocks // 2)), np.uint8)
    padded = np.pad(w, ((0, blocks * 32 - inputs), (0, 0)))
    ort_c.quantize_matmul_4bits(packed, padded, found_scales, points, 32, 24, inputs, symmetric)
    ours = arrays["w_4_bits"]
    assert ours.shape == packed.shape
    np.testing.assert_allclose(arrays["w_scale"], found_scales, rtol=0.02)
    if symmetric:
        assert "w_zero_point" not in arrays
    else:
        whole = inputs // 32
        np.testing.assert_array_equal(
            arrays["w_zero_point"][:, : whole // 2], points[:, : whole // 2]
        )
    full = inputs // 32
    np.testing.assert_array_equal(ours[:, :full], packed[:, :full])


def test_gemm_keeps_what_it_adds_and_its_name() -> None:
    body = "y = Gemm <transB = 1> (x, w, c)"
    model = model_of("float[b, 64] x", "float y", body, w=(48, 64), c=(48,))
    smaller = written(model, 4, "nbits", block_size=32)
    assert [output.name for output in smaller.graph.outputs] == ["y"]
    (feed,) = random_samples(Session(model), 1, 0, model).feeds
    wanted = np.asarray(Session(model).run(feed)["y"], np.float64)
    error = np.asarray(Session(smaller).run(feed)["y"], np.float64) - wanted
    assert np.square(error).sum() < 0.02 * np.square(wanted).sum()


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Gemm <alpha = 2.0> (x, w)", (37, 24)),
        ("m = MatMul (x, w)\n n = MatMul (m, v)\n o = Neg (w)\n y = MatMul (n, o)", (37, 24)),
    ],
)
def test_what_the_contrib_operators_do_not_compute_is_left_to_the_packed_form(
    body: str, shape: tuple[int, ...]
) -> None:
    more = {"v": (24, 37)} if "v" in body else {}
    model = model_of("float[b, 37] x", "float y", body, w=shape, **more)
    context = context_of(model)
    (site,) = [layer for layer in context.layers if layer.name == "w"]
    assert operator_for(context, site, LowBitForm(4, 32, layout="nbits")) is None


def large() -> ir.Model:
    return model_of("float[b, 256] x", "float y", "y = MatMul (x, w)", w=(256, 128))


def proposal_of(pass_: Quantize, context: Context) -> Proposal:
    (found,) = offered(pass_, context).proposals
    return found


def test_bits_that_were_named_are_offered_in_blocks_and_what_is_promised_is_saved() -> None:
    pass_ = Quantize(form="weight_only", weight_bits=(8, 4, 3), stored_as="nbits")
    found = proposal_of(pass_, context_of(large()))
    families = [candidate.family for candidate in found.candidates]
    assert families == ["weight_only_4_bit_nbits", "weight_only_8_bit_nbits"]
    assert not any(candidate.keeps_kernels for candidate in found.candidates)
    for candidate in found.candidates:
        smaller = rewritten(pass_, context_of(large()), [Decision("w", candidate)])
        saved = len(model_file.to_bytes(large())) - len(model_file.to_bytes(smaller))
        assert candidate.saved_bytes <= saved <= candidate.saved_bytes + 400


@pytest.mark.parametrize(
    ("kind", "layout"), [("conv", "nbits"), ("lstm", "nbits"), ("conv", "blocked")]
)
def test_weights_of_other_operators_are_packed(kind: str, layout: Any) -> None:
    model = raised(model_with(kind))
    context = context_of(model)
    form = LowBitForm(4, 32, layout=layout)
    (site,) = [layer for layer in context.layers if layer.name == "w"]
    assert operator_for(context, site, form) is None


def test_why_a_convolution_is_packed_is_said() -> None:
    model = raised(
        model_of("float[b, 32, 9, 9] x", "float y", "y = Conv (x, w)", w=(128, 32, 3, 3))
    )
    found = proposal_of(
        Quantize(form="weight_only", weight_bits=(4,), stored_as="blocked"), context_of(model)
    )
    assert [candidate.family for candidate in found.candidates] == ["weight_only_4_bit"]
    assert found.limit is not None
    assert found.limit.startswith("Conv has no operator that reads its weight as blocked")
    plain = Quantize(form="weight_only", weight_bits=(4,))
    assert proposal_of(plain, context_of(model)).limit is None


def test_blocks_for_operators_need_the_opset_that_has_them() -> None:
    context = context_of(large())
    assert operator_for(context, context.layers[0], LowBitForm(4, 32, layout="blocked")) is None
    context = context_of(raised(large()))
    found = operator_for(context, context.layers[0], LowBitForm(4, 32, layout="blocked"))
    assert found == "DequantizeLinear"
    assert Quantize(stored_as="blocked").needed_opset == 21


@pytest.mark.parametrize(
    ("target", "stored_as", "words"),
    [
        ("coreml", "nbits", "target coreml has no operator for weights in blocks; expected packed"),
        ("cuda", "blocked", "target cuda has MatMulNBits; expected packed or nbits"),
        ("openvino", "nbits", "openvino has DequantizeLinear; expected packed or blocked"),
    ],
)
def test_target_without_the_form_is_refused_with_what_it_has(
    target: str, stored_as: Any, words: str
) -> None:
    pass_ = Quantize(weight_bits=(4,), stored_as=stored_as)
    with pytest.raises(UsageError, match=words):
        offered(pass_, context_of(large(), target))


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({"stored_as": "nbits", "block_size": 0}, "a power of two from 16 to 256"),
        ({"stored_as": "nbits", "block_size": 512}, "a power of two from 16 to 256"),
        ({"stored_as": "blocked", "weight_bits": (3,)}, "no weights of 3 bits; expected 4, 8"),
        ({"stored_as": "nbits", "weight_bits": (4,), "levels": ("log",)}, "uniform levels only"),
        ({"stored_as": "nbits", "form": "static"}, "stored_as is for weights that are only stored"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given_settings: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Quantize(**given_settings)


def test_decision_of_a_recipe_with_other_blocks_is_refused() -> None:
    with pytest.raises(RecipeError, match="block_size = 24; expected a power of two"):
        written(large(), 4, "nbits", block_size=24)


@pytest.mark.parametrize("layout", ["blocked", "nbits"])
def test_simplify_leaves_blocks_and_a_second_run_finds_nothing_more(layout: str) -> None:
    model = written(raised(large()), 4, layout, block_size=32)
    size = len(model_file.to_bytes(model))
    simplify(model)
    assert len(model_file.to_bytes(model)) <= size + 500
    checked(model)
    assert not offered(Quantize(weight_bits=(4,)), context_of(model)).proposals


@pytest.mark.parametrize("stored_as", ["blocked", "nbits"])
def test_optimize_stores_in_blocks_within_the_budget_and_repeats_its_recipe(
    stored_as: Any, models: Any, tmp_path: Any
) -> None:
    evaluation = np.load(models / "fashion_evaluation.npz")
    arrays = {name: evaluation[name][:200] for name in evaluation.files}
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=[Quantize(form="weight_only", weight_bits=(4, 8), stored_as=stored_as)],
        goal="size",
        min_sqnr=25.0,
        evaluation=arrays,
    )
    assert result.within_budget
    result.save(tmp_path / "out.onnx")
    (stage,) = [stage for stage in result.stages if stage.pass_.name == "quantize"]
    families = {decision.candidate.family for decision in stage.decisions}
    assert families <= {f"weight_only_{bits}_bit_{stored_as}" for bits in (4, 8)}
    assert families
    again = onnxpress.optimize(
        models / "fashion_mlp.onnx", recipe=tmp_path / "out.recipe.toml", evaluation=arrays
    )
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()
