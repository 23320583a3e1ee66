"""Export the small drawn Transformers from JAX: what `tests/transformer` reads beside PyTorch's.

    pip install jax==0.10.2 flax==0.12.8 jax2onnx==0.17.1
    python models/export_transformers_jax.py tests/transformer/exports

The networks of `export_transformers.py`, of the same sizes, as they are written in JAX: of Flax's
own modules, and the decoders with a cache of `jax.numpy` and einsums alone.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import jax2onnx
from flax import nnx
from jax import Array

WIDTH, HEADS, KEY_HEADS, MLP, WORDS, PLACES, LAYERS = 16, 4, 2, 40, 48, 24, 2
HEAD = WIDTH // HEADS
OPSETS = (17, 23)
EINSUMS = ("gpt", "llama")
"""Written without Flax; of these the converter's files of opset 17 are not valid (ReduceMean)."""


class PostNorm(nnx.Module):
    """A layer of BERT."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, MLP, rngs=rngs), nnx.Linear(MLP, WIDTH, rngs=rngs)
        self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, x: Array, mask: Array) -> Array:
        """Attention, then the MLP, each normed behind its sum."""
        x = self.norm1(self.attention(x, mask=mask) + x)
        return self.norm2(self.down(nnx.gelu(self.up(x), approximate=False)) + x)


class Bert(nnx.Module):
    """An encoder of words with a mask, pooled by its mean."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.places = nnx.Embed(PLACES, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.layers = nnx.List(PostNorm(rngs) for _ in range(LAYERS))

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, Array]:
        """States and their mean."""
        places = jnp.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.places(places)[None])
        mask = attention_mask[:, None, None, :] > 0
        for layer in self.layers:
            x = layer(x, mask)
        return x, x.mean(1)


class PreNorm(nnx.Module):
    """A layer of ViT, or of a decoder that reads an encoder's answers."""

    def __init__(self, rngs: nnx.Rngs, *, cross: bool = False) -> None:
        self.mine = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.other = (
            nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs) if cross else None
        )
        self.up, self.down = nnx.Linear(WIDTH, MLP, rngs=rngs), nnx.Linear(MLP, WIDTH, rngs=rngs)
        self.norms = nnx.List(nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2 + cross))

    def __call__(self, x: Array, memory: Array | None = None) -> Array:
        """Attention, cross attention where there is a memory, then the MLP."""
        x = x + self.mine(self.norms[0](x))
        if self.other is not None:
            x = x + self.other(self.norms[1](x), memory)
        activation = nnx.gelu if self.other is None else nnx.relu
        more = {"approximate": False} if self.other is None else {}
        return x + self.down(activation(self.up(self.norms[-1](x)), **more))


