"""Sparse pruning side by side: ours, the published methods, and onnxsim's as shipped.

    python benchmarks/sparsify_peers.py NAME [NAME ...] [--sparsity 0.5 0.8 2:4 ...]

The published methods are ours without what we add: magnitude over all layers, Wanda in each row
(arXiv 2306.11695), SparseGPT in each layer (arXiv 2301.00774). onnxsim gets the simplified model,
because it does not fold BatchNormalization. "zip" is what deflate makes of the file; "load" the
time to open a session, whose expanded weights then take what dense ones take.
"""

import argparse
import datetime as dt
import tempfile
import time
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

from peer_environments import print_row, run_worker, write_feeds
from press import paths

import onnxpress
from onnxpress.contract import Pass
from onnxpress.data import Samples, load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.sparsify import Sparsify
from onnxpress.runtime import Session

THREADS = 2
SETTINGS = ("0.5", "0.7", "0.8", "0.9", "2:4")
METHODS: dict[str, dict[str, Any]] = {
    "onnxpress": {},
    "onnxpress int8": {},
    "magnitude": {"importance": "magnitude", "compensation": "none", "scope": "global"},
    "Wanda": {"importance": "wanda", "compensation": "none", "scope": "row"},
    "SparseGPT": {"compensation": "columns", "scope": "layer"},
}
PEERS = ("onnxsim magnitude", "onnxsim wanda", "onnxsim sparsegpt")
HEADINGS = ("model", "zeros", "method", "drop", "worst dB", "MB", "zip MB", "load ms", "seconds")


def row(
    evaluator: Evaluator, name: str, setting: str, method: str, path: Path, seconds: float
) -> tuple[str, ...]:
    """Measure a pruned file."""
    started = time.perf_counter()
    session = Session(path, threads=THREADS)
    load = time.perf_counter() - started
    found = evaluator.measure(session)
    content = path.read_bytes()
    return (
        name,
        setting,
        method,
        "" if found.metric is None else f"{found.drop:.2f}",
        f"{found.worst_sqnr_db:.1f}",
        f"{len(content) / 1e6:.2f}",
        f"{len(zlib.compress(content)) / 1e6:.2f}",
        f"{1e3 * load:.0f}",
        f"{seconds:.0f}",
    )


def by_peer(
    configuration: str, setting: str, model: Path, samples: Samples, folder: Path
) -> tuple[Path, float]:
    """Sparsify with onnxsim in its own environment."""
    feeds, output = folder / "feeds.npz", folder / "peer.onnx"
    write_feeds(samples, feeds)
    output.unlink(missing_ok=True)
    seconds = run_worker(
        "onnxsim", "worker.py", f"{configuration} {setting}", model, feeds, output
    ).seconds
    if not output.exists():
        raise RuntimeError("no message")
    return output, seconds


def compare(name: str, settings: list[str]) -> None:
    """All methods at all settings for one model."""
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
        for setting in settings:
            for method, options in METHODS.items():
                if method.endswith("int8") and (name, setting) != ("fashion_mlp", "0.8"):
                    continue  # the one that has a bar
                share: dict[str, Any] = (
                    {"pattern": setting} if ":" in setting else {"sparsity": float(setting)}
                )
                passes: list[str | Pass] = [Sparsify(**options, **share)]
                passes += [Quantize()] if method.endswith("int8") else []
                started = time.monotonic()
                result = onnxpress.optimize(
                    model,
                    calibration=samples,
                    evaluation=judged,
                    passes=passes,
                    threads=THREADS,
                    **free,  # type: ignore[arg-type]
                )
                seconds = time.monotonic() - started
                path = folder / "ours.onnx"
                result.save(path)
                print_row(row(evaluator, name, setting, method, path, seconds))
            for peer in PEERS:
                try:
                    path, seconds = by_peer(peer, setting, plain, samples, folder)
                    print_row(row(evaluator, name, setting, peer, path, seconds))
                except RuntimeError as error:
                    print_row((name, setting, peer, *[""] * 5, f"fails: {error}"[:90]))


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--sparsity", nargs="+", default=list(SETTINGS), metavar="SHARE")
    options = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC).date()
    print(
        f"{today}, onnxpress {onnxpress.__version__}, onnxruntime "
        f"{metadata.version('onnxruntime')}, onnxsim 0.8.1, {THREADS} threads\n"
    )
    print_row(HEADINGS)
    print_row(tuple("---" for _ in HEADINGS))
    for name in options.names:
        compare(name, options.sparsity)


if __name__ == "__main__":
    main()
