"""Factors against what they stand for: onnxruntime's outputs, real networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from clocks import BY_WORK, work_of
from fashion import fashion_data
from generated import initialized

import onnxpress
from onnxpress.contract import Candidate, Context, Decision, Skip
from onnxpress.data import load_samples, random_samples
from onnxpress.errors import UsageError
from onnxpress.judge import Budget, Evaluator
from onnxpress.layers import find_layers
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.simplify import simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Array, Session
from onnxpress.statistics import row_sums
from onnxpress.targets import load_target


def with_weight(text: str) -> ir.Model:
    return initialized(text, seed=3, scale=0.125)


def near(found: Array, exact: Array, within: float) -> None:
    """Equal up to float32 rounding."""
    np.testing.assert_allclose(
        np.asarray(found, np.float64), np.asarray(exact, np.float64), atol=within, rtol=1e-3
    )


FORMS = {
    "strided": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 32, 12, 11] x, float[48, 32, 3, 3] w, float[48] b) => (float[1, 48, 5, 6] y) {
            y = Conv <strides = [2, 2], pads = [0, 1, 0, 1]> (x, w, b) }""",
    "dilated": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 32, 12, 12] x, float[48, 32, 3, 3] w) => (float[1, 48, 8, 12] y) {
            y = Conv <dilations = [2, 2], pads = [0, 2, 0, 2]> (x, w) }""",
    "same": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 32, 12, 12] x, float[48, 32, 3, 3] w) => (float[1, 48, 6, 6] y) {
            y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w) }""",
    "pointwise": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 48, 12, 12] x, float[48, 48, 1, 1] w) => (float[1, 48, 6, 6] y) {
            y = Conv <strides = [2, 2]> (x, w) }""",
    "transposed": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 32, 6, 6] x, float[32, 24, 3, 3] w, float[24] b)
            => (float[1, 24, 12, 12] y) {
            y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]>
                (x, w, b) }""",
    "left": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 32, 7] x, float[48, 32] w) => (float[1, 48, 7] y) { y = MatMul (w, x) }""",
    "embedding": """<ir_version: 8, opset_import: ["" : 17]>
        g (int64[1, 7] i, float[200, 48] w) => (float[1, 7, 48] y) { y = Gather (w, i) }""",
}
FAMILIES = {
    "strided": ["pair", "spatial", "tucker"],
    "dilated": ["pair", "spatial", "tucker"],
    "same": ["pair", "spatial", "tucker"],
}
"""Where a convolution has a kernel to take apart; elsewhere there is only a pair."""


def of_low_rank(name: str, shape: tuple[int, ...]) -> Array:
    """A weight whose factors of rank 4 are exact in every family."""
    rng = np.random.default_rng(5)
    if len(shape) == 2:
        thin = rng.standard_normal((shape[0], 4)) @ rng.standard_normal((4, shape[1]))
        return np.asarray(thin / 8, np.float32)
    outer, inner, height, width = shape
    core = rng.standard_normal((4, 4, 1, width)) * rng.standard_normal((1, 1, height, 1))
    outward, inward = rng.standard_normal((outer, 4)), rng.standard_normal((4, inner))
    thin = np.einsum("os,sihw,ic->ochw", outward, core, inward)
    return np.asarray(thin / 8, np.float32)


@pytest.mark.parametrize(
    ("name", "family"),
    [(name, family) for name in FORMS for family in FAMILIES.get(name, ["pair"])],
)
def test_every_form_is_exact_at_a_rank_that_loses_nothing(name: str, family: str) -> None:
    """A weight of rank 4 is replaced by factors of rank 16: what is written computes the same."""
    model = with_weight(FORMS[name])
    value = model.graph.initializers["w"]
    assert value.shape is not None
    weight = of_low_rank(name, tuple(value.shape.numpy()))
    value.const_value = ir.Tensor(weight, name="w")
    original = Session(model)
    feed = random_samples(original, 1, seed=1).feeds[0]
    if name == "embedding":
        feed = {"i": np.asarray([[0, 3, 199, 7, 7, 12, 100]])}
    pool = Pool((Factorize(rank=16),))
    context = pool.context(model, load_target("cpu"))
    assert [item.site for item in pool.offer(context).proposals] == ["w"]
    parameters = {"rank": 16, "input_rank": 16, "from_statistics": False}
    rewritten = pool.rewrite(context, [Decision("w", Candidate(parameters, family=family))])
    onnx.checker.check_model(ir.to_proto(rewritten), full_check=True)
    (found,) = Session(rewritten).run(feed).values()
    (exact,) = original.run(feed).values()
    near(found, exact, 2e-4)
    assert len(find_layers(rewritten)) == {"pair": 2, "spatial": 2, "tucker": 3}[family]


def test_layers_that_read_one_tensor_share_a_factor() -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 96] x, float[96, 96] q, float[96, 96] k, float[96, 96] v, float[96] b)
            => (float[n, 96] c, float[n, 96] d, float[n, 96] e) {
            a = MatMul (x, q)  c = Add (a, b)  d = MatMul (x, k)  e = MatMul (x, v) }"""
    )
    rng = np.random.default_rng(6)
    common = rng.standard_normal((96, 16))
    for name in "qkv":
        thin = (common @ rng.standard_normal((16, 96)) / 20).astype(np.float32)
        model.graph.initializers[name].const_value = ir.Tensor(thin, name=name)
    session = Session(model)
    samples = random_samples(session, 64, seed=1)
    pool = Pool((Factorize(),))
    context = pool.context(model, load_target("cpu"), samples)
    (proposal,) = pool.offer(context).proposals
    assert proposal.candidates[0].family == "shared"
    assert proposal.candidates[0].members == ("q", "k", "v")
    rewritten = pool.rewrite(context, [Decision("q", proposal.candidates[0])])
    assert sum(node.op_type == "MatMul" for node in rewritten.graph) == 4
    for name, array in Session(rewritten).run(samples.feeds[0]).items():
        near(array, session.run(samples.feeds[0])[name], 1e-4)


