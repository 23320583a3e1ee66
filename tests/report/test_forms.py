"""What each form saves: in the file, in memory, in time."""

from typing import Any

import numpy as np
import pytest
from clocks import BY_WORK
from generated import initialized

import onnxpress
from onnxpress.passes.quantize import Quantize
from onnxpress.report.columns import Column
from onnxpress.report.document import document
from onnxpress.report.layer_columns import FORM_COLUMNS

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[b, 128] x, float[128, 256] w, float[256, 64] v) => (float[b, 64] y) {
        h = MatMul (x, w)  r = Relu (h)  y = MatMul (r, v) }"""


def rows(**settings: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((32, 128)).astype(np.float32)}
    result = onnxpress.optimize(
        initialized(MODEL),
        calibration=data,
        evaluation=data,
        passes=[Quantize(**settings)],
        metric="none",
        min_sqnr=10.0,
        goal="size",
        clock=BY_WORK,
    )
    found: list[dict[str, Any]] = document(result)["forms"]
    return found


def cells(row: dict[str, Any]) -> list[str]:
    listed: tuple[Column[Any], ...] = FORM_COLUMNS
    return [column.write(row) for column in listed]


FLOAT = 4 * (128 * 256 + 256 * 64)


@pytest.mark.parametrize(
    ("settings", "form", "loaded", "same"),
    [
        ({"form": "weight_only", "weight_bits": (4,)}, "quantize weight_only_4_bit", FLOAT, True),
        ({"form": "weight_only"}, "quantize weight_only_4_bit", FLOAT, True),
        ({"form": "static", "weight_bits": (8,)}, "quantize static", FLOAT / 4, False),
        ({"form": "static", "weight_bits": (4,)}, "quantize static_4_bit", FLOAT / 4, False),
    ],
)
def test_row_says_what_is_saved_where(
    settings: dict[str, Any], form: str, loaded: float, same: Any
) -> None:
    (row,) = rows(**settings)
    assert (row["form"], row["layers"], row["same_kernels"]) == (form, 2, same)
    assert row["bytes_before"] == row["loaded_bytes_before"] == FLOAT
    assert row["bytes_after"] < FLOAT / (6 if "4_bit" in form else 3.8)
    assert row["loaded_bytes_after"] == pytest.approx(loaded, rel=0.05)
    text = cells(row)
    assert text[:2] == [form, "2"]
    assert text[4] == ("the same kernels" if same else "other kernels, not timed alone")
