"""Transcripts, size and processor time of optimized recognizers and of peers, beside the original.

On recordings that no choice saw: word error rate by the labels, the bound of its rise on others,
the share of transcripts that are the same, and the processor seconds of interleaved rounds over
the same recordings, each to the end of its own text, one thread.

    python models/train_speech.py
    onnxpress optimize models/speech_pipeline.toml --threads 1 -o FOLDER \
        --calibration models/.cache/speech/calibration.npz \
        --evaluation models/.cache/speech/evaluation.npz
    python benchmarks/speech.py FOLDER … [--peers]

Peers are onnxruntime's quantizers over both files, shapes inferred before (`quant_pre_process`):
dynamic int8 per channel, static int8 in QDQ per channel on what the parts are given with 96
calibration recordings, and MatMulNBits in 4 bits, blocks of 32.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from onnxpress.data import load_samples
from onnxpress.pipelines import Running, read_folder, wired
from onnxpress.pipelines.recording import forced, recorded
from onnxpress.pipelines.transcripts import transcripts_of
from onnxpress.runtime import Feed, Session

MODELS = Path(__file__).parents[1] / "models"
DATA = MODELS / ".cache" / "speech"
ROUNDS, TIMED, OBSERVED = 7, 48, 256


class Given(CalibrationDataReader):  # type: ignore[misc]
    """The inputs of a part, one after the other."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self.feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next ones."""
        return next(self.feeds, None)


def dynamic(source: Path, output: Path, _feeds: tuple[Feed, ...]) -> None:
    """Weights in int8 per channel, activations scaled at every call."""
    quantize_dynamic(source, output, per_channel=True, weight_type=QuantType.QInt8)


def static(source: Path, output: Path, feeds: tuple[Feed, ...]) -> None:
    """QDQ with scales of the calibration recordings."""
    quantize_static(source, output, Given(feeds), per_channel=True)


def four_bits(source: Path, output: Path, _feeds: tuple[Feed, ...]) -> None:
    """What a MatMul multiplies, by nearest rounding."""
    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(output))


PEERS: dict[str, Callable[[Path, Path, tuple[Feed, ...]], None]] = {
    "onnxruntime dynamic int8": dynamic,
    "onnxruntime static int8": static,
    "onnxruntime MatMulNBits 4 bit": four_bits,
}


def opened(path: Path) -> Running:
    """A pipeline with a session of one thread for each part."""
    pipeline = read_folder(path)
    sessions = {part.name: Session(part.model, threads=1) for part in pipeline.parts}
    return Running(wired(pipeline, sessions), sessions)


def write_peer(name: str, original: Running, description: Path, folder: Path) -> None:
    """Both files by a peer, with the description beside them."""
    samples = forced(original, load_samples(DATA / "calibration.npz", original.wiring.inputs))
    for part in original.wiring.pipeline.parts:
        given = recorded(original.wiring, original.sessions, samples, part.name, OBSERVED)
        prepared = folder / f"{part.name}.prepared.onnx"
        quant_pre_process(part.model, prepared, skip_symbolic_shape=True)
        PEERS[name](prepared, folder / part.model.name, given.feeds)
        prepared.unlink()
    text = description.read_text().replace(".cache/speech/", "")
    (folder / "pipeline.toml").write_text(text)


def megabytes(running: Running) -> float:
    """Of the files, and of what they share once."""
    models = [part.model for part in running.wiring.pipeline.parts]
    shared = {model.parent / "shared.data" for model in models}
    return sum(file.stat().st_size for file in (*models, *shared) if file.exists()) / 1e6


def speed(original: Running, result: Running, feeds: tuple[Feed, ...]) -> str:
    """Processor seconds of the original over the result's, median and ends of rounds in turn."""
    ratios = []
    for _ in range(ROUNDS):
        spent = []
        for running in (original, result):
            started = time.process_time()
            for feed in feeds[:TIMED]:
                running.tokens(feed)
            spent.append(time.process_time() - started)
        ratios.append(spent[0] / spent[1])
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Print one row a folder, the original first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--original", type=Path, default=MODELS / "speech_pipeline.toml")
    parser.add_argument("--data", type=Path, default=DATA / "fresh.npz")
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    # Peers tell each node that they pass by.
    logging.disable(logging.WARNING)
    original = opened(options.original)
    samples = load_samples(options.data, original.wiring.inputs)
    known = transcripts_of(original, samples)
    if known is None:
        raise SystemExit(f"{options.data}: has no __labels__")
    texts = [original.tokens(feed) for feed in known.feeds]
    size = megabytes(original)
    print(f"{len(samples)} recordings, {known.number} words")
    print("| | MB | smaller | word error rate | points more at most | same | speed |")
    print(f"| original | {size:.2f} | 1 | {known.rate(known.original):.2f}% | | | 1 |")

    def row(name: str, folder: Path) -> None:
        result = opened(folder)
        wrong = known.wrong(result)
        pairs = zip(texts, map(result.tokens, known.feeds), strict=True)
        same = np.mean([np.array_equal(one, other) for one, other in pairs])
        own = megabytes(result)
        print(
            f"| {name} | {own:.2f} | {size / own:.2f} | {known.rate(wrong):.2f}% | "
            f"{known.most(wrong, 0.95):.2f} | {same:.1%} | "
            f"{speed(original, result, known.feeds)} |",
            flush=True,
        )

    for folder in options.folders:
        row(folder.name, folder)
    for name in PEERS if options.peers else ():
        with tempfile.TemporaryDirectory() as made:
            write_peer(name, original, options.original, Path(made))
            row(name, Path(made))


if __name__ == "__main__":
    main()
