"""How small MiniLM gets by low rank alone, and what its pooled sentence vectors keep.

    python benchmarks/minilm_frontier.py [DB ...]

For each SQNR that the worst output must keep: the size, and the SQNR of the mean over unmasked
tokens, on the evaluation sentences.
"""

import sys

import numpy as np
import numpy.typing as npt
from press import paths

import onnxpress
from onnxpress.data import load_samples
from onnxpress.passes.factorize import Factorize
from onnxpress.report.document import document
from onnxpress.runtime import Feed, Session

STATES = "onnx::Shape_422"


def pooled(session: Session, feed: Feed) -> npt.NDArray[np.float64]:
    """Mean over unmasked tokens `[1, 384]`."""
    states = np.asarray(session.run(feed, [STATES])[STATES], np.float64)
    mask = np.asarray(feed["attention_mask"], np.float64)[:, :, None]
    total: npt.NDArray[np.float64] = (states * mask).sum(axis=1) / mask.sum(axis=1)
    return total


def main() -> None:
    """Print a Markdown table as it grows."""
    model, calibration, evaluation = paths("minilm")
    original = Session(model, threads=2)
    feeds = load_samples(evaluation, original.inputs).feeds
    wanted = [pooled(original, feed) for feed in feeds]
    print("| asked dB | worst dB | pooled dB | MB | of the original |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for asked in [float(text) for text in sys.argv[1:]] or [20.0, 12.0, 8.0, 6.0]:
        result = onnxpress.optimize(
            model,
            calibration=calibration,
            evaluation=evaluation,
            passes=[Factorize()],
            goal="size",
            min_sqnr=asked,
            threads=2,
        )
        session = Session(result.model, threads=2)
        found = [pooled(session, feed) for feed in feeds]
        noise = sum(np.square(a - b).sum() for a, b in zip(found, wanted, strict=True))
        signal = sum(np.square(b).sum() for b in wanted)
        assert result.validation is not None
        size = document(result)["size"]
        print(
            f"| {asked:g} | {result.validation.measurement.worst_sqnr_db:.1f} "
            f"| {10 * np.log10(signal / max(noise, 1e-30)):.1f} | {size['bytes'] / 1e6:.2f} "
            f"| {size['bytes'] / size['original_bytes']:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
