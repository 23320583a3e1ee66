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


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print_row(
        (
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
    )
    print_row(("---",) * 10)
    python = str(Path(sys.executable))
    nothing = cost([python, "-c", "import onnxpress.pipeline, onnxpress.passes.quantize"])[1]
    peer_python = str(interpreter("onnxruntime"))
    peer_nothing = cost([peer_python, "-c", "import onnxruntime.quantization"])[1]
    for name in arguments.names:
        model, calibration, evaluation = paths(name)
        with tempfile.TemporaryDirectory() as folder:
            feeds, output = str(Path(folder, "feeds.npz")), str(Path(folder, "output.onnx"))
            own = Path(folder, "model.onnx")
            own.write_bytes(model.read_bytes())
            samples = load_samples(calibration, Session(model).inputs)
            write_feeds(samples, Path(feeds))
            bar = 1.5 * own.stat().st_size / 1e6 + activations_mb(own, samples.feeds[0])
            del samples
            peer = [peer_python, str(WORKERS / "worker.py"), "onnxruntime us", str(own)]
            peer += [feeds, output]
            alone = [python, str(Path(__file__).parent / "quantize_alone.py"), str(own)]
            alone += [str(calibration), output]
            whole = [str(Path(sys.executable).with_name("onnxpress")), "quantize", str(own)]
            whole += ["-o", output, "--threads", "2", "--calibration", str(calibration)]
            whole += ["--evaluation", str(evaluation)]
            whole += ["--min-sqnr", "26"] if name == "minilm" else []
            found = [
                [cost(command) for command in (peer, alone, whole)] for _ in range(arguments.rounds)
            ]
        seconds = [statistics.median(run[n][0] for run in found) for n in range(3)]
        memory = [max(run[n][1] for run in found) for n in range(3)]
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
