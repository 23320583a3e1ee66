"""Models that store half weights behind Cast: float layers in between, half again in the file."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from half_twins import size, twins
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import onnxpress
from onnxpress import model_file, registry
from onnxpress.contract import Decision
from onnxpress.conversion import Conversion, convert_form, stored_again, with_float_weights
from onnxpress.data import random_samples
from onnxpress.inspection import inspect_model
from onnxpress.layers import find_layers
from onnxpress.lossless import lossless
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.preview import preview
from onnxpress.request import Request
from onnxpress.runtime import Session
from onnxpress.storage import half_form, round_to_storage
from onnxpress.targets import load_target
from onnxpress.testing.models import SAMPLE_MODELS

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
BODIES = {
    "an initializer": "w = Cast<to=1>(h) y = MatMul(x, w)",
    "a node Constant": "{constant} w = Cast<to=1>(h) y = MatMul(x, w)",
    "a Cast for each reader": "w = Cast<to=1>(h) v = Cast<to=1>(h) a = MatMul(x, w) "
    "y = MatMul(a, v)",
    "one Cast for two readers": "w = Cast<to=1>(h) a = MatMul(x, w) y = MatMul(a, w)",
    "turned before the Cast": "t = Transpose<perm=[1, 0]>(h) w = Cast<to=1>(t) y = MatMul(x, w)",
    "turned behind the Cast": "t = Cast<to=1>(h) w = Transpose<perm=[1, 0]>(t) y = MatMul(x, w)",
    "a chain of Casts": "i = Identity(h) t = Cast<to=1>(i) w = Cast<to=1>(t) y = MatMul(x, w)",
    "Casts in both branches": "s = ReduceSum<keepdims=0>(x) z = Less(s, s) y = If (z) "
    "<then_branch = th () => (float[n, 64] p) { w = Cast<to=1>(h) p = MatMul(x, w) }, "
    "else_branch = el () => (float[n, 64] q) { v = Cast<to=1>(h) q = MatMul(x, v) }>",
    "a function": "y = local.layer(x, h)",
}
FUNCTION = (
    '<domain: "local", opset_import: ["" : 17]> layer (a, b) => (c) '
    "{ f = Cast<to=1>(b) c = MatMul(a, f) }"
)


def numbers(dtype: Any = np.float16, shape: tuple[int, ...] = (64, 64)) -> npt.NDArray[Any]:
    array = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    return array.astype(dtype)


def made(body: str, kind: str = "float16", dtype: Any = np.float16, **others: Any) -> ir.Model:
    """From x [n, 64] to y with the half weight h, and other constants."""
    held = "{constant}" in body
    declared = "" if held else f"<{kind}[64, 64] h>"
    text = (
        f'<ir_version: 9, opset_import: ["" : 17, "local" : 1]> '
        f"g (float[n, 64] x) => (float[n, 64] y) {declared} {{ {body.replace('{constant}', '')} }} "
        + (FUNCTION if "local" in body else "")
    )
    proto = onnx.parser.parse_model(text)
    tensor = ir.to_proto(ir.Tensor(numbers(dtype), name="h"))
    if held:
        proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["h"], value=tensor))
    else:
        proto.graph.initializer.append(tensor)
    for name, array in others.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


def answer(model: ir.Model) -> npt.NDArray[np.float64]:
    feed = {"x": np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)}
    return np.asarray(Session(model).run(feed)["y"], np.float64)


def halves(model: ir.Model) -> int:
    """Numbers in half among the weights."""
    tensors = [v.const_value for g in model.graphs() for v in g.initializers.values()]
    return sum(t.size for t in tensors if t is not None and t.dtype in HALVES)


@pytest.mark.parametrize("case", BODIES)
def test_a_half_weight_is_one_float_layer_and_is_half_again(case: str) -> None:
    model = made(BODIES[case])
    before = model_file.to_bytes(model)
    wide = with_float_weights(model)
    assert model_file.to_bytes(model) == before, "the model is not changed"
    simple = lossless(Simplify(), wide, load_target("cpu"), 0).model
    (layer,) = find_layers(simple)
    turned = case.startswith("turned")
    np.testing.assert_array_equal(layer.read(), numbers() if turned else numbers().T)
    assert layer.dtype == ir.DataType.FLOAT
    assert layer.nbytes == numbers().nbytes, "bytes as the file holds them"
    assert not any(node.op_type == "Cast" for node in simple.graph.all_nodes())
    again = stored_again(simple)
    onnx.checker.check_model(ir.to_proto(again), full_check=True)
    assert halves(again) == numbers().size
    assert size(again) < 1.02 * len(before)
    np.testing.assert_array_equal(answer(again), answer(simple))
    np.testing.assert_allclose(answer(again), answer(model), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_bfloat16_again_where_float16_would_round_it() -> None:
    short = ir.DataType.BFLOAT16.numpy()
    model = made("w = Cast<to=1>(h) y = MatMul(x, w)", "bfloat16", short)
    tensor = model.graph.initializers["h"]
    wide = numbers(np.float32) * np.float32(10.0) ** np.linspace(-20, 5, 64, dtype=np.float32)
    tensor.const_value = ir.Tensor(wide.astype(short), name="h")
    again = stored_again(with_float_weights(model))
    (stored,) = (v.const_value for v in again.graph.initializers.values())
    assert stored is not None
    assert stored.dtype == ir.DataType.BFLOAT16
    np.testing.assert_array_equal(stored.numpy(), wide.astype(short))


@pytest.mark.parametrize(
    "body",
    [
        "w = Cast<to=1>(h) a = MatMul(x, w) d = Cast<to=10>(a) e = MatMul(d, h) y = Cast<to=1>(e)",
        "w = Cast<to=11>(h) d = Cast<to=11>(x) e = MatMul(d, w) y = Cast<to=1>(e)",
    ],
    ids=["read in half too", "to double"],
)
def test_a_half_weight_that_is_not_only_read_as_float_stays_as_it_is(body: str) -> None:
    model = made(body)
    assert with_float_weights(model) is model


def test_weights_that_the_file_holds_in_float32_stay_in_float32() -> None:
    fine = numbers(np.float32) + np.float32(1e-7)
    body = "w = Cast<to=1>(h) a = MatMul(x, w) b = MatMul(a, v) c = Relu(b) y = MatMul(c, u)"
    model = made(body, v=fine, u=fine.T.copy())
    wide = with_float_weights(model)
    assert model_file.weight_bytes(wide) == model_file.weight_bytes(model)
    wide.graph.initializers["v"].name = "v_folded"
    round_to_storage(wide)
    found = stored_again(wide)
    for name, wanted in (("v_folded", fine), ("u", fine.T)):
        kept = found.graph.initializers[name].const_value
        assert kept is not None
        np.testing.assert_array_equal(kept.numpy(), wanted)
    assert halves(found) == numbers().size


@given(
    array=arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(-(2.0**90), 2.0**90, width=32),
    ),
    exponent=st.integers(-30, 30),
    bfloat16=st.booleans(),
)
def test_what_half_holds_is_near_and_is_held_again_without_a_change(
    *, array: npt.NDArray[np.float32], exponent: int, bfloat16: bool
) -> None:
    weight = np.ldexp(array, exponent).astype(np.float32)
    if not np.isfinite(weight).all():
        return
    form = half_form(weight, bfloat16=bfloat16)
    if form is None:
        return
    whole = form.whole()
    # A row keeps 48 dB at least, but for one that is nothing beside the others.
    noise = np.square(whole - weight, dtype=np.float64).sum(axis=1)
    power = np.square(weight, dtype=np.float64).sum(axis=1)
    assert np.all(noise <= np.maximum(10**-4.8 * power, power.mean() * 2.0**-119))
    assert not form.exact or np.array_equal(whole, weight)
    again = half_form(whole, bfloat16=bfloat16)
    assert again is not None
    np.testing.assert_allclose(again.whole(), whole, rtol=2.0**-8, atol=np.abs(whole).max() / 2**24)


LOSSY = [pass_.name for pass_ in registry.default_passes()[0] if pass_.stage.loses]
TWINS = [
    "mlp_opset17",
    "wide_cnn",
    "constant_nodes",
    "if_body",
    "recurrent",
    "tied_embedding",
]


@pytest.mark.parametrize("sample", TWINS)
@pytest.mark.parametrize("name", LOSSY)
def test_a_pass_decides_of_half_weights_as_of_float_ones(name: str, sample: str) -> None:
    decided, sizes, target = [], [], load_target("cpu")
    pass_ = registry.create(name)
    single, half = twins(SAMPLE_MODELS[sample]())
    for model in (single, with_float_weights(half)):
        simple = lossless(Simplify(), model, target, 0).model
        session = Session(simple)
        pool = Pool((pass_,))
        samples = random_samples(session, 8, 0, simple)
        context = pool.context(simple, target, samples)
        offer = pool.offer(context)
        assert not offer.failures
        decided.append(
            {proposal.site: {c.family for c in proposal.candidates} for proposal in offer.proposals}
        )
        decisions = [Decision(p.site, p.candidates[0]) for p in offer.proposals]
        rewritten = pool.rewrite(context, decisions)
        written = stored_again(rewritten)
        # What was rounded as it was written is what is stored: nothing is rounded behind the judge.
        feed = samples.feeds[0]
        tried, kept = Session(rewritten).run(feed), Session(written).run(feed)
        for output, array in tried.items():
            np.testing.assert_array_equal(kept[output], array)
        sizes.append(size(written))
        onnx.checker.check_model(ir.to_proto(written), full_check=True)
    assert set(decided[0]) == set(decided[1])
    assert sizes[1] <= max(sizes[0], 1.02 * size(half) + 1024)


def stored_model(tmp_path: Path, body: str = "w = Cast<to=1>(h) y = MatMul(x, w)") -> Path:
    path = tmp_path / "half.onnx"
    model_file.save(made(body), path)
    return path


def test_half_layers_are_inspected_and_previewed_by_the_names_of_the_graph(tmp_path: Path) -> None:
    path = stored_model(tmp_path)
    found = inspect_model(path)
    assert [(row["name"], row["operator"]) for row in found["largest"]] == [("w", "MatMul")]
    assert found["largest"][0]["bytes"] == numbers().nbytes
    planned = preview(Request(path))
    assert found["predicted_bytes"] < found["bytes"]
    assert planned["size"]["predicted_bytes"] < planned["size"]["original_bytes"]


def test_a_model_that_cannot_be_run_stays_as_small_as_it_was(tmp_path: Path) -> None:
    model = made("w = Cast<to=1>(h) a = MatMul(x, w) y = Relu(a)")
    node = next(node for node in model.graph if node.op_type == "Relu")
    node.domain = "unknown"
    model.graph.opset_imports["unknown"] = 1
    model_file.save(model, tmp_path / "custom.onnx")
    result = onnxpress.optimize(tmp_path / "custom.onnx")
    assert halves(result.model) == numbers().size
    assert size(result.model) < 1.02 * size(model) + 1024


def test_a_model_above_the_memory_budget_keeps_its_halves(tmp_path: Path) -> None:
    path = stored_model(tmp_path)
    result = onnxpress.optimize(path, passes=["simplify"], max_memory="60kB")
    assert halves(result.model) == numbers().size
    assert size(result.model) < 1.02 * path.stat().st_size + 1024
    pressed = onnxpress.optimize(path, passes=["quantize"], max_memory="60kB")
    assert "w" in {d.site for stage in pressed.stages for d in stage.decisions}
    assert size(pressed.model) < path.stat().st_size


def test_pruned_sums_are_stored_in_half_and_the_answer_is_the_one_that_was_judged(
    tmp_path: Path,
) -> None:
    body = "w = Cast<to=1>(h) a = MatMul(x, w) b = Relu(a) v = Cast<to=1>(h2) y = MatMul(b, v)"
    model = made(body, h2=numbers().T.copy())
    model_file.save(model, tmp_path / "half.onnx")
    x = np.random.default_rng(2).standard_normal((64, 64)).astype(np.float32)
    result = onnxpress.optimize(
        tmp_path / "half.onnx",
        passes=[registry.create("prune", {"ratio": 0.5})],
        calibration={"x": x},
        min_sqnr=1,
        goal="size",
    )
    tensors = [v.const_value for v in result.model.graph.initializers.values()]
    assert all(t is not None and min(t.shape.numpy()) < 64 for t in tensors)
    assert size(result.model) < 0.85 * size(model)
    assert {v.dtype for v in result.model.graph.initializers.values()} == {ir.DataType.FLOAT16}


def test_a_mask_for_zeros_is_weighed_against_half_and_its_values_are_half() -> None:
    array = np.where(np.random.default_rng(4).random((256, 256)) < 0.2, 0.5, 0).astype(np.float16)
    text = """<ir_version: 9, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y)
        <float16[256, 256] h> { w = Cast<to=1>(h) y = MatMul(x, w) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "h"))
    given, target, pool = ir.from_proto(proto), load_target("cpu"), Pool((registry.create("pack"),))
    context = pool.context(with_float_weights(given), target)
    (proposal,) = pool.offer(context).proposals
    packed = stored_again(pool.rewrite(context, [Decision(proposal.site, proposal.candidates[0])]))
    saved = size(given) - size(packed)
    assert abs(saved - proposal.candidates[0].saved_bytes) < 1500
    feed = {"x": np.eye(256, dtype=np.float32)}
    np.testing.assert_array_equal(Session(packed).run(feed)["y"], array.astype(np.float32))


