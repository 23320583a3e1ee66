"""Every command on every public model, judged on fresh samples beside two other quantizers.

    python benchmarks/every_command.py NAME ... [--folder DIR] [--time-limit S] [--most N]
                                       [--peers] [--only COMMAND ...]

Each command runs as a user types it, in a process of its own, and what it wrote is compared with
the original on `fresh.npz` (`models/make_data.py --fresh`), which no choice has seen, by the kinds
that the judge reads from the original. A row: exit status, how many times smaller, seconds, peak
memory, what the command claims, what is found, and whether the claim agrees: no metric has dropped
by more than the bound that was claimed, and outputs keep what the budget asks of them. Peers:
onnxruntime's dynamic and static quantizer (per channel) and NNCF, by their defaults, each in an
environment of its own. Rows are Markdown.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from claims import fresh_of, metric_text
from peer_environments import run_worker, write_feeds
from press import paths

from onnxpress import model_file
from onnxpress.data import Samples, load_samples
from onnxpress.errors import OnnxpressError
from onnxpress.judge import Budget, Evaluator
from onnxpress.runtime import Session

HEADING = (
    "| model | command | exit | smaller | s | peak MB | claimed | found on fresh samples "
    "| worst dB | agrees |"
)
WITHOUT_DATA = ("simplify", "optimize")
WITH_DATA = ("optimize", "quantize", "prune", "factorize")
PEERS = ("onnxruntime dynamic", "onnxruntime ss", "nncf")
PEER_LIMIT_S = 600
_POLLED_EVERY_S = 0.1


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        status: its exit status.
        seconds: wall time.
        peak_mb: largest resident set of the process and what it started.
        said: the last line of what it printed, for failures.
    """

    status: int
    seconds: float
    peak_mb: float
    said: str


def run(command: Sequence[object], log: Path) -> Done:
    """Run one command line of ours."""
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        line = [sys.executable, "-m", "onnxpress", *map(str, command)]
        process = subprocess.Popen(line, stdout=stream, stderr=subprocess.STDOUT)
        peaks: dict[int, float] = {}
        while process.poll() is None:
            peaks |= _peaks(process.pid)
            time.sleep(_POLLED_EVERY_S)
    seconds = time.monotonic() - started
    lines = log.read_text(encoding="utf-8").split("\n")
    told = [line for line in lines if line.strip()]
    # A command may start processes of its own; they are hardly at their peaks at once.
    peak = max(peaks.values(), default=0.0)
    return Done(process.returncode, seconds, peak, told[-1] if told else "")


