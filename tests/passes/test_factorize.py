"""Factors against what they stand for: numpy's products, onnxruntime's outputs, real nets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from generated import hold
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxpress
from onnxpress.adapter import observe
from onnxpress.bias import shift_bias, takes_bias
from onnxpress.contract import Candidate, Context, Decision, Proposal, Skip
from onnxpress.data import random_samples
from onnxpress.errors import UsageError
from onnxpress.layers import find_layers
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.factorize.decompose import spatial, tucker
from onnxpress.reconstruction import low_rank, repaired
from onnxpress.runtime import Array, Session
from onnxpress.search import apply
from onnxpress.search.allocation import allocate
from onnxpress.statistics import LayerStatistics
from onnxpress.targets import load_target

Float64 = npt.NDArray[np.float64]


def statistics_of(x: Float64, reference: Float64 | None = None) -> LayerStatistics:
    """Of rows `[rows, in]`, beside the rows of a reference."""
    return LayerStatistics(
        rows=len(x),
        rows_per_sample=1.0,
        mean=x.mean(axis=0)[None],
        minimum=x.min(axis=0)[None],
        maximum=x.max(axis=0)[None],
        second_moment=np.square(x).mean(axis=0)[None],
        gram=(x.T @ x / len(x))[None],
        reference_mean=None if reference is None else reference.mean(axis=0)[None],
        cross=None if reference is None else (reference.T @ x / len(x))[None],
    )


def with_weight(text: str, **shapes: tuple[int, ...]) -> ir.Model:
    """A model from ONNX text with random initializers."""
    rng = np.random.default_rng(3)
    drawn = {name: rng.standard_normal(shape) / 8 for name, shape in shapes.items()}
    arrays = {name: array.astype(np.float32) for name, array in drawn.items()}
    return hold(ir.from_onnx_text(text), arrays)


def near(found: Array, exact: Array, within: float) -> None:
    """Equal up to float32 rounding."""
    np.testing.assert_allclose(
        np.asarray(found, np.float64), np.asarray(exact, np.float64), atol=within, rtol=1e-3
    )


def product_of(kernels: tuple[Float64, ...]) -> Float64:
    """What two or three convolutions in a row amount to, by their definition."""
    first, *rest = kernels
    whole = first
    for kernel in rest:
        outputs, _, height, width = kernel.shape
        _, inputs, h, w = whole.shape
        made = np.zeros((outputs, inputs, height + h - 1, width + w - 1))
        for i in range(height):
            for j in range(width):
                made[:, :, i : i + h, j : j + w] += np.einsum(
                    "om,mchw->ochw", kernel[:, :, i, j], whole
                )
        whole = made
    return whole


@given(seed=st.integers(0, 500), height=st.integers(2, 5), width=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_convolution_factors_amount_to_the_product_they_state(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((6, 4, height, width))
    rows = rng.standard_normal((300, 4 * height * width)) * rng.uniform(0, 2, 4 * height * width)
    gram = rows.T @ rows / len(rows)
    for found in (spatial(weight, gram, 3), tucker(weight, gram, 3, 4)):
        stated = found.product.reshape(weight.shape)
        np.testing.assert_allclose(product_of(found.factors), stated, atol=1e-8)
        delta = weight.reshape(6, -1) - found.product
        error = np.square(rows @ delta.T).sum() / np.square(rows @ weight.reshape(6, -1).T).sum()
        assert found.error == pytest.approx(error, rel=1e-6)


def test_convolution_factors_of_full_rank_are_exact() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4, 3, 3))
    assert spatial(weight, None, 12).error < 1e-20
    assert tucker(weight, None, 4, 6).error < 1e-20


def test_alternating_beats_the_truncated_svd_it_starts_from() -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((16, 8, 3, 3))
    rows = rng.standard_normal((2000, 72)) @ rng.standard_normal((72, 72))
    gram = rows.T @ rows / len(rows)
    unfolded = weight.transpose(1, 2, 0, 3).reshape(24, 48)
    left, singular, right = np.linalg.svd(unfolded, full_matrices=False)
    cut = (left[:, :8] * singular[:8]) @ right[:8]
    plain = cut.reshape(8, 3, 16, 3).transpose(2, 0, 1, 3).reshape(16, 72)
    delta = weight.reshape(16, 72) - plain
    whole = weight.reshape(16, 72)
    error = np.einsum("oi,ij,oj", delta, gram, delta) / np.einsum("oi,ij,oj", whole, gram, whole)
    assert spatial(weight, gram, 8).error < 0.9 * error


def test_low_rank_is_the_optimum_whatever_side_is_longer() -> None:
    """Against the whitened SVD, which needs an inverse (SVD-LLM)."""
    rng = np.random.default_rng(2)
    for shape in ((20, 30), (30, 20)):
        weight = rng.standard_normal(shape)
        x = rng.standard_normal((500, shape[1])) @ rng.standard_normal((shape[1], shape[1]))
        gram = x.T @ x / len(x)
        root = np.linalg.cholesky(gram)
        singular = np.linalg.svd(weight @ root, compute_uv=False)
        found = low_rank(weight, gram, None)
        assert found.error(7) == pytest.approx((singular[7:] ** 2).sum() / (singular**2).sum())
        first, second = found.factors(7)
        lost = np.square(x @ (weight - second @ first).T).sum() / np.square(x @ weight.T).sum()
        assert found.error(7) == pytest.approx(lost)


def test_repaired_layer_gives_the_reference_output_from_changed_inputs() -> None:
    """Where x̂ is a linear map of x, the least squares answer undoes the map, offset and all."""
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((5, 12))
    x = rng.standard_normal((4000, 12)) + 1.0
    own = x @ (np.eye(12) + 0.1 * rng.standard_normal((12, 12))) + 0.3
    found, offset = repaired(weight, statistics_of(own, x), biased=True)
    wanted = x @ weight.T
    before = np.square(own @ weight.T - wanted).sum()
    assert np.square(own @ found.T + offset - wanted).sum() < 1e-3 * before
    again, nothing = repaired(weight, statistics_of(own), biased=True)
    assert np.array_equal(again, weight)
    assert not nothing.any()


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
        g (float[48, 32] w, float[1, 32, 7] x) => (float[1, 48, 7] y) { y = MatMul (w, x) }""",
    "embedding": """<ir_version: 8, opset_import: ["" : 17]>
        g (float[200, 48] w, int64[1, 7] i) => (float[1, 7, 48] y) { y = Gather (w, i) }""",
}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "strided": {"w": (48, 32, 3, 3), "b": (48,)},
    "dilated": {"w": (48, 32, 3, 3)},
    "same": {"w": (48, 32, 3, 3)},
    "pointwise": {"w": (48, 48, 1, 1)},
    "transposed": {"w": (32, 24, 3, 3), "b": (24,)},
    "left": {"w": (48, 32)},
    "embedding": {"w": (200, 48)},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_exact_at_a_rank_that_loses_nothing(name: str) -> None:
    """A weight of rank 4 is replaced by factors of rank 16: what is written computes the same."""
    model = with_weight(FORMS[name], **SHAPES[name])
    value = model.graph.initializers["w"]
    assert value.const_value is not None
    weight = value.const_value.numpy()
    rng = np.random.default_rng(5)
    if name in ("left", "embedding"):
        thin = rng.standard_normal((weight.shape[0], 4)) @ rng.standard_normal((4, weight.shape[1]))
    else:
        outer, inner = weight.shape[:2]
        core = rng.standard_normal((4, 4, 1, weight.shape[3]))
        core = core * rng.standard_normal((1, 1, weight.shape[2], 1))
        thin = np.einsum(
            "os,sihw,ic->ochw",
            rng.standard_normal((outer, 4)),
            core,
            rng.standard_normal((4, inner)),
        )
    value.const_value = ir.Tensor((thin / 8).astype(np.float32), name="w")
    original = Session(model)
    feed = random_samples(original, 1, seed=1).feeds[0]
    if name == "embedding":
        feed = {"i": np.asarray([[0, 3, 199, 7, 7, 12, 100]])}
    context = Context(model, load_target("cpu"))
    pass_ = Factorize(rank=16)
    proposals = [p for p in pass_.propose(context) if isinstance(p, Proposal)]
    assert proposals, name
    wanted = {"pair"} if "Conv " not in FORMS[name] else {"pair", "spatial", "tucker"}
    candidates = [
        Candidate({"form": form, "rank": 16, "input_rank": 16, "from_statistics": False}, 0.0)
        for form in (wanted if name in ("strided", "dilated", "same") else {"pair"})
    ]
    for candidate in candidates:
        rewritten = apply(pass_, context, [Decision("w", candidate)])
        onnx.checker.check_model(ir.to_proto(rewritten), full_check=True)
        (found,) = Session(rewritten).run(feed).values()
        (exact,) = original.run(feed).values()
        near(found, exact, 2e-4)
        assert len(rewritten.graph) > len(model.graph)


