"""What quantizing costs, beside onnxruntime's `quantize_static` with minimum and maximum.

    python benchmarks/quantize_cost.py [--rounds N] NAME [NAME ...]

Every figure is a whole process: its wall-clock seconds and its peak resident memory. The
processes take turns. `quantize_static` reads one sample after the other. Ours is run twice: the
whole command, which also judges the result on evaluation data, times it, and tries other forms;
and `--time-limit 0`, which quantizes, measures and gives back what holds without a search.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peer_environments import interpreter, print_row, write_feeds
from press import paths

from onnxpress.data import load_samples
from onnxpress.runtime import Session

WORKER = Path(__file__).parent / "peers" / "worker.py"


def cost(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MB) of a process, which has to succeed or to refuse by its budget."""
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            log.seek(0)
            raise RuntimeError(log.read().decode()[-500:])
    return seconds, usage.ru_maxrss / 1000


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    titles = ["quantize_static s", "quantize s", "ratio", "quantize_static MB", "quantize MB"]
    print_row(("model", *titles))
    print_row(("---",) * (len(titles) + 1))
    command = Path(sys.executable).with_name("onnxpress")
    for name in arguments.names:
        model, calibration, evaluation = paths(name)
        with tempfile.TemporaryDirectory() as folder:
            feeds, output = Path(folder, "feeds.npz"), Path(folder, "output.onnx")
            own = Path(folder, "model.onnx")
            own.write_bytes(model.read_bytes())
            write_feeds(load_samples(calibration, Session(model).inputs), feeds)
            peer = [str(interpreter("onnxruntime")), str(WORKER), "onnxruntime us"]
            peer += [str(own), str(feeds), str(output)]
            ours = [str(command), "quantize", str(own), "-o", str(output), "--threads", "2"]
            ours += ["--calibration", str(calibration), "--evaluation", str(evaluation)]
            if name == "minilm":
                ours += ["--min-sqnr", "26"]
            theirs_found, ours_found = [], []
            for _ in range(arguments.rounds):
                theirs_found.append(cost(peer))
                ours_found.append(cost(ours))
        theirs_s, ours_s = (
            statistics.median(seconds for seconds, _ in found)
            for found in (theirs_found, ours_found)
        )
        theirs_mb, ours_mb = (max(mb for _, mb in f) for f in (theirs_found, ours_found))
        print_row(
            (
                name,
                f"{theirs_s:.1f}",
                f"{ours_s:.1f}",
                f"{ours_s / theirs_s:.2f}",
                f"{theirs_mb:.0f}",
                f"{ours_mb:.0f}",
            )
        )


if __name__ == "__main__":
    main()
