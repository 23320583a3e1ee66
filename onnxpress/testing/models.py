"""Small models by name: opsets, layouts, shared weights, subgraphs, types, odd places."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxpress.runtime import Array, svd

__all__ = ["SAMPLE_MODELS"]

_OPSETS = (11, 13, 17, 21)


def _from_text(text: str, **weights: tuple[int, ...]) -> ir.Model:
    """A model from ONNX text, with random float initializers of the given shapes."""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(7)
    for name, shape in weights.items():
        array = _decaying(rng, shape) if len(shape) > 1 else rng.standard_normal(shape)
        _attach(model.graph, name, array.astype(np.float32))
    return model


def _decaying(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A weight whose singular values fall, as those of trained layers do."""
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    if len(shape) == 4:
        rows, columns = shape[0], int(np.prod(shape[1:]))
    u, s, vt = svd(rng.standard_normal((rows, columns)))
    s = s * np.exp(-np.arange(len(s)) / 6)
    matrix = (u * s) @ vt
    return np.asarray(matrix / np.linalg.norm(matrix) * np.sqrt(rows), np.float64).reshape(shape)


def _attach(graph: ir.Graph, name: str, array: Array) -> None:
    """Turn the graph input `name` into an initializer."""
    value = next(value for value in graph.inputs if value.name == name)
    graph.inputs.remove(value)
    value.const_value = ir.Tensor(array, name=name)
    graph.register_initializer(value)


def _mlp(opset: int = 17, *, trans_b: int = 1) -> ir.Model:
    shape = "64, 96" if trans_b else "96, 64"
    return _from_text(
        f"""<ir_version: 7, opset_import: ["" : {opset}]>
        mlp (float[batch, 96] x, float[{shape}] w1, float[64] b1, float[64, 64] w2)
            => (float[batch, 64] y) {{
            a = Gemm <transB = {trans_b}> (x, w1, b1)
            h = Relu (a)
            y = MatMul (h, w2)
        }}""",
        w1=(64, 96) if trans_b else (96, 64),
        b1=(64,),
        w2=(64, 64),
    )


def _cnn(opset: int = 17) -> ir.Model:
    return _from_text(
        f"""<ir_version: 7, opset_import: ["" : {opset}]>
        cnn (float[batch, 3, 12, 12] x, float[16, 3, 3, 3] w1, float[16] b1,
             float[16, 1, 3, 3] w2, float[16, 8, 1, 1] w3, float[16, 8, 2, 2] w4)
            => (float[batch, 8, 24, 24] y) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            b = Relu (a)
            c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, w2)
            d = Conv <group = 2> (c, w3)
            e = Add (b, d)
            y = ConvTranspose <strides = [2, 2]> (e, w4)
        }}""",
        w1=(16, 3, 3, 3),
        b1=(16,),
        w2=(16, 1, 3, 3),
        w3=(16, 8, 1, 1),
        w4=(16, 8, 2, 2),
    )


def _shared() -> ir.Model:
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        shared (float[batch, 64] x, float[64, 64] w, float[64, 64] v)
            => (float[batch, 64] y) {
            a = MatMul (x, w)
            b = Tanh (a)
            c = MatMul (b, w)
            d = Gemm <transB = 1> (c, v)
            y = MatMul (d, v)
        }""",
        w=(64, 64),
        v=(64, 64),
    )


def _batched() -> ir.Model:
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        batched (float[batch, 4, 10, 32] x, float[4, 32, 32] w, float[32, 10] l, float[3] bias)
            => (float[batch, 4, 32, 32] y) {
            a = MatMul (x, w)
            y = MatMul (l, a)
        }""".replace(", float[3] bias", ""),
        w=(4, 32, 32),
        l=(32, 10),
    )


def _subgraph() -> ir.Model:
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        subgraph (float[1, 64] x, float[64, 64] w) => (float[1, 64] y) {
            zero = Constant <value = float {0}> ()
            sum = ReduceSum <keepdims = 0> (x)
            positive = Greater (sum, zero)
            y = If (positive) <
                then_branch = yes () => (float[1, 64] t) { t = MatMul (x, w) },
                else_branch = no () => (float[1, 64] e) { e = Neg (x) }
            >
        }""",
        w=(64, 64),
    )


def _half() -> ir.Model:
    model = _mlp()
    half = ir.DataType.FLOAT16
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.type = ir.TensorType(half)
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16), name=name)
        value.type = ir.TensorType(half)
    return model


def _constants() -> ir.Model:
    """Weights held in Constant nodes."""
    model = _mlp()
    for name, value in list(model.graph.initializers.items()):
        assert value.const_value is not None
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)])
        ir.convenience.replace_all_uses_with(value, node.outputs[0])
        del model.graph.initializers[name]
        node.outputs[0].name = name
        model.graph.insert_before(model.graph[0], node)
    return model


def _zeros() -> ir.Model:
    """A layer of zeros, and outputs that never vary."""
    model = _mlp()
    value = model.graph.initializers["w1"]
    value.const_value = ir.Tensor(np.zeros((64, 96), np.float32), name="w1")
    return model


def _wide_cnn() -> ir.Model:
    """Convolutions wide enough for factors, and a residual sum between them."""
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        wide (float[batch, 32, 8, 8] x, float[64, 32, 3, 3] w1, float[64] b1,
              float[64, 64, 3, 3] w2, float[48, 64, 1, 1] w3) => (float[batch, 48, 8, 8] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            b = Relu (a)
            c = Conv <pads = [1, 1, 1, 1]> (b, w2)
            d = Add (b, c)
            y = Conv (d, w3)
        }""",
        w1=(64, 32, 3, 3),
        b1=(64,),
        w2=(64, 64, 3, 3),
        w3=(48, 64, 1, 1),
    )


