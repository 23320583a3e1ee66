"""Graphs of many nodes: processor time, memory and what is left, beside onnxsim and onnxslim.

    python benchmarks/large_graphs.py [--peers PYTHON] [--nodes 6000 20000 100000] [--plot FILE.png]
    python benchmarks/large_graphs.py --rows RESULTS.md --plot FILE.png

`--peers` is the Python of an environment with onnxsim and onnxslim. Whole processes, one after the
other; "simplification" is the pass alone, in a process of its own that has read the file. A plot
needs matplotlib.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEADING = ("graph", "nodes", "what", "processor s", "peak MB", "nodes left")
LOADING = """
import sys, onnx, onnxruntime
onnx.checker.check_model(sys.argv[1], full_check=True)
onnx.load(sys.argv[1])
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""
ALONE = """
import sys, time
from pathlib import Path
from onnxpress import model_file
from onnxpress.passes.simplify import simplify
model = model_file.load(Path(sys.argv[1]))
start = time.process_time()
simplify(model)
print(time.process_time() - start)
"""
ONNXSIM = """
import sys, onnx, onnxsim
model, _ = onnxsim.simplify(onnx.load(sys.argv[1]))
onnx.save(model, sys.argv[2])
"""
ONNXSLIM = """
import sys, onnx, onnxslim
onnx.save(onnxslim.slim(sys.argv[1]), sys.argv[2])
"""


def chain(nodes: int) -> onnx.ModelProto:
    """Add and Tanh in turn, as unrolled loops have them."""
    made, last = [], "x"
    for number in range(nodes // 2):
        made.append(helper.make_node("Add", [last, "step"], [f"a{number}"], f"add{number}"))
        last = "y" if number == nodes // 2 - 1 else f"t{number}"
        made.append(helper.make_node("Tanh", [f"a{number}"], [last], f"tanh{number}"))
    return _model(made, [("step", np.full(8, 0.1, np.float32))], 8)


def wide(nodes: int) -> onnx.ModelProto:
    """Branches of a MatMul, an Add, a Relu and a Mul by one, beside each other, then one Concat."""
    made, weights, ends = [], [("one", np.ones(1, np.float32))], []
    rng = np.random.default_rng(0)
    for number in range(nodes // 4):
        weights.append((f"w{number}", rng.standard_normal((8, 8)).astype(np.float32)))
        weights.append((f"b{number}", rng.standard_normal(8).astype(np.float32)))
        steps = [("MatMul", f"w{number}"), ("Add", f"b{number}"), ("Mul", "one"), ("Relu", None)]
        last = "x"
        for operator, constant in steps:
            given = [last] if constant is None else [last, constant]
            last = f"{operator}{number}_out"
            made.append(helper.make_node(operator, given, [last], f"{operator}{number}"))
        ends.append(last)
    made.append(helper.make_node("Concat", ends, ["y"], "all", axis=1))
    return _model(made, weights, 8 * len(ends))


GRAPHS: dict[str, Callable[[int], onnx.ModelProto]] = {"chain": chain, "wide": wide}


def _model(
    nodes: list[onnx.NodeProto], weights: list[tuple[str, np.ndarray]], width: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measured(command: list[str], limit_s: float) -> tuple[float, float, str] | None:
    """Processor seconds, peak MB and what was printed; `None` where it failed or took long."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wrapped = [sys.executable, "-c", _PEAK, *command]
    with subprocess.Popen(
        wrapped,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, said = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            # What the process started has to end too.
            os.killpg(process.pid, signal.SIGKILL)
            print(f"no result after {limit_s:.0f} s: {command[0]}", file=sys.stderr)
            return None
    if process.returncode:
        print(f"failed: {command[0]}: {said[-300:]}", file=sys.stderr)
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int(said.rsplit("peak ", 1)[1]) / 1000, printed


_PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Measure and print a table of Markdown, and a line of JSON for each row on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of an environment with onnxsim and onnxslim")
    parser.add_argument("--nodes", type=int, nargs="+", default=[6000, 20000, 100000])
    parser.add_argument("--graphs", nargs="+", choices=GRAPHS, default=list(GRAPHS))
    parser.add_argument("--time-limit", type=float, default=900, help="seconds of one process")
    parser.add_argument("--plot", type=Path, help="a .png of nodes against seconds and MB")
    parser.add_argument("--rows", type=Path, help="plot this earlier table instead of measuring")
    given = parser.parse_args()
    if given.rows:
        _plot(_read(given.rows), given.plot)
        return
    print(f"| {' | '.join(HEADING)} |")
    print("| --- " * len(HEADING) + "|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "model.onnx"), Path(folder, "out.onnx")
        for graph in given.graphs:
            for nodes in given.nodes:
                onnx.save(GRAPHS[graph](nodes), source)
                for name, command in _commands(given.peers, source, out).items():
                    out.unlink(missing_ok=True)
                    found = measured(command, given.time_limit)
                    if found is not None:
                        alone = name == "simplification alone"
                        seconds = float(found[2]) if alone else found[0]
                        left = len(onnx.load(out).graph.node) if out.exists() else None
                        rows.append((graph, nodes, name, seconds, found[1], left))
                        _show(rows[-1])
                    else:
                        print(f"| {graph} | {nodes} | {name} | failed | | |", flush=True)
    if given.plot:
        _plot(rows, given.plot)


def _commands(peers: str | None, source: Path, out: Path) -> dict[str, list[str]]:
    own, files = sys.executable, [str(source), str(out)]
    commands = {
        "load, check, open": [own, "-c", LOADING, str(source)],
        "simplification alone": [own, "-c", ALONE, str(source)],
        "onnxpress simplify": [own, "-m", "onnxpress", "simplify", str(source), "-o", str(out)],
    }
    if peers:
        commands["onnxsim"] = [peers, "-c", ONNXSIM, *files]
        commands["onnxslim"] = [peers, "-c", ONNXSLIM, *files]
    return commands


def _read(path: Path) -> list[tuple[str, int, str, float, float, int | None]]:
    """The rows of a table as this program prints it."""
    rows: list[tuple[str, int, str, float, float, int | None]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == len(HEADING) and cells[0] in GRAPHS and cells[4]:
            left = int(cells[5]) if cells[5] else None
            rows.append((cells[0], int(cells[1]), cells[2], float(cells[3]), float(cells[4]), left))
    return rows


def _show(row: tuple[str, int, str, float, float, int | None]) -> None:
    graph, nodes, name, seconds, peak, left = row
    print(f"| {graph} | {nodes} | {name} | {seconds:.1f} | {peak:.0f} | {left or ''} |", flush=True)
    print(json.dumps(row), file=sys.stderr, flush=True)


def _plot(rows: list[tuple[str, int, str, float, float, int | None]], path: Path) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only for a plot

    graphs = list(dict.fromkeys(row[0] for row in rows))
    figure, places = plt.subplots(2, len(graphs), figsize=(5 * len(graphs), 7), squeeze=False)
    for column, graph in enumerate(graphs):
        for name in dict.fromkeys(row[2] for row in rows):
            own = [row for row in rows if row[0] == graph and row[2] == name]
            for line, (index, unit) in enumerate([(3, "processor seconds"), (4, "peak MB")]):
                axes = places[line][column]
                axes.loglog([row[1] for row in own], [row[index] for row in own], "o-", label=name)
                axes.set(title=graph, xlabel="nodes", ylabel=unit)
                axes.grid(visible=True, alpha=0.3)
    places[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
