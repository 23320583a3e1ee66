"""What quantizing costs, beside onnxruntime's `quantize_static` with minimum and maximum.

    python benchmarks/quantize_cost.py [--rounds N] NAME [NAME ...]

Every figure is a whole process: wall-clock seconds and peak resident memory; the processes take
turns. "alone": the model is simplified, observed and quantized by `PressPass`, which is what
`quantize_static` does. "command": `onnxpress quantize`, which also judges the result on
evaluation data, times it, and searches where the budget breaks. Memory: beyond what a process
takes that has only loaded the libraries; the bar is 1.5 times the model and one sample's
activations, which are counted by a run of the model with every tensor as an output.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peer_environments import interpreter, print_row, write_feeds
from press import paths

from onnxpress import load
from onnxpress.data import load_samples
from onnxpress.runtime import Feed, Session

COLUMNS = (
    "model",
    "quantize_static s",
    "alone s",
    "ratio",
    "command s",
    "ratio",
    "quantize_static MB",
    "alone MB",
    "bar MB",
    "command MB",
)
WORKERS = Path(__file__).parent / "peers"
# Its own memory is small, so that what it starts does not inherit a high mark.
LAUNCHER = """
import json, os, subprocess, sys, time
started = time.monotonic()
with open(os.devnull, "w") as nowhere:
    process = subprocess.Popen(sys.argv[1:], stdout=nowhere, stderr=nowhere)
    _, status, usage = os.wait4(process.pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps([time.monotonic() - started, usage.ru_maxrss / 1000, code]))
"""


def cost(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MB) of a process."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True, check=True
    )
    seconds, megabytes, code = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{command[:2]} ended with {code}")
    return seconds, megabytes


def activations_mb(model: Path, feed: Feed) -> float:
    """Of one sample: every tensor of the main graph that is computed."""
    loaded = load(model)
    known = set(loaded.graph.outputs)
    made = [value for node in loaded.graph for value in node.outputs if value.name]
    loaded.graph.outputs.extend(value for value in made if value not in known)
    found = Session(loaded, arena=False).run(feed)
    return sum(array.nbytes for array in found.values()) / 1e6


def commands(name: str, model: Path, feeds: Path, output: Path) -> list[list[str]]:
    """Of the peer, of quantizing alone, and of the command line; `model` is a copy to work on."""
    _, calibration, evaluation = paths(name)
    python = sys.executable
    peer = [str(interpreter("onnxruntime")), str(WORKERS / "worker.py"), "onnxruntime us"]
    peer += [str(model), str(feeds), str(output)]
    alone = [python, str(Path(__file__).parent / "quantize_alone.py"), str(model)]
    alone += [str(calibration), str(output)]
    whole = [str(Path(python).with_name("onnxpress")), "quantize", str(model)]
    whole += ["-o", str(output), "--threads", "2", "--calibration", str(calibration)]
    whole += ["--evaluation", str(evaluation)]
    whole += ["--min-sqnr", "26"] if name == "minilm" else []
    return [peer, alone, whole]


def measured(name: str, rounds: int) -> tuple[list[float], list[float], float]:
    """(median seconds and highest peak MB of each command, the bar in MB)."""
    source, calibration, _ = paths(name)
    with tempfile.TemporaryDirectory() as folder:
        feeds, model = Path(folder, "feeds.npz"), Path(folder, "model.onnx")
        model.write_bytes(source.read_bytes())
        samples = load_samples(calibration, Session(source).inputs)
        write_feeds(samples, feeds)
        bar = 1.5 * model.stat().st_size / 1e6 + activations_mb(model, samples.feeds[0])
        del samples
        all_three = commands(name, model, feeds, Path(folder, "output.onnx"))
        found = [[cost(command) for command in all_three] for _ in range(rounds)]
    seconds = [statistics.median(run[n][0] for run in found) for n in range(3)]
    memory = [max(run[n][1] for run in found) for n in range(3)]
    return seconds, memory, bar


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print_row(COLUMNS)
    print_row(("---",) * len(COLUMNS))
    libraries = "import onnxpress.pipeline, onnxpress.passes.quantize"
    nothing = cost([sys.executable, "-c", libraries])[1]
    peer_python = str(interpreter("onnxruntime"))
    peer_nothing = cost([peer_python, "-c", "import onnxruntime.quantization"])[1]
    for name in arguments.names:
        seconds, memory, bar = measured(name, arguments.rounds)
        print_row(
            (
                name,
                f"{seconds[0]:.1f}",
                f"{seconds[1]:.1f}",
                f"{seconds[1] / seconds[0]:.2f}",
                f"{seconds[2]:.1f}",
                f"{seconds[2] / seconds[0]:.2f}",
                f"{memory[0] - peer_nothing:.0f}",
                f"{memory[1] - nothing:.0f}",
                f"{bar:.0f}",
                f"{memory[2] - nothing:.0f}",
            )
        )


if __name__ == "__main__":
    main()