def _peaks(pid: int) -> dict[int, float]:
    """Largest resident sets so far, in MB, of a process and its descendants.

    `getrusage` would count what the parent held when it forked.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return {}
    found = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    own = {pid: int(found[0][1]) / 1e3} if found else {}
    for child in children:
        own |= _peaks(int(child))
    return own


@dataclass(frozen=True)
class Found:
    """What fresh samples show.

    Attributes:
        metric: that lost most, in words.
        worst_db: of all outputs, in words.
        drop: of that metric, in points.
        noise: whether outputs keep their SQNR.
        holds: whether the whole budget holds.
    """

    metric: str = "–"
    worst_db: str = "–"
    drop: float = 0.0
    noise: bool = False
    holds: bool = False


def judged(judge: Evaluator, path: Path) -> Found:
    """Judge a model on fresh samples."""
    try:
        found = judge.measure(Session(path))
    except (OnnxpressError, ValueError) as error:
        return Found(f"cannot be judged: {str(error)[:80]}")
    worst = 0.0 if found.worst_metric is None else found.drop
    noise = judge.holds(replace(found, metrics=()))
    level = f"{found.worst_sqnr_db:.1f}"
    return Found(metric_text(found), level, worst, noise, judge.holds(found))


def row_of_command(
    name: str, command: str, options: Sequence[object], judge: Evaluator | None, folder: Path
) -> str:
    """Run a command and judge its output."""
    model = paths(name)[0]
    label = command + (" with data" if "--calibration" in options else "")
    out = folder / f"{name}-{label.replace(' ', '-')}.onnx"
    report = out.with_suffix(".json")
    given = [command, model, *options]
    if command != "inspect":
        given += ["-o", out, "--json", report]
    done = run(given, out.with_suffix(".txt"))
    head = f"| {name} | {label} | {done.status} "
    cost = f"| {done.seconds:.0f} | {done.peak_mb:,.0f} "
    if command == "inspect":
        return f"{head}| – {cost}| – | – | – | {'–' if done.status == 0 else done.said} |"
    if done.status not in (0, 1) or not out.exists():
        return f"{head}| – {cost}| {done.said[:90]} | – | – | no |"
    validation = json.loads(report.read_text(encoding="utf-8")).get("validation") or {}
    claim, bound = _claim(validation)
    smaller = model_file.size_bytes(model) / model_file.size_bytes(out)
    if judge is None:
        return f"{head}| {smaller:.2f}x {cost}| {claim} | – | – | – |"
    found = judged(judge, out)
    agrees = "yes" if done.status == 1 or (found.noise and found.drop <= bound) else "no"
    tail = f"{found.metric} | {found.worst_db} | {agrees}"
    return f"{head}| {smaller:.2f}x {cost}| {claim} | {tail} |"


def _claim(validation: dict[str, Any]) -> tuple[str, float]:
    """(in words, the most that a metric may have dropped)."""
    judgement, figures = validation.get("judgement") or {}, validation.get("default") or {}
    words = str(judgement.get("verdict", "–"))
    metrics = figures.get("metrics") or []
    if not metrics:
        return f"{words}, {figures.get('worst_sqnr_db') or math.inf:.1f} dB", 100.0
    worst = max(metrics, key=lambda metric: metric["drop"])
    bound = worst["drop_interval"][1]
    return f"{words}, −{worst['drop']:.2f} (at most {bound:.2f})", bound


def row_of_peer(name: str, peer: str, judge: Evaluator | None, folder: Path) -> str:
    """Quantize with a peer and judge its output."""
    model, calibration, _ = paths(name)
    out = folder / f"{name}-{peer.replace(' ', '-')}.onnx"
    out.unlink(missing_ok=True)
    head = f"| {name} | {peer} "
    with tempfile.TemporaryDirectory() as temporary:
        own, feeds = Path(temporary, "model.onnx"), Path(temporary, "feeds.npz")
        own.write_bytes(model.read_bytes())
        write_feeds(load_samples(calibration, Session(model).inputs), feeds)
        environment = peer.split(maxsplit=1)[0]
        try:
            worked = run_worker(
                environment, "worker.py", peer, own, feeds, out, time_limit_s=PEER_LIMIT_S
            )
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return f"{head}| – | – | – | – | fails: {str(error)[:80]} | – | – | – |"
    smaller = model.stat().st_size / out.stat().st_size
    found = Found() if judge is None else judged(judge, out)
    holds = "within the budget" if found.holds else "beyond it"
    figures = f"| – | {smaller:.2f}x | {worked.seconds:.0f} | {worked.peak_mb:,.0f} | –"
    return f"{head}{figures} | {found.metric} | {found.worst_db} | {holds} |"


def judge_of(name: str, most: int) -> Evaluator | None:
    """On fresh samples; `None` where the model has none, or gives no tensors."""
    model, fresh = paths(name)[0], fresh_of(name)
    if not fresh.exists():
        return None
    try:
        original = Session(model)
        samples = load_samples(fresh, original.inputs)
        taken: Samples = samples.take(range(min(most, len(samples))))
        return Evaluator(original, taken, Budget(), model=model_file.load(model))
    except OnnxpressError as error:
        print(error, file=sys.stderr)
        return None


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("every"))
    parser.add_argument("--time-limit", type=float, default=90)
    parser.add_argument("--most", type=int, default=128, help="fresh samples")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--only", nargs="+", default=None, help="commands")
    parser.add_argument("--without-data", action="store_true", help="no command that has any")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(HEADING)
    print("| --- " * (HEADING.count("|") - 1) + "|", flush=True)
    limit = ["--time-limit", options.time_limit]
    for name in options.names:
        _, calibration, evaluation = paths(name)
        data = ["--calibration", calibration, "--evaluation", evaluation, *limit]
        plan: list[tuple[str, list[object]]] = [("inspect", [])]
        plan += [(command, [] if command == "simplify" else limit) for command in WITHOUT_DATA]
        has_data = calibration.exists() and not options.without_data
        plan += [(command, data) for command in WITH_DATA if has_data]
        judge = judge_of(name, options.most)
        for command, given in plan:
            if options.only is None or command in options.only:
                row = row_of_command(name, command, given, judge, options.folder)
                print(row, flush=True)
        for peer in PEERS if options.peers and calibration.exists() else ():
            print(row_of_peer(name, peer, judge, options.folder), flush=True)


if __name__ == "__main__":
    main()
