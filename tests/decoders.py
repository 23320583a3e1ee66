"""Tiny decoders and an encoder with random weights, as exporters lay them out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, DIM, VOCABULARY = 32, 2, 16, 24
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Graph:
    """Nodes and weights under a prefix."""

    def __init__(self, prefix: str, weights: dict[str, np.ndarray]) -> None:
        self.prefix = prefix
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node; its output's name."""
        made = name or f"{self.prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [made], name=made, **attributes))
        return made

    def constant(self, name: str, value: object) -> str:
        """Register a weight; its name."""
        self.weights[name] = np.asarray(value)
        return name

    def linear(self, x: str, name: str, width: tuple[int, int], seed: int) -> str:
        """Multiply by a random weight, the same for a name and seed."""
        rng = np.random.default_rng(seed)
        # What blocks add is small beside the stream, so that the best token leads clearly.
        scale = (0.4 if name in ("o", "co", "down") else 1.5) / np.sqrt(width[0])
        self.weights.setdefault(name, (rng.normal(0, scale, width)).astype(np.float32))
        return self.add("MatMul", x, name)

    def heads(self, x: str) -> str:
        """[batch, step, width] to [batch, heads, step, dim]."""
        shape = self.constant("to_heads", np.array([0, 0, HEADS, DIM], np.int64))
        return self.add("Transpose", self.add("Reshape", x, shape), perm=[0, 2, 1, 3])


