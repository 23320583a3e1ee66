"""Where the time of `optimize` goes, beside onnxruntime's static quantizer.

    python benchmarks/time_profile.py NAME ... [--threads N] [--peers] [--functions N]

For each model, with calibration and evaluation data: seconds on the wall and of processor time for
each phase, as `progress` names them, and the whole over that of `quantize_static` in a process of
its own (`--peers`). `--functions` prints the functions that take most, by cumulated time. Processor
time tells two states of the code apart on a machine that others use too.
"""

import argparse
import cProfile
import pstats
import re
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from peer_environments import run_worker, write_feeds
from press import paths

import onnxpress
from onnxpress.data import load_samples
from onnxpress.runtime import Session

_COUNTED = re.compile(r": \d+ sites, attempt \d+$|^sensitivity of .*")


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

    def __call__(self, said: str) -> None:
        """The next phase."""
        wall, processor = time.monotonic(), time.process_time()
        before = self.seconds.get(self._now, (0.0, 0.0))
        spent = before[0] + wall - self._since[0], before[1] + processor - self._since[1]
        self.seconds[self._now] = spent
        self._since = wall, processor
        if not _COUNTED.search(said):
            self._now = said
        elif ": " in said:
            self._now = f"{said.split(':', maxsplit=1)[0]}: search"


def peer_seconds(name: str) -> float | None:
    """Of onnxruntime's static quantizer, `None` where it fails."""
    model, calibration, _ = paths(name)
    with tempfile.TemporaryDirectory() as folder:
        feeds, out = Path(folder, "feeds.npz"), Path(folder, "out.onnx")
        write_feeds(load_samples(calibration, Session(model).inputs), feeds)
        try:
            return run_worker("onnxruntime", "worker.py", "onnxruntime ss", model, feeds, out)
        except RuntimeError:
            return None


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--functions", type=int, default=0)
    given = parser.parse_args()
    for name in given.names:
        model, calibration, evaluation = paths(name)
        phases, profile = Phases(), cProfile.Profile()
        phases.start()
        if given.functions:
            profile.enable()
        onnxpress.optimize(
            model,
            calibration=calibration,
            evaluation=evaluation,
            threads=given.threads,
            progress=phases,
        )
        profile.disable()
        phases("the end")
        print(f"\n| {name} | wall s | processor s |\n| --- | --- | --- |")
        for phase, (wall, processor) in phases.seconds.items():
            print(f"| {phase} | {wall:.1f} | {processor:.1f} |")
        total = [sum(both[place] for both in phases.seconds.values()) for place in (0, 1)]
        print(f"| all | {total[0]:.1f} | {total[1]:.1f} |", flush=True)
        peer = peer_seconds(name) if given.peers else None
        if peer is not None:
            print(f"\nquantize_static {peer:.1f} s: {total[0] / peer:.1f} times as long")
        if given.functions:
            ordered = pstats.Stats(profile).sort_stats("cumulative")
            ordered.print_stats("onnxpress", given.functions)


if __name__ == "__main__":
    main()
