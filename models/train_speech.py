# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26", "onnx>=1.18", "onnxruntime>=1.20", "torch==2.13.0"]
# ///
"""Train a small recognizer of spoken numbers and months, and export it with its caches.

Speech is made by Debian's `espeak-ng`. Written are, into `--out`:

* `encoder.onnx`: `features` [batch, 48, frames], log-mel, to `cross.N.key`/`.value`
  [batch, 4, frames / 4, 32], the keys and values that the decoder's cross attention reads,
  computed once a recording;
* `decoder.onnx`: `tokens` [batch, step], `positions` [batch, step], `past.N.key`/`.value`
  [batch, 4, past, 32] and these to `logits` [batch, step, 42] and `present.N.key`/`.value`; a past
  of length 0 is the first step;
* `words.txt`: what each token is, a line each;
* `calibration.npz`, `evaluation.npz`, `fresh.npz`: `features` [n, 48, 256] of 4.1 s each with
  `__labels__` int64 [n, 6], the words that were spoken, then the end (1), padded with -1. Each
  file has speakers of its own, none of whom was trained on.

The network: two convolutions of stride 2, 3 pre-norm blocks of 128 (Vaswani et al. 2017), 2 decoder
blocks; cross entropy of words. espeak-ng says where each word starts, so the encoder is told for
every state which word is spoken and which of the sentence it is: attention then has something to
find, which takes it thousands of steps otherwise. That head is not exported. Opset 17. Interrupted,
the training goes on from `training.pt`.

    python models/train_speech.py
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from samples.spoken import (
    END,
    FRAMES,
    HELD_OUT,
    MELS,
    MOST_WORDS,
    PADDING,
    START,
    VOCABULARY,
    WORDS,
    Spoken,
    recordings,
    words_at,
)
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, ENCODER_BLOCKS, DECODER_BLOCKS, BATCH = 128, 4, 3, 2, 32
RATE, STRIDE = 1e-3, 4


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Heads [batch, 4, step, 32] joined to [batch, step, 128]."""
    scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
    y = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ v
    return y.transpose(1, 2).reshape(y.shape[0], -1, WIDTH)


