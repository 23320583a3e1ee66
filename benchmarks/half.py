"""Half precision: bytes, decibels as run here and in emulated half arithmetic, what stays float32.

    python benchmarks/half.py NAME [NAME ...] [--samples N] [--rows PATTERN]

For each model: onnxruntime's converter (`float16`, inputs and outputs kept), the same with
operators in float32 whose numbers do not fit on the calibration samples (onnxpress before 26
November 2026), `--float16 storage` and `--float16 keep-io`. What is chosen, is chosen on
calibration samples; decibels are of other samples, pooled, of the worst float output: as
onnxruntime runs the model on this processor, and with every operator rounded to half. Idle casts
are to the type that a tensor has, there and back, or a second one of a tensor to a type.
"""

import argparse
import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from importlib import metadata

import onnx_ir as ir
from onnxruntime.transformers import float16
from press import paths

from onnxpress import model_file
from onnxpress.beyond_ir import from_proto, to_proto
from onnxpress.conversion import Conversion, convert_form, samples_to_choose_by
from onnxpress.conversion.emulation import emulated
from onnxpress.conversion.half import prepared
from onnxpress.conversion.half_range import Magnitudes, too_wide
from onnxpress.conversion.precision import flow_of
from onnxpress.conversion.shares import decibels, lost
from onnxpress.data import Samples, load_samples
from onnxpress.errors import OnnxpressError
from onnxpress.lossless import lossless
from onnxpress.passes.simplify import Simplify
from onnxpress.runtime import Session
from onnxpress.statistics.magnitudes import observe_magnitudes
from onnxpress.targets import load_target

THREADS = 2
OBSERVED = 64
IDENTICAL_DB = 300
Maker = Callable[[ir.Model, Samples], ir.Model]


def theirs(model: ir.Model, blocked: Sequence[str]) -> ir.Model:
    """Onnxruntime's converter, its nodes put in order."""
    converted = float16.convert_float_to_float16(
        to_proto(model), keep_io_types=True, node_block_list=list(blocked)
    )
    half = from_proto(converted)
    half.graph.sort()
    return half


def observed(model: ir.Model, samples: Samples) -> Magnitudes:
    """Of its tensors on some of the samples."""
    return observe_magnitudes(model, [samples], most=OBSERVED, made_up=False, threads=THREADS)


def by_range(model: ir.Model, samples: Samples) -> ir.Model:
    """What does not fit stays in float32; nothing else is looked at."""
    typed = prepared(model)
    wide = too_wide(typed, flow_of(typed), observed(typed, samples))
    return theirs(typed, [unit.name or "" for unit in wide if isinstance(unit, ir.Node)])


def ours(form: str) -> Maker:
    """As `optimize --float16` does it for a target with half arithmetic."""

    def make(model: ir.Model, samples: Samples) -> ir.Model:
        half, notes = convert_form(
            model,
            load_target("cuda"),
            Conversion(float16=form),
            samples_to_choose_by(model, samples.feeds),
            lambda named: observed(named, samples),
        )
        for note in notes:
            print(f"<!-- {form}: {note} -->", flush=True)
        return half

    return make


ROWS: dict[str, Maker] = {
    "onnxruntime": lambda model, _: theirs(model, []),
    "by range": by_range,
    "storage": ours("storage"),
    "keep-io": ours("keep-io"),
}


def in_float32(model: ir.Model) -> int:
    """Operators that give float32, without Casts."""
    return sum(
        node.op_type != "Cast" and any(v.dtype == ir.DataType.FLOAT for v in node.outputs)
        for node in model.graph.all_nodes()
    )


def idle_casts(model: ir.Model) -> int:
    """Casts that change nothing, or that another one is already."""
    seen, idle = set(), 0
    for node in model.graph.all_nodes():
        source = node.inputs[0] if node.op_type == "Cast" else None
        if source is None:
            continue
        to = node.attributes["to"].as_int()
        first = source.producer()
        back = first is not None and first.op_type == "Cast" and first.inputs[0] is not None
        there = back and first is not None and first.inputs[0].dtype == to
        idle += source.dtype == to or (source, to) in seen or bool(there)
        seen.add((source, to))
    return idle


def compare(name: str, samples: int, pattern: str) -> None:
    """Print the rows of a model."""
    path, calibration, evaluation = paths(name)
    model = lossless(Simplify(), model_file.load(path), load_target("cpu"), 0).model
    original = Session(path, threads=THREADS)
    known = load_samples(calibration, original.inputs)
    feeds = load_samples(evaluation, original.inputs).feeds[:samples]
    wanted = [dict(original.run(feed)) for feed in feeds]
    whole = len(model_file.to_bytes(model))
    print(f"| {name} | float32 | {whole / 1e6:.2f} | | | {in_float32(model)} | | | |", flush=True)
    for row, make in ROWS.items():
        if not fnmatch(row, pattern):
            continue
        started = time.monotonic()
        try:
            half = make(model, known)
            seconds = time.monotonic() - started
            typed = prepared(half)
            session = Session(half, threads=THREADS)
            found = [dict(session.run(feed)) for feed in feeds]
            rounded = Session(emulated(typed), threads=THREADS, optimize=False)
            emulated_db = decibels(lost(wanted, [dict(rounded.run(feed)) for feed in feeds]))
        except (OnnxpressError, ValueError, RuntimeError) as error:
            # What onnxruntime's converter makes of bodies cannot even be copied.
            print(f"| {name} | {row} | fails: {' '.join(str(error).split())[:90]} |", flush=True)
            continue
        db = decibels(lost(wanted, found))
        casts = sum(node.op_type == "Cast" for node in half.graph.all_nodes())
        size = len(model_file.to_bytes(half))
        cells = (
            name,
            row,
            f"{size / 1e6:.2f} ({size / whole:.2f})",
            shown(db),
            shown(emulated_db),
            f"{in_float32(typed)}",
            f"{casts}",
            f"{idle_casts(typed)}",
            f"{seconds:.0f}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)


def shown(db: float) -> str:
    """Decibels, or in a word."""
    if db == -float("inf"):
        return "no number"
    return f"{db:.1f}" if db < IDENTICAL_DB else "identical"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--samples", type=int, default=32, metavar="N", help="that are judged on")
    parser.add_argument("--rows", metavar="PATTERN", default="*", help="which, as fnmatch has it")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx"))
    print(f"{dt.datetime.now(tz=dt.UTC).date()}, {versions}, {THREADS} threads\n")
    heads = "model", "form", "MB", "dB here", "dB emulated", "in float32", "Casts", "idle", "s"
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|", flush=True)
    for name in arguments.names:
        compare(name, arguments.samples, arguments.rows)


if __name__ == "__main__":
    main()
