"""The budget divided evenly among pools, against the division that is searched.

    python benchmarks/divisions.py NAME ... [--goal balanced|latency|size] [--work] [--threads N]
        [--folder DIR]

For each model, with calibration and evaluation data, `optimize` twice: once with even parts alone,
as before, once with its search over divisions. Every division that was looked at is a row, with
what it spent on the samples to choose by; then what was written, judged on `fresh.npz`
(`models/make_data.py --fresh`) where that is there, and timed against the original, interleaved.
`--work` lets the search read a clock of multiply-adds, so that both choose alike.
"""

import argparse
import time
from pathlib import Path
from unittest.mock import patch

from claims import fresh_of
from press import paths
from time_profile import clock_of_work

import onnxpress
from onnxpress import attempts, dividing, model_file
from onnxpress.attempts import Attempt
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.original import Run
from onnxpress.runtime import Latency, Session, compare_latency
from onnxpress.search import Goal
from onnxpress.stages import Variant


def looked_at(run: Run, variant: Variant, timed: Latency | None = None) -> Attempt:
    """Follow a way, and print what came of it."""
    started = time.process_time()
    found = _attempt(run, variant, timed)
    until = ", ".join(f"{name} {share:.3f}" for name, share in variant.splits.items())
    way = "the last pass alone" if variant.skipped else until or "even"
    size, spent = model_file.weight_bytes(found.model), run.evaluator.spent_anywhere
    print(
        f"|   {way}{'' if variant.rough else ', fitted again'}, {variant.share:.0%} of the budget "
        f"| {size:,} | {found.latency.speedup:.2f} | {spent(found.measurement):.2f} "
        f"| {time.process_time() - started:.1f} |",
        flush=True,
    )
    return found


_attempt = attempts.attempt_of


def row(name: str, goal: Goal, folder: Path, threads: int, *, work: bool, searched: bool) -> str:
    """Press, and judge what is written on fresh samples."""
    model, calibration, evaluation = paths(name)
    started = time.process_time()
    # No divisions besides the even one.
    with patch.object(dividing, "most_looks", dividing.most_looks if searched else lambda _: 0):
        result = onnxpress.optimize(
            model,
            calibration=calibration,
            evaluation=evaluation,
            goal=goal,
            threads=threads,
            clock=clock_of_work() if work else compare_latency,
        )
    seconds = time.process_time() - started
    out = folder / f"{name}_{goal}_{'searched' if searched else 'even'}.onnx"
    result.save(out)
    original, pressed = Session(model, threads=threads), Session(out, threads=threads)
    feeds = load_samples(calibration, original.inputs).feeds
    faster = compare_latency(original, pressed, feeds[0])
    found = "–"
    if fresh_of(name).is_file():
        samples = load_samples(fresh_of(name), original.inputs)
        judge = Evaluator(original, samples, Budget(), model=model_file.load(model))
        measured = judge.measure(pressed)
        found = (
            f"{measured.drop:.2f}, {measured.worst_sqnr_db:.1f} dB, "
            f"{judge.broken(measured) or 'within'}"
        )
    assert result.validation is not None
    judged = result.validation.measurement
    return (
        f"| {name} | {goal} | {'searched' if searched else 'even'} | {out.stat().st_size:,} "
        f"| {result.original_bytes / out.stat().st_size:.2f}x "
        f"| {faster.speedup:.2f}x ({faster.low:.2f} to {faster.high:.2f}) "
        f"| {judged.drop:.2f}, {judged.worst_sqnr_db:.1f} dB | {found} | {seconds:.0f} |"
    )


def main() -> None:
    """Print the rows of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--goal", default="balanced", choices=("balanced", "latency", "size"))
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build", "divisions"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with patch.object(attempts, "attempt_of", looked_at):
        for name in given.names:
            for searched in (False, True):
                print(
                    row(
                        name,
                        given.goal,
                        given.folder,
                        given.threads,
                        work=given.work,
                        searched=searched,
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
