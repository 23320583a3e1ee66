"""Models whose layers lie inside If, Loop and Scan bodies."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common
from generated import hold

__all__ = [
    "HEAD",
    "IF",
    "Float32",
    "built",
    "draw",
    "feeds",
    "if_model",
    "loop_model",
    "nested_model",
    "scan_model",
]

Float32 = npt.NDArray[np.float32]

HEAD = '<ir_version: 10, opset_import: ["" : {opset}]>'
POSITIVE = """zero = Constant <value = float {0.0}> () sum = ReduceSum <keepdims = 0> (x)
    positive = Greater (sum, zero)"""
IF = (
    HEAD
    + " g (float[1, 64] x, float[64, 96] a, float[96, 64] b, float[64, 96] c, float[96, 64] d)"
    + " => (float[1, 64] y) { "
    + POSITIVE
    + """ y = If (positive) <
        then_branch = yes () => (float[1, 64] r) {
            p = MatMul (x, a)  q = Relu (p)  r = MatMul (q, b) },
        else_branch = no () => (float[1, 64] r) {
            p = MatMul (x, c)  q = Relu (p)  r = MatMul (q, d) }
    > }"""
)
NESTED = (
    HEAD
    + " g (float[1, 64] x, float[64, 64] a, float[64, 64] b) => (float[1, 64] y) { "
    + POSITIVE
    + """ y = If (positive) <
        then_branch = yes () => (float[1, 64] r) {
            h = MatMul (x, a)  first = Constant <value = int64[1] {0}> ()
            column = Gather <axis = 1> (x, first)  one = Squeeze (column)
            inner = Greater (one, zero)
            r = If (inner) <
                then_branch = deep () => (float[1, 64] s) { s = MatMul (h, b) },
                else_branch = flat () => (float[1, 64] s) { s = Neg (h) }
            > },
        else_branch = no () => (float[1, 64] r) { r = Neg (x) }
    > }"""
)
LOOP = (
    HEAD
    + """ g (float[1, 16, 6, 6] x, float[16, 16, 3, 3] w, float[16] b)
        => (float[1, 16, 6, 6] y, float[n, 1, 16, 6, 6] all) {
        times = Constant <value = int64 {3}> ()  go = Constant <value = bool {1}> ()
        y, all = Loop (times, go, x) <
            body = step (int64 i, bool on, float[1, 16, 6, 6] before)
                => (bool still, float[1, 16, 6, 6] after, float[1, 16, 6, 6] each) {
                still = Identity (on)
                z = Conv <pads = [1, 1, 1, 1]> (before, w, b)  after = Relu (z)
                each = Neg (after) }
        > }"""
)
SCAN = (
    HEAD
    + """ g (float[2, 64] h, float[5, 2, 32] x, float[64, 64] w, float[32, 64] v)
        => (float[2, 64] last, float[5, 2, 64] all) {
        last, all = Scan <num_scan_inputs = 1,
            body = step (float[2, 64] before, float[2, 32] now)
                => (float[2, 64] after, float[2, 64] each) {
                m = MatMul (before, w)  n = MatMul (now, v)
                s = Add (m, n)  after = Tanh (s)  each = Neg (after) }
        > (h, x) }"""
)


def built(text: str, opset: int = 17, **weights: tuple[int, ...]) -> ir.Model:
    """A model from text whose inputs of these names are random initializers."""
    model = ir.from_onnx_text(text.replace("{opset}", str(opset)))
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in weights.items():
        scale = np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else shape[0])
        arrays[name] = (rng.standard_normal(shape) / scale).astype(np.float32)
    hold(model, arrays)
    ir.passes.common.ShapeInferencePass()(model)
    return model


def if_model(opset: int = 17) -> ir.Model:
    return built(IF, opset, a=(64, 96), b=(96, 64), c=(64, 96), d=(96, 64))


def nested_model(opset: int = 17) -> ir.Model:
    return built(NESTED, opset, a=(64, 64), b=(64, 64))


def loop_model(opset: int = 17) -> ir.Model:
    return built(LOOP, opset, w=(16, 16, 3, 3), b=(16,))


def scan_model(opset: int = 17) -> ir.Model:
    return built(SCAN, opset, w=(64, 64), v=(32, 64))


def draw(model: ir.Model, count: int = 40, *, seed: int = 1) -> dict[str, Float32]:
    rng = np.random.default_rng(seed)
    return {
        value.name or "": rng.standard_normal((count, *(value.shape or ()))).astype(np.float32)
        for value in model.graph.inputs
    }


def feeds(data: Mapping[str, Float32]) -> list[dict[str, Float32]]:
    count = len(next(iter(data.values())))
    return [{name: array[at] for name, array in data.items()} for at in range(count)]