class Block(nn.Module):
    """Attention to itself, to the encoder where `crossed`, and an MLP of four times the width."""

    def __init__(self, *, crossed: bool) -> None:
        super().__init__()
        names = ("query", "key", "value", "out")
        self.own = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in names})
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        if crossed:
            self.cross = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in names})
            self.norm3 = nn.LayerNorm(WIDTH)

    @staticmethod
    def heads(linear: nn.Module, x: Tensor) -> Tensor:
        """[batch, step, 128] to [batch, 4, step, 32]."""
        return linear(x).view(x.shape[0], -1, HEADS, WIDTH // HEADS).transpose(1, 2)

    def keys(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of the encoder, for cross attention."""
        return self.heads(self.cross["key"], states), self.heads(self.cross["value"], states)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        cross: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The stream, and the keys and values of all steps so far."""
        y = self.norm1(x)
        q, k, v = (self.heads(self.own[name], y) for name in ("query", "key", "value"))
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        x = x + self.own["out"](attended(q, k, v, mask))
        if cross is not None:
            q = self.heads(self.cross["query"], self.norm3(x))
            x = x + self.cross["out"](attended(q, *cross))
        return x + self.down(functional.gelu(self.up(self.norm2(x)))), k, v


class Encoder(nn.Module):
    """Log-mel to states, a quarter as many."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(MELS, WIDTH, 3, stride=2, padding=1)
        self.second = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(crossed=False) for _ in range(ENCODER_BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        place = torch.arange(FRAMES // 4)[:, None]
        angle = place * 10000.0 ** (-torch.arange(WIDTH // 2) / (WIDTH // 2))
        self.register_buffer("places", torch.cat((angle.sin(), angle.cos()), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 48, frames] to [batch, frames / 4, 128]."""
        x = functional.gelu(self.second(functional.gelu(self.first(x)))).transpose(1, 2)
        x = x + self.places[: x.shape[1]]
        for block in self.blocks:
            x, _, _ = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    """Words to logits of the next word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(MOST_WORDS + 3, WIDTH)
        self.blocks = nn.ModuleList(Block(crossed=True) for _ in range(DECODER_BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor, positions: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Logits and the cache; caches: of each block the past, then of each block the cross."""
        pairs = list(zip(caches[::2], caches[1::2], strict=True))
        past, cross = pairs[:DECODER_BLOCKS], pairs[DECODER_BLOCKS:]
        step, total = tokens.shape[1], past[0][0].shape[2] + tokens.shape[1]
        rows = torch.arange(step)[:, None] + (total - step)
        seen = torch.arange(total)[None] <= rows
        mask = torch.where(seen, torch.tensor(0.0), torch.tensor(-1e9))[None, None]
        x, present = self.words(tokens) + self.places(positions), []
        for block, before, states in zip(self.blocks, past, cross, strict=True):
            x, key, value = block(x, mask, before, states)
            present += [key, value]
        return self.head(self.norm(x)), *present


class Recognizer(nn.Module):
    """Both, with the head over states that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.told = nn.Linear(WIDTH, VOCABULARY + MOST_WORDS + 1)

    def cross(self, x: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of every decoder block, in turn."""
        states = self.encoder(x)
        return tuple(part for block in self.decoder.blocks for part in block.keys(states))

    def losses(
        self, x: Tensor, labels: Tensor, heard: Tensor, places: Tensor
    ) -> tuple[Tensor, ...]:
        """Of the next word at every step; of the word, and of its place, at every state."""
        states = self.encoder(x)
        given = functional.pad(labels[:, :-1].clamp(min=0), (1, 0), value=START)
        empty = states.new_zeros(len(x), HEADS, 0, WIDTH // HEADS)
        cross = [part for block in self.decoder.blocks for part in block.keys(states)]
        positions = torch.arange(given.shape[1]).expand_as(given)
        caches = [empty] * (2 * DECODER_BLOCKS)
        logits = self.decoder(given, positions, *caches, *cross)[0].float()
        words = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=PADDING, label_smoothing=0.05
        )
        told = self.told(states).float().flatten(0, 1).split((VOCABULARY, MOST_WORDS + 1), dim=1)
        pairs = zip(told, (heard, places), strict=True)
        return words, *(functional.cross_entropy(one, true.flatten()) for one, true in pairs)


class Heard(nn.Module):
    """What is computed once a recording, as a runtime calls it."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """As `Recognizer.cross`."""
        return self.model.cross(x)


def varied(
    x: np.ndarray, heard: np.ndarray, places: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Another loudness, pitch and speed, with a band and a moment left out (arXiv:1904.08779).

    Speech gets faster by up to a quarter, towards the middle, and its bands lie up to 10% higher
    or lower, as those of a longer or a shorter vocal tract.
    """
    made = np.empty_like(x)
    told = np.empty_like(heard), np.empty_like(places)
    frames, bands = np.arange(FRAMES) - FRAMES / 2, np.arange(MELS)
    for row, (own, *true) in enumerate(zip(x, heard, places, strict=True)):
        times = np.clip(frames * rng.uniform(1, 1.25) + FRAMES / 2, 0, FRAMES - 1)
        warped = np.clip(bands * rng.uniform(0.9, 1.1) + rng.uniform(-1, 1), 0, MELS - 1)
        made[row] = own[warped.round().astype(int)[:, None], times.round().astype(int)]
        made[row] += rng.uniform(-0.5, 0.5)
        for out, one in zip(told, true, strict=True):
            out[row] = one[(times[STRIDE // 2 :: STRIDE] // STRIDE).astype(int)]
        band, moment = rng.integers(0, MELS - 6), rng.integers(0, FRAMES - 10)
        made[row, band : band + rng.integers(0, 7)] = made[row].mean()
        made[row, :, moment : moment + rng.integers(0, 11)] = made[row].mean()
    return made, *told


def train(spoken: Spoken, steps: int, seed: int, kept: Path) -> Recognizer:
    """Fit with AdamW, a short warm-up and a cosine; `kept` is written every 100 steps."""
    torch.manual_seed(seed)
    model = Recognizer()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    told = words_at(spoken, STRIDE)
    done = 0
    if kept.exists():
        state = torch.load(kept)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
    total, started = np.zeros(3), time.process_time()
    for step in range(done, steps):
        rng = np.random.default_rng([seed, step])
        for group in optimizer.param_groups:
            turn = 0.02 + 0.49 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = RATE * min((step + 1) / 100, turn)
        chosen = rng.choice(len(spoken.labels), BATCH)
        x, *true = varied(spoken.features[chosen], *(part[chosen] for part in told), rng)
        batch = map(torch.from_numpy, (x, spoken.labels[chosen], *true))
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.losses(*batch)
        optimizer.zero_grad()
        sum(losses).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += [loss.item() for loss in losses]
        if step % 100 == 99:
            means = " ".join(f"{loss:.3f}" for loss in total / 100)
            spent = time.process_time() - started
            print(f"  step {step + 1}: losses {means}, {spent:.0f} s", flush=True)
            total[:] = 0
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "done": step + 1}, kept)
    return model.eval()


def export(model: Recognizer, out: Path) -> None:
    """Both graphs; caches are named by block."""
    parts = [f"{at}.{part}" for at in range(DECODER_BLOCKS) for part in ("key", "value")]
    cross, past, present = ([f"{n}.{part}" for part in parts] for n in ("cross", "past", "present"))
    axes = {"features": {0: "batch", 2: "frames"}}
    axes |= {name: {0: "batch", 2: "heard"} for name in cross}
    axes |= {name: {0: "batch", 2: "past"} for name in past}
    axes |= {name: {0: "batch", 2: "past + step"} for name in present}
    axes |= {n: {0: "batch", 1: "step"} for n in ("tokens", "positions", "logits")}
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    states = [torch.zeros(2, HEADS, size, WIDTH // HEADS) for size in (2, 5) for _ in parts]
    graphs = {
        "encoder": (Heard(model), (torch.zeros(2, MELS, FRAMES),), ["features"], cross),
        "decoder": (
            model.decoder,
            (tokens, torch.arange(2, 5).expand(2, 3), *states),
            ["tokens", "positions", *past, *cross],
            ["logits", *present],
        ),
    }
    for name, (module, example, inputs, outputs) in graphs.items():
        torch.onnx.export(
            module,
            example,
            out / f"{name}.onnx",
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={n: axis for n, axis in axes.items() if n in (*inputs, *outputs)},
            opset_version=17,
            dynamo=False,
        )
        onnx.checker.check_model(out / f"{name}.onnx", full_check=True)


def transcripts(folder: Path, x: np.ndarray) -> list[list[int]]:
    """Words of each recording, greedily, by the files."""
    encoder, decoder = (
        ort.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder")
    )
    found = []
    for row in x:
        names = [output.name for output in encoder.get_outputs()]
        feed = dict(zip(names, encoder.run(None, {"features": row[None]}), strict=True))
        empty = np.zeros((1, HEADS, 0, WIDTH // HEADS), np.float32)
        feed |= {name.replace("cross", "past"): empty for name in names}
        words, token = [], START
        while len(words) <= MOST_WORDS and token != END:
            feed["tokens"] = np.array([[token]])
            feed["positions"] = np.array([[len(words)]])
            logits, *present = decoder.run(None, feed)
            feed |= dict(zip((n.replace("cross", "past") for n in names), present, strict=True))
            token = int(logits[0, -1].argmax())
            words.append(token)
        found.append([word for word in words if word != END])
    return found


def errors(found: list[int], true: list[int]) -> int:
    """Least number of words to replace, leave out or put in."""
    row = list(range(len(true) + 1))
    for at, word in enumerate(found):
        before, row[0] = row[:], at + 1
        for place, other in enumerate(true):
            row[place + 1] = min(
                before[place] + (word != other), before[place + 1] + 1, row[place] + 1
            )
    return row[-1]


def main() -> None:
    """Make the recordings, train, export, and print the word error rate of the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / ".cache" / "speech"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "words.txt").write_text("\n".join(("<start>", "<end>", *WORDS)) + "\n")
    held = {name: recordings(name, number, options.seed) for name, number in HELD_OUT.items()}
    for name, spoken in held.items():
        np.savez_compressed(out / f"{name}.npz", features=spoken.features, __labels__=spoken.labels)
    data = recordings("training", options.recordings, options.seed)
    model = train(data, options.steps, options.seed, out / "training.pt")
    export(model, out)
    for name, spoken in held.items():
        true = [[word for word in row.tolist() if word > END] for row in spoken.labels]
        found = transcripts(out, spoken.features)
        wrong = [errors(*pair) for pair in zip(found, true, strict=True)]
        rate, whole = sum(wrong) / sum(map(len, true)), np.mean(np.array(wrong) == 0)
        print(f"{name}: word error rate {rate:.4f}, {whole:.3f} of the recordings exact")


if __name__ == "__main__":
    main()
