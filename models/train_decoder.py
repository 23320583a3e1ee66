# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26", "onnx>=1.18", "onnxruntime>=1.20", "torch==2.13.0"]
# ///
"""Train a byte-level decoder on WordNet's definitions, and export it with its key/value cache.

Reads Debian's `wordnet-base` (`/usr/share/wordnet`) and writes, into `--out`:

* `model.onnx`: `input_ids` [batch, step], `attention_mask` [batch, past + step], `position_ids`
  [batch, step] and `past_key_values.N.key`/`.value` [batch, 4, past, 64] to `logits` and
  `present.N.key`/`.value`; a past of length 0 is the first step;
* `merged/decoder_model_merged.onnx`: the same with `use_cache_branch` bool [1], an If with a
  branch that reads no past, in the layout of optimum's `merge_decoders`;
* `config.json` beside both, with the names that transformers uses;
* `calibration.npz`, `evaluation.npz`, `fresh.npz`: `input_ids` int64 [n, 160], lines of text that
  the training has not seen, cut anywhere, for perplexity; the first 32 are a prompt.

The network: 4 pre-norm blocks of 256 (Radford et al. 2019), rotary positions (arXiv:2104.09864) for
512 positions, 256 bytes of vocabulary, 3.3 million parameters, opset 17. A line of text is
"words: definition; "example"", and its end is the token 10.

    python models/train_decoder.py
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

WORDNET = Path("/usr/share/wordnet")
WIDTH, HEADS, LAYERS, POSITIONS, VOCABULARY, END = 256, 4, 4, 512, 256, 10
ROW, CONTEXT, BATCH = 160, 192, 16
HELD_OUT = {"calibration": 128, "evaluation": 256, "fresh": 512}
RATE = 2e-3


def lines() -> list[str]:
    """Definitions with their words, in a fixed random order."""
    found = set()
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" ") or "| " not in line:
                continue
            fields, gloss = line.split("| ", 1)
            parts = fields.split()
            words = ", ".join(parts[4 : 4 + 2 * int(parts[3], 16) : 2]).replace("_", " ")
            found.add(f"{words}: {gloss.strip()}\n")
    ordered = sorted(found)
    return [ordered[at] for at in np.random.default_rng(0).permutation(len(ordered))]


def text() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Bytes to train on, and [n, 160] rows of held-out lines by the name of their file."""
    joined = [line.encode() for line in lines()]
    rows, at = {}, 0
    for name, count in HELD_OUT.items():
        held = b""
        while len(held) < count * ROW:
            held += joined[at]
            at += 1
        rows[name] = np.frombuffer(held[: count * ROW], np.uint8).astype(np.int64)
    rows = {name: row.reshape(-1, ROW) for name, row in rows.items()}
    return np.frombuffer(b"".join(joined[at:]), np.uint8), rows


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions: x [batch, heads, step, 64], tables [batch, 1, step, 64]."""
    one, other = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-other, one), dim=-1) * sine


class Block(nn.Module):
    """Attention over past and present, then an MLP of four times the width."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """X [batch, step, 256]; without a mask, all of a past-less step is seen causally."""
        batch, step, _ = x.shape
        y = self.norm1(x)
        q, k, v = (
            linear(y).view(batch, step, HEADS, WIDTH // HEADS).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        q, k = turned(q, *tables), turned(k, *tables)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        if mask is None:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS) + mask
            y = torch.softmax(scores, dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, step, WIDTH))
        return x + self.down(functional.gelu(self.up(self.norm2(x)))), k, v


class Decoder(nn.Module):
    """Bytes to logits of the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        half = WIDTH // HEADS // 2
        angles = torch.arange(POSITIONS)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        angles = torch.cat((angles, angles), dim=1)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * LAYERS) if deep else 1))

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables [batch, 1, step, 64] of positions [batch, step]."""
        return self.cosine[positions].unsqueeze(1), self.sine[positions].unsqueeze(1)

    def forward(self, ids: Tensor) -> Tensor:
        """All of ids [batch, step] at once, to logits [batch, step, 256]."""
        tables = self.tables(torch.arange(ids.shape[1])[None])
        x = self.embedding(ids)
        for block in self.blocks:
            x, _, _ = block(x, tables, None, None)
        return self.head(self.norm(x))


class Exported(nn.Module):
    """The decoder as a runtime calls it, with or without a past to read."""

    def __init__(self, decoder: Decoder, *, with_past: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.with_past = with_past

    def forward(
        self, ids: Tensor, attention_mask: Tensor, positions: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits, and the keys and values of all steps so far."""
        decoder = self.decoder
        tables = decoder.tables(positions)
        length, total = ids.shape[1], attention_mask.shape[1]
        rows = torch.arange(length)[:, None] + (total - length)
        seen = (torch.arange(total)[None] <= rows)[None, None]
        seen = seen & attention_mask[:, None, None].to(torch.bool)
        mask = torch.where(seen, torch.tensor(0.0), torch.tensor(-1e9))
        x, present = decoder.embedding(ids), []
        for at, block in enumerate(decoder.blocks):
            before = (past[2 * at], past[2 * at + 1]) if self.with_past else None
            x, key, value = block(x, tables, mask, before)
            present += [key, value]
        return decoder.head(decoder.norm(x)), *present


