"""Small valid files: models of many operators and layers, and samples of them."""

import functools
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx

from onnxpress import model_file
from onnxpress.runtime import Session
from onnxpress.testing.models import SAMPLE_MODELS

__all__ = ["models", "samples_of", "tests_of_onnx"]

_MOST_BYTES = 3000

_TEXTS = {
    "norms": """<ir_version: 8, opset_import: ["" : 17]>
        norms (float[n, 4, 8] x, float[8] s, float[8, 8] w) => (float[n, 4, 8] y) {
            a = LayerNormalization (x, s, s)
            b = MatMul (a, w)
            c = Softmax (b)
            d = Mul (c, x)
            e = Transpose <perm = [0, 2, 1]> (d)
            shape = Constant <value = int64[3] {-1, 4, 8}> ()
            y = Reshape (e, shape)
        }""",
    "pictures": """<ir_version: 8, opset_import: ["" : 17]>
        pictures (float[n, 3, 8, 8] x, float[4, 3, 3, 3] w, float[4] s, float[8, 4, 1, 1] v)
            => (float[n, 8] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w, s)
            b = BatchNormalization (a, s, s, s, s)
            c = Relu (b)
            d, e = Split <axis = 1> (c)
            f = Concat <axis = 1> (e, d)
            g = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (f)
            h = Conv (g, v)
            i = GlobalAveragePool (h)
            y = Flatten (i)
        }""",
    "recurrent": """<ir_version: 8, opset_import: ["" : 17]>
        recurrent (float[t, 1, 4] x, float[1, 32, 4] w, float[1, 32, 8] r)
            => (float[t, 1, 1, 8] y) {
            y, h, c = LSTM <hidden_size = 8> (x, w, r)
        }""",
    "integers": """<ir_version: 8, opset_import: ["" : 17]>
        integers (float[n, 8] x, float s, uint8 z, int8[8, 8] w, int8 zw) => (float[n, 8] y) {
            q = QuantizeLinear (x, s, z)
            a = DequantizeLinear (q, s, z)
            b = DequantizeLinear (w, s, zw)
            y = MatMul (a, b)
        }""",
    "shapes": """<ir_version: 8, opset_import: ["" : 17]>
        shapes (float[n, 4] x) => (float[n, m] y) {
            s = Shape (x)
            zero = Constant <value = int64 {0}> ()
            n = Gather (s, zero)
            axes = Constant <value = int64[1] {0}> ()
            u = Unsqueeze (n, axes)
            three = Constant <value = int64[1] {3}> ()
            both = Concat <axis = 0> (u, three)
            ones = ConstantOfShape <value = float[1] {1}> (both)
            tiles = Constant <value = int64[2] {1, 2}> ()
            t = Tile (ones, tiles)
            y = Concat <axis = 1> (x, t)
        }""",
    "functions": """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        functions (float[n, 8] x, float[8, 8] w) => (float[n, 8] y) {
            a = own.twice (x, w)
            y = own.twice (a, w)
        }
        <domain: "own", opset_import: ["" : 17]>
        twice (p, q) => (r) {
            m = MatMul (p, q)
            r = Add (m, m)
        }""",
}


@functools.cache
def models() -> dict[str, bytes]:
    """By name; all are run by onnxruntime."""
    found = {name: model_file.to_bytes(make()) for name, make in sorted(SAMPLE_MODELS.items())}
    for name, text in _TEXTS.items():
        found[name] = _with_weights(onnx.parser.parse_model(text)).SerializeToString()
    return found


def _with_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inputs after the first become initializers."""
    rng = np.random.default_rng(0)
    for value in list(model.graph.input)[1:]:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = np.abs(rng.standard_normal(shape)) * (1 if kind.kind == "f" else 0) + 0.1
        tensor = onnx.numpy_helper.from_array(np.asarray(array).astype(kind), value.name)
        model.graph.initializer.append(tensor)
        model.graph.input.remove(value)
    return model


@functools.cache
def tests_of_onnx() -> dict[str, bytes]:
    """The small models among ONNX's own backend tests: every operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 - takes seconds

        found = load_model_tests(kind="node")
    contents = {test.name: test.model.SerializeToString() for test in found if test.model}
    return {name: made for name, made in sorted(contents.items()) if len(made) < _MOST_BYTES}


@functools.cache
def samples_of(name: str) -> dict[str, np.ndarray]:
    """Random samples of a model of `models`, four of each input."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(models()[name])
        inputs = Session(path, threads=1).inputs
    found = {}
    for spec in inputs:
        shape = [4, *(dim if isinstance(dim, int) else 2 for dim in spec.shape)]
        found[spec.name] = np.abs(rng.standard_normal(shape)).astype(spec.dtype)
    return found
