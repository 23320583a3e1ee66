"""Export small drawn Transformers in several forms: what `tests/transformer` reads.

    pip install torch==2.13.0 numpy onnx onnxscript onnxruntime transformers
    python models/export_transformers.py tests/transformer/exports

Each network is written by TorchScript (opsets 13 or 14, and 17) and by dynamo (18 and 23), and,
where onnxruntime's optimizer for Transformers fuses it, in its operators too. The weights are
drawn, and few: what matters is the graph.
"""

import argparse
import math
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, KEY_HEADS, MLP, WORDS, PLACES, LAYERS = 16, 4, 2, 40, 48, 24, 2

FUSED = ("gpt", "vit")
"""They call scaled_dot_product_attention, which TorchScript writes from opset 14 on."""


def heads(x: Tensor, count: int) -> Tensor:
    """[batch, length, width] as [batch, heads, length, width of a head]."""
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """The inverse of `heads`."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class PostNorm(nn.Module):
    """A layer of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (heads(one(x), HEADS) for one in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + mask
        x = self.norm1(self.dense(joined(scores.softmax(-1) @ v)) + x)
        return self.norm2(self.down(functional.gelu(self.up(x))) + x)


class Bert(nn.Module):
    """An encoder of words with a mask, pooled by its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(PostNorm() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.places(places)[None])
        mask = (1 - attention_mask[:, None, None].float()) * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        return x, x.mean(1)


class PreNorm(nn.Module):
    """A layer of GPT-2, with its cache."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.dense = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(
        self, x: Tensor, past_key: Tensor, past_value: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (heads(one, HEADS) for one in self.packed(self.norm1(x)).split(WIDTH, -1))
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
        x = x + self.dense(joined(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh")), k, v


class Gpt(nn.Module):
    """A decoder with learned positions and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.layers = nn.ModuleList(PreNorm() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        before, length = past[0].shape[2], input_ids.shape[1]
        places = torch.arange(before, before + length)
        mask = (torch.arange(before + length)[None] <= places[:, None])[None, None]
        x = self.words(input_ids) + self.places(places)[None]
        present: list[Tensor] = []
        for at, layer in enumerate(self.layers):
            x, k, v = layer(x, past[2 * at], past[2 * at + 1], mask)
            present += (k, v)
        return self.head(self.norm(x)), *present


class RMSNorm(nn.Module):
    """As Llama computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves of queries or keys turned by their positions."""
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cos + torch.cat((-second, first), -1) * sin


class Gated(nn.Module):
    """A layer of Llama."""

    def __init__(self) -> None:
        super().__init__()
        narrow = WIDTH // HEADS * KEY_HEADS
        self.q, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(WIDTH, narrow, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(WIDTH, MLP, bias=False) for _ in range(2))
        self.down = nn.Linear(MLP, WIDTH, bias=False)
        self.norm1, self.norm2 = RMSNorm(), RMSNorm()

    def forward(
        self, x: Tensor, past_key: Tensor, past_value: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = self.norm1(x)
        q, k, v = heads(self.q(y), HEADS), heads(self.k(y), KEY_HEADS), heads(self.v(y), KEY_HEADS)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
        times = HEADS // KEY_HEADS
        wide_k, wide_v = (
            one[:, :, None]
            .expand(one.shape[0], KEY_HEADS, times, one.shape[2], one.shape[3])
            .reshape(one.shape[0], HEADS, one.shape[2], one.shape[3])
            for one in (k, v)
        )
        scores = q @ wide_k.transpose(2, 3) * (WIDTH // HEADS) ** -0.5
        x = x + self.o(joined(scores.float().softmax(-1) @ wide_v))
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y)), k, v


class Llama(nn.Module):
    """A decoder with rotary positions, grouped queries, a gated MLP and a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Gated() for _ in range(LAYERS))
        self.norm, self.head = RMSNorm(), nn.Linear(WIDTH, WORDS, bias=False)
        half = WIDTH // HEADS // 2
        self.register_buffer("frequencies", 1e4 ** -(torch.arange(half) / half))

    def forward(self, input_ids: Tensor, position_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        angles = position_ids[:, None, :, None].float() * self.frequencies
        angles = torch.cat((angles, angles), -1)
        x = self.words(input_ids)
        present: list[Tensor] = []
        for at, layer in enumerate(self.layers):
            x, k, v = layer(x, past[2 * at], past[2 * at + 1], angles.cos(), angles.sin())
            present += (k, v)
        return self.head(self.norm(x)), *present


class CrossLayer(nn.Module):
    """A layer of a decoder that reads an encoder's answers."""

    def __init__(self) -> None:
        super().__init__()
        self.mine, self.other = (
            nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4)) for _ in range(2)
        )
        self.up, self.down = nn.Linear(WIDTH, MLP), nn.Linear(MLP, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def attend(self, layers: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = heads(layers[0](x), HEADS), heads(layers[1](y), HEADS), heads(layers[2](y), HEADS)
        scores = (q * (WIDTH // HEADS) ** -0.5) @ k.transpose(2, 3)
        return layers[3](joined(functional.softmax(scores, -1) @ v))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attend(self.mine, y, y)
        x = x + self.attend(self.other, self.norms[1](x), memory)
        return x + self.down(functional.relu(self.up(self.norms[2](x))))


class Cross(nn.Module):
    """A decoder without a cache that reads an encoder's answers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.layers = nn.ModuleList(CrossLayer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, input_ids: Tensor, memory: Tensor) -> Tensor:
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))[None]
        for layer in self.layers:
            x = layer(x, memory)
        return self.head(self.norm(x))


class Vit(nn.Module):
    """Patches of a picture, with PyTorch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, MLP, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(LAYERS)
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.first.expand(x.shape[0], -1, -1), x), 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def networks() -> dict[str, tuple[nn.Module, tuple[Tensor, ...], list[str], list[str]]]:
    """By name: the network, what it is traced with, names of inputs and outputs."""
    ids = torch.randint(0, WORDS, (2, 5))
    narrow = WIDTH // HEADS
    caches = [f"{kind}.{at}" for at in range(LAYERS) for kind in ("key", "value")]
    past, present = [f"past.{one}" for one in caches], [f"present.{one}" for one in caches]
    wide = [torch.randn(2, HEADS, 3, narrow) for _ in caches]
    grouped = [torch.randn(2, KEY_HEADS, 3, narrow) for _ in caches]
    places = torch.arange(3, 8)[None].repeat(2, 1)
    mask = torch.ones(2, 5, dtype=torch.int64)
    return {
        "bert": (Bert(), (ids, mask), ["input_ids", "attention_mask"], ["hidden", "pooled"]),
        "gpt": (Gpt(), (ids, *wide), ["input_ids", *past], ["logits", *present]),
        "llama": (
            Llama(),
            (ids, places, *grouped),
            ["input_ids", "position_ids", *past],
            ["logits", *present],
        ),
        "cross": (Cross(), (ids, torch.randn(2, 7, WIDTH)), ["input_ids", "memory"], ["logits"]),
        "vit": (Vit(), (torch.randn(2, 3, 16, 16),), ["image"], ["classes"]),
    }


def axes(names: list[str]) -> dict[str, dict[int, str]]:
    """Which axes of inputs are dynamic."""
    found = {}
    for name in names:
        if name == "image":
            found[name] = {0: "batch"}
        elif name.startswith("past"):
            found[name] = {0: "batch", 2: "past"}
        else:
            found[name] = {0: "batch", 1: "memory" if name == "memory" else "length"}
    return found


def export(network: nn.Module, given: tuple[Tensor, ...], path: Path, **said: object) -> None:
    """Write one form."""
    torch.onnx.export(network, given, path, external_data=False, **said)  # type: ignore[arg-type]


def fused(source: Path, path: Path) -> None:
    """Write what onnxruntime's optimizer makes of a file, where that is anything."""
    from onnxruntime.transformers import optimizer  # noqa: PLC0415 # logs when it is imported

    made = optimizer.optimize_model(str(source), "bert", num_heads=HEADS, hidden_size=WIDTH)
    if any(node.domain == "com.microsoft" for node in made.model.graph.node):
        made.save_model_to_file(str(path))


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    # Its fused kernel is no part of a graph.
    torch.backends.mha.set_fastpath_enabled(False)
    for name, (network, given, inputs, outputs) in networks().items():
        network.eval()
        for said, parameter in network.named_parameters():
            if said.endswith("bias"):
                # PyTorch begins with zeros in places, which nothing needs to add.
                nn.init.normal_(parameter, std=0.1)
        dynamic = axes(inputs)
        for opset in (14 if name in FUSED else 13, 17):
            path = folder / f"{name}_script_{opset}.onnx"
            export(
                network,
                given,
                path,
                dynamo=False,
                opset_version=opset,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=dynamic,
            )
        shapes: list[object] = [
            dict.fromkeys(dynamic[one], torch.export.Dim.DYNAMIC) for one in inputs
        ]
        fixed = sum(not one.startswith("past") for one in inputs)
        if fixed < len(inputs):
            shapes = [*shapes[:fixed], tuple(shapes[fixed:])]
        for opset in (18, 23):
            export(
                network,
                given,
                folder / f"{name}_dynamo_{opset}.onnx",
                dynamo=True,
                opset_version=opset,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=tuple(shapes),
            )
        fused(folder / f"{name}_script_17.onnx", folder / f"{name}_fused.onnx")
    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        for node in model.graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        del model.graph.metadata_props[:], model.metadata_props[:]
        onnx.save(model, path)


if __name__ == "__main__":
    main()