@pytest.mark.parametrize(("aim_db", "stays"), [(58.0, False), (200.0, True)])
def test_a_weight_in_which_folding_left_more_than_half_holds_stays_where_that_is_too_much(
    aim_db: float, *, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of a weight that came in half is no number of half precision."""
    monkeypatch.setattr("onnxpress.conversion.half_storage.AIM_DB", aim_db)
    model = with_float_weights(made(BODIES["a Cast for each reader"]))
    exact = made("w = Cast<to=1>(h) y = MatMul(x, w)")
    (weight, *_) = [layer.weight for layer in find_layers(model)]
    assert weight.const_value is not None
    weight.const_value = ir.Tensor(weight.const_value.numpy() / np.float32(3), name=weight.name)
    feeds = random_samples(Session(model), 3, 0).feeds
    stored, notes = convert_form(model, load_target("cpu"), Conversion(), feeds)
    kinds = {v.dtype for v in stored.graph.initializers.values()}
    assert (ir.DataType.FLOAT in kinds) is stays
    assert any("1 of the weights that came in half" in note for note in notes) is stays
    wanted, found = Session(model).run(feeds[0])["y"], Session(stored).run(feeds[0])["y"]
    assert np.array_equal(wanted, found) is stays
    # What half holds is not run to be told.
    known = with_float_weights(exact)
    monkeypatch.setattr("onnxpress.conversion.half_storage.answers", None)
    kept, notes = convert_form(known, load_target("cpu"), Conversion(), feeds)
    assert not notes
    assert {v.dtype for v in kept.graph.initializers.values()} <= set(HALVES)
