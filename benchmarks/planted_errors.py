"""At which rank `onnxpress diff` names the node that an error was planted at.

    python benchmarks/planted_errors.py MODEL [BASE.onnx] [--renamed]

MODEL is fashion_cnn, …, or a folder of models/.cache. BASE is an optimized form of it to plant
into; the original without. --renamed takes every inner name away first. A line per kind of error:
rank among the nodes named, whether it is the first along the graph too, and where it was planted.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from hunt import hunt  # noqa: E402 - the generator of the tests

SAMPLES = 4


def paths(name: str) -> tuple[Path, Path]:
    """The model and its samples."""
    if name.startswith("fashion"):
        return ROOT / "models" / f"{name}.onnx", ROOT / "models" / "fashion_evaluation.npz"
    folder = ROOT / "models" / ".cache" / name
    return folder / "model.onnx", folder / "evaluation.npz"


def main() -> None:
    """Print a line per kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("base", nargs="?", type=Path)
    parser.add_argument("--renamed", action="store_true")
    given = parser.parse_args()
    model, samples = paths(given.model)
    with np.load(samples) as archive:
        data = {name: archive[name][:SAMPLES] for name in archive if name != "__labels__"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for found in hunt(model, given.base or model, data, Path(folder), anonymous=given.renamed):
            first = "first" if found.first else ""
            print(f"{found.kind:22} {found.rank} of {found.parted:3} {first:5} {found.tensor}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
