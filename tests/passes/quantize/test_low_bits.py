"""Weights in 2 to 7 bits: packed as told, unpacked by operators, as near as codes allow."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from low_bit_models import (
    KINDS,
    WRONG_IN_THE_REFERENCE,
    codes_of,
    evaluated,
    initializers,
    model_with,
    stored,
)
from weights_anywhere import checked, model_of

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, RecipeError, Skip
from onnxpress.data import random_samples
from onnxpress.enforcement import offered, rewritten
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.packing import packed, planes, unpacked
from onnxpress.passes.simplify import simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target
from onnxpress.untreated import untreated_weights

FORMS = st.builds(
    lambda bits, block_size, symmetric: (bits, block_size, symmetric),
    st.integers(2, 7),
    st.sampled_from([0, 8, 16, 32]),
    st.booleans(),
)


def decoded(
    model: ir.Model, shape: tuple[int, ...], bits: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The weight that codes stand for; of each element its step and the code of 0."""
    arrays = initializers(model)
    scale = arrays["w_scale"].astype(np.float64)
    steps = scale * arrays.get("w_steps", np.ones(1))
    zeros = np.full(steps.shape, 2 ** (bits - 1))
    if any(name.startswith("w_zero_points") for name in arrays):
        zeros = codes_of(arrays, "w_zero_points", bits)[: steps.size].reshape(steps.shape)
    first, count, _, *outputs = steps.shape
    codes = codes_of(arrays, f"w_{bits}_bits", bits).reshape(first, count, -1, *outputs)
    columns = math.prod(shape) // (first * math.prod(outputs))

    def placed(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        whole = np.broadcast_to(array, codes.shape).reshape(first, -1, *outputs)
        return np.asarray(whole[:, :columns].reshape(shape), np.float64)

    return placed((codes - zeros) * steps), placed(steps), placed(zeros)


@given(bits=st.integers(2, 7), codes=st.lists(st.integers(0, 127), max_size=70))
def test_what_is_packed_is_unpacked(bits: int, codes: list[int]) -> None:
    wanted = np.asarray(codes, np.uint8) & (2**bits - 1)
    own = packed(wanted, bits)
    assert sum(map(len, own)) <= -(-len(codes) * bits // 8) + len(list(planes(bits)))
    np.testing.assert_array_equal(unpacked(own, bits, len(codes)), wanted)


def test_four_bits_are_packed_as_onnx_packs_them() -> None:
    codes = np.arange(16, dtype=np.uint8)
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.UINT4, [16], codes.tolist())
    assert packed(codes, 4)[0].tolist() == [int(byte) for byte in tensor.int32_data]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(form=FORMS)
def test_answers_are_those_of_the_numbers_that_the_codes_stand_for(
    kind: str, form: tuple[int, int, bool]
) -> None:
    bits, block_size, symmetric = form
    model = model_with(kind)
    before = initializers(model)["w"]
    smaller = stored(model, bits, block_size, symmetric=symmetric)
    found, steps, zeros = decoded(smaller, before.shape, bits)
    # No other code of the block is nearer.
    levels = np.arange(2**bits).reshape(-1, *[1] * before.ndim)
    least = np.abs((levels - zeros) * steps - before).min(axis=0)
    assert (np.abs(found - before) <= least + 1e-5 * np.abs(before).max()).all()
    plain = model.clone()
    plain.graph.initializers["w"].const_value = ir.Tensor(found.astype(np.float32), name="w")
    (feed,) = random_samples(Session(model), 1, 0, model).feeds
    wanted = np.asarray(Session(plain).run(feed)["y"], np.float32)
    answers = [np.asarray(Session(smaller).run(feed)["y"], np.float32)]
    if kind not in WRONG_IN_THE_REFERENCE:
        answers += [evaluated(plain, feed), evaluated(smaller, feed)]
    for answer in answers:
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_operator_itself_is_left_once_onnxruntime_has_opened_the_model(
    kind: str, tmp_path: Path
) -> None:
    model = stored(model_with(kind), 4, 16, symmetric=False)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    ort.InferenceSession(checked(model), options, providers=["CPUExecutionProvider"])
    opened = onnx.load(tmp_path / "opened.onnx")
    plain = model_with(kind)
    kinds = {node.op_type for node in opened.graph.node}
    assert not kinds & {"Cast", "Mul", "Gather", "Slice"} - {node.op_type for node in plain.graph}
    # An Einsum may be written in others.
    assert len(opened.graph.node) <= len(list(plain.graph)) + 2


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_type_of_weight_and_opset_is_served(opset: int, dtype: type[np.floating]) -> None:
    w = np.random.default_rng(1).standard_normal((50, 16)).astype(dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, ["b", 50])],
        [onnx.helper.make_tensor_value_info("y", kind, ["b", 16])],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
    )
    model = stored(ir.from_proto(proto), 4, 32, symmetric=False)
    found, _, _ = decoded(model, w.shape, 4)
    checked(model)
    answer = np.asarray(Session(model).run({"x": np.eye(50, dtype=dtype)})["y"], dtype)
    np.testing.assert_allclose(answer, found, rtol=2e-3 if dtype == np.float16 else 1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-42, 1e-30, 3e38])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block_size", [0, 16])
