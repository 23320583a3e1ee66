"""Weights in 8 bits and fewer, beside onnxruntime's MatMulNBits: error, bytes, load time, speed.

    python benchmarks/low_bits.py NAME [NAME ...] [--rows PATTERN]

Ours by `simplify` and `quantize` alone, refined, of 64 calibration samples, without a search or a
budget; onnxruntime's quantizer of MatMul and Gather by its defaults but for the block. Load times
and speed are taken in turn with the float model in this process, memory in a process for each
model. Decibels are pooled: power of a float output over 64 evaluation samples against that of its
error, the worst output of a model; "same" is how many of the largest numbers along the last axis of
the first output stay.
"""

import argparse
import datetime as dt
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from press import paths

from onnxpress import model_file
from onnxpress.contract import Decision
from onnxpress.conversion.opset import raise_opset
from onnxpress.data import load_samples
from onnxpress.errors import OnnxpressError
from onnxpress.lossless import lossless
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Array, Session, compare_latency
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target

THREADS = 2
LOADS = 5
CALIBRATION, SAMPLES = 64, 64
IDENTICAL_DB = 300
HEADS = (
    "model", "form", "dB", "same %", "MB", "load ms (float)", "memory MB (float)", "speed", "s",
)  # fmt: skip
THEIR_ERRORS = (ValueError, RuntimeError, ImportError, KeyError, AttributeError, AssertionError)
"""What quantizers of others end with."""
MEMORY = """
import os, sys
import onnxruntime as ort
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before = resident()
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(resident() - before)
"""


def ours(
    bits: int,
    *,
    data: bool = True,
    block: int = 32,
    symmetric: bool = True,
    refined: bool = True,
    words: int | None = None,
    **settings: Any,  # noqa: ANN401 - of the pass
) -> "Maker":
    """One form for every weight that it makes smaller; embeddings may have other bits."""
    form = Quantize(
        form="weight_only",
        weight_bits=(bits,) if words is None else (bits, words),
        block_size=block,
        symmetric=symmetric,
        **settings,
    )

    def make(name: str, output: Path) -> None:
        path, calibration, _ = paths(name)
        target, pool = load_target("cpu"), Pool((form,))
        model = lossless(Simplify(), model_file.load(path), target, 0).model
        model, refused = raise_opset(model, form.needed_opset)
        if refused:
            print(f"{name}: {refused}", file=sys.stderr)
        samples = None
        if data:
            samples = load_samples(calibration, Session(model).inputs)
            samples = samples.take(range(min(CALIBRATION, len(samples))))
        context = pool.context(model, target, samples, threads=THREADS)
        offer = pool.offer(replace(context, survey=True))
        chosen = strongest(pool, context, offer)
        if words is not None:
            tables = {layer.name for layer in context.layers if layer.op_type == "Gather"}
            wanted = {item.site: words if item.site in tables else bits for item in offer.proposals}
            chosen = tuple(
                Decision(item.site, candidate)
                for item in offer.proposals
                for candidate in item.candidates
                if candidate.family.startswith(f"weight_only_{wanted[item.site]}_bit")
            )
        again = [
            replace(d, candidate=replace(d.candidate, refined=data and refined)) for d in chosen
        ]
        made = pool.rewrite_refined(context, again, samples, threads=THREADS)
        model_file.save(made, output)

    return make


def theirs(*, symmetric: bool, accuracy_level: int | None) -> "Maker":
    """Onnxruntime's own quantizer, 4 bits in blocks of 32."""

    def make(name: str, output: Path) -> None:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(paths(name)[0]),
            block_size=32,
            is_symmetric=symmetric,
            accuracy_level=accuracy_level,
            op_types_to_quantize=("MatMul", "Gather"),
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(output))

    return make


Maker = Callable[[str, Path], None]
ROWS: dict[str, Maker] = {
    "onnxpress 8 bit": ours(8),
    "onnxpress 4 bit": ours(4),
    "onnxpress 4 bit, no data": ours(4, data=False),
    "onnxpress 4 bit, zero points": ours(4, symmetric=False),
    "onnxpress 4 bit, blocks of 64": ours(4, block=64),
    "onnxpress 4 bit, per channel": ours(4, block=0),
    "onnxpress 3 bit": ours(3),
    "onnxpress 2 bit": ours(2),
    "onnxruntime 4 bit": theirs(symmetric=False, accuracy_level=None),
    "onnxruntime 4 bit, symmetric": theirs(symmetric=True, accuracy_level=None),
    "onnxruntime 4 bit, level 4": theirs(symmetric=False, accuracy_level=4),
}


