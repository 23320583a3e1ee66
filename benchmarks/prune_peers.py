"""Structured pruning side by side: ours, magnitude alone, torch-pruning and onnxsim.

    python benchmarks/prune_peers.py NAME [NAME ...] [--ratio 0.75 0.5 0.3 ...] [--methods …]

Every method is brought to the same share of the multiply-adds, which is counted in the file it
wrote. "magnitude" is ours by norms without reconstruction, "one shot" ours without the refit to
the narrower network's own inputs. torch-pruning gets the same network in PyTorch (Fashion-MNIST
only), onnxsim the simplified model; neither trains. Speed is the median of interleaved rounds
against the original as shipped; "narrower alone" against the simplified original.
"""

import argparse
import datetime as dt
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
from peer_environments import print_row, run_worker, write_feeds
from press import paths

import onnxpress
from onnxpress import model_file
from onnxpress.data import Samples, load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.layers import find_layers
from onnxpress.passes.prune import Prune
from onnxpress.runtime import Feed, Session, compare_latency
from onnxpress.statistics import Observations, collect

THREADS = 2
RATIOS = ("0.75", "0.5", "0.3")
METHODS: dict[str, dict[str, Any]] = {
    "onnxpress": {},
    "one shot": {"refinement": False},
    "no reconstruction": {"reconstruction": False},
    "magnitude": {"importance": "magnitude", "reconstruction": False},
}
PEERS = (
    "torch-pruning",
    "onnxsim structured",
    "onnxsim structured_wanda",
    "onnxsim structured_wanda_finetune",
)
HEADINGS = (
    "model",
    "kept",
    "method",
    "multiply-adds",
    "drop",
    "worst dB",
    "MB",
    "speed",
    "narrower alone",
    "seconds",
)


def multiply_adds(path: Path, samples: Samples) -> float:
    """Of one run on the first sample, in layers with constant weights."""
    model = model_file.load(path)
    layers = [layer for layer in find_layers(model) if layer.op_type != "Gather"]
    names = frozenset(layer.name for layer in layers)
    one = Samples(samples.feeds[:1], None, samples.source)
    found = collect(model, layers, one, Observations(layers=names)).layers
    return sum(found[at.name].rows_per_sample * at.read().size for at in layers if at.name in found)


class Row:
    """Measures files against one original."""

    def __init__(self, name: str, plain: Path, evaluator: Evaluator, samples: Samples) -> None:
        model, _, _ = paths(name)
        self.name, self.plain, self.evaluator, self.samples = name, plain, evaluator, samples
        self.original, self.simplified = (Session(path, threads=THREADS) for path in (model, plain))
        self.whole = multiply_adds(plain, samples)
        self.feed: Feed = evaluator.samples.feeds[0]

    def __call__(self, ratio: str, method: str, path: Path, seconds: float) -> None:
        """Print the row of a file."""
        session = Session(path, threads=THREADS)
        found = self.evaluator.measure(session)
        speeds = [
            compare_latency(before, session, self.feed)
            for before in (self.original, self.simplified)
        ]
        print_row(
            (
                self.name,
                ratio,
                method,
                f"{multiply_adds(path, self.samples) / self.whole:.2f}",
                "" if found.metric is None else f"{found.drop:.2f}",
                f"{found.worst_sqnr_db:.1f}",
                f"{path.stat().st_size / 1e6:.2f}",
                *(f"{s.speedup:.2f} ({s.low:.2f} to {s.high:.2f})" for s in speeds),
                f"{seconds:.0f}",
            )
        )


def by_onnxsim(
    method: str, ratio: float, plain: Path, samples: Samples, row: Row, folder: Path
) -> tuple[Path, float]:
    """The sparsity of channels that comes nearest to the ratio from above, by bisection."""
    feeds, output, best = folder / "feeds.npz", folder / "peer.onnx", folder / "best.onnx"
    write_feeds(samples, feeds)
    low, high, seconds = 0.0, 0.95, 0.0
    best.unlink(missing_ok=True)
    for _ in range(6):
        amount = (low + high) / 2
        seconds = run_worker(
            "onnxsim", "worker.py", f"onnxsim {method} {amount}", plain, feeds, output
        ).seconds
        if multiply_adds(output, samples) > ratio * row.whole:
            low = amount
        else:
            high = amount
            output.replace(best)
    if not best.exists():
        raise RuntimeError(f"never below {ratio:.0%} of the multiply-adds")
    return best, seconds


def compare(name: str, ratios: list[str], methods: list[str]) -> None:
    """The methods at all ratios for one model."""
    model, calibration, evaluation = paths(name)
    original = Session(model, threads=THREADS)
    samples = load_samples(calibration, original.inputs)
    judged = load_samples(evaluation, original.inputs)
    evaluator = Evaluator(original, judged, Budget())
    free: dict[str, float] = {"max_drop": 100.0} if evaluator.metric_name else {"min_sqnr": -99.0}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain = folder / "simplified.onnx"
        onnxpress.optimize(model, passes=["simplify"]).save(plain)
        row = Row(name, plain, evaluator, samples)
        row("1", "simplified", plain, 0)
        for ratio in ratios:
            for method, options in METHODS.items():
                if method not in methods:
                    continue
                started = time.monotonic()
                result = onnxpress.optimize(
                    model,
                    calibration=samples,
                    evaluation=judged,
                    passes=[Prune(ratio=float(ratio), **options)],
                    goal="size" if method == "magnitude" else "balanced",
                    threads=THREADS,
                    **free,  # type: ignore[arg-type]
                )
                path = folder / "ours.onnx"
                result.save(path)
                row(ratio, method, path, time.monotonic() - started)
            for peer in PEERS:
                if peer not in methods:
                    continue
                tool, _, method = peer.partition(" ")
                try:
                    if tool == "torch-pruning":
                        path = folder / "torch.onnx"
                        seconds = run_worker(
                            "torch-pruning", "torch_prune.py", model, ratio, path
                        ).seconds
                    else:
                        path, seconds = by_onnxsim(
                            method, float(ratio), plain, samples, row, folder
                        )
                    onnx.checker.check_model(str(path))
                    row(ratio, peer, path, seconds)
                except (RuntimeError, onnx.checker.ValidationError) as error:
                    print_row((name, ratio, peer, *[""] * 6, f"fails: {error}"[:90]))


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--ratio", nargs="+", default=list(RATIOS), metavar="SHARE")
    every = [*METHODS, *PEERS]
    parser.add_argument("--methods", nargs="+", default=every, choices=every, metavar="METHOD")
    options = parser.parse_args()
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("onnxruntime", "onnx"))
    today = dt.datetime.now(tz=dt.UTC).date()
    print(
        f"{today}, onnxpress {onnxpress.__version__}, {versions}, torch-pruning 1.6.1, "
        f"onnxsim 0.8.1, {THREADS} threads\n"
    )
    print_row(HEADINGS)
    print_row(tuple("---" for _ in HEADINGS))
    for name in options.names:
        known = [m for m in options.methods if "fashion" in name or m != "torch-pruning"]
        compare(name, options.ratio, known)


if __name__ == "__main__":
    main()