def train(data: np.ndarray, steps: int, seed: int) -> Decoder:
    """Fit with AdamW, a short warm-up and a cosine."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    decoder = Decoder()
    optimizer = torch.optim.AdamW(decoder.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.05)
    started, total = time.perf_counter(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            turn = math.cos(math.pi * step / steps)
            group["lr"] = RATE * min((step + 1) / 60, 0.05 + 0.475 * (1 + turn))
        starts = rng.integers(0, len(data) - CONTEXT - 1, BATCH)
        rows = np.stack([data[at : at + CONTEXT + 1] for at in starts]).astype(np.int64)
        batch = torch.from_numpy(rows)
        with torch.autocast("cpu", torch.bfloat16):
            logits = decoder(batch[:, :-1])
        loss = functional.cross_entropy(
            logits.float().reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1)
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        if step % 50 == 49:
            seconds = time.perf_counter() - started
            print(f"  step {step + 1}: loss {total / 50:.3f}, {seconds:.0f} s", flush=True)
            total = 0.0
    return decoder.eval()


def export(decoder: Decoder, path: Path, *, with_past: bool) -> None:
    """One graph; what it reads of a past is named as optimum names it."""
    caches = [f"{at}.{part}" for at in range(LAYERS) for part in ("key", "value")]
    past = [f"past_key_values.{cache}" for cache in caches]
    present = [f"present.{cache}" for cache in caches]
    example = [torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)]
    example.append(torch.arange(5, 8)[None].expand(2, 3))
    axes = {
        "input_ids": {0: "batch_size", 1: "sequence_length"},
        "attention_mask": {0: "batch_size", 1: "past_sequence_length + sequence_length"},
        "position_ids": {0: "batch_size", 1: "sequence_length"},
        "logits": {0: "batch_size", 1: "sequence_length"},
    }
    axes |= {name: {0: "batch_size", 2: "past_sequence_length"} for name in past}
    total = {0: "batch_size", 2: "past_sequence_length + sequence_length"}
    axes |= dict.fromkeys(present, total)
    if with_past:
        example += [torch.zeros(2, HEADS, 5, WIDTH // HEADS) for _ in past]
    else:
        example[1] = example[1][:, :3]
        past = []
    torch.onnx.export(
        Exported(decoder, with_past=with_past),
        tuple(example),
        path,
        input_names=["input_ids", "attention_mask", "position_ids", *past],
        output_names=["logits", *present],
        dynamic_axes={name: axis for name, axis in axes.items() if name in [*axes, *past]},
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(path, full_check=True)


def merged(without: onnx.ModelProto, with_past: onnx.ModelProto) -> onnx.ModelProto:
    """An If on `use_cache_branch` over both graphs; equal weights are stored once, outside."""
    weights: dict[bytes, str] = {}
    shared: list[TensorProto] = []

    def branch(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
        inputs = {value.name for value in graph.input}
        names = {}
        for weight in graph.initializer:
            known = f"{weight.data_type}{list(weight.dims)}".encode() + weight.raw_data
            if known not in weights:
                weights[known] = f"{prefix}.{weight.name}"
                shared.append(weight)
            names[weight.name] = weights[known]
        for value in (*graph.node, *()):
            for fields in (value.input, value.output):
                for place, name in enumerate(fields):
                    if name and name not in inputs:
                        fields[place] = names.setdefault(name, f"{prefix}.{name}")
            value.name = f"{prefix}.{value.name}"
        for value in graph.output:
            value.name = names[value.name]
        return helper.make_graph(list(graph.node), prefix, [], list(graph.output))

    outputs = [
        onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in with_past.graph.output
    ]
    inputs = list(with_past.graph.input)
    found = {}
    for name, model in (("then", with_past), ("else", without)):
        for weight in model.graph.initializer:
            weight.raw_data = onnx.numpy_helper.to_array(weight).tobytes()
        graph = branch(model.graph, name)
        for weight in shared:
            if weight.name in {w.name for w in model.graph.initializer}:
                known = f"{weight.data_type}{list(weight.dims)}".encode() + weight.raw_data
                weight.name = weights[known]
        found[f"{name}_branch"] = graph
    cond = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    node = helper.make_node(
        "If", ["use_cache_branch"], [v.name for v in outputs], "merged", **found
    )
    graph = helper.make_graph([node], "merged", [*inputs, cond], outputs, shared)
    made = helper.make_model(graph, opset_imports=with_past.opset_import, ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def perplexity(path: Path, rows: np.ndarray) -> float:
    """Of every byte of rows [n, 160] but the first, in one step with a past of length 0."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    total = 0.0
    for start in range(0, len(rows), 32):
        ids = rows[start : start + 32]
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        feed["position_ids"] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        for value in session.get_inputs()[3:]:
            feed[value.name] = np.zeros((len(ids), HEADS, 0, WIDTH // HEADS), np.float32)
        (logits,) = session.run(["logits"], feed)
        logits = logits[:, :-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, ids[:, 1:, None], axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(axis=-1)) - chosen).sum())
    return math.exp(total / rows[:, 1:].size)


def main() -> None:
    """Train, export both forms, and print the perplexity of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / ".cache" / "decoder"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(mode=True)
    out = options.out
    (out / "merged").mkdir(parents=True, exist_ok=True)
    data, rows = text()
    for name, held in rows.items():
        np.savez_compressed(out / f"{name}.npz", input_ids=held)
    print(f"{len(data) / 1e6:.1f} MB of text to train on")
    decoder = train(data, options.steps, options.seed)
    export(decoder, out / "model.onnx", with_past=True)
    export(decoder, out / "without.onnx", with_past=False)
    both = [onnx.load(out / name) for name in ("without.onnx", "model.onnx")]
    (out / "without.onnx").unlink()
    onnx.save(merged(*both), out / "merged" / "decoder_model_merged.onnx")
    config = {
        "model_type": "gpt_neox",
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "vocab_size": VOCABULARY,
        "eos_token_id": END,
    }
    for folder in (out, out / "merged"):
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name, held in rows.items():
        print(f"perplexity of a byte, {name}: {perplexity(out / 'model.onnx', held):.3f}")


if __name__ == "__main__":
    main()
