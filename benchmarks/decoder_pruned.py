"""The trained decoder with fewer parameters: perplexity after pruning, and after recovery.

    python models/train_decoder.py
    python benchmarks/decoder_pruned.py FOLDER [--keep 0.8 0.7] [--steps 200] [--time-limit 600]

`prune` alone, to a share of the multiply-adds whatever it costs, on 64 calibration rows in one step
with a past of length 0; then `distill` on the rows of `calibration.npz` and `evaluation.npz`
together, without labels, which a fifth of them end. Perplexity is of a byte in 64 rows of
`fresh.npz`, which nothing has looked at. Models are kept in FOLDER, and not made again.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
from decoder_bits import CALIBRATION, DECODER, perplexity_of, rows_of

import onnxpress
from onnxpress import model_file
from onnxpress.passes.prune import Prune
from onnxpress.runtime import Session

ROWS = 64


def parameters(path: Path) -> int:
    """Numbers in weights of floats, tables of positions left out."""
    found = model_file.load(path).graph.initializers.values()
    arrays = [one.const_value for one in found if one.const_value is not None]
    # 512 positions of rotary tables are no parameters.
    own = [x for x in arrays if x.dtype.is_floating_point() and x.shape.numpy()[:1] != (512,)]
    return sum(int(np.prod(x.shape.numpy())) for x in own)


def told(words: str, path: Path, rows: list[dict[str, np.ndarray]], started: float) -> None:
    """A line of the table."""
    value = perplexity_of(Session(path, threads=1), rows)
    whole = parameters(DECODER / "model.onnx")
    print(
        f"| {words} | {1 - parameters(path) / whole:.1%} | {path.stat().st_size / 1e6:.2f} | "
        f"{value:.4f} | {time.process_time() - started:.0f} |",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.8, 0.7])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--time-limit", type=float, default=600)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    given = parser.parse_args()
    # The quantizers that `decoder_bits` imports let every package tell all it does.
    logging.getLogger().setLevel(logging.WARNING)
    given.folder.mkdir(parents=True, exist_ok=True)
    fresh, calibration = rows_of("fresh", ROWS), rows_of("calibration", CALIBRATION)
    training = [*rows_of("calibration", 128), *rows_of("evaluation", 256)]
    print("| | fewer parameters | MB | perplexity | processor seconds of making |")
    print("| --- | --- | --- | --- | --- |")
    told("float32", DECODER / "model.onnx", fresh, time.process_time())
    for keep in given.keep:
        pruned = given.folder / f"pruned_{keep}.onnx"
        started = time.process_time()
        if not pruned.exists():
            found = onnxpress.optimize(
                DECODER / "model.onnx",
                passes=[Prune(ratio=keep)],
                calibration=calibration,
                max_drop=100.0,
                min_sqnr=-50.0,
                goal="size",
                threads=1,
            )
            found.save(pruned)
        told(f"`prune --ratio {keep}`", pruned, fresh, started)
        recovered = given.folder / f"recovered_{keep}.onnx"
        started = time.process_time()
        distilled = onnxpress.distill(
            DECODER / "model.onnx",
            pruned,
            calibration=training,
            evaluation=calibration,
            steps=given.steps,
            time_limit=given.time_limit,
            learning_rate=given.learning_rate,
            threads=1,
        )
        model_file.save(distilled.model, recovered)
        words = f"`distill`, {distilled.trained.steps} steps"
        told(f"{words}: {distilled.why_not or 'better'}", recovered, fresh, started)


if __name__ == "__main__":
    main()