def test_layers_without_hope_are_left_with_a_reason() -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 32, 8, 8] x, float[32, 1, 3, 3] d, float[8, 32, 1, 1] s, float[8, 4, 3, 3] p,
           float[64, 8, 3, 3] z)
            => (float[1, 64, 4, 4] y) {
            a = Conv <group = 32, pads = [1, 1, 1, 1]> (x, d)  b = Conv (a, s)
            c = Conv <group = 2, pads = [1, 1, 1, 1]> (b, p)  e = Conv <strides = [2, 2],
            pads = [1, 1, 1, 1]> (c, z)  y = Relu (e) }"""
    )
    zeros = np.zeros((64, 8, 3, 3), np.float32)
    model.graph.initializers["z"].const_value = ir.Tensor(zeros, name="z")
    found = {
        item.site: item for item in Factorize(rank=2).propose(Context(model, load_target("cpu")))
    }
    reasons = {site: item.reason for site, item in found.items() if isinstance(item, Skip)}
    assert "depthwise" in reasons["d"]
    assert "too small" in reasons["s"]
    assert "2 groups" in reasons["p"]
    assert "all zeros" in reasons["z"]


def test_rank_that_saves_nothing_is_refused_with_the_highest_that_does(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    (skip, *_) = Factorize(rank=500).propose(Context(model, load_target("cpu")))
    assert isinstance(skip, Skip)
    assert "at most 309" in skip.reason


def test_rank_of_a_table_is_a_guess_without_data_unless_it_is_named() -> None:
    """Random indices read all rows alike, real ones do not: 16 dB were left where 21 showed."""
    model = with_weight(FORMS["embedding"])
    model.graph.initializers["w"].const_value = ir.Tensor(of_low_rank("w", (200, 48)), name="w")
    session, target = Session(model), load_target("cpu")
    blind, named = Pool((Factorize(),)), Pool((Factorize(energy=0.9),))
    offer = blind.offer(blind.context(model, target))
    assert not offer.proposals
    assert "would be a guess" in offer.left_by("factorize")[0].reason
    assert named.offer(named.context(model, target)).proposals
    seen = blind.context(model, target, random_samples(session, 8, seed=1))
    assert blind.offer(seen).proposals


def test_constant_inputs_are_no_ground_for_a_rank() -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) { y = MatMul (x, w) }"""
    )
    samples = random_samples(Session(model), 8, seed=1)
    for feed in samples.feeds:
        feed["x"].fill(1.0)
    pool = Pool((Factorize(),))
    offer = pool.offer(pool.context(model, load_target("cpu"), samples))
    assert not offer.proposals
    (skip,) = offer.left_by("factorize")
    assert "the same for all calibration data" in skip.reason


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="energy, ratio and rank exclude each other; give one"):
        Factorize(energy=0.9, rank=4)
    with pytest.raises(UsageError, match=r"ratio is 1\.5; expected a number above 0, below 1"):
        Factorize(ratio=1.5)