def test_extreme_weights_stay_finite(value: float, block_size: int, *, symmetric: bool) -> None:
    model = model_with("right")
    w = np.full((37, 24), value, np.float32)
    w[:20, 0] = 0
    w[:, 1::2] *= -1
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    found, _, _ = decoded(stored(model, 4, block_size, symmetric=symmetric), w.shape, 4)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, 0.0 if value < 1e-38 else w, rtol=2e-2)


@pytest.mark.parametrize(("op", "symmetric"), [("MatMul", True), ("Conv", True), ("MatMul", False)])
def test_samples_are_worth_three_decibels_over_rounding_to_nearest(
    op: str, *, symmetric: bool
) -> None:
    rng = np.random.default_rng(3)
    body = "y = Conv (x, w)" if op == "Conv" else "y = MatMul (x, w)"
    inputs = "float[b, 64, 5, 5] x" if op == "Conv" else "float[b, 64] x"
    model = model_of(inputs, "float y", body, w=(64, 64, 1, 1) if op == "Conv" else (64, 64))
    # Inputs that go together, as activations do.
    mixing = rng.standard_normal((8, 64)) * 3
    rows = rng.standard_normal((512, 8)) @ mixing + rng.standard_normal((512, 64)) * 0.3
    x = rows.astype(np.float32)
    if op == "Conv":
        x = np.ascontiguousarray(np.broadcast_to(x[:, :, None, None], (512, 64, 5, 5)))
    samples = random_samples(Session(model), 1, 0, model)
    samples = replace(samples, feeds=tuple({"x": x[at : at + 1]} for at in range(512)))
    pass_ = Quantize(form="weight_only", weight_bits=(4,), symmetric=symmetric)
    pool = Pool((pass_,))
    wanted = np.asarray(Session(model).run({"x": x[256:]})["y"], np.float64)
    decibels = []
    for seen in (samples.take(range(256)), None):
        context = pool.context(model, load_target("cpu"), seen)
        candidate = Candidate({"symmetric": symmetric}, family="weight_only_4_bit")
        session = Session(pool.rewrite(context, [Decision("w", candidate)]))
        error = np.asarray(session.run({"x": x[256:]})["y"], np.float64) - wanted
        decibels.append(10 * np.log10(np.square(wanted).sum() / np.square(error).sum()))
    assert decibels[0] >= decibels[1] + 3


def proposals_of(pass_: Pass, model: ir.Model, **context: bool) -> list[Proposal | Skip]:
    given_context = replace(Context(model, load_target("cpu")), **context)  # type: ignore[arg-type]
    offer = offered(pass_, given_context)
    return [*offer.proposals, *offer.left]


def large() -> ir.Model:
    return model_of("float[b, 256] x", "float y", "y = MatMul (x, w)", w=(256, 128))


