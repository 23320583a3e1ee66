"""Where the time of `optimize` goes, beside onnxruntime's static quantizer.

    python benchmarks/time_profile.py NAME ... [--threads N] [--peers] [--functions N] [--work]
        [--time-limit S [--processor]] [--max-drop POINTS] [--timing FILE]

For each model, with calibration and evaluation data: seconds on the wall and of processor time for
each phase, as `progress` names them, the whole over that of `quantize_static` in a process of its
own, imports and all (`--peers`), and what came out. `--functions` prints the functions that take
most, by cumulated time. Processor time tells two states of the code apart on a machine that others
use too, though it grows with what they do: measure both in turn. `--time-limit` is that of
`optimize`; with `--processor` the search reads processor time instead of the wall's, which others
do not take from it (give `--threads 1` and `OPENBLAS_NUM_THREADS=1`). `--timing` decides by what a
file says of times, and adds to it: two states of the code choose alike then, which the digest of
what they write shows.
"""

import argparse
import cProfile
import hashlib
import pstats
import re
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from peer_environments import run_worker, write_feeds
from press import paths

import onnxpress
from onnxpress import model_file
from onnxpress.costs import RecordedClock
from onnxpress.data import load_samples
from onnxpress.runtime import Clock, Session, compare_latency

_COUNTED = re.compile(r": models tried$|^sensitivity of .*")


@dataclass
class Phases:
    """Takes what `progress` says, and adds up the time until it says something else.

    Attributes:
        seconds: by phase, on the wall and of processor time.
    """

    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    _now: str = "reading"
    _since: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """From here on."""
        self._since = time.monotonic(), time.process_time()

    def __call__(self, event: onnxpress.Progress) -> None:
        """The next phase."""
        wall, processor = time.monotonic(), time.process_time()
        before = self.seconds.get(self._now, (0.0, 0.0))
        spent = before[0] + wall - self._since[0], before[1] + processor - self._since[1]
        self.seconds[self._now] = spent
        self._since = wall, processor
        if not _COUNTED.search(event.stage):
            self._now = event.stage
        elif ": " in event.stage:
            self._now = f"{event.stage.split(':', maxsplit=1)[0]}: search"


def peer_seconds(name: str) -> tuple[float, float] | None:
    """Of onnxruntime's static quantizer, on the wall and of processor time; `None`: it fails."""
    model, calibration, _ = paths(name)
    with tempfile.TemporaryDirectory() as folder:
        feeds, out = Path(folder, "feeds.npz"), Path(folder, "out.onnx")
        write_feeds(load_samples(calibration, Session(model).inputs), feeds)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            worked = run_worker("onnxruntime", "worker.py", "onnxruntime ss", model, feeds, out)
        except RuntimeError:
            return None
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return worked.seconds, processor


def clock_of_work() -> Clock:
    """By which integer kernels take a third of the time of others."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from clocks import BY_WORK  # noqa: PLC0415 - only where it is asked for

    return BY_WORK


def said(result: onnxpress.Result) -> None:
    """What came out, in a line."""
    validation = result.validation
    tried = ", ".join(f"{stage.pass_.name} {stage.tried}" for stage in result.stages if stage.tried)
    print(f"\n{model_file.weight_bytes(result.model):,} of {result.original_bytes:,} bytes", end="")
    if validation is not None:
        measured = validation.measurement
        print(f"; drop {measured.drop:.2f}; {measured.worst_sqnr_db:.1f} dB; tried: {tried}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.onnx")
        result.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        print(
            f"file {path.stat().st_size:,} bytes, {digest}; "
            f"{'within' if result.within_budget else 'not within'} the budget",
            flush=True,
        )


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--functions", type=int, default=0)
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--max-drop", type=float)
    parser.add_argument("--timing", type=Path)
    given = parser.parse_args()
    if given.processor:
        time.monotonic = time.process_time
    for name in given.names:
        model, calibration, evaluation = paths(name)
        phases, profile = Phases(), cProfile.Profile()
        clock = clock_of_work() if given.work else compare_latency
        kept = None if given.timing is None else RecordedClock.of_file(given.timing, clock)
        phases.start()
        if given.functions:
            profile.enable()
        result = onnxpress.optimize(
            model,
            calibration=calibration,
            evaluation=evaluation,
            threads=given.threads,
            max_drop=given.max_drop,
            clock=kept or clock,
            time_limit=given.time_limit,
            progress=phases,
        )
        profile.disable()
        phases(onnxpress.Progress("the end"))
        if kept is not None:
            kept.save(given.timing)
        print(f"\n| {name} | wall s | processor s |\n| --- | --- | --- |")
        for phase, (wall, processor) in phases.seconds.items():
            print(f"| {phase} | {wall:.1f} | {processor:.1f} |")
        total = [sum(both[place] for both in phases.seconds.values()) for place in (0, 1)]
        print(f"| all | {total[0]:.1f} | {total[1]:.1f} |", flush=True)
        said(result)
        peer = peer_seconds(name) if given.peers else None
        if peer is not None:
            ratios = [own / other for own, other in zip(total, peer, strict=True)]
            print(
                f"\nquantize_static: {peer[0]:.1f} s, {peer[1]:.1f} s of processor time; optimize "
                f"takes {ratios[0]:.1f} and {ratios[1]:.1f} times as long",
                flush=True,
            )
        if given.functions:
            ordered = pstats.Stats(profile).sort_stats("cumulative")
            ordered.print_stats("onnxpress", given.functions)


if __name__ == "__main__":
    main()
