"""What `optimize --time-limit` gives in how much time: when it ends, and how good it is then.

    python benchmarks/time_limits.py NAME ... --limits 15 60 300 [--processor] [--threads N]
        [--max-drop POINTS]

A row a model and limit, from calibration and evaluation data: seconds on the wall and of processor
time until the result is there, judged; bytes; the speed against the original in rounds of their
own; what is lost on `fresh.npz` (`models/make_data.py --fresh`). With `--processor` the limit is of
processor time, which is what an idle core would give, whatever else runs: give `--threads 1` and
`OPENBLAS_NUM_THREADS=1`. Imports are in none of the figures.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from claims import fresh_of
from press import paths

import onnxpress
from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.runtime import Session, compare_latency

_WALL = time.monotonic


def row(name: str, limit: float, threads: int, max_drop: float | None) -> str:
    """Press within a limit, and look at what was written."""
    model, calibration, evaluation = paths(name)
    wall, processor = _WALL(), time.process_time()
    result = onnxpress.optimize(
        model,
        calibration=calibration,
        evaluation=evaluation,
        max_drop=max_drop,
        threads=threads,
        time_limit=limit,
    )
    took, used = _WALL() - wall, time.process_time() - processor
    original = Session(model, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.onnx")
        result.save(out)
        size, pressed = out.stat().st_size, Session(out, threads=threads)
        faster = compare_latency(
            original, pressed, load_samples(calibration, original.inputs).feeds[0]
        )
        found = "no fresh samples"
        if fresh_of(name).is_file():
            samples = load_samples(fresh_of(name), original.inputs)
            budget = Budget(max_drop=max_drop)
            judge = Evaluator(original, samples, budget, model=model_file.load(model))
            measured = judge.measure(pressed)
            broken = judge.broken(measured) or "within"
            found = f"{measured.drop:.2f}, {measured.worst_sqnr_db:.1f} dB, {broken}"
    verdict = "within" if result.within_budget else "not within"
    return (
        f"| {name} | {limit:g} | {took:.1f} | {used:.1f} | {size:,} "
        f"| {result.original_bytes / size:.2f} "
        f"| {faster.speedup:.2f} ({faster.low:.2f} to {faster.high:.2f}) | {verdict} | {found} |"
    )


def main() -> None:
    """Print a row for each model and limit, and the load that they met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--limits", nargs="+", type=float, default=[15.0, 60.0, 300.0])
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--max-drop", type=float)
    given = parser.parse_args()
    if given.processor:
        time.monotonic = time.process_time
    for name in given.names:
        for limit in given.limits:
            print(row(name, limit, given.threads, given.max_drop), flush=True)
            print(f"load: {' '.join(f'{one:.1f}' for one in os.getloadavg())}", flush=True)


if __name__ == "__main__":
    main()
