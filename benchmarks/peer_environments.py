"""Environments of their own for the tools we are compared with, made on first use."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onnxpress.data import Samples

ENVIRONMENTS = Path(__file__).parent / ".peers"
REQUIREMENTS = {
    "onnxruntime": ("onnxruntime==1.32.0", "onnx==1.23.2", "sympy"),
    "nncf": ("nncf==3.1.0", "onnxruntime==1.32.0", "onnx==1.23.2"),
    "neural_compressor": (
        "onnx-neural-compressor==1.0",
        # Not among what it declares:
        "prettytable",
        "scipy",
        "psutil",
        "py-cpuinfo",
        "onnxruntime==1.32.0",
        "onnx==1.23.2",
    ),
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0", "torch==2.13.0", "onnxruntime==1.32.0"),
    "torch": ("torch==2.13.0", "onnx==1.23.2"),
    "torch-pruning": (
        "torch==2.13.0",
        "torch-pruning==1.6.1",
        "onnx==1.23.2",
        "onnxscript==0.7.2",
        "onnxruntime==1.32.0",
    ),
    "simplifiers": (
        "onnxsim==0.8.1",
        "onnxslim==0.1.98",
        "onnxoptimizer==0.4.2",
        "onnxscript==0.7.2",
        "onnxruntime==1.32.0",
        "onnx==1.23.2",
    ),
    "onnxsim": ("onnxsim==0.8.1", "onnxruntime==1.32.0", "onnx==1.23.2"),
}


def interpreter(peer: str) -> Path:
    """The peer's Python; its environment is made where it is missing."""
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)
    return python


def write_feeds(samples: Samples, path: Path) -> None:
    """What the workers read."""
    arrays = {f"{n}/{name}": a for n, feed in enumerate(samples) for name, a in feed.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


class Worked(NamedTuple):
    """What a script of `peers/` says of itself.

    Attributes:
        seconds: that it took.
        peak_mb: its largest resident set; NaN where it does not say it.
    """

    seconds: float
    peak_mb: float


def run_worker(
    environment: str, worker: str, *arguments: object, time_limit_s: float | None = None
) -> Worked:
    """Run a script of `peers/` in its environment.

    Raises:
        RuntimeError: it failed, and the message is its last line; or it took too long.
    """
    script = Path(__file__).parent / "peers" / worker
    try:
        done = subprocess.run(
            [str(interpreter(environment)), str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=time_limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"more than {time_limit_s} s") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    seconds, *peak_mb = done.stdout.splitlines()[-1].split()
    return Worked(float(seconds), float(peak_mb[0]) if peak_mb else float("nan"))


def print_row(cells: tuple[str, ...]) -> None:
    """A row of a Markdown table, as soon as it is known."""
    print("| " + " | ".join(cells) + " |", flush=True)
