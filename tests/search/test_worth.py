"""A choice that hardly gains anything spends nothing of the budget."""

import numpy as np
import onnx_ir as ir
import pytest
from generated import hold

import onnxpress
from onnxpress.data import Samples
from onnxpress.runtime import Clock, Latency
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


def test_noise_is_said_without_powers_of_ten() -> None:
    assert noise_in_words(2.9) == "more noise to its output than there is signal"
    assert noise_in_words(0.00036) == "0.036% of noise to its output"
    assert noise_in_words(1e-9) == "hardly any noise to its output"
