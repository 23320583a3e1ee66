"""How long `onnxpress inspect` takes: models of 1 to 100 MB, thousands of nodes, trees.

    python benchmarks/inspect_times.py [RUNS] > table.md

A process each time, as a person starts it, models in turn. Processor time is of the process and its
children, and the figure to go by on a machine that others use; both are medians. The first row is
what Python takes to import onnx, onnx-ir and onnxruntime, which no run is without.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CACHE = Path("models/.cache")
REAL = (
    ("fashion_mobile", Path("models/fashion_mobile.onnx")),
    ("fashion_cnn", Path("models/fashion_cnn.onnx")),
    *(
        (name, CACHE / name / "model.onnx")
        for name in ("silero_vad", "magika", "ocr_det", "layout", "ocr_rec", "nudenet", "minilm")
    ),
)
IMPORTS = [sys.executable, "-c", "import onnx, onnx_ir, onnxruntime"]


def saved(folder: Path, name: str, graph: onnx.GraphProto) -> Path:
    """A model of a graph, in a file."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def chain(folder: Path, name: str, layers: int, width: int) -> Path:
    """Products and activations in a row, with other weights each."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for number in range(layers):
        source = "x" if number == 0 else f"r{number - 1}"
        nodes.append(helper.make_node("MatMul", [source, f"w{number}"], [f"h{number}"]))
        nodes.append(helper.make_node("Relu", [f"h{number}"], [f"r{number}"]))
        weight = rng.standard_normal((width, width)).astype(np.float32) / width**0.5
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
    ends = [
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", width])
        for tensor in ("x", f"r{layers - 1}")
    ]
    return saved(folder, name, helper.make_graph(nodes, name, ends[:1], ends[1:], weights))


def trees(folder: Path, name: str, count: int) -> Path:
    """A regressor of so many trees of depth 6."""
    inner, leaves = 63, 64
    ids = list(range(inner + leaves))
    modes = ["BRANCH_LEQ"] * inner + ["LEAF"] * leaves
    left = [2 * node + 1 if node < inner else 0 for node in ids]
    rng = np.random.default_rng(0)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[tree for tree in range(count) for _ in ids],
        nodes_nodeids=ids * count,
        nodes_featureids=rng.integers(0, 20, len(ids) * count).tolist(),
        nodes_modes=modes * count,
        nodes_values=rng.standard_normal(len(ids) * count).tolist(),
        nodes_truenodeids=left * count,
        nodes_falsenodeids=[one + 1 if one else 0 for one in left] * count,
        target_treeids=[tree for tree in range(count) for _ in range(leaves)],
        target_nodeids=list(range(inner, inner + leaves)) * count,
        target_ids=[0] * (leaves * count),
        target_weights=rng.standard_normal(leaves * count).tolist(),
    )
    ends = [
        helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", size])
        for tensor, size in (("x", 20), ("y", 1))
    ]
    return saved(folder, name, helper.make_graph([node], name, ends[:1], ends[1:]))


def took(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    before, started = os.times(), time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.monotonic() - started, os.times()
    used = after.children_user + after.children_system
    return wall, used - before.children_user - before.children_system


def main(runs: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = [(name, path) for name, path in REAL if path.is_file()]
        models += [
            ("made: 1,000 layers of 64x64", chain(folder, "nodes", 1000, 64)),
            ("made: 25 layers of 1000x1000", chain(folder, "large", 25, 1000)),
            ("made: 200 trees of depth 6", trees(folder, "trees", 200)),
        ]
        commands = [("imports alone", IMPORTS)]
        commands += [
            (name, [sys.executable, "-m", "onnxpress", "inspect", str(path), "--json", "-"])
            for name, path in models
        ]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in commands}
        for _ in range(runs):
            for name, command in commands:
                times[name].append(took(command))
        shapes = {
            name: (path.stat().st_size / 1e6, len(onnx.load(path).graph.node))
            for name, path in models
        }
    sys.stdout.write(
        "| model | MB | nodes | seconds | processor s |\n| --- | --: | --: | --: | --: |\n"
    )
    for name, _ in commands:
        wall, used = (statistics.median(figures) for figures in zip(*times[name], strict=True))
        size, nodes = shapes.get(name, (None, None))
        shape = "| |" if size is None else f"{size:.2f} | {nodes:,} |"
        sys.stdout.write(f"| {name} | {shape} {wall:.2f} | {used:.2f} |\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
