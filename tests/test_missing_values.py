"""Tables with values that are missing: NaN, which the model itself fills in."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from generated import hold

import onnxpress
from onnxpress.errors import DataError
from onnxpress.runtime import Session

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 24] x, float[24, 96] a, float[96, 96] b, float[96, 4] c) => (float[n, 4] y) {{
        {fill}
        h = MatMul (filled, a)  i = Relu (h)  j = MatMul (i, b)  k = Relu (j)
        y = MatMul (k, c) }}"""
FILLING = """missing = IsNaN (x)  zero = Constant <value = float {0.0}> ()
        filled = Where (missing, zero, x)"""


def model(fill: str) -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"a": (24, 96), "b": (96, 96), "c": (96, 4)}
    drawn = {n: (rng.standard_normal(s) / 8).astype(np.float32) for n, s in shapes.items()}
    return hold(ir.from_onnx_text(TEXT.format(fill=fill)), drawn)


def table(seed: int, rows: int = 64) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 24)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return {"x": x}


def test_missing_values_are_samples_where_the_model_fills_them_in() -> None:
    given = model(FILLING)
    result = onnxpress.optimize(
        given, calibration=table(1), evaluation=table(2), goal="size", clock=BY_WORK
    )
    assert result.within_budget, result.problems
    assert any(stage.decisions for stage in result.stages if stage.pass_.stage.loses)
    feed = table(3)
    wanted, found = (np.asarray(Session(m).run(feed)["y"], float) for m in (given, result.model))
    noise = np.square(found - wanted).sum() / np.square(wanted).sum()
    assert -10 * np.log10(noise) > 20


def test_missing_values_that_come_out_again_are_refused() -> None:
    with pytest.raises(DataError, match=r"'x' holds NaN in sample \d+, and the model's 'y' is not"):
        onnxpress.optimize(model("filled = Identity (x)"), calibration=table(1))
