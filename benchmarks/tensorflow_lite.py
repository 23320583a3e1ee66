"""TensorFlow Lite's full integer form beside ours, each on its own runtime, on the same images.

    python benchmarks/tensorflow_lite.py [NAME ...]

Networks with one input and labels. Converted by onnx2tf and quantized as TensorFlow Lite's
documentation says, in an environment of its own (`peer_environments.py`, about 2.5 GB). Judged on
`fresh.npz`, which neither has seen: points of accuracy lost with the upper bound of 95% confidence.
Prints Markdown.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from claims import fresh_of
from peer_environments import HERE, interpreter
from press import paths

from onnxpress.judge.shares import paired_bounds

NAMES = ("fashion_mlp", "fashion_cnn", "fashion_mobile", "ocr_cls")
HEADING = (
    "| model | what | points lost (at most) | dB | MB | times as fast (quartiles) |",
    "| --- | --- | --- | --- | --- | --- |",
)


def ours(name: str, folder: Path) -> list[Path]:
    """What `quantize` and `optimize` write with their defaults."""
    model, calibration, evaluation = map(str, paths(name))
    given = {
        "onnxpress quantize": ["--calibration", calibration],
        "onnxpress optimize": ["--calibration", calibration, "--evaluation", evaluation],
    }
    made = []
    for command, options in given.items():
        made.append(folder / f"{command}.onnx")
        subprocess.run(
            [*command.split(), model, *options, "--threads", "1", "-q", "-o", str(made[-1])],
            check=False,
        )
    return [path for path in made if path.exists()]


def rows(name: str) -> list[str]:
    """Of one network."""
    model, calibration, _ = paths(name)
    with tempfile.TemporaryDirectory() as folder:
        worker = HERE / "peers" / "tensorflow_lite_worker.py"
        files = [model, calibration, fresh_of(name), *ours(name, Path(folder))]
        told = subprocess.run(
            [interpreter("tensorflow-lite"), worker, *files],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
    if told.returncode:
        return [f"| {name} | TensorFlow Lite | {told.stderr.splitlines()[-1]} | | | |"]
    found = json.loads(told.stdout.splitlines()[-1])
    (_, original), *others = found.items()
    right = np.array(original["right"])
    lines = []
    for what, figures in others:
        now = np.array(figures["right"])
        lost, gained = int(np.sum(right & ~now)), int(np.sum(~right & now))
        drop = 100 * (lost - gained) / len(right)
        most = 100 * paired_bounds(lost, gained, len(right))[1]
        low, median, high = figures["speed"]
        db = "the same" if figures["db"] is None else f"{figures['db']:.1f}"
        lines.append(
            f"| {name} | {what} | {drop:.2f} ({most:.2f}) | {db} | {figures['bytes'] / 1e6:.2f} "
            f"| {median:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    print("\n".join(HEADING))
    for name in parser.parse_args().names:
        print("\n".join(rows(name)), flush=True)


if __name__ == "__main__":
    main()
