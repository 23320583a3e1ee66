"""Public models rewritten with and without refinement: dB of the worst output, Markdown.

    python benchmarks/refit_gain.py minilm ocr_rec [--calibration 32] [--evaluation 32]
        [--only quantize] [--only prune] [--only factorize]

Quantized, every layer and operator between is in static int8, whatever it costs; pruned, half of
the multiply-adds go in whole channels; factorized, 65% of them. No search. Needs `models/fetch.py`
and `models/make_data.py`. Processor time of rewriting alone.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Pass
from onnxpress.data import Samples, load_samples
from onnxpress.lossless import lossless
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target

CACHE = Path(__file__).parents[1] / "models" / ".cache"


def worst_db(before: Session, model: ir.Model, samples: Samples) -> float:
    """SQNR over all samples of the float output that lost most."""
    after = Session(model, threads=1)
    power: dict[str, float] = {}
    noise: dict[str, float] = {}
    for feed in samples:
        found = after.run(feed)
        for name, array in before.run(feed).items():
            if array.dtype.kind == "f":
                exact = array.astype(np.float64)
                error = np.square(exact - found[name].astype(np.float64)).sum()
                power[name] = power.get(name, 0.0) + float(np.square(exact).sum())
                noise[name] = noise.get(name, 0.0) + float(error)
    ratios = [power[name] / max(noise[name], 1e-300) for name in power]
    return float(10 * np.log10(min(ratios)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--calibration", type=int, default=32)
    parser.add_argument("--evaluation", type=int, default=32)
    parser.add_argument("--only", action="append", choices=list(PASSES))
    options = parser.parse_args()
    print("| model | pass | sites | off dB | on dB | off s | on s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    target = load_target("cpu")
    for name in options.models:
        folder = CACHE / name
        model = lossless(Simplify(), model_file.load(folder / "model.onnx"), target, 0).model
        before = Session(model, threads=1)
        given = [load_samples(folder / f"{kind}.npz", before.inputs) for kind in KINDS]
        seen, unseen = (
            samples.take(range(min(count, len(samples))))
            for samples, count in zip(given, (options.calibration, options.evaluation), strict=True)
        )
        for kind in options.only or PASSES:
            pool = Pool((PASSES[kind],))
            context = pool.context(model, target, seen, threads=1)
            decisions = strongest(pool, context, pool.offer(context))
            start = time.process_time()
            plain = pool.rewrite(context, decisions)
            plain_s = time.process_time() - start
            again = [replace(d, candidate=replace(d.candidate, refined=True)) for d in decisions]
            start = time.process_time()
            refitted = pool.rewrite_refined(context, again, seen, threads=1)
            refit_s = time.process_time() - start
            off, on = worst_db(before, plain, unseen), worst_db(before, refitted, unseen)
            figures = f"{len(decisions)} | {off:.1f} | {on:.1f} | {plain_s:.0f} | {refit_s:.0f}"
            print(f"| {name} | {kind} | {figures} |", flush=True)


PASSES: dict[str, Pass] = {
    "quantize": Quantize(form="static"),
    "prune": Prune(ratio=0.5),
    "factorize": Factorize(ratio=0.35),
}
KINDS = ("calibration", "evaluation")

if __name__ == "__main__":
    main()
