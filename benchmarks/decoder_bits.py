"""The trained decoder at 8, 4 and 3 bits, and with its cache in bytes: perplexity, tokens a second.

    python models/train_decoder.py
    python benchmarks/decoder_bits.py [--rows 128] [--only PATTERN] [--markdown]

Ours by `quantize` alone, refined on 64 calibration rows, every weight in one form, without a search
or a budget; beside it onnxruntime's MatMulNBits quantizers (nearest, HQQ, GPTQ), blocks of 32.
Perplexity is of a byte in rows of `fresh.npz`, which nothing has looked at: all of it in one step
with a past of length 0, and, where the cache is in bytes, a byte a step behind 32 given ones (the
float cache likewise, beside it). Tokens a second: one row, 64 steps with cache, one thread, in
rounds in turn with the original; the ratio of medians.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

from onnxpress import model_file
from onnxpress.data import Samples
from onnxpress.lossless import lossless
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify
from onnxpress.pipelines import Running, Wiring, read_folder, wired
from onnxpress.pipelines.caching import cache_bytes, in_bytes, key_peaks
from onnxpress.pipelines.judging import perplexity
from onnxpress.pipelines.recording import forced
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target

DECODER = Path(__file__).parents[1] / "models" / ".cache" / "decoder"
CALIBRATION, PROMPT, STEPS, ROUNDS = 64, 32, 64, 9
SIZES = ("bytes a token", "in bytes", "ratio")
THEIR_ERRORS = (ValueError, RuntimeError, ImportError, KeyError, AttributeError, TypeError)
"""What quantizers of others end with."""


def row_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    """A whole row as one step with a past of length 0; ids [length]."""
    session = Session(DECODER / "model.onnx", threads=1)
    feed: dict[str, np.ndarray] = {
        spec.name: np.zeros((1, spec.shape[1], 0, spec.shape[3]), np.float32)
        for spec in session.inputs
        if spec.name.startswith("past")
    }
    feed["input_ids"] = ids[None]
    feed["attention_mask"] = np.ones((1, len(ids)), np.int64)
    feed["position_ids"] = np.arange(len(ids))[None]
    return feed


def rows_of(name: str, most: int) -> list[dict[str, np.ndarray]]:
    """Feeds of the rows of a file."""
    first = row_of(np.zeros(160, np.int64))
    ids = np.load(DECODER / f"{name}.npz")["input_ids"][:most]
    return [{**first, "input_ids": row[None]} for row in ids]


def ours(bits: int, block: int, *, tables: bool = True) -> Callable[[Path], None]:
    """Every weight in one form; without tables, only what a MatMul multiplies, as MatMulNBits."""

    def make(output: Path) -> None:
        form = Quantize(form="weight_only", weight_bits=(bits,), block_size=block)
        target, pool = load_target("cpu"), Pool((form,))
        model = lossless(Simplify(), model_file.load(DECODER / "model.onnx"), target, 0).model
        samples = Samples(tuple(rows_of("calibration", CALIBRATION)), None, "calibration rows")
        context = pool.context(model, target, samples, threads=1)
        chosen = strongest(pool, context, pool.offer(replace(context, survey=True)))
        multiplied = {layer.name for layer in context.layers if layer.op_type == "MatMul"}
        chosen = [d for d in chosen if tables or d.site in multiplied]
        refined = [replace(d, candidate=replace(d.candidate, refined=True)) for d in chosen]
        model_file.save(pool.rewrite_refined(context, refined, samples, threads=1), output)

    return make


def theirs(config: Callable[[], Any], *, level: int | None = None) -> Callable[[Path], None]:
    """Onnxruntime's quantizer of MatMul."""

    def make(output: Path) -> None:
        model = onnx.load(DECODER / "model.onnx")
        made = config()
        made.accuracy_level = level
        quantizer = nbits.MatMulNBitsQuantizer(
            model, block_size=32, is_symmetric=True, accuracy_level=level, algo_config=made
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(output))

    return make


