"""One cell of the peers' benchmark: a tool on a model, judged on fresh samples by our judge.

What a tool takes is that of its whole process, imports and all, in its own environment. Its model
is judged here: metric and bound, the worst slice, processor time of one thread in interleaved
rounds with the original (by the clock on the wall, a busy machine gave quartiles of 0.2 and 8.9),
memory of a process of its own that loads and runs it.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from claims import fresh_of
from peer_environments import HERE, interpreter, write_feeds
from press import paths

from onnxpress import model_file
from onnxpress.data import Samples, load_samples
from onnxpress.errors import OnnxpressError
from onnxpress.judge import Budget, Evaluator
from onnxpress.model_file import size_bytes
from onnxpress.runtime import Session, compare_latency
from onnxpress.runtime.footprint import footprint

__all__ = ["CONFIGURATIONS", "Configuration", "Judge", "launched", "measured"]

THREADS = 2
Command = Callable[[Path, str, Path, Path], list[str]]
"""From the tool's Python, the model's name, its file and where to write: what is run."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A tool and what it is asked to do.

    Attributes:
        name: unique; its first word is the tool.
        environment: whose Python runs it, see `peer_environments.py`.
        typed: what a user types for it, by the tool's own documentation.
        starts: what is imported, or run, to see how long the tool takes to begin.
    """

    name: str
    environment: str
    typed: str
    starts: str


def _ours(command: str) -> Configuration:
    return Configuration(f"onnxpress {command}", "onnxpress", "1 command", "onnxpress --version")


CONFIGURATIONS = (
    _ours("optimize"),
    _ours("quantize"),
    _ours("simplify"),
    Configuration(
        "onnxruntime dynamic", "onnxruntime", "2 lines", "import onnxruntime.quantization"
    ),
    Configuration("onnxruntime us", "onnxruntime", "8 lines", "import onnxruntime.quantization"),
    Configuration(
        "onnxruntime prepared", "onnxruntime", "10 lines", "import onnxruntime.quantization"
    ),
    Configuration(
        "onnxruntime transformers",
        "onnxruntime-transformers",
        "1 command",
        "import onnxruntime.transformers.optimizer",
    ),
    Configuration("onnxsim simplify", "onnxsim", "1 command", "import onnxsim"),
    Configuration("onnxslim simplify", "onnxslim", "1 command", "import onnxslim"),
    Configuration("onnxoptimizer simplify", "onnxoptimizer", "1 command", "import onnxoptimizer"),
    Configuration("nncf static", "nncf", "4 lines", "import nncf"),
    Configuration("nncf transformer", "nncf", "4 lines", "import nncf"),
    Configuration(
        "neural_compressor plain",
        "neural_compressor",
        "12 lines",
        "import onnx_neural_compressor.quantization",
    ),
    Configuration(
        "neural_compressor smooth",
        "neural_compressor",
        "13 lines",
        "import onnx_neural_compressor.quantization",
    ),
    Configuration("quark int8", "quark", "11 lines", "import quark.onnx"),
    Configuration("aimet int8", "aimet", "6 lines", "import aimet_onnx"),
    Configuration("olive static", "olive", "1 command, 20 lines", "import olive.workflows"),
    Configuration("olive dynamic", "olive", "1 command, 9 lines", "import olive.workflows"),
    Configuration("modelopt int8", "modelopt", "1 command", "import modelopt.onnx.quantization"),
)


def launched(command: list[str], limit_s: float, folder: Path | None = None) -> dict[str, Any]:
    """What a command took, by `peers/launch.py`; nothing of our own environment shows through.

    Args:
        command: with its arguments.
        limit_s: after which it is ended.
        folder: that it runs in: some leave files there.
    """
    launcher = [sys.executable, str(HERE / "peers" / "launch.py"), str(limit_s), *command]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        launcher, capture_output=True, text=True, check=True, env=clean, cwd=folder
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def command_of(one: Configuration, name: str, model: Path, feeds: Path, out: Path) -> list[str]:
    """What is run for a cell: our own command as a user types it, or the peers' script."""
    python = interpreter(one.environment)
    if one.environment != "onnxpress":
        worker = HERE / "peers" / "worker.py"
        return [str(python), str(worker), one.name, str(model), str(feeds), str(out)]
    _, calibration, evaluation = paths(name)
    command = one.name.split()[1]
    given = {
        "optimize": ["--calibration", str(calibration), "--evaluation", str(evaluation)],
        "quantize": ["--calibration", str(calibration)],
    }
    options = [*given.get(command, []), "--out", str(out)]
    return [str(python.parent / "onnxpress"), command, str(model), *options]


