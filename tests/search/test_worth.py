"""A choice that hardly gains anything spends nothing of the budget."""

import numpy as np
import onnx_ir as ir
import pytest
from generated import hold

import onnxpress
from onnxpress import model_file
from onnxpress.data import Samples
from onnxpress.passes.quantize import candidates
from onnxpress.runtime import Clock, Latency
from onnxpress.search import Goal
from onnxpress.search.worth import noise_in_words

SHAPES = {"a": (64, 256), "b": (256, 16), "c": (64, 16384)}
TEXT = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 64] x, float[64, 256] a, float[256, 16] b, float[64, 16384] c)
        => (float[n, 16] y, float[n, 16384] z) {
        h = MatMul (x, a)  i = Relu (h)  y = MatMul (i, b)  z = MatMul (x, c) }"""


def model() -> ir.Model:
    """With 64 of 256 hidden units that hardly matter, beside a layer that cannot be pruned."""
    rng = np.random.default_rng(0)
    drawn = {n: rng.standard_normal(s).astype(np.float32) / 16 for n, s in SHAPES.items()}
    drawn["b"][:64] *= 0.05
    return hold(ir.from_onnx_text(TEXT), drawn)


def samples(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    feeds = [{"x": rng.standard_normal((8, 64)).astype(np.float32)} for _ in range(96)]
    return Samples(tuple(feeds), None, "drawn")


def unsure(*_: object, **__: object) -> Latency:
    return Latency(1.0, 1.0, 1.03, 0.98, 1.08)


def sure(*_: object, **__: object) -> Latency:
    return Latency(1.0, 1.3, 1.3, 1.25, 1.35)


@pytest.mark.parametrize(("clock", "undone"), [(unsure, True), (sure, False)])
def test_pruning_that_gains_no_bytes_and_no_sure_time_is_undone(
    clock: Clock, *, undone: bool
) -> None:
    result = onnxpress.optimize(
        model(),
        calibration=samples(1),
        evaluation=samples(2),
        passes=["prune"],
        min_sqnr=30.0,
        clock=clock,
    )
    (stage,) = (stage for stage in result.stages if stage.pass_.name == "prune")
    assert stage.decisions == () if undone else stage.decisions
    assert ("gains less than 1%" in stage.note) is undone


@pytest.mark.parametrize("estimated", [True, False])
@pytest.mark.parametrize(("kind", "goal"), [("float", "size"), ("double", "balanced")])
def test_integers_that_need_more_nodes_than_they_save_are_not_written(
    monkeypatch: pytest.MonkeyPatch, kind: str, goal: Goal, *, estimated: bool
) -> None:
    if not estimated:
        monkeypatch.setattr(candidates, "_added_bytes", lambda _: 0)
    name = "encoder_layers_0_attention_output_kernel"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g ({kind}[n, 8] x, {kind}[8, 8] {name}) => ({kind}[n, 8] y) {{ y = MatMul (x, {name}) }}"""
    dtype = np.dtype(np.float32 if kind == "float" else np.float64)
    drawn = np.random.default_rng(0).standard_normal((8, 8)).astype(dtype)
    small = hold(ir.from_onnx_text(text), {name: drawn})
    before = model_file.whole_size(small)
    result = onnxpress.optimize(small, passes=["quantize"], goal=goal)
    assert not any(s.decisions for s in result.stages if s.pass_.name == "quantize")
    result.model.metadata_props.clear()
    assert model_file.whole_size(result.model) <= before


def test_noise_is_said_without_powers_of_ten() -> None:
    assert noise_in_words(2.9) == "more noise to its output than there is signal"
    assert noise_in_words(0.00036) == "0.036% of noise to its output"
    assert noise_in_words(1e-9) == "hardly any noise to its output"
