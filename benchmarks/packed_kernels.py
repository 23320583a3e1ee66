"""Weights of integer kernels in fewer bits in the file, beside 8: bytes, error, operators, speed.

    python benchmarks/packed_kernels.py NAME [NAME ...]

By `simplify` and `quantize` alone, every layer that has a static kernel, of 64 calibration samples,
not refined. Decibels and "same" as in `low_bits.py`. *operators*: whether onnxruntime runs the same
ones as of the 8-bit file, by type and number, once it has optimized both. *speed* is beside the
8-bit file, in turn in one process.
"""

import argparse
import datetime as dt
import logging
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from low_bits import CALIBRATION, SAMPLES, THREADS, load_seconds, pooled_db, same_choice
from press import paths

from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.lossless import lossless
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session, compare_latency
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target

BOOK = {"levels": ("codebook",)}
ROWS: dict[str, dict[str, Any]] = {
    "8 bit": {},
    "4 bit": {"weight_bits": (4,)},
    "4 bit codebook": {"weight_bits": (4,), **BOOK},
    "3 bit codebook": {"weight_bits": (3,), **BOOK},
    "2 bit codebook": {"weight_bits": (2,), **BOOK},
}
HEADS = "model", "in the file", "dB", "same %", "MB", "operators", "speed", "load ms (8 bit)"


def make(name: str, output: Path, settings: dict[str, Any]) -> None:
    """Write the model with all static kernels that it can have."""
    path, calibration, _ = paths(name)
    pool = Pool((Quantize(form="static", refinement=False, **settings),))
    target = load_target("cpu")
    model = lossless(Simplify(), model_file.load(path), target, 0).model
    samples = load_samples(calibration, Session(model).inputs)
    samples = samples.take(range(min(CALIBRATION, len(samples))))
    context = pool.context(model, target, samples, threads=THREADS)
    chosen = strongest(pool, context, pool.offer(context))
    model_file.save(pool.rewrite(context, chosen), output)


def operators(path: Path) -> Counter[str]:
    """That onnxruntime runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "opened.onnx"))
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        opened = onnx.load(Path(folder, "opened.onnx"), load_external_data=False)
    return Counter(node.op_type for node in opened.graph.node)


def compare(name: str) -> None:
    """Print the rows of a model."""
    original = Session(paths(name)[0], threads=THREADS)
    feeds = load_samples(paths(name)[2], original.inputs).feeds[:SAMPLES]
    wanted = [dict(original.run(feed)) for feed in feeds]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.onnx")
        make(name, whole, ROWS["8 bit"])
        of_bytes, runs = Session(whole, threads=THREADS), operators(whole)
        for row, settings in ROWS.items():
            output = Path(folder, "model.onnx")
            make(name, output, settings)
            session = Session(output, threads=THREADS)
            found = [dict(session.run(feed)) for feed in feeds]
            latency = compare_latency(of_bytes, session, feeds[0])
            before, after = load_seconds(whole, output)
            others = operators(output) - runs
            cells = (
                name,
                row,
                f"{pooled_db(wanted, found):.1f}",
                f"{100 * same_choice(wanted, found):.1f}",
                f"{model_file.size_bytes(output) / 1e6:.2f}",
                ", ".join(others) or "the same",
                f"{latency.speedup:.2f} ({latency.low:.2f} to {latency.high:.2f})",
                f"{1e3 * after:.0f} ({1e3 * before:.0f})",
            )
            print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    logging.disable(logging.INFO)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx"))
    print(f"{dt.datetime.now(tz=dt.UTC).date()}, {versions}, {THREADS} threads\n")
    print("| " + " | ".join(HEADS) + " |\n" + "| --- " * len(HEADS) + "|", flush=True)
    for name in parser.parse_args().names:
        compare(name)


if __name__ == "__main__":
    main()