def pooled_db(wanted: list[dict[str, Array]], found: list[dict[str, Array]]) -> float:
    """Of the worst float output."""
    worst = float("inf")
    for name, first in wanted[0].items():
        if not np.issubdtype(first.dtype, np.floating):
            continue
        power = noise = 0.0
        for one, other in zip(wanted, found, strict=True):
            reference = np.asarray(one[name], np.float64)
            power += float(np.square(reference).sum())
            noise += float(np.square(np.asarray(other[name], np.float64) - reference).sum())
        worst = min(worst, 10 * float(np.log10(power / max(noise, 1e-300))))
    return worst


def load_seconds(first: Path, second: Path) -> tuple[float, float]:
    """The least time to open each, in turn."""
    times: list[list[float]] = [[], []]
    for _ in range(LOADS):
        for own, path in zip(times, (first, second), strict=True):
            started = time.perf_counter()
            Session(path, threads=THREADS)
            own.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


def memory_mb(path: Path) -> float:
    """What an opened session takes."""
    command = [sys.executable, "-c", MEMORY, str(path)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def same_choice(wanted: list[dict[str, Array]], found: list[dict[str, Array]]) -> float:
    """Of the first float output, the share of largest numbers along its last axis that stay."""
    name = next(n for n, array in wanted[0].items() if np.issubdtype(array.dtype, np.floating))
    kept = [
        (one[name].argmax(axis=-1) == other[name].argmax(axis=-1)).reshape(-1)
        for one, other in zip(wanted, found, strict=True)
    ]
    return float(np.concatenate(kept).mean())


def compare(name: str, pattern: str, rows: Mapping[str, Maker]) -> None:
    """Print the rows of a model."""
    model, _, evaluation = paths(name)
    original = Session(model, threads=THREADS)
    samples = load_samples(evaluation, original.inputs)
    feeds = samples.feeds[:SAMPLES]
    wanted = [dict(original.run(feed)) for feed in feeds]
    with tempfile.TemporaryDirectory() as folder:
        for row, make in rows.items():
            if not fnmatch(row, pattern):
                continue
            output = Path(folder, "model.onnx")
            started = time.monotonic()
            try:
                make(name, output)
                session = Session(output, threads=THREADS)
            except (OnnxpressError, *THEIR_ERRORS) as error:
                print(f"| {name} | {row} | {' '.join(str(error).split())[:120]} |", flush=True)
                continue
            seconds = time.monotonic() - started
            found = [dict(session.run(feed)) for feed in feeds]
            db = pooled_db(wanted, found)
            latency = compare_latency(original, session, feeds[0])
            before, after = load_seconds(model, output)
            cells = (
                name,
                row,
                f"{db:.1f}" if db < IDENTICAL_DB else "identical",
                f"{100 * same_choice(wanted, found):.1f}",
                f"{model_file.size_bytes(output) / 1e6:.2f}",
                f"{1e3 * after:.0f} ({1e3 * before:.0f})",
                f"{memory_mb(output):.0f} ({memory_mb(model):.0f})",
                f"{latency.speedup:.2f} ({latency.low:.2f} to {latency.high:.2f})",
                f"{seconds:.0f}",
            )
            print("| " + " | ".join(cells) + " |", flush=True)


def main(rows: Mapping[str, Maker] = MappingProxyType(ROWS)) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rows", metavar="PATTERN", default="*", help="which, as fnmatch has it")
    arguments = parser.parse_args()
    # Its quantizer turns every library's messages on.
    logging.disable(logging.INFO)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx"))
    print(f"{dt.datetime.now(tz=dt.UTC).date()}, {versions}, {THREADS} threads\n")
    print("| " + " | ".join(HEADS) + " |\n" + "| --- " * len(HEADS) + "|", flush=True)
    for name in arguments.names:
        compare(name, arguments.rows, rows)


if __name__ == "__main__":
    main()