def test_fewer_bits_come_first_and_eight_stay_where_they_are_named() -> None:
    (both,) = proposals_of(Quantize(form="weight_only", weight_bits=(8, 2, 4)), large())
    assert isinstance(both, Proposal)
    families = [candidate.family for candidate in both.candidates]
    assert families == ["weight_only_2_bit", "weight_only_4_bit", "weight_only"]
    errors = [candidate.predicted_error for candidate in both.candidates]
    savings = [candidate.saved_bytes for candidate in both.candidates]
    assert errors == sorted(errors, reverse=True)
    assert savings == sorted(savings, reverse=True)
    (alone,) = proposals_of(Quantize(form="weight_only", weight_bits=(4,)), large())
    assert isinstance(alone, Proposal)
    assert [candidate.family for candidate in alone.candidates] == ["weight_only_4_bit"]


def test_what_is_promised_to_be_saved_is_saved() -> None:
    model = large()
    (found,) = proposals_of(Quantize(form="weight_only", weight_bits=(4,)), model)
    assert isinstance(found, Proposal)
    candidate = found.candidates[0]
    smaller = rewritten(Quantize(), Context(model, load_target("cpu")), [Decision("w", candidate)])
    saved = len(model_file.to_bytes(model)) - len(model_file.to_bytes(smaller))
    assert candidate.saved_bytes <= saved <= candidate.saved_bytes + 500


def test_small_weights_stay_in_eight_bits() -> None:
    model = model_of("float[b, 32] x", "float y", "y = MatMul (x, w)", w=(32, 32))
    (found,) = proposals_of(Quantize(form="weight_only", weight_bits=(4,)), model)
    assert isinstance(found, Proposal)
    assert [candidate.family for candidate in found.candidates] == ["weight_only"]


def test_four_bits_are_mixed_in_where_size_counts_and_nothing_was_said() -> None:
    assert Quantize().aimed_at("size").weight_bits == (4, 8)
    assert Quantize().aimed_at("balanced") == Quantize()
    assert Quantize(weight_bits=(8,)).aimed_at("size").weight_bits == (8,)
    assert Quantize(form="static").aimed_at("size").weight_bits == (4, 8)


def test_what_will_not_be_tried_is_not_taken_below_eight_bits_unless_that_was_named() -> None:
    mixed = Quantize(form="weight_only").aimed_at("size")
    (found,) = proposals_of(mixed, large(), untried=True)
    assert isinstance(found, Proposal)
    assert [candidate.family for candidate in found.candidates] == ["weight_only"]
    (named,) = proposals_of(Quantize(form="weight_only", weight_bits=(4,)), large(), untried=True)
    assert isinstance(named, Proposal)
    assert [candidate.family for candidate in named.candidates] == ["weight_only_4_bit"]


