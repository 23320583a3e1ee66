"""Rounding and smoothing against their own definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from generated import statistics_of
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxpress
from onnxpress.contract import Context
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.memory import Memory
from onnxpress.passes.quantize import Quantize, integer_rounding, integers, rounding
from onnxpress.passes.quantize.integers import weight_only_integers
from onnxpress.passes.quantize.ranges import range_between
from onnxpress.passes.quantize.rounding import round_compensated
from onnxpress.passes.quantize.smoothing import choose_smoothing, smoothing_scales
from onnxpress.passes.simplify import simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.search.allocation import strongest
from onnxpress.statistics import Statistics
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 3]),
    inputs=st.sampled_from([1, 9, 150]),
    rows=st.sampled_from([0, 2, 400]),
)
@settings(max_examples=30, deadline=None)
def test_compensated_rounding_is_never_worse_than_nearest(
    seed: int, groups: int, inputs: int, rows: int
) -> None:
    """Also with fewer rows than inputs, with none, and with inputs that are always zero."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, rows, inputs)) @ rng.standard_normal((inputs, inputs))
    x[:, :, ::4] = 0
    gram = x.swapaxes(1, 2) @ x / max(rows, 1)
    weights = rng.standard_normal((4 * groups, inputs))
    scales = np.abs(weights).max(axis=1) / 7
    found = round_compensated(weights, scales, gram, 7)
    assert np.array_equal(found, np.round(found))
    assert np.abs(found).max() <= 7

    def error(integers: object) -> float:
        delta = (weights - np.asarray(integers) * scales[:, None]).reshape(groups, 4, inputs)
        return float(np.einsum("goi,gij,goj->", delta, gram, delta))

    nearest = np.clip(np.round(weights / scales[:, None]), -7, 7)
    assert error(found) <= error(nearest) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("groups", [1, 3])
def test_outputs_rounded_some_at_a_time_are_those_rounded_together(
    monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((groups, 300, 40)) @ rng.standard_normal((40, 40))
    weights = rng.standard_normal((groups * 50, 40))
    scales = np.abs(weights).max(axis=1) / 7
    gram = x.swapaxes(1, 2) @ x / 300
    together = round_compensated(weights, scales, gram, 7)
    monkeypatch.setattr(rounding, "_PART", 7 * groups * 40)
    apart = round_compensated(weights, scales, gram, 7)
    # Products of fewer rows are summed in another order, which decides a tie now and then.
    assert np.mean(apart != together) < 0.001
    shifted = weights + np.roll(scales, 1)[:, None]
    assert not np.array_equal(round_compensated(shifted, scales, gram, 7), together)


def test_compensated_rounding_gains_on_correlated_inputs() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 64)) @ rng.standard_normal((64, 64))
    weights = rng.standard_normal((32, 64))
    scales = np.abs(weights).max(axis=1) / 127
    found = round_compensated(weights, scales, (x.T @ x / len(x))[None], 127)
    nearest = np.round(weights / scales[:, None])

    def error(integers: object) -> float:
        return float(np.square(x @ (weights - np.asarray(integers) * scales[:, None]).T).sum())

    assert error(found) < 0.5 * error(nearest)


@pytest.mark.parametrize("outlier", [1.0, 100.0])
def test_smoothing_is_chosen_only_for_outliers_and_pays(outlier: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2000, 32))
    x[:, 3] *= outlier
    matrix = rng.standard_normal((16, 32))
    matrix[:, 3] /= outlier
    seen = [statistics_of(x)]
    plain = range_between(float(x.min()), float(x.max()), signed=False)
    chosen = choose_smoothing([matrix], seen, plain, signed=False)
    if outlier == 1.0:
        assert chosen is None
        return
    assert chosen is not None
    scales = smoothing_scales([matrix], seen, chosen.strength).astype(np.float64)

    def error(factors: "np.ndarray[tuple[int], np.dtype[np.float64]]", scale: float) -> float:
        rounded = np.round(x / factors / scale) * scale
        return float(np.square((rounded * factors - x) @ matrix.T).sum())

    assert error(scales, chosen.range.scale) < 0.1 * error(np.ones(32), plain.scale)


def test_rounding_for_what_the_quantized_network_feeds_a_layer_is_nearer(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mobile.onnx")
    simplify(model)
    session = Session(model)
    data = str(models / "fashion_calibration.npz")
    samples = load_samples(data, session.inputs).take(range(96))
    unseen = load_samples(data, session.inputs).take(range(96, 160))
    pool = Pool((Quantize(form="static", refinement=True),))
    assert pool.refines
    context = pool.context(model, load_target("cpu"), samples)
    plain = strongest(pool, context, pool.offer(context))
    refined = tuple(replace(d, candidate=replace(d.candidate, refined=True)) for d in plain)
    evaluator = Evaluator(session, unseen, Budget(metric="none"))
    before, after = (
        evaluator.measure(Session(pool.rewrite_refined(context, decisions, samples))).worst_sqnr_db
        for decisions in (plain, refined)
    )
    assert after > before + 0.5


@pytest.mark.parametrize("draft", [False, True], ids=["values", "draft"])
@pytest.mark.parametrize("name", ["gemm_trans_b_0", "mlp_opset17", "cnn_opset17"])
def test_large_weights_are_rounded_some_outputs_at_a_time(
    name: str,
    draft: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = Context(SAMPLE_MODELS[name](), load_target("cpu"), draft=draft)
    rng = np.random.default_rng(0)
    seen = {
        layer.name: statistics_of(rng.standard_normal((60, layer.read().shape[1])) + 0.5)
        for layer in context.layers
        if layer.groups == 1
    }
    context = replace(context, statistics=Statistics(layers=seen))
    rounded = 0
    for layer in context.layers:
        if layer.name not in seen:
            continue
        whole = weight_only_integers(replace(context, memory=Memory()), layer)
        with monkeypatch.context() as patch:
            patch.setattr(integers, "_LARGE", 0)
            patch.setattr(integer_rounding, "_AT_A_TIME", layer.array.size // 3)
            pieces = weight_only_integers(replace(context, memory=Memory()), layer)
        np.testing.assert_array_equal(pieces.weight.values, whole.weight.values)
        assert pieces.error == pytest.approx(whole.error, rel=1e-4)
        assert (pieces.offset is None) == (whole.offset is None)
        if whole.offset is not None and pieces.offset is not None:
            np.testing.assert_allclose(pieces.offset, whole.offset, rtol=1e-9, atol=1e-12)
        rounded += 1
    assert rounded