def _attended(g: Graph, q: str, k: str, v: str, mask: str | None) -> str:
    scores = g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g.add("Mul", scores, g.constant("scale", np.float32(DIM**-0.5)))
    if mask is not None:
        scores = g.add("Add", scores, mask)
    y = g.add("Transpose", g.add("MatMul", g.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    return g.add("Reshape", y, g.constant("from_heads", np.array([0, 0, WIDTH], np.int64)))


def _causal(g: Graph, keys: str, *, masked: bool = False) -> str:
    """Zero where a key is seen, [1 or batch, 1, step, past + step]."""
    one = g.constant("one", np.array(1, np.int64))
    zero = g.constant("zero", np.array(0, np.int64))
    step = g.add("Gather", g.add("Shape", "input_ids"), one)
    total = g.add("Gather", g.add("Shape", keys), g.constant("two", np.array(2, np.int64)))
    rows = g.add("Range", g.add("Sub", total, step), total, one)
    rows = g.add("Unsqueeze", rows, g.constant("last", np.array([1], np.int64)))
    seen = g.add("LessOrEqual", g.add("Range", zero, total, one), rows)
    if masked:
        places = g.constant("places", np.array([1, 2], np.int64))
        text = g.add("Unsqueeze", g.add("Cast", "attention_mask", to=BOOL), places)
        seen = g.add("And", seen, text)
    hidden = g.constant("hidden", np.float32(-1e9))
    return g.add("Where", seen, g.constant("shown", np.float32(0)), hidden)


def _encoder_cache(g: Graph, *, read: bool) -> tuple[str, str]:
    """Keys and values of the encoder's states: computed, or what the first step gave."""
    if read:
        return "past_key_values.0.encoder.key", "past_key_values.0.encoder.value"
    states = "encoder_hidden_states"
    made = (g.heads(g.linear(states, f"c{n}", (32, 32), 6 + i)) for i, n in enumerate("kv"))
    return next(made), next(made)


def decoder_body(
    g: Graph, *, with_past: bool, encoder: bool, cross_cache: bool = False, masked: bool = False
) -> None:
    """One block; writes `logits` and `present.0.key`/`.value` with the graph's prefix."""
    rng = np.random.default_rng(0)
    g.weights.setdefault("embedding", rng.normal(0, 1, (VOCABULARY, WIDTH)).astype(np.float32))
    x = g.add("Gather", "embedding", "input_ids")
    q, k, v = (g.linear(x, name, (WIDTH, WIDTH), 1 + at) for at, name in enumerate("qkv"))
    k, v = g.heads(k), g.heads(v)
    if with_past:
        k = g.add("Concat", "past_key_values.0.key", k, axis=2)
        v = g.add("Concat", "past_key_values.0.value", v, axis=2)
    k = g.add("Identity", k, name=f"{g.prefix}present.0.key")
    v = g.add("Identity", v, name=f"{g.prefix}present.0.value")
    causal = _causal(g, k, masked=masked)
    x = g.add("Add", x, g.linear(_attended(g, g.heads(q), k, v, causal), "o", (32, 32), 5))
    if encoder:
        ck, cv = _encoder_cache(g, read=with_past and cross_cache)
        if cross_cache and not with_past:
            g.add("Identity", ck, name=f"{g.prefix}present.0.encoder.key")
            g.add("Identity", cv, name=f"{g.prefix}present.0.encoder.value")
        cq = g.heads(g.linear(x, "cq", (WIDTH, WIDTH), 8))
        x = g.add("Add", x, _attended(g, cq, ck, cv, None))
    hidden = g.add("Relu", g.linear(x, "up", (WIDTH, 64), 9))
    x = g.add("Add", x, g.linear(hidden, "down", (64, WIDTH), 10))
    g.weights["head"] = np.roll(g.weights["embedding"], 1, axis=0).T.copy()
    logits = g.add("MatMul", x, "head")
    g.add("Identity", logits, name=f"{g.prefix}logits")


def _value(name: str, kind: int, *dims: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


PARTS = ("key", "value")
PAST = [_value(f"past_key_values.0.{part}", FLOAT, "batch", HEADS, "past", DIM) for part in PARTS]
OUTPUTS = [
    _value("logits", FLOAT, "batch", "step", VOCABULARY),
    *(_value(f"present.0.{part}", FLOAT, "batch", HEADS, "total", DIM) for part in PARTS),
]
IDS = _value("input_ids", INT64, "batch", "step")
STATES = _value("encoder_hidden_states", FLOAT, "batch", "source", WIDTH)


def _saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
) -> Path:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_decoder(
    path: Path,
    *,
    with_past: bool = True,
    encoder: bool = False,
    cross_cache: bool = False,
    masked: bool = False,
) -> Path:
    """A decoder with a cache; without a past it only takes the first step.

    With `masked` it takes an `attention_mask`, [batch, past + step].
    With `cross_cache` the first step gives keys and values of the encoder, which others take.
    """
    g = Graph("", {})
    decoder_body(g, with_past=with_past, encoder=encoder, cross_cache=cross_cache, masked=masked)
    mask = [_value("attention_mask", INT64, "batch", "total")] if masked else []
    inputs = [IDS, *mask, *(PAST if with_past else [])]
    outputs = list(OUTPUTS)
    crossing = [(f"0.encoder.{part}", (FLOAT, "batch", HEADS, "source", DIM)) for part in PARTS]
    if cross_cache and with_past:
        inputs += [_value(f"past_key_values.{name}", *kind) for name, kind in crossing]
    elif encoder:
        inputs.append(STATES)
        outputs += [_value(f"present.{n}", *kind) for n, kind in crossing if cross_cache]
    return _saved(path, g.nodes, inputs, outputs, g.weights)


def write_merged(path: Path) -> Path:
    """Both forms as branches of an If on `use_cache_branch`, as optimum merges them."""
    weights: dict[str, np.ndarray] = {}
    branches: dict[str, Any] = {}
    for prefix, with_past in (("then_", True), ("else_", False)):
        g = Graph(prefix, weights)
        decoder_body(g, with_past=with_past, encoder=False)
        outputs = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in OUTPUTS]
        for value in outputs:
            value.name = prefix + value.name
        branches[f"{prefix}branch"] = helper.make_graph(g.nodes, prefix, [], outputs)
    node = helper.make_node(
        "If", ["use_cache_branch"], [v.name for v in OUTPUTS], name="merged", **branches
    )
    inputs = [IDS, *PAST, _value("use_cache_branch", BOOL, 1)]
    return _saved(path, [node], inputs, OUTPUTS, weights)


def write_encoder(path: Path, *, width: int = WIDTH) -> Path:
    """Tokens to hidden states."""
    g = Graph("", {})
    rng = np.random.default_rng(20)
    g.weights["source"] = rng.normal(0, 1, (VOCABULARY, width)).astype(np.float32)
    x = g.add("Gather", "source", "input_ids")
    hidden = g.add("Relu", g.linear(x, "in", (width, 64), 21))
    x = g.add("Add", x, g.linear(hidden, "out", (64, width), 22), name="last_hidden_state")
    output = _value("last_hidden_state", FLOAT, "batch", "source", width)
    return _saved(path, g.nodes, [IDS], [output], g.weights)


BANDS = 8


def write_listener(path: Path, *, names: str = "cross", heads: int = HEADS) -> Path:
    """Features [batch, 8, frames] by two strided convolutions to the keys and values of a cache.

    With other heads than a decoder has they do not fit it.
    """
    g = Graph("", {})
    rng = np.random.default_rng(40)
    x = "features"
    for at, width in enumerate((BANDS, WIDTH)):
        kernel = rng.normal(0, 4 / np.sqrt(3 * width), (WIDTH, width, 3)).astype(np.float32)
        g.weights[f"kernel{at}"] = kernel
        x = g.add("Conv", x, f"kernel{at}", strides=[2], pads=[1, 1])
        x = g.add("Relu", x)
    x = g.add("Transpose", x, perm=[0, 2, 1])
    shape = g.constant("to_heads", np.array([0, 0, heads, DIM], np.int64))
    for at, part in enumerate(PARTS):
        made = g.linear(x, f"c{part}", (WIDTH, heads * DIM), 6 + at)
        made = g.add("Reshape", made, shape)
        g.add("Transpose", made, name=f"{names}.{part}", perm=[0, 2, 1, 3])
    outputs = [_value(f"{names}.{part}", FLOAT, "batch", heads, "heard", DIM) for part in PARTS]
    given = _value("features", FLOAT, "batch", BANDS, "frames")
    return _saved(path, g.nodes, [given], outputs, g.weights)


def write_recognizer(folder: Path, *, names: str = "cross", heads: int = HEADS) -> Path:
    """A listener, and a decoder that takes the cross cache from it; the description's file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_listener(folder / "encoder.onnx", names=names, heads=heads)
    write_decoder(folder / "decoder.onnx", encoder=True, cross_cache=True)
    fed = [f'"past_key_values.0.encoder.{part}" = "encoder.{names}.{part}"' for part in PARTS]
    same = names == "past_key_values.0.encoder"
    (folder / "pipeline.toml").write_text(
        "\n".join(
            (
                "[[part]]",
                'name = "encoder"',
                'model = "encoder.onnx"',
                "[[part]]",
                'name = "decoder"',
                'model = "decoder.onnx"',
                *(() if same else ("[part.inputs]", *fed)),
                "[part.loop]",
                'tokens = "input_ids"',
                "start = 2",
                "end = [1]",
                "steps = 8",
                "[part.loop.cache]",
                *(f'"past_key_values.0.{part}" = "present.0.{part}"' for part in PARTS),
            )
        )
    )
    return folder / "pipeline.toml"


def write_head(path: Path) -> Path:
    """Hidden states to scores of 5 classes, of each token."""
    g = Graph("", {})
    g.add("Softmax", g.linear("last_hidden_state", "classes", (WIDTH, 5), 23), name="probabilities")
    given = _value("last_hidden_state", FLOAT, "batch", "source", WIDTH)
    output = _value("probabilities", FLOAT, "batch", "source", 5)
    return _saved(path, g.nodes, [given], [output], g.weights)


def write_seq2seq(folder: Path) -> Path:
    """A folder as optimum writes it: encoder, decoder for the first step, decoder for others."""
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder(folder / "encoder_model.onnx")
    write_decoder(folder / "decoder_model.onnx", with_past=False, encoder=True, cross_cache=True)
    write_decoder(folder / "decoder_with_past_model.onnx", encoder=True, cross_cache=True)
    config = {"decoder_start_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def prompts(number: int, length: int = 6, seed: int = 0) -> np.ndarray:
    """Random tokens, int64 [number, length]."""
    return np.random.default_rng(seed).integers(2, VOCABULARY, (number, length))
