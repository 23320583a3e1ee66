"""Environments of their own for the tools we are compared with, made on first use."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from onnxpress.data import Samples

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".peers"
# torch without CUDA where a peer needs it: kinder to its size than what pip takes by itself.
REQUIREMENTS = {
    "onnxpress": (str(HERE.parent),),
    "onnxruntime": ("onnxruntime==1.32.0", "onnx==1.23.2", "sympy"),
    "onnxruntime-transformers": (
        "onnxruntime==1.32.0",
        "onnx==1.23.2",
        "sympy",
        # Not among what it declares:
        "torch==2.13.0+cpu",
    ),
    # HQQ and GPTQ of its MatMulNBits quantizer.
    "onnxruntime-nbits": (
        "onnxruntime==1.32.0",
        "onnx==1.23.2",
        "sympy",
        # Not among what it declares:
        "onnx-ir",
        "torch==2.13.0+cpu",
    ),
    "nncf": ("nncf==3.4.0", "onnxruntime==1.32.0", "onnx==1.23.2"),
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
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0", "torch==2.13.0+cpu", "onnxruntime==1.32.0"),
    "quark": ("amd-quark==0.13", "torch==2.13.0+cpu", "onnxruntime==1.32.0"),
    "aimet": ("aimet-onnx==2.42.0", "torch==2.13.0+cpu", "onnxruntime==1.32.0"),
    "olive": (
        "olive-ai==0.13.0",
        # Not among what it declares:
        "requests",
        "torch==2.13.0+cpu",
        "onnxruntime==1.32.0",
    ),
    "tensorflow-lite": (
        "tensorflow-cpu==2.21.0",
        "onnx2tf==1.28.8",
        # Not among what it declares:
        "ai-edge-litert",
        "onnx-graphsurgeon",
        "onnxsim",
        "sng4onnx",
        "tf_keras",
        "psutil",
        "onnxruntime==1.32.0",
    ),
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
    "onnxslim": ("onnxslim==0.1.98", "onnxruntime==1.32.0", "onnx==1.23.2"),
    "charts": ("matplotlib==3.11.2",),
    "onnxoptimizer": ("onnxoptimizer==0.4.2", "onnxruntime==1.32.0", "onnx==1.23.2"),
}


def interpreter(peer: str) -> Path:
    """The peer's Python; its environment is made where it is missing."""
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)
    return python


def renew_own() -> None:
    """Install this package as it is now into its environment."""
    python = interpreter("onnxpress")
    again = ["install", "-q", "--no-deps", "--force-reinstall", *REQUIREMENTS["onnxpress"]]
    subprocess.run([python, "-m", "pip", *again], check=True)


class Installed(NamedTuple):
    """What an environment holds besides pip.

    Attributes:
        megabytes: of all files.
        packages: how many distributions.
        version: of the first requirement.
    """

    megabytes: float
    packages: int
    version: str


def installed(environment: str) -> Installed:
    """Look at an environment; it is made where it is missing."""
    (folder,) = interpreter(environment).parents[1].glob("lib/python*/site-packages")
    own = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence.pth")
    files = [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.relative_to(folder).parts[0].partition("-")[0] not in own
    ]
    distributions = {
        path.name.removesuffix(".dist-info").rpartition("-")
        for path in folder.glob("*.dist-info")
        if path.name.partition("-")[0] not in own
    }
    wanted = re.split(r"[\[=<>]", Path(REQUIREMENTS[environment][0]).name)[0]
    wanted = "onnxpress" if environment == "onnxpress" else wanted
    versions = {name.lower().replace("_", "-"): version for name, _, version in distributions}
    return Installed(
        sum(file.stat().st_size for file in files) / 1e6, len(distributions), versions[wanted]
    )


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
    script = HERE / "peers" / worker
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
