"""Rows of a Conv times its weight, against what onnx's reference evaluator computes."""

import numpy as np
import onnx.reference
import onnx_ir as ir
import pytest
from generated import initialized

from onnxpress.layers import find_layers
from onnxpress.statistics import rows
from onnxpress.statistics.rows import input_rows

CONVS = [
    ("2, 3, 9", "4, 3, 3", "strides = [2], pads = [1, 2]"),
    ("2, 4, 7, 8", "6, 2, 3, 2", "group = 2, pads = [1, 0, 2, 1]"),
    ("1, 2, 9, 11", "3, 2, 3, 3", "dilations = [2, 3], strides = [1, 2]"),
    ("2, 3, 6, 5", "2, 3, 1, 1", "strides = [2, 2]"),
    ("1, 3, 7, 7", "3, 1, 3, 3", 'group = 3, auto_pad = "SAME_LOWER", strides = [2, 2]'),
    ("1, 2, 4, 5, 6", "3, 2, 2, 3, 1", "pads = [0, 1, 0, 1, 1, 0]"),
]


@pytest.mark.parametrize("gathered", [1 << 18, 5])
@pytest.mark.parametrize(("shape", "weight", "attributes"), CONVS)
def test_rows_times_the_weight_are_what_the_operator_gives(
    shape: str, weight: str, attributes: str, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_GATHERED", gathered)
    sizes = tuple(map(int, shape.split(",")))
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[{shape}] x, float[{weight}] w) => (float[{", ".join("abcde"[: len(sizes)])}] y) {{
        y = Conv <{attributes}> (x, w) }}"""
    model = initialized(text)
    (layer,) = find_layers(model)
    x = np.random.default_rng(1).standard_normal(sizes).astype(np.float32)
    (wanted,) = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    found, applied = input_rows(layer, x, 10_000, np.random.default_rng(0))
    out = np.asarray(wanted)
    assert applied == len(found) == out.size // out.shape[1]
    matrix = layer.read().reshape(layer.groups, -1, found.shape[2])
    given = np.einsum("rgi,goi->rgo", found, matrix).reshape(len(found), -1)
    np.testing.assert_allclose(given, np.moveaxis(out, 1, -1).reshape(len(found), -1), atol=1e-4)
    if layer.groups == 1:
        # As a network with channels removed feeds it.
        fewer, _ = input_rows(layer, x[:, 1:], 10_000, np.random.default_rng(0))
        own = found.reshape(len(found), x.shape[1], -1)[:, 1:]
        np.testing.assert_array_equal(fewer.reshape(own.shape), own)
    few, applied = input_rows(layer, x, 4, np.random.default_rng(0))
    assert applied == len(found)
    assert all((row == found).all(axis=(1, 2)).any() for row in few)
