"""Write a decoder of real shapes with drawn weights: 1.1 billion of them by default.

    python benchmarks/large_decoder.py FOLDER [--float16] [--layers 22] [--hidden 2048] ...

The shapes are those of TinyLlama (arXiv 2401.02385): RMSNorm, rotary positions, grouped-query
attention with a cache of keys and values, a gated MLP. The weights lie beside the model in one
file (ONNX external data) and are drawn and written some rows at a time, so that little memory is
needed; the same numbers for the same seed. Every output channel has a scale of its own and a few
inputs are large, as in trained networks.
"""

import argparse
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from onnx import TensorProto, helper

_CHUNK = 4_000_000
"""Weights that are drawn at a time."""
_SPREAD, _OUTLIERS, _OUTLIER_SCALE = 0.3, 0.002, 6.0
_MASKED = -1e4
_OPSET, _IR_VERSION = 17, 8


@dataclass(frozen=True, slots=True)
class Shapes:
    """Of a decoder; the heads' dimension is `hidden / heads`."""

    layers: int = 22
    hidden: int = 2048
    mlp: int = 5632
    vocabulary: int = 32000
    heads: int = 32
    kv_heads: int = 4
    positions: int = 2048

    @property
    def head_dim(self) -> int:
        """Of a head."""
        return self.hidden // self.heads


SMALL = Shapes(layers=2, hidden=64, mlp=160, vocabulary=256, heads=4, kv_heads=2, positions=64)


