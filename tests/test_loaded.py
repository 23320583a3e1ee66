"""Weights once loaded: as onnxruntime itself keeps them after its first optimizations."""

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from generated import initialized
from weights_anywhere import checked

from onnxpress.contract import Decision
from onnxpress.data import random_samples
from onnxpress.loaded import loaded_bytes
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target

MODEL = """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    g (float[64, 128] x, float[128, 256] w, float[256] b) => (float[64, 256] y) {
        z = Gemm (x, w, b)  y = Relu (z) }"""


def kept_by_onnxruntime(model: ir.Model, folder: Path) -> int:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "opened.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(checked(model), options, providers=["CPUExecutionProvider"])
    opened = onnx.load(folder / "opened.onnx")
    return sum(onnx.numpy_helper.to_array(t).nbytes for t in opened.graph.initializer)


def made(**settings: Any) -> ir.Model:
    model = initialized(MODEL)
    pool = Pool((Quantize(refinement=False, **settings),))
    samples = random_samples(Session(model), 4, 1, model)
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    (proposal, *_) = pool.offer(context).proposals
    return pool.rewrite(context, [Decision(proposal.site, proposal.candidates[0])])


@pytest.mark.parametrize(
    ("settings", "weight_bytes"),
    [
        ({"form": "weight_only"}, 128 * 256 * 4),
        ({"form": "weight_only", "weight_bits": (4,)}, 128 * 256 * 4),
        ({"form": "weight_only", "weight_bits": (3,), "levels": ("codebook",)}, 128 * 256 * 4),
        ({"form": "static"}, 128 * 256),
        ({"form": "static", "weight_bits": (4,)}, 128 * 256),
        ({"form": "dynamic", "weight_bits": (4,)}, 128 * 256),
        ({"form": "weight_only", "weight_bits": (8,), "stored_as": "blocked"}, 128 * 256),
        ({"form": "weight_only", "weight_bits": (4,), "stored_as": "nbits"}, 128 * 256 // 2),
    ],
)
def test_bytes_are_those_that_onnxruntime_keeps(
    settings: dict[str, Any], weight_bytes: int, tmp_path: Path
) -> None:
    model = made(**settings)
    found = dict(loaded_bytes(model))
    assert sum(found.values()) == kept_by_onnxruntime(model, tmp_path)
    assert max(found.values()) == weight_bytes


def test_what_a_body_reads_is_counted_once() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] x, float[4] w) => (float[4] y) {
        on = Constant <value = bool {1}> ()
        y = If (on) <
            then_branch = yes () => (float[4] r) { r = Add (x, w) },
            else_branch = no () => (float[4] r) { n = Neg (w)  r = Add (x, n) }
        > }"""
    model = initialized(text)
    found = dict(loaded_bytes(model))
    # The one branch reads the weight, the other what is computed of it once.
    assert (found["w"], found["n"]) == (16, 16)