def _embedding() -> ir.Model:
    """A table of words, and a layer behind it."""
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        embedding (int64[batch, 6] ids, float[256, 48] table, float[48, 64] w)
            => (float[batch, 6, 64] y) {
            rows = Gather (table, ids)
            y = MatMul (rows, w)
        }""",
        table=(256, 48),
        w=(48, 64),
    )


def _sparse() -> ir.Model:
    """Nine of ten weights are zero, as after pruning elsewhere."""
    model = _mlp()
    rng = np.random.default_rng(3)
    for name in ("w1", "w2"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy()
        kept = np.where(rng.random(array.shape) < 0.1, array, 0).astype(np.float32)
        value.const_value = ir.Tensor(kept, name=name)
    return model


def _loop() -> ir.Model:
    """A recurrent layer: its weight is read once an iteration."""
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        loop (float[1, 64] x, float[64, 64] w) => (float[1, 64] y) {
            times = Constant <value = int64 {3}> ()
            y = Loop (times, , x) <
                body = step (int64 i, bool go, float[1, 64] s)
                    => (bool on, float[1, 64] next) {
                    on = Identity (go)
                    h = MatMul (s, w)
                    next = Tanh (h)
                }
            >
        }""",
        w=(64, 64),
    )


def _recurrent() -> ir.Model:
    """A layer, an LSTM in both directions, and a GRU of which only the last state is read."""
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        recurrent (float[6, 2, 48] x, float[48, 48] u, float[2, 128, 48] w1, float[2, 128, 32] r1,
                   float[2, 256] b1, float[1, 96, 64] w2, float[1, 96, 32] r2, float[32, 24] v)
            => (float[1, 2, 24] y) {
            fed = MatMul (x, u)
            seen = Relu (fed)
            both = LSTM <hidden_size = 32, direction = "bidirectional"> (seen, w1, r1, b1)
            turned = Transpose <perm = [0, 2, 1, 3]> (both)
            flat = Constant <value = int64[3] {0, 0, 64}> ()
            joined = Reshape (turned, flat)
            , last = GRU <hidden_size = 32, linear_before_reset = 1> (joined, w2, r2)
            y = MatMul (last, v)
        }""",
        u=(48, 48),
        w1=(2, 128, 48),
        r1=(2, 128, 32),
        b1=(2, 256),
        w2=(1, 96, 64),
        r2=(1, 96, 32),
        v=(32, 24),
    )


def _tied() -> ir.Model:
    """A table that words are looked up in and, transposed, told by."""
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        tied (int64[batch, 6] ids, float[256, 48] table, float[48, 48] w)
            => (float[batch, 6, 256] y) {
            rows = Gather (table, ids)
            mixed = MatMul (rows, w)
            turned = Transpose <perm = [1, 0]> (table)
            y = MatMul (mixed, turned)
        }""",
        table=(256, 48),
        w=(48, 48),
    )


def _einsum() -> ir.Model:
    """Layers, and constants of Einsum whose operands would have to be moved for a MatMul."""
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        einsum (float[batch, 10, 32] x, float[32, 64] u, float[64, 32] r,
                float[32, 4, 12] w, float[4, 12, 32] v) => (float[batch, 10, 32] y) {
            wide = MatMul (x, u)
            bent = Relu (wide)
            back = MatMul (bent, r)
            heads = Einsum <equation = "bsd,dhk->bhsk"> (back, w)
            y = Einsum <equation = "bhsk,hkd->bsd"> (heads, v)
        }""",
        u=(32, 64),
        r=(64, 32),
        w=(32, 4, 12),
        v=(4, 12, 32),
    )


SAMPLE_MODELS: Mapping[str, Callable[[], ir.Model]] = {
    **{f"mlp_opset{opset}": lambda opset=opset: _mlp(opset) for opset in _OPSETS},  # type: ignore[misc]
    **{f"cnn_opset{opset}": lambda opset=opset: _cnn(opset) for opset in _OPSETS},  # type: ignore[misc]
    "gemm_trans_b_0": lambda: _mlp(trans_b=0),
    "shared_weights": _shared,
    "batched_and_left_matmul": _batched,
    "if_body": _subgraph,
    "float16": _half,
    "constant_nodes": _constants,
    "zeros": _zeros,
    "wide_cnn": _wide_cnn,
    "embedding": _embedding,
    "sparse": _sparse,
    "loop_body": _loop,
    "recurrent": _recurrent,
    "tied_embedding": _tied,
    "einsum": _einsum,
}
"""What every pass has to cope with; each call makes a model anew."""
