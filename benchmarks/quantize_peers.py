"""Static quantizers side by side: ours by one command, peers in environments of their own.

    python benchmarks/quantize_peers.py NAME [NAME ...]

Makes the environments on first use. Every quantized model is compared with the original in
interleaved rounds in this process. Peers: onnxruntime's own quantizer (three layouts, minimum and
maximum, as shipped; dynamic per channel), NNCF, onnx-neural-compressor (plain and SmoothQuant),
onnxsim and, with `--modelopt` (its environment holds torch), ModelOpt.
"""

import argparse
import datetime as dt
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from peer_environments import REQUIREMENTS, run_worker, write_feeds
from press import paths

import onnxpress
from onnxpress.data import load_samples
from onnxpress.errors import OnnxpressError
from onnxpress.judge import Budget, Evaluator
from onnxpress.model_file import size_bytes
from onnxpress.runtime import Session, compare_latency

THREADS = 2
TIME_LIMIT_S = 300


def quantized(configuration: str, model: Path, feeds: Path, output: Path) -> str:
    """Run a peer; its seconds, or raises RuntimeError with the last line of its complaint."""
    seconds = run_worker(
        configuration.split(maxsplit=1)[0],
        "worker.py",
        configuration,
        model,
        feeds,
        output,
        time_limit_s=TIME_LIMIT_S,
    ).seconds
    if not output.exists():
        raise RuntimeError("no output")
    return f"{seconds:.1f}"


def rows(name: str, more: Sequence[str]) -> list[str]:
    """A Markdown row for each quantizer, `more` after the usual ones."""
    model, calibration, evaluation = paths(name)
    original = Session(model, threads=THREADS)
    samples = load_samples(evaluation, original.inputs)
    evaluator = Evaluator(original, samples, Budget())
    bert = name == "minilm"
    configurations = ["onnxruntime us", "onnxruntime uu", "onnxruntime ss", "onnxruntime dynamic"]
    configurations.append("nncf transformer" if bert else "nncf")
    configurations += ["neural_compressor plain", "neural_compressor smooth", "onnxsim static"]
    configurations += ["onnxsim recommended", *more]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        feeds, own = Path(folder, "feeds.npz"), Path(folder, "model.onnx")
        # A copy: some peers write into the file they are given.
        own.write_bytes(model.read_bytes())
        write_feeds(load_samples(calibration, original.inputs), feeds)
        for configuration in ["onnxpress quantize", *configurations]:
            output = Path(folder, f"{configuration.replace(' ', '_')}.onnx")
            try:
                if configuration.startswith("onnxpress"):
                    started = time.monotonic()
                    onnxpress.optimize(
                        model,
                        calibration=calibration,
                        evaluation=evaluation,
                        passes=["quantize"],
                        min_sqnr=26.0 if bert else None,
                        threads=THREADS,
                    ).save(output)
                    seconds = f"{time.monotonic() - started:.1f}"
                else:
                    seconds = quantized(configuration, own, feeds, output)
                session = Session(output, threads=THREADS)
                found = evaluator.measure(session)
                latency = compare_latency(original, session, samples.feeds[0])
            except (RuntimeError, OnnxpressError) as error:
                reason = str(error).replace("|", "/")[:120]
                lines.append(f"| {name} | {configuration} | | | | | | {reason} |")
                print(lines[-1], flush=True)
                continue
            lines.append(
                f"| {name} | {configuration} | {found.worst_sqnr_db:.1f} | {found.drop:.2f} | "
                f"{size_bytes(output) / 1e6:.2f} | {latency.speedup:.2f} ({latency.low:.2f} to "
                f"{latency.high:.2f}) | {seconds} | |"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--modelopt", action="store_true")
    arguments = parser.parse_args()
    more = ["modelopt int8"] if arguments.modelopt else []
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx"))
    peers = ", ".join(REQUIREMENTS[name][0] for name in ("nncf", "neural_compressor", "onnxsim"))
    print(f"{dt.datetime.now(tz=dt.UTC).date()}, {versions}, {peers}\n")
    print("| model | quantizer | worst dB | drop | MB | times the speed | seconds | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in arguments.names:
        rows(name, more)


if __name__ == "__main__":
    main()