class _Writer:
    """Nodes of a graph, and weights that go to the file beside it at once."""

    def __init__(self, data: IO[bytes], location: str, seed: int, *, float16: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._data, self._location, self._seed = data, location, seed
        self.dtype = np.dtype(np.float16 if float16 else np.float32)
        self.kind = TensorProto.FLOAT16 if float16 else TensorProto.FLOAT

    def add(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node of one output, whose name it gets."""
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """A small constant, in the model itself."""
        self.initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, rows: int, columns: int) -> str:
        """A drawn matrix `[in, out]`."""
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        scales = np.exp(_SPREAD * rng.standard_normal(columns, np.float32)) / np.sqrt(rows)
        start = self._data.tell()
        step = max(1, _CHUNK // columns)
        for first in range(0, rows, step):
            part = rng.standard_normal((min(step, rows - first), columns), np.float32)
            large = rng.random(len(part)) < _OUTLIERS
            part *= np.where(large, _OUTLIER_SCALE, 1.0).astype(np.float32)[:, None] * scales
            self._data.write(part.astype(self.dtype).tobytes())
        return self._external(name, start, (rows, columns))

    def table(self, name: str, array: np.ndarray) -> str:
        """An array that is known, in the file of weights."""
        start = self._data.tell()
        self._data.write(array.astype(self.dtype).tobytes())
        return self._external(name, start, array.shape)

    def _external(self, name: str, start: int, shape: tuple[int, ...]) -> str:
        tensor = TensorProto(name=name, data_type=self.kind, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self._location, "offset": start, "length": self._data.tell() - start}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name


def write_decoder(
    folder: Path, shapes: Shapes = Shapes(), *, float16: bool = False, seed: int = 0
) -> Path:
    """Write `decoder.onnx` and `decoder.onnx.data`; return the former.

    Args:
        folder: where; it is made.
        shapes: of the network.
        float16: weights and activations of half precision, norms in single.
        seed: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "decoder.onnx"
    with Path(f"{path}.data").open("wb") as data:
        writer = _Writer(data, f"{path.name}.data", seed, float16=float16)
        inputs, outputs = _decoder(writer, shapes)
    graph = helper.make_graph(writer.nodes, "decoder", inputs, outputs, writer.initializers)
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def write_samples(
    model: Path, place: Path, number: int, *, length: int = 128, seed: int = 0
) -> Path:
    """Write drawn words as a `.npz` of calibration data; return its path.

    Args:
        model: that `write_decoder` has written.
        place: of the file.
        number: of sequences.
        length: of each, in words; their past is empty.
        seed: of the words.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {
        "attention_mask": np.ones((number, 1, length), np.int64),
        "position_ids": np.tile(np.arange(length), (number, 1, 1)),
    }
    graph = onnx.load(model, load_external_data=False).graph
    for value in graph.input:
        kind = value.type.tensor_type
        sizes = [dim.dim_value for dim in kind.shape.dim]
        if value.name.startswith("past"):
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            arrays[value.name] = np.zeros((number, 1, sizes[1], 0, sizes[3]), dtype)
    (table,) = (one for one in graph.initializer if one.name == "embed_tokens.weight")
    # Some words are far more frequent than others (Zipf).
    odds = 1 / np.arange(1, table.dims[0] + 1)
    words = rng.choice(table.dims[0], (number, 1, length), p=odds / odds.sum())
    np.savez(place, input_ids=words, **arrays)  # type: ignore[arg-type] # arrays
    return place


def _decoder(
    w: _Writer, shapes: Shapes
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """All nodes; inputs and outputs."""
    integers, float_info = TensorProto.INT64, helper.make_tensor_value_info
    inputs = [
        float_info("input_ids", integers, ["batch", "length"]),
        float_info("attention_mask", integers, ["batch", "total"]),
        float_info("position_ids", integers, ["batch", "length"]),
    ]
    outputs = [float_info("logits", w.kind, ["batch", "length", shapes.vocabulary])]
    _constants(w, shapes)
    _positions(w, shapes)
    w.weight("embed_tokens.weight", shapes.vocabulary, shapes.hidden)
    last = w.add("Gather", ["embed_tokens.weight", "input_ids"], "embedded", axis=0)
    for layer in range(shapes.layers):
        for which in ("key", "value"):
            cache = [shapes.kv_heads, "past", shapes.head_dim]
            inputs.append(float_info(f"past_key_values.{layer}.{which}", w.kind, ["batch", *cache]))
            cache[1] = "total"
            outputs.append(float_info(f"present.{layer}.{which}", w.kind, ["batch", *cache]))
        last = _attention(w, shapes, layer, last)
        last = _gated(w, shapes, f"layers.{layer}.mlp", last)
    last = _norm(w, shapes, "norm", last)
    w.weight("lm_head.weight", shapes.hidden, shapes.vocabulary)
    w.add("MatMul", [last, "lm_head.weight"], "logits")
    return inputs, outputs


def _constants(w: _Writer, shapes: Shapes) -> None:
    groups = shapes.heads // shapes.kv_heads
    for name, numbers in {
        "heads_shape": [0, 0, shapes.heads, shapes.head_dim],
        "kv_shape": [0, 0, shapes.kv_heads, shapes.head_dim],
        "merged_shape": [0, 0, shapes.hidden],
        "repeats": [1, 1, groups, 1, 1],
        "repeated_shape": [0, shapes.heads, -1, shapes.head_dim],
        "first": [0],
        "half": [shapes.head_dim // 2],
        "end": [2**31 - 1],
        "last_axis": [-1],
        "axis_1": [1],
        "axis_2": [2],
    }.items():
        w.constant(name, np.asarray(numbers, np.int64))
    w.constant("one", np.asarray(1, np.int64))
    w.constant("two", np.asarray(2, np.float32))
    w.constant("epsilon", np.asarray(1e-5, np.float32))
    w.constant("scale", np.asarray(shapes.head_dim**-0.5, w.dtype))
    w.constant("nothing", np.asarray(0, w.dtype))
    w.constant("masked", np.asarray(_MASKED, w.dtype))


def _positions(w: _Writer, shapes: Shapes) -> None:
    """The causal mask of all layers, and their cosines and sines."""
    steps = np.arange(0, shapes.head_dim, 2) / shapes.head_dim
    angles = np.outer(np.arange(shapes.positions), 1e4**-steps)
    both = np.concatenate([angles, angles], axis=1)
    for name, table in (("cos", np.cos(both)), ("sin", np.sin(both))):
        w.table(f"rotary.{name}", table)
        w.add("Gather", [f"rotary.{name}", "position_ids"], f"{name}_rows", axis=0)
        w.add("Unsqueeze", [f"{name}_rows", "axis_1"], name)
    w.add("CumSum", ["attention_mask", "one"], "counted")
    w.add("Sub", ["counted", "one"], "key_positions")
    w.add("Unsqueeze", ["key_positions", "axis_1"], "of_keys")
    w.add("Unsqueeze", ["position_ids", "axis_2"], "of_queries")
    w.add("GreaterOrEqual", ["of_queries", "of_keys"], "causal")
    w.add("Cast", ["attention_mask"], "present", to=TensorProto.BOOL)
    w.add("Unsqueeze", ["present", "axis_1"], "present_keys")
    w.add("And", ["causal", "present_keys"], "visible")
    w.add("Where", ["visible", "nothing", "masked"], "mask_rows")
    w.add("Unsqueeze", ["mask_rows", "axis_1"], "mask")


def _norm(w: _Writer, shapes: Shapes, name: str, given: str) -> str:
    """RMSNorm in single precision, as exporters write it."""
    scales = 1 + 0.1 * np.random.default_rng(len(name)).standard_normal(shapes.hidden)
    w.constant(f"{name}.weight", scales.astype(w.dtype))
    wide = w.add("Cast", [given], f"{name}/wide", to=TensorProto.FLOAT)
    squares = w.add("Pow", [wide, "two"], f"{name}/squares")
    mean = w.add("ReduceMean", [squares], f"{name}/mean", axes=[-1], keepdims=1)
    root = w.add("Sqrt", [w.add("Add", [mean, "epsilon"], f"{name}/sum")], f"{name}/root")
    normed = w.add("Div", [wide, root], f"{name}/normed")
    narrow = w.add("Cast", [normed], f"{name}/narrow", to=w.kind)
    return w.add("Mul", [narrow, f"{name}.weight"], f"{name}/out")


def _linear(w: _Writer, name: str, given: str, rows: int, columns: int) -> str:
    w.weight(f"{name}.weight", rows, columns)
    return w.add("MatMul", [given, f"{name}.weight"], f"{name}/out")


def _rotated(w: _Writer, name: str, given: str) -> str:
    """`given` turned by its positions."""
    low = w.add("Slice", [given, "first", "half", "last_axis"], f"{name}/low")
    high = w.add("Slice", [given, "half", "end", "last_axis"], f"{name}/high")
    negative = w.add("Neg", [high], f"{name}/negative")
    turned = w.add("Concat", [negative, low], f"{name}/turned", axis=-1)
    straight = w.add("Mul", [given, "cos"], f"{name}/straight")
    across = w.add("Mul", [turned, "sin"], f"{name}/across")
    return w.add("Add", [straight, across], f"{name}/rotated")


def _attention(w: _Writer, shapes: Shapes, layer: int, given: str) -> str:
    """Grouped-query attention with its norm, its cache and its residual."""
    name, kv_width = f"layers.{layer}.attention", shapes.kv_heads * shapes.head_dim
    normed = _norm(w, shapes, f"layers.{layer}.input_norm", given)
    heads = {}
    for part, width in (("q", shapes.hidden), ("k", kv_width), ("v", kv_width)):
        flat = _linear(w, f"{name}.{part}", normed, shapes.hidden, width)
        shape = "heads_shape" if part == "q" else "kv_shape"
        split = w.add("Reshape", [flat, shape], f"{name}.{part}/split")
        heads[part] = w.add("Transpose", [split], f"{name}.{part}/heads", perm=[0, 2, 1, 3])
    query = _rotated(w, f"{name}.q", heads["q"])
    heads["k"] = _rotated(w, f"{name}.k", heads["k"])
    for part, which in (("k", "key"), ("v", "value")):
        cached = f"present.{layer}.{which}"
        w.add("Concat", [f"past_key_values.{layer}.{which}", heads[part]], cached, axis=2)
        apart = w.add("Unsqueeze", [cached, "axis_2"], f"{name}.{part}/apart")
        many = w.add("Expand", [apart, "repeats"], f"{name}.{part}/many")
        heads[part] = w.add("Reshape", [many, "repeated_shape"], f"{name}.{part}/repeated")
    keys = w.add("Transpose", [heads["k"]], f"{name}/keys", perm=[0, 1, 3, 2])
    raw = w.add("MatMul", [query, keys], f"{name}/raw")
    scaled = w.add("Mul", [raw, "scale"], f"{name}/scaled")
    scores = w.add("Softmax", [w.add("Add", [scaled, "mask"], f"{name}/seen")], f"{name}/scores")
    mixed = w.add("MatMul", [scores, heads["v"]], f"{name}/mixed")
    rows = w.add("Transpose", [mixed], f"{name}/rows", perm=[0, 2, 1, 3])
    merged = w.add("Reshape", [rows, "merged_shape"], f"{name}/merged")
    out = _linear(w, f"{name}.o", merged, shapes.hidden, shapes.hidden)
    return w.add("Add", [given, out], f"{name}/residual")


def _gated(w: _Writer, shapes: Shapes, name: str, given: str) -> str:
    """The MLP with its norm and its residual."""
    normed = _norm(w, shapes, f"{name}_norm", given)
    gate = _linear(w, f"{name}.gate", normed, shapes.hidden, shapes.mlp)
    up = _linear(w, f"{name}.up", normed, shapes.hidden, shapes.mlp)
    silu = w.add("Mul", [gate, w.add("Sigmoid", [gate], f"{name}/sigmoid")], f"{name}/silu")
    gated = w.add("Mul", [silu, up], f"{name}/gated")
    down = _linear(w, f"{name}.down", gated, shapes.mlp, shapes.hidden)
    return w.add("Add", [given, down], f"{name}/residual")


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--float16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    for name in Shapes.__slots__:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=getattr(Shapes(), name)
        )
    given = parser.parse_args()
    shapes = Shapes(**{name: getattr(given, name) for name in Shapes.__slots__})
    print(write_decoder(given.folder, shapes, float16=given.float16, seed=given.seed))


if __name__ == "__main__":
    _main()
