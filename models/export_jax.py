"""Export Transformers written in JAX: drawn ones for `tests/transformer`, or a trained BERT.

    pip install jax==0.10.2 flax==0.12.8 jax2onnx==0.17.1 safetensors onnxruntime
    python models/export_jax.py tests/transformer/exports
    python models/export_jax.py minilm --bert model.safetensors

Three ways to write the same network: `plain` (products of matrices, heads by reshapes), `heads`
(kernels [width, heads, width of a head] in einsum, as Flax stores them) and `nnx` (Flax's norms and
JAX's dot_product_attention, for which jax2onnx has plug-ins). The weights are the same in all. A
trained BERT is written as `scan` too: `plain`, its layers as turns of `lax.scan`.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime as ort
from flax import nnx
from jax import Array
from jax2onnx import to_onnx
from safetensors.numpy import load_file

WIDTH, HEADS, MLP, WORDS, PLACES, LAYERS = 16, 4, 40, 48, 24, 2

FORMS = {"plain": 17, "heads": 21, "nnx": 23}
"""The opset that each is written in for the tests."""

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Style:
    """How layers are written.

    Attributes:
        form: one of `FORMS`.
        weights: by name; matrices are [inputs, outputs].
        heads: of every attention.
        epsilon: of every norm.
    """

    form: str
    weights: Weights
    heads: int = HEADS
    epsilon: float = 1e-5

    @property
    def layers(self) -> int:
        """Of an encoder."""
        return sum(f"{at}.q.w" in self.weights for at in range(len(self.weights)))

    def linear(self, name: str, x: Array) -> Array:
        """Over the last axis."""
        return x @ self.weights[f"{name}.w"] + self.weights[f"{name}.b"]

    def norm(self, name: str, x: Array) -> Array:
        """LayerNorm."""
        scale, offset = self.weights[f"{name}.w"], self.weights[f"{name}.b"]
        if self.form == "nnx":
            layer = nnx.LayerNorm(x.shape[-1], epsilon=self.epsilon, rngs=nnx.Rngs(0))
            layer.scale[...], layer.bias[...] = jnp.asarray(scale), jnp.asarray(offset)
            return layer(x)
        centred = x - x.mean(-1, keepdims=True)
        deviation = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + self.epsilon)
        return centred * deviation * scale + offset

    def attend(self, name: str, x: Array, y: Array, mask: Array | None = None) -> Array:
        """Queries of x on keys and values of y, both [batch, length, width]."""
        width = x.shape[-1] // self.heads
        parts = (self.parted(f"{name}.{one}", z) for one, z in zip("qkv", (x, y, y), strict=True))
        q, k, v = parts
        if self.form == "nnx":
            found = jax.nn.dot_product_attention(q, k, v, bias=mask, scale=width**-0.5)
            return self.linear(f"{name}.o", found.reshape(*x.shape[:2], x.shape[-1]))
        if self.form == "heads":
            scores = jnp.einsum("bqhd,bkhd->bhqk", q / math.sqrt(width), k)
        else:
            q, k, v = (one.transpose(0, 2, 1, 3) for one in (q, k, v))
            scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width)
        chances = jax.nn.softmax(scores if mask is None else scores + mask, axis=-1)
        if self.form == "heads":
            found = jnp.einsum("bhqk,bkhd->bqhd", chances, v)
            kernel = self.weights[f"{name}.o.w"].reshape(self.heads, width, -1)
            return jnp.einsum("bqhd,hdo->bqo", found, kernel) + self.weights[f"{name}.o.b"]
        found = (chances @ v).transpose(0, 2, 1, 3)
        return self.linear(f"{name}.o", found.reshape(*x.shape[:2], x.shape[-1]))

    def parted(self, name: str, x: Array) -> Array:
        """A projection as [batch, length, heads, width of a head]."""
        width = x.shape[-1] // self.heads
        if self.form == "plain":
            return self.linear(name, x).reshape(*x.shape[:2], self.heads, width)
        kernel = self.weights[f"{name}.w"].reshape(-1, self.heads, width)
        bias = self.weights[f"{name}.b"].reshape(self.heads, width)
        return jnp.einsum("btd,dhk->bthk", x, kernel) + bias

    def embedded(self, ids: Array) -> Array:
        """Words and positions."""
        # jax2onnx 0.17.1 loses what a symbolic length is in arange, and so cannot add its rows.
        places = jnp.cumsum(jnp.ones_like(ids), axis=1) - 1
        words = jnp.take(self.weights["words"], ids, axis=0)
        return words + jnp.take(self.weights["places"], places, axis=0)


def bert(net: Style, input_ids: Array, attention_mask: Array) -> tuple[Array, Array]:
    """Post-norm encoder with a mask, pooled by its mean."""
    x = net.embedded(input_ids)
    x = net.norm("norm", x)
    mask = (1 - jnp.expand_dims(attention_mask, (1, 2)).astype(jnp.float32)) * -1e4
    for at in range(net.layers):
        x = net.norm(f"{at}.norm1", net.attend(f"{at}", x, x, mask) + x)
        y = jax.nn.gelu(net.linear(f"{at}.up", x), approximate=False)
        x = net.norm(f"{at}.norm2", net.linear(f"{at}.down", y) + x)
    return x, x.mean(1)


def scanned(net: Style, input_ids: Array, attention_mask: Array) -> tuple[Array, Array]:
    """As `bert`, its layers as turns of a loop over stacked weights."""
    x = net.norm("norm", net.embedded(input_ids))
    mask = (1 - jnp.expand_dims(attention_mask, (1, 2)).astype(jnp.float32)) * -1e4
    names = [name.partition(".")[2] for name in net.weights if name.startswith("0.")]
    stacked = {
        f"0.{name}": jnp.stack([net.weights[f"{at}.{name}"] for at in range(net.layers)])
        for name in names
    }

    def layer(x: Array, weights: Weights) -> tuple[Array, None]:
        own = replace(net, weights=weights)
        x = own.norm("0.norm1", own.attend("0", x, x, mask) + x)
        y = jax.nn.gelu(own.linear("0.up", x), approximate=False)
        return own.norm("0.norm2", own.linear("0.down", y) + x), None

    x, _ = jax.lax.scan(layer, x, stacked)
    return x, x.mean(1)


def vit(net: Style, image: Array) -> Array:
    """Pre-norm encoder of patches; JAX's pictures have channels last."""
    batch = image.shape[0]
    x = image.reshape(batch, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(batch, 16, 48)
    x = net.linear("patches", x)
    first = jnp.broadcast_to(net.weights["first"], (batch, 1, WIDTH))
    x = jnp.concatenate((first, x), 1) + net.weights["places"]
    for at in range(LAYERS):
        y = net.norm(f"{at}.norm1", x)
        x = x + net.attend(f"{at}", y, y)
        y = jax.nn.gelu(net.linear(f"{at}.up", net.norm(f"{at}.norm2", x)), approximate=False)
        x = x + net.linear(f"{at}.down", y)
    return net.linear("head", net.norm("norm", x)[:, 0])


def cross(net: Style, input_ids: Array, memory: Array) -> Array:
    """Decoder without a cache that reads an encoder's answers."""
    x = net.embedded(input_ids)
    for at in range(LAYERS):
        y = net.norm(f"{at}.norm0", x)
        x = x + net.attend(f"{at}.mine", y, y)
        x = x + net.attend(f"{at}.other", net.norm(f"{at}.norm1", x), memory)
        y = jax.nn.relu(net.linear(f"{at}.up", net.norm(f"{at}.norm2", x)))
        x = x + net.linear(f"{at}.down", y)
    return net.linear("head", net.norm("norm", x))


def drawn(rows: int) -> Weights:
    """Weights of all three small networks."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}

    def layer(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.w"] = rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        found[f"{name}.b"] = rng.normal(0, 0.1, outputs).astype(np.float32)

    def norm(name: str) -> None:
        found[f"{name}.w"] = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        found[f"{name}.b"] = rng.normal(0, 0.1, WIDTH).astype(np.float32)

    found["words"] = rng.normal(0, 1, (WORDS, WIDTH)).astype(np.float32)
    found["places"] = rng.normal(0, 1, (rows, WIDTH)).astype(np.float32)
    found["first"] = rng.normal(0, 1, (1, 1, WIDTH)).astype(np.float32)
    for at in range(LAYERS):
        for place in (f"{at}", f"{at}.mine", f"{at}.other"):
            for one in "qkvo":
                layer(f"{place}.{one}", WIDTH, WIDTH)
        layer(f"{at}.up", WIDTH, MLP)
        layer(f"{at}.down", MLP, WIDTH)
        for number in range(3):
            norm(f"{at}.norm{number}")
    norm("norm")
    layer("patches", 48, WIDTH)
    layer("head", WIDTH, WORDS)
    return found


def trained(path: Path) -> Weights:
    """The weights of a BERT in Hugging Face's names; token type 0 is added to positions."""
    given = load_file(path)
    found: dict[str, np.ndarray] = {}
    tables = "embeddings.{}_embeddings.weight"
    found["words"] = given[tables.format("word")]
    found["places"] = given[tables.format("position")] + given[tables.format("token_type")][0]
    names = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
    names |= {"o": "attention.output.dense", "norm1": "attention.output.LayerNorm"}
    names |= {"up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm"}
    pairs = {"norm": "embeddings.LayerNorm"}
    layers = sum(name.endswith("query.weight") for name in given)
    for at in range(layers):
        pairs |= {f"{at}.{mine}": f"encoder.layer.{at}.{other}" for mine, other in names.items()}
    for mine, other in pairs.items():
        found[f"{mine}.w"] = np.ascontiguousarray(given[f"{other}.weight"].T)
        found[f"{mine}.b"] = given[f"{other}.bias"]
    return found


def write(
    network: Callable[..., object],
    net: Style,
    given: Mapping[str, np.ndarray],
    outputs: list[str],
    path: Path,
    *,
    opset: int,
    dynamic: Mapping[str, tuple[int | str, ...]],
) -> None:
    """Write one form, and compare it with JAX where `given` is what it is traced with."""

    def call(*values: Array) -> object:
        return network(net, *values)

    specs = [
        jax.ShapeDtypeStruct(dynamic.get(name, one.shape), one.dtype) for name, one in given.items()
    ]
    model = to_onnx(
        call,
        specs,
        opset=opset,
        input_names=list(given),
        output_names=outputs,
        normalization_mode="prefer_native",
    )
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = session.run(outputs, dict(given))
    wanted = jax.tree.leaves(call(*(jnp.asarray(one) for one in given.values())))
    off = max(float(np.abs(a - np.asarray(b)).max()) for a, b in zip(made, wanted, strict=True))
    print(f"{path.name}: {len(model.graph.node)} nodes, off by {off:.1e}")


def tell(
    network: Callable[..., object],
    net: Style,
    given: Mapping[str, np.ndarray],
    outputs: list[str],
    path: Path,
    *,
    opset: int,
    dynamic: Mapping[str, tuple[int | str, ...]],
) -> None:
    """Write one form, or say why the converter does not."""
    try:
        write(network, net, given, outputs, path, opset=opset, dynamic=dynamic)
    except Exception as error:  # noqa: BLE001 # whatever a converter raises is its answer
        print(f"{path.name}: {type(error).__name__}: {str(error)[:200]}")


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bert", type=Path, help="weights of a BERT, as safetensors")
    said = parser.parse_args()
    said.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    if said.bert:
        net_weights = trained(said.bert)
        ids = rng.integers(1000, 20000, (2, 32)).astype(np.int32)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        symbolic = dict.fromkeys(given, ("batch", "length"))
        for form in FORMS:
            net = Style(form, net_weights, 12, 1e-12)
            for opset in sorted({17, 21, 23}):
                for name, dynamic in {"fixed": {}, "dynamic": symbolic}.items():
                    path = said.folder / f"minilm_{form}_{opset}_{name}.onnx"
                    tell(bert, net, given, ["hidden", "pooled"], path, opset=opset, dynamic=dynamic)
        net = Style("plain", net_weights, 12, 1e-12)
        path, batch = said.folder / "minilm_scan_21_batch.onnx", dict.fromkeys(given, ("batch", 32))
        tell(scanned, net, given, ["hidden", "pooled"], path, opset=21, dynamic=batch)
        return
    ids = rng.integers(0, WORDS, (2, 5)).astype(np.int32)
    memory = rng.normal(size=(2, 7, WIDTH)).astype(np.float32)
    networks: list[tuple[str, Callable[..., object], dict[str, np.ndarray], list[str], int]] = [
        (
            "bert",
            bert,
            {"input_ids": ids, "attention_mask": np.ones_like(ids)},
            ["hidden", "pooled"],
            PLACES,
        ),
        ("cross", cross, {"input_ids": ids, "memory": memory}, ["logits"], PLACES),
        (
            "vit",
            vit,
            {"image": rng.normal(size=(2, 16, 16, 3)).astype(np.float32)},
            ["classes"],
            17,
        ),
    ]
    for form, opset in FORMS.items():
        for name, network, given, outputs, rows in networks:
            net = Style(form, drawn(rows))
            dynamic = {
                one: ("batch", *value.shape[1:])
                if one == "image"
                else ("batch", "memory" if one == "memory" else "length", *value.shape[2:])
                for one, value in given.items()
            }
            tell(
                network,
                net,
                given,
                outputs,
                said.folder / f"{name}_jax_{form}.onnx",
                opset=opset,
                dynamic=dynamic,
            )


if __name__ == "__main__":
    main()