def test_layers_that_read_one_tensor_share_a_factor() -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 96] x, float[96, 96] q, float[96, 96] k, float[96, 96] v, float[96] b)
            => (float[n, 96] c, float[n, 96] d, float[n, 96] e) {
            a = MatMul (x, q)  c = Add (a, b)  d = MatMul (x, k)  e = MatMul (x, v) }""",
        q=(96, 96),
        k=(96, 96),
        v=(96, 96),
        b=(96,),
    )
    rng = np.random.default_rng(6)
    common = rng.standard_normal((96, 16))
    for name in "qkv":
        thin = (common @ rng.standard_normal((16, 96)) / 20).astype(np.float32)
        model.graph.initializers[name].const_value = ir.Tensor(thin, name=name)
    session = Session(model)
    samples = random_samples(session, 64, seed=1)
    context = Context(model, load_target("cpu"))
    pass_ = Factorize()
    context = replace(context, statistics=observe(pass_, context, samples))
    (proposal,) = pass_.propose(context)
    assert isinstance(proposal, Proposal)
    assert proposal.candidates[0].parameters["form"] == "shared"
    rewritten = apply(pass_, context, [Decision("q", proposal.candidates[0])])
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
            pads = [1, 1, 1, 1]> (c, z)  y = Relu (e) }""",
        d=(32, 1, 3, 3),
        s=(8, 32, 1, 1),
        p=(8, 4, 3, 3),
        z=(64, 8, 3, 3),
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