class Rows(CalibrationDataReader):  # type: ignore[misc]
    """Calibration rows as onnxruntime asks for them."""

    def __init__(self) -> None:
        """At the first row."""
        self._left: Iterator[dict[str, np.ndarray]] = iter(rows_of("calibration", CALIBRATION))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next row."""
        return next(self._left, None)


def nearest(bits: int) -> Callable[[], Any]:
    """The default algorithm."""
    return lambda: nbits.DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, bits=bits)


ROWS: dict[str, Callable[[Path], None]] = {
    "onnxpress 8 bit": ours(8, 0),
    "onnxpress 4 bit, blocks of 32": ours(4, 32),
    "onnxpress 3 bit, blocks of 32": ours(3, 32),
    "onnxpress 4 bit, blocks of 32, MatMul alone": ours(4, 32, tables=False),
    "onnxpress 3 bit, blocks of 32, MatMul alone": ours(3, 32, tables=False),
    "MatMulNBits 8 bit, nearest": theirs(nearest(8)),
    "MatMulNBits 4 bit, nearest": theirs(nearest(4)),
    "MatMulNBits 4 bit, nearest, level 4": theirs(nearest(4), level=4),
    "MatMulNBits 4 bit, HQQ": theirs(
        lambda: nbits.HQQWeightOnlyQuantConfig(block_size=32, bits=4, axis=0)
    ),
    "MatMulNBits 4 bit, GPTQ": theirs(
        lambda: nbits.GPTQWeightOnlyQuantConfig(calibration_data_reader=Rows(), block_size=32)
    ),
}


def perplexity_of(session: Session, rows: list[dict[str, np.ndarray]]) -> float:
    """Of every byte but the first."""
    loss = number = 0.0
    for feed in rows:
        logits = session.run(feed, ["logits"])["logits"][0, :-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        wanted = feed["input_ids"][0, 1:]
        loss += float(np.log(np.exp(logits).sum(axis=-1)).sum())
        loss -= float(logits[np.arange(len(wanted)), wanted].sum())
        number += len(wanted)
    return math.exp(loss / number)


def running(path: Path, steps: int) -> Running:
    """The decoder as a pipeline, with another file in its place."""
    described = read_folder(DECODER)
    (part,) = described.parts
    assert part.loop is not None
    part = replace(part, model=path, loop=replace(part.loop, prompt=PROMPT, steps=steps))
    sessions = {part.name: Session(path, threads=1)}
    return Running(wired(replace(described, parts=(part,)), sessions), sessions)


def speed(original: Running, other: Running, feed: dict[str, np.ndarray]) -> float:
    """Tokens a second of the other over those of the original."""
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for own, made in zip(times, (original, other), strict=True):
            started = time.perf_counter()
            made.run(feed)
            own.append(time.perf_counter() - started)
    return median(times[0]) / median(times[1])


def with_bytes(float_cache: Running, rows: Samples) -> Running:
    """The same with keys and values in bytes; scales from calibration rows."""
    (part,) = float_cache.wiring.pipeline.parts
    assert part.loop is not None
    peaks = key_peaks(float_cache.wiring, float_cache.sessions, rows, part.name)
    model, scales = in_bytes(model_file.load(part.model), part.loop.cache, peaks)
    part = replace(part, loop=replace(part.loop, cache={**part.loop.cache, **scales}))
    sessions = {part.name: Session(model, threads=1)}
    wiring: Wiring = wired(replace(float_cache.wiring.pipeline, parts=(part,)), sessions)
    return Running(wiring, sessions)


def cache_row(path: Path, name: str, most: int) -> str:
    """Perplexity, bytes a token and speed of a float cache and of one in bytes."""
    made = running(path, 160 - PROMPT)
    ids = [np.load(DECODER / f"{part}.npz")["input_ids"] for part in ("calibration", "fresh")]
    calibration, fresh = (
        forced(made, Samples(tuple({"input_ids": row[None]} for row in rows), None, "rows"))
        for rows in (ids[0][:16], ids[1][:most])
    )
    other = with_bytes(made, calibration)
    values = [perplexity(one, fresh) for one in (made, other)]
    sizes = []
    for one in (made, other):
        (part,) = one.wiring.pipeline.parts
        assert part.loop is not None
        sizes.append(cache_bytes(one.sessions[part.name], part.loop.cache, ()))
    ratio = speed(made, other, dict(fresh.feeds[0]))
    rise = 100 * (values[1] / values[0] - 1)
    return (
        f"| {name} | {values[0]:.4f} | {values[1]:.4f} | {rise:+.3f}% | {sizes[0]:,} | "
        f"{sizes[1]:,} | {sizes[0] / sizes[1]:.2f} | {ratio:.2f} |"
    )


def table(*heads: str) -> str:
    """The head of a table."""
    return f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128, help="of fresh.npz")
    parser.add_argument("--cache-rows", type=int, default=32, help="of fresh.npz, step by step")
    parser.add_argument("--only", default="*", metavar="PATTERN")
    options = parser.parse_args()
    rows = rows_of("fresh", options.rows)
    original = running(DECODER / "model.onnx", STEPS)
    first = Samples(({"input_ids": rows[0]["input_ids"]},), None, "the first row")
    feed = dict(forced(original, first).feeds[0])
    base = perplexity_of(original.sessions["decoder"], rows)
    size = (DECODER / "model.onnx").stat().st_size
    print(table("form", "MB", "perplexity", "rise", "tokens a second", "s"))
    print(f"| float32 | {size / 1e6:.2f} | {base:.4f} | | 1 | |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Path] = {"float32": DECODER / "model.onnx"}
        for name, make in ROWS.items():
            if not fnmatch(name, options.only):
                continue
            path, started = Path(folder, f"{len(made)}.onnx"), time.process_time()
            try:
                make(path)
            except THEIR_ERRORS as error:
                print(f"| {name} | does not run: {type(error).__name__}: {error} |", flush=True)
                continue
            seconds = time.process_time() - started
            other = running(path, STEPS)
            value = perplexity_of(other.sessions["decoder"], rows)
            print(
                f"| {name} | {path.stat().st_size / 1e6:.2f} | {value:.4f} | "
                f"{100 * (value / base - 1):+.2f}% | {speed(original, other, feed):.2f} | "
                f"{seconds:.0f} |",
                flush=True,
            )
            made[name] = path
        print("\n" + table("weights", "float cache", "in bytes", "rise", *SIZES, "speed"))
        for name in (
            ()
            if not options.cache_rows
            else ("float32", "onnxpress 8 bit", "onnxpress 4 bit, blocks of 32")
        ):
            if name in made:
                print(cache_row(made[name], name, options.cache_rows), flush=True)


if __name__ == "__main__":
    main()