def test_network_keeps_its_answers_at_a_quarter_of_the_work(models: Path) -> None:
    original = onnxpress.load(models / "fashion_mlp.onnx")
    result = onnxpress.optimize(
        original,
        passes=[Factorize(ratio=0.25)],
        max_drop=100.0,
        goal="size",
        clock=BY_WORK,
        **fashion_data(),
    )
    session = Session(original)
    judge = Evaluator(session, load_samples(fashion_data()["evaluation"], session.inputs), Budget())
    figure = judge.measure(Session(result.model)).worst_metric
    assert figure is not None
    # 2,000 images do not tell half a point from a few images more.
    assert figure.interval[0] <= 0.5
    assert figure.drop < 1.0
    assert 0.2 < work_of(result.model) / work_of(original) <= 0.255


def test_convolutions_of_a_network_keep_its_answers(models: Path) -> None:
    """Three of fashion_cnn's, so that their factors are fitted in seconds."""
    model = onnxpress.load(models / "fashion_cnn.onnx")
    simplify(model)
    session = Session(model)
    data = {name: load_samples(array, session.inputs) for name, array in fashion_data().items()}
    pool = Pool((Factorize(rank=32),))
    context = pool.context(model, load_target("cpu"), data["calibration"].take(range(96)))
    wide = [layer for layer in context.layers if layer.shape[1:] == (64, 3, 3)][:3]
    assert len(wide) == 3
    proposals = pool.offer(replace(context, layers=tuple(wide))).proposals
    assert [item.site for item in proposals] == [layer.name for layer in wide]
    decisions = [Decision(item.site, item.candidates[0]) for item in proposals]
    rewritten = pool.rewrite(context, decisions)
    saved = sum(decision.candidate.saved_multiply_adds for decision in decisions)
    assert work_of(model) - work_of(rewritten) == pytest.approx(saved, rel=0.01)
    judge = Evaluator(session, data["evaluation"].take(range(500)), Budget())
    assert judge.measure(Session(rewritten)).drop <= 1.5


def test_fewer_samples_than_inputs_still_give_a_layer_that_generalizes(models: Path) -> None:
    """Eight images for 784 inputs: the Gram matrix is singular, the answers must not be wild."""
    given = fashion_data(calibration=8, evaluation=200)
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=[Factorize(ratio=0.5)],
        min_sqnr=-20.0,
        metric="none",
        goal="size",
        clock=BY_WORK,
        **given,
    )
    assert result.validation is not None
    assert result.validation.measurement.worst_sqnr_db > 8


def test_rank_of_a_layer_too_wide_to_be_observed_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) { y = MatMul (x, w) }"""
    )
    monkeypatch.setattr(row_sums, "GRAM_LIMIT", 32)
    samples = random_samples(Session(model), 8, seed=1)
    pool, named = Pool((Factorize(),)), Pool((Factorize(rank=8),))
    (skip,) = pool.offer(pool.context(model, load_target("cpu"), samples)).left
    assert "how its 64 inputs go together" in skip[1].reason
    assert named.offer(named.context(model, load_target("cpu"), samples)).proposals