@pytest.mark.parametrize(
    ("settings_given", "words"),
    [
        ({"weight_bits": (1,)}, "weight_bits is .*at least 2, at most 8"),
        ({"weight_bits": (4, 16)}, "weight_bits is .*at least 2, at most 8"),
        ({"block_size": 3}, "block_size is 3; expected 0 or at least 8"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Quantize(**settings_given)


def test_decision_of_a_recipe_that_means_nothing_is_refused() -> None:
    candidate = Candidate({"block_size": -1}, family="weight_only_4_bit")
    context = Context(large(), load_target("cpu"))
    with pytest.raises(RecipeError, match="block_size = -1"):
        rewritten(Quantize(), context, [Decision("w", candidate)])


def test_weights_that_hold_no_numbers_or_none_that_can_be_rounded_are_left_with_a_reason() -> None:
    pass_ = Quantize(form="weight_only", weight_bits=(4,))
    for array, words in (
        (np.zeros((0, 16), np.float32), "no elements"),
        (np.full((256, 128), np.nan, np.float32), "NaN"),
    ):
        model = large()
        model.graph.initializers["w"].const_value = ir.Tensor(array, name="w")
        (found,) = proposals_of(pass_, model)
        assert isinstance(found, Skip)
        assert words in found.reason
    indices = model_of("float[256, 128] x", "float y", "y = Mod <fmod = 1> (x, w)", w=(256, 128))
    (jumping,) = proposals_of(pass_, indices)
    assert isinstance(jumping, Skip)
    assert "jump" in jumping.reason


def test_simplify_leaves_what_is_packed_and_a_second_run_finds_nothing_more() -> None:
    model = stored(large(), 4, 32, symmetric=False)
    size = len(model_file.to_bytes(model))
    simplify(model)
    # Shapes that it works out are kept in the file.
    assert len(model_file.to_bytes(model)) <= size + 500
    again = proposals_of(Quantize(form="weight_only", weight_bits=(4,)), model)
    assert all(isinstance(item, Skip) for item in again)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("kind", ["conv", "table"])
def test_inspect_says_in_how_many_bits_a_weight_lies(
    kind: str, bits: int, *, symmetric: bool
) -> None:
    reader = "Conv" if kind == "conv" else "Gather"
    model = stored(model_with(kind), bits, 16, symmetric=symmetric)
    assert untreated_weights(model) == {f"in integers of {bits} bits already": {reader: 1}}


@pytest.mark.parametrize("block_size", [0, 32])
def test_optimize_by_size_mixes_bits_within_the_budget(
    models: Path, tmp_path: Path, block_size: int
) -> None:
    evaluation = np.load(models / "fashion_evaluation.npz")
    arrays = {name: evaluation[name][:200] for name in evaluation.files}
    sizes, families = [], set()
    for bits in ((8,), (4, 8)):
        result = onnxpress.optimize(
            models / "fashion_mlp.onnx",
            passes=[Quantize(form="weight_only", weight_bits=bits, block_size=block_size)],
            goal="size",
            min_sqnr=30.0,
            evaluation=arrays,
        )
        assert result.within_budget
        result.save(tmp_path / "out.onnx")
        sizes.append((tmp_path / "out.onnx").stat().st_size)
        (stage,) = [stage for stage in result.stages if stage.pass_.name == "quantize"]
        families |= {decision.candidate.family for decision in stage.decisions}
    assert sizes[1] < sizes[0]
    assert families == {"weight_only", "weight_only_4_bit"}
    again = onnxpress.optimize(
        models / "fashion_mlp.onnx", recipe=tmp_path / "out.recipe.toml", evaluation=arrays
    )
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_rows_that_samples_look_up_are_stored_in_eight_bits(tmp_path: Path) -> None:
    model = model_of("int64[b] x", "float y", "y = Gather (w, x)", w=(320, 64))
    samples = random_samples(Session(model), 1, 0, model)
    indices = [3, 3, -1, 3, 7, 7]
    samples = replace(samples, feeds=tuple({"x": np.asarray([index])} for index in indices))
    pool = Pool((Quantize(form="weight_only", weight_bits=(4,)),))
    context = pool.context(model, load_target("cpu"), samples)
    assert context.statistics is not None
    counts = context.statistics.lookups["w"]
    assert counts[[3, 7, 319]].tolist() == [3, 2, 1]
    assert counts.sum() == 6
    kept = tmp_path / "statistics.npz"
    context.statistics.save(kept)
    np.testing.assert_array_equal(type(context.statistics).load(kept).lookups["w"], counts)
    twice = context.statistics.merged(context.statistics)
    np.testing.assert_array_equal(twice.lookups["w"], 2 * counts)
    (proposal,) = pool.offer(context).proposals
    smaller = pool.rewrite(context, [Decision("w", proposal.candidates[0])])
    checked(smaller)
    before = initializers(model)["w"]
    found = np.asarray(Session(smaller).run({"x": np.arange(320)})["y"], np.float64)
    errors = np.square(found - before).sum(axis=1) / np.square(before).sum(axis=1)
    often = [3, 7, 319]
    assert errors[often].max() < 1e-4
    assert np.median(errors) > 1e-3
    assert proposal.candidates[0].predicted_error == pytest.approx(
        np.square(found - before).sum() / np.square(before).sum(), rel=0.1
    )
    saved = len(model_file.to_bytes(model)) - len(model_file.to_bytes(smaller))
    assert proposal.candidates[0].saved_bytes <= saved + 600


def test_without_bits_below_eight_nothing_more_is_observed() -> None:
    model = model_of("int64[b] x", "float y", "y = Gather (w, x)", w=(320, 64))
    context = Context(model, load_target("cpu"))
    assert "w" not in Quantize().observes(context).layers
    assert "w" in Quantize(weight_bits=(4,)).observes(context).layers