class Judge:
    """The original of a model and what results are held against; made when first needed."""

    def __init__(self, name: str, most: int | None) -> None:
        """Of the fresh samples `most` are taken, or all."""
        self.name = name
        self.most = most

    @property
    def model(self) -> Path:
        """The file of the original."""
        return paths(self.name)[0]

    @cached_property
    def original(self) -> Session:
        """The original, opened as everybody does."""
        return Session(self.model, threads=THREADS)

    @cached_property
    def alone(self) -> Session:
        """The original in one thread, to be timed by what the processor did for it."""
        return Session(self.model, threads=1)

    @cached_property
    def samples(self) -> Samples:
        """Fresh ones: no tool has seen them."""
        samples = load_samples(fresh_of(self.name), self.original.inputs)
        return samples if self.most is None else samples.take(range(min(self.most, len(samples))))

    @cached_property
    def evaluator(self) -> Evaluator:
        """With the default budget."""
        model = model_file.load(self.model)
        return Evaluator(self.original, self.samples, Budget(), model=model)

    def prepare(self, folder: Path) -> tuple[Path, Path]:
        """A copy of the model, since some write into the file they are given, and the feeds."""
        copy, feeds = folder / "model.onnx", folder / "feeds.npz"
        copy.write_bytes(self.model.read_bytes())
        write_feeds(load_samples(paths(self.name)[1], self.original.inputs), feeds)
        return copy, feeds

    def figures(self, made: Path) -> dict[str, Any]:
        """What a result is worth."""
        session = Session(made, threads=THREADS)
        found = self.evaluator.measure(session)
        worst = found.worst_metric
        output = min(
            (o for o in found.outputs.items() if o[1].is_float),
            key=lambda o: o[1].sqnr_db,
            default=None,
        )
        first = self.samples.feeds[0]
        alone = Session(made, threads=1)
        latency = compare_latency(self.alone, alone, first, budget_s=3, clock=time.process_time)
        takes = footprint(made, first, THREADS)
        held = None if takes is None else takes.held_bytes
        return {
            "metric": None if worst is None else worst.name,
            "lost": None if worst is None else worst.drop,
            "lost_at_most": None if worst is None else worst.interval[1],
            "worst_db": None if output is None or math.isinf(output[1].sqnr_db)
            else output[1].sqnr_db,
            "worst_slice": "" if output is None else f"{output[0]} {output[1].worst}".strip(),
            "identical": output is not None and math.isinf(output[1].sqnr_db),
            "within_budget": self.evaluator.holds(found),
            "samples": len(self.samples),
            "bytes": size_bytes(made),
            "original_bytes": size_bytes(self.model),
            "held_bytes": held,
            "speed": latency.speedup,
            "speed_low": latency.low,
            "speed_high": latency.high,
            "clock": "processor",
        }  # fmt: skip


def measured(one: Configuration, judge: Judge, folder: Path, limit_s: float) -> dict[str, Any]:
    """A cell: what the tool took and what it gave, or its message where it gave nothing."""
    model, feeds = judge.prepare(folder)
    out = folder / "made.onnx"
    took = launched(command_of(one, judge.name, model, feeds, out), limit_s, folder)
    cell = {key: took[key] for key in ("wall_s", "processor_s", "peak_mb")}
    # Ours ends with 1 where a budget could not be kept, and writes a model all the same.
    if not out.exists():
        said = took["message"] or f"exit status {took['status']}, no output"
        return cell | {"error": said.replace(f"{folder}/", "")}
    try:
        return cell | judge.figures(out)
    except OnnxpressError as error:
        return cell | {"error": f"its model: {error}".replace(f"{folder}/", "")}
