"""An output with more axes for one sample than for another is judged as a whole."""

import numpy as np
import onnx_ir as ir
from clocks import BY_WORK
from generated import hold

import onnxpress
from onnxpress.data import Samples
from onnxpress.judge import Kind, read_outputs
from onnxpress.runtime import Session

SHAPES = {"a": (64, 64), "b": (64, 8)}
TEXT = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, m, 64] x, float[64, 64] a, float[64, 8] b) => (float y) {
        h = MatMul (x, a)  r = Relu (h)  wide = MatMul (r, b)  y = Squeeze (wide) }"""


def filled() -> ir.Model:
    rng = np.random.default_rng(0)
    drawn = {n: rng.standard_normal(s).astype(np.float32) / 8 for n, s in SHAPES.items()}
    return hold(ir.from_onnx_text(TEXT), drawn)


def samples(seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    sizes = [(1, 4), (3, 4), (1, 1), (2, 5)] * 6
    feeds = [{"x": rng.standard_normal((*size, 64)).astype(np.float32)} for size in sizes]
    return Samples(tuple(feeds), None, "drawn")


def test_no_axis_is_read_from_answers_of_different_ranks() -> None:
    model = filled()
    session = Session(model)
    answers = [{"y": np.zeros(shape, np.float32)} for shape in [(3, 4, 8), (4, 8), (8,)]]
    for order in (answers, answers[::-1]):
        readings = read_outputs(model, session, order)
        assert readings["y"].kind == Kind.VALUES
        assert readings["y"].varying


def test_output_whose_rank_depends_on_the_input_is_optimized_and_judged() -> None:
    result = onnxpress.optimize(
        filled(), calibration=samples(1), evaluation=samples(2), clock=BY_WORK
    )
    assert result.within_budget
    assert result.validation is not None
    assert result.validation.measurement.worst_sqnr_db > 20
    assert any(stage.decisions for stage in result.stages if stage.pass_.name == "quantize")