class Cross(nnx.Module):
    """A decoder without a cache that reads an encoder's answers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.places = nnx.Embed(PLACES, WIDTH, rngs=rngs)
        self.layers = nnx.List(PreNorm(rngs, cross=True) for _ in range(LAYERS))
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, WORDS, rngs=rngs)

    def __call__(self, input_ids: Array, memory: Array) -> Array:
        """Logits."""
        x = self.words(input_ids) + self.places(jnp.arange(input_ids.shape[1]))[None]
        for layer in self.layers:
            x = layer(x, memory)
        return self.head(self.norm(x))


class Vit(nnx.Module):
    """Patches of a picture, channels last as JAX has them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, WIDTH, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs)
        self.first = nnx.Param(jax.random.normal(rngs.params(), (1, 1, WIDTH)))
        self.places = nnx.Param(jax.random.normal(rngs.params(), (1, 17, WIDTH)))
        self.layers = nnx.List(PreNorm(rngs) for _ in range(LAYERS))
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Logits of classes."""
        x = self.patches(image)
        x = x.reshape(x.shape[0], 16, WIDTH)
        first = jnp.broadcast_to(self.first[...], (x.shape[0], 1, WIDTH))
        x = jnp.concatenate((first, x), 1) + self.places[...]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Llama:
    """A decoder of einsums: rotary positions, grouped queries, a gated MLP and a cache."""

    def __init__(self, key: Array) -> None:
        keys = iter(jax.random.split(key, 99))

        def drawn(*shape: int) -> Array:
            return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

        self.words = drawn(WORDS, WIDTH) * WORDS**0.5
        self.layers: list[dict[str, Array]] = [
            {
                "norm1": drawn(WIDTH) + 1.0,
                "q": drawn(WIDTH, HEADS, HEAD),
                "k": drawn(WIDTH, KEY_HEADS, HEAD),
                "v": drawn(WIDTH, KEY_HEADS, HEAD),
                "o": drawn(HEADS, HEAD, WIDTH),
                "norm2": drawn(WIDTH) + 1.0,
                "gate": drawn(WIDTH, MLP),
                "up": drawn(WIDTH, MLP),
                "down": drawn(MLP, WIDTH),
            }
            for _ in range(LAYERS)
        ]
        self.norm, self.head = drawn(WIDTH) + 1.0, drawn(WIDTH, WORDS)
        self.frequencies = 1e4 ** -(jnp.arange(HEAD // 2) / (HEAD // 2))

    def normed(self, x: Array, weight: Array) -> Array:
        """RMSNorm."""
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6) * weight

    def rotated(self, x: Array, cos: Array, sin: Array) -> Array:
        """Halves of queries or keys turned by their positions."""
        first, second = jnp.split(x, 2, -1)
        return x * cos + jnp.concatenate((-second, first), -1) * sin

    def __call__(self, input_ids: Array, position_ids: Array, *past: Array) -> tuple[Array, ...]:
        """Logits, and the cache with what was read."""
        angles = position_ids[:, :, None, None].astype(jnp.float32) * self.frequencies
        angles = jnp.concatenate((angles, angles), -1)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        x = self.words[input_ids]
        present: list[Array] = []
        for at, layer in enumerate(self.layers):
            y = self.normed(x, layer["norm1"])
            q, k, v = (jnp.einsum("bld,dhk->blhk", y, layer[one]) for one in "qkv")
            q, k = self.rotated(q, cos, sin), self.rotated(k, cos, sin)
            k = jnp.concatenate((past[2 * at], k), 1)
            v = jnp.concatenate((past[2 * at + 1], v), 1)
            present += (k, v)
            wide_k, wide_v = (jnp.repeat(one, HEADS // KEY_HEADS, axis=2) for one in (k, v))
            scores = jnp.einsum("blhk,bmhk->bhlm", q, wide_k) * HEAD**-0.5
            seen = jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(scores, -1), wide_v)
            x = x + jnp.einsum("blhk,hkd->bld", seen, layer["o"])
            y = self.normed(x, layer["norm2"])
            x = x + (jax.nn.silu(y @ layer["gate"]) * (y @ layer["up"])) @ layer["down"]
        return self.normed(x, self.norm) @ self.head, *present


class Gpt:
    """A decoder of einsums with learned positions, a packed projection, a cache and a tied head."""

    def __init__(self, key: Array) -> None:
        keys = iter(jax.random.split(key, 99))

        def drawn(*shape: int) -> Array:
            return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

        self.words, self.places = drawn(WORDS, WIDTH), drawn(PLACES, WIDTH)
        self.layers: list[dict[str, Array]] = [
            {
                "scale1": drawn(WIDTH) + 1.0,
                "shift1": drawn(WIDTH),
                "packed": drawn(WIDTH, 3 * WIDTH),
                "packed_bias": drawn(3 * WIDTH),
                "o": drawn(WIDTH, WIDTH),
                "o_bias": drawn(WIDTH),
                "scale2": drawn(WIDTH) + 1.0,
                "shift2": drawn(WIDTH),
                "up": drawn(WIDTH, MLP),
                "up_bias": drawn(MLP),
                "down": drawn(MLP, WIDTH),
                "down_bias": drawn(WIDTH),
            }
            for _ in range(LAYERS)
        ]
        self.scale, self.shift = drawn(WIDTH) + 1.0, drawn(WIDTH)

    def normed(self, x: Array, scale: Array, shift: Array) -> Array:
        """LayerNorm."""
        mean = jnp.mean(x, -1, keepdims=True)
        power = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(power + 1e-5) * scale + shift

    def __call__(self, input_ids: Array, *past: Array) -> tuple[Array, ...]:
        """Logits, and the cache with what was read."""
        before, length = past[0].shape[2], input_ids.shape[1]
        places = jnp.arange(length) + before
        mask = (jnp.arange(length + before)[None] <= places[:, None])[None, None]
        x = self.words[input_ids] + self.places[places][None]
        present: list[Array] = []
        for at, layer in enumerate(self.layers):
            y = self.normed(x, layer["scale1"], layer["shift1"])
            packed = jnp.split(y @ layer["packed"] + layer["packed_bias"], 3, -1)
            q, k, v = (
                one.reshape(one.shape[0], one.shape[1], HEADS, HEAD).transpose(0, 2, 1, 3)
                for one in packed
            )
            k = jnp.concatenate((past[2 * at], k), 2)
            v = jnp.concatenate((past[2 * at + 1], v), 2)
            present += (k, v)
            scores = q @ k.transpose(0, 1, 3, 2) / HEAD**0.5
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
            seen = (jax.nn.softmax(scores, -1) @ v).transpose(0, 2, 1, 3)
            x = x + seen.reshape(x.shape) @ layer["o"] + layer["o_bias"]
            y = self.normed(x, layer["scale2"], layer["shift2"])
            y = jax.nn.gelu(y @ layer["up"] + layer["up_bias"], approximate=True)
            x = x + y @ layer["down"] + layer["down_bias"]
        return self.normed(x, self.scale, self.shift) @ self.words.T, *present


def with_biases(network: nnx.Module, key: Array) -> nnx.Module:
    """Flax begins with zeros, which nothing needs to add."""
    state = nnx.state(network, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + 0.1 * jax.random.normal(one, leaf.shape)
        for leaf, one in zip(leaves, keys, strict=True)
    ]
    nnx.update(network, jax.tree.unflatten(tree, moved))
    return network


LENGTH, BATCH, PAST, MEMORY = 5, 2, 3, 7


def networks() -> dict[str, tuple[Any, list[tuple[int | str, ...]], list[str], list[str]]]:
    """By name: the network, shapes of inputs, names of inputs and outputs.

    Named dimensions are dynamic; where positions are counted the converter takes numbers alone.
    """
    caches = [f"{kind}.{at}" for at in range(LAYERS) for kind in ("key", "value")]
    before, after = [f"past.{one}" for one in caches], [f"present.{one}" for one in caches]
    ids = (BATCH, LENGTH)
    return {
        "bert": (
            with_biases(Bert(nnx.Rngs(0)), jax.random.key(9)),
            [ids, ids],
            ["input_ids", "attention_mask"],
            ["hidden", "pooled"],
        ),
        "gpt": (
            Gpt(jax.random.key(1)),
            [ids, *((BATCH, HEADS, PAST, HEAD) for _ in caches)],
            ["input_ids", *before],
            ["logits", *after],
        ),
        "llama": (
            Llama(jax.random.key(2)),
            [("B", "L"), ("B", "L"), *(("B", "P", KEY_HEADS, HEAD) for _ in caches)],
            ["input_ids", "position_ids", *before],
            ["logits", *after],
        ),
        "cross": (
            with_biases(Cross(nnx.Rngs(3)), jax.random.key(9)),
            [ids, (BATCH, MEMORY, WIDTH)],
            ["input_ids", "memory"],
            ["logits"],
        ),
        "vit": (
            with_biases(Vit(nnx.Rngs(4)), jax.random.key(9)),
            [("B", 16, 16, 3)],
            ["image"],
            ["classes"],
        ),
    }


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, (network, shapes, inputs, outputs) in networks().items():
        scope = jax.export.SymbolicScope()
        given = [
            jax.ShapeDtypeStruct(
                jax.export.symbolic_shape(",".join(map(str, shape)), scope=scope),
                jnp.int32 if one.endswith(("_ids", "_mask")) else jnp.float32,
            )
            for one, shape in zip(inputs, shapes, strict=True)
        ]
        for opset in OPSETS[name in EINSUMS :]:
            jax2onnx.to_onnx(
                network,
                given,
                opset=opset,
                return_mode="file",
                output_path=str(folder / f"{name}_jax_{opset}.onnx"),
                input_names=inputs,
                output_names=outputs,
            )


if __name__ == "__main__":
    main()
