"""Refits against depth and samples: processor time and peak memory, as Markdown.

    python benchmarks/refit_depth.py [--depths 12 24 48] [--samples 64 256 1024 4096] [--plot FILE]

A generated network of equal blocks (LayerNormalization, 256 to 768, Relu, 768 to 256, residual)
behind an embedding, all-static int8. A process for each row. Processor time, since other work
shares the cores; the peak is what the refit adds in a process that has collected its statistics
(Linux). It uses nothing that version 0.1 did not have, so that it also measures checkouts from
before there were blocks: `PYTHONPATH=CHECKOUT python benchmarks/refit_depth.py`. A plot needs
matplotlib.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxpress.data import Samples
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target

WIDTH, INNER, WORDS, TOKENS = 256, 768, 500, 32


def network(depth: int) -> ir.Model:
    """So many residual blocks of two layers."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def drawn(name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> str:
        array = mean + scale * rng.standard_normal(shape)
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def add(op_type: str, inputs: list[str], output: str) -> str:
        nodes.append(helper.make_node(op_type, inputs, [output], output))
        return output

    last = add("Gather", [drawn("words", WORDS, WIDTH), "ids"], "embedded")
    for n in range(depth):
        norm = [last, drawn(f"g{n}", WIDTH, scale=0.1, mean=1.0), drawn(f"o{n}", WIDTH, scale=0.1)]
        value = add("LayerNormalization", norm, f"norm{n}")
        for step, (taken, given) in enumerate(((WIDTH, INNER), (INNER, WIDTH))):
            weight = drawn(f"w{n}_{step}", taken, given, scale=taken**-0.5)
            value = add("MatMul", [value, weight], f"product{n}_{step}")
            value = add("Add", [value, drawn(f"b{n}_{step}", given, scale=0.1)], f"sum{n}_{step}")
            value = value if step else add("Relu", [value], f"relu{n}")
        last = add("Add", [last, value], f"stream{n}" if n < depth - 1 else "y")
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, TOKENS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, TOKENS, WIDTH])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def status_mb(field: str) -> float:
    """Of this process, from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def measured(depth: int, count: int) -> dict[str, float]:
    """Seconds of statistics, of rounding once and of the refit, and MB that the refit adds."""
    model = network(depth)
    rng = np.random.default_rng(1)
    feeds = tuple({"ids": rng.integers(0, WORDS, (1, TOKENS))} for _ in range(count))
    samples = Samples(feeds, None, "drawn")
    pool = Pool((Quantize(form="static", refinement=True),))
    start = time.process_time()
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    statistics_s = time.process_time() - start
    decisions = strongest(pool, context, pool.offer(context))
    start = time.process_time()
    pool.rewrite(context, decisions)
    rounding_s = time.process_time() - start
    again = [replace(d, candidate=replace(d.candidate, refined=True)) for d in decisions]
    Path("/proc/self/clear_refs").write_text("5")
    held, start = status_mb("VmRSS"), time.process_time()
    pool.rewrite_refined(context, again, samples, threads=1)
    return {
        "statistics_s": statistics_s,
        "rounding_s": rounding_s,
        "refit_s": time.process_time() - start,
        "refit_mb": status_mb("VmHWM") - held,
    }


def row(depth: int, count: int) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--one", str(depth), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--depths", type=int, nargs="*", default=[12, 24, 48])
    parser.add_argument("--samples", type=int, nargs="*", default=[64, 256, 1024, 4096])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", type=int, nargs=2)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one)))
        return
    heading = "statistics s | rounding once s | refit s | s a block | refit adds MB |"
    print(f"| blocks | samples | {heading}\n| --- | --- | --- | --- | --- | --- | --- |")
    cases = [(depth, 64) for depth in options.depths]
    rows: list[tuple[int, int, dict[str, float]]] = []
    for depth, count in [*cases, *((4, count) for count in options.samples)]:
        found = row(depth, count)
        rows.append((depth, count, found))
        times = f"{found['statistics_s']:.1f} | {found['rounding_s']:.1f} | {found['refit_s']:.1f}"
        each = found["refit_s"] / depth
        print(f"| {depth} | {count} | {times} | {each:.2f} | {found['refit_mb']:.0f} |", flush=True)
    if options.plot:
        _plot(rows, len(cases), options.plot)


def _plot(rows: list[tuple[int, int, dict[str, float]]], by_depth: int, path: Path) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only for a plot

    figure, places = plt.subplots(2, 2, figsize=(10, 7))
    kinds = ("statistics_s", "rounding_s", "refit_s")
    for column, (own, place, label) in enumerate(
        ((rows[:by_depth], 0, "blocks, 64 samples"), (rows[by_depth:], 1, "samples, 4 blocks"))
    ):
        along = [row[place] for row in own]
        times, memory = places[0][column], places[1][column]
        for kind in kinds:
            name = kind.removesuffix("_s")
            times.plot(along, [row[2][kind] for row in own], "o-", label=name)
        times.set(xlabel=label, ylabel="processor seconds")
        memory.plot(along, [row[2]["refit_mb"] for row in own], "o-")
        memory.set(xlabel=label, ylabel="MB that the refit adds", ylim=(0, None))
    for axes in places.flat:
        axes.grid(visible=True, alpha=0.3)
    places[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