def test_constant_inputs_are_no_ground_for_a_rank() -> None:
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) { y = MatMul (x, w) }""",
        w=(64, 64),
    )
    session = Session(model)
    samples = random_samples(session, 8, seed=1)
    for feed in samples.feeds:
        feed["x"].fill(1.0)
    context = Context(model, load_target("cpu"))
    context = replace(context, statistics=observe(Factorize(), context, samples))
    (skip,) = Factorize().propose(context)
    assert isinstance(skip, Skip)
    assert "the same for all calibration data" in skip.reason


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        Factorize(energy=0.9, rank=4)
    with pytest.raises(UsageError, match="expected a share below 1"):
        Factorize(ratio=1.5)


def test_bias_goes_where_outputs_run() -> None:
    """Into Gemm's C, into the Add behind a MatMul, nowhere for a left side."""
    model = with_weight(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4, 32] x, float[32, 24] w, float[24] b, float[4, 4] l) => (float[4, 24] y) {
            a = MatMul (x, w)  c = Add (b, a)  y = MatMul (l, c) }""",
        w=(32, 24),
        b=(24,),
        l=(4, 4),
    )
    layers = {layer.name: layer for layer in find_layers(model)}
    assert takes_bias(layers["w"])
    assert not takes_bias(layers["l"])
    session = Session(model)
    feed = random_samples(session, 1, seed=0).feeds[0]
    before = session.run(feed)["y"]
    offset = np.arange(24, dtype=np.float64)
    shift_bias(model.graph, layers["w"].node, offset)
    left = model.graph.initializers["l"].const_value
    assert left is not None
    moved = left.numpy() @ np.broadcast_to(offset, (4, 24))
    near(Session(model).run(feed)["y"], np.asarray(before, np.float64) + moved, 1e-4)
    assert "b" not in model.graph.initializers


def test_hull_saves_most_for_each_error() -> None:
    """Against all combinations of two sites' candidates."""
    rng = np.random.default_rng(8)
    sites = []
    for name in "ab":
        savings = np.sort(rng.integers(1, 100, 6))[::-1]
        errors = np.sort(rng.uniform(0, 1, 6))[::-1]
        sites.append(
            Proposal(
                name,
                tuple(
                    Candidate({}, float(error), saved_bytes=int(s))
                    for error, s in zip(errors, savings, strict=True)
                ),
            )
        )
    options = [
        [(0.0, 0), *((c.predicted_error, c.saved_bytes) for c in p.candidates)] for p in sites
    ]
    for choice in allocate(sites, "saved_bytes"):
        error = sum(decision.candidate.predicted_error for decision in choice)
        saved = sum(decision.candidate.saved_bytes for decision in choice)
        cheaper = [e1 + e2 for e1, s1 in options[0] for e2, s2 in options[1] if s1 + s2 >= saved]
        assert error <= min(cheaper) + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ratio", "points"), [("fashion_mlp", 0.25, 0.5), ("fashion_cnn", 0.5, 1.5)]
)
def test_fashion_network_keeps_its_answers_at_a_fraction_of_the_work(
    models: Path, name: str, ratio: float, points: float
) -> None:
    result = onnxpress.optimize(
        models / f"{name}.onnx",
        calibration=str(models / "fashion_calibration.npz"),
        evaluation=str(models / "fashion_evaluation.npz"),
        passes=[Factorize(ratio=ratio)],
        max_drop=100.0,
        goal="size",
    )
    stage = next(stage for stage in result.stages if stage.pass_.name == "factorize")
    saved = sum(decision.candidate.saved_multiply_adds for decision in stage.decisions)
    original = onnxpress.load(models / f"{name}.onnx")
    assert result.validation is not None
    assert result.validation.measurement.drop <= points
    assert result.validation.latency.high > 1
    weights = sum(layer.read().size for layer in find_layers(original))
    assert saved > (1 - ratio) * weights


def test_fewer_samples_than_inputs_still_give_a_layer_that_generalizes(models: Path) -> None:
    """Eight images for 784 inputs: the Gram matrix is singular, the answers must not be wild."""
    with np.load(models / "fashion_calibration.npz") as archive:
        few = {"image": archive["image"][:8]}
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=few,
        evaluation=str(models / "fashion_calibration.npz"),
        passes=[Factorize(ratio=0.5)],
        min_sqnr=-20.0,
        metric="none",
        goal="size",
    )
    assert result.validation is not None
    assert result.validation.measurement.worst_sqnr_db > 8
