"""What low rank keeps, by what it is fitted to, and how far it goes.

    python benchmarks/factorize_forms.py [NAME ...]

At equal multiply-adds: plain SVD, FWSVD-like (each input weighed by its size), whitened (principal
components of the outputs), whitened and fitted again to the network's own inputs. Ranks of every
form are shared out by the same Lagrangian. Speed in interleaved rounds against the original.
"""

import argparse
import datetime as dt
import time
from importlib import metadata
from typing import Any

from press import paths

import onnxpress
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.layers import find_layers
from onnxpress.passes.factorize import Factorize
from onnxpress.runtime import Session

THREADS = 2
FORMS: dict[str, dict[str, Any]] = {
    "plain SVD": {"weighting": "weights"},
    "FWSVD-like": {"weighting": "inputs"},
    "whitened": {"refinement": False},
    "whitened, refined": {},
}
RATIOS = {
    "fashion_mlp": (0.25, 0.15),
    "fashion_cnn": (0.5, 0.35),
    "ocr_rec": (0.75,),
    "minilm": (0.85,),
}
HEADINGS = (
    "model", "kept multiply-adds", "form", "drop", "worst dB", "MB", "times the speed", "seconds",
)  # fmt: skip


def row(name: str, ratio: float, form: str) -> tuple[str, ...]:
    """Factorize one model in one way, whatever it loses."""
    model, calibration, evaluation = paths(name)
    original = Session(model, threads=THREADS)
    judged = load_samples(evaluation, original.inputs)
    has_metric = Evaluator(original, judged, Budget()).metric_name is not None
    free: dict[str, float] = {"max_drop": 100.0} if has_metric else {"min_sqnr": -99.0}
    started = time.monotonic()
    result = onnxpress.optimize(
        model,
        calibration=calibration,
        evaluation=judged,
        passes=[Factorize(ratio=ratio, **FORMS[form])],
        goal="size",
        threads=THREADS,
        **free,  # type: ignore[arg-type]
    )
    validation = result.validation
    assert validation is not None
    found, latency = validation.measurement, validation.latency
    return (
        name,
        f"{ratio:.2f}",
        form,
        "" if found.metric is None else f"{found.drop:.2f}",
        f"{found.worst_sqnr_db:.1f}",
        f"{sum(layer.nbytes for layer in find_layers(result.model)) / 1e6:.2f}",
        f"{latency.speedup:.2f} ({latency.low:.2f} to {latency.high:.2f})",
        f"{time.monotonic() - started:.0f}",
    )


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RATIOS), metavar="NAME")
    options = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC).date()
    versions = f"onnxruntime {metadata.version('onnxruntime')}, {THREADS} threads"
    print(f"{today}, onnxpress {onnxpress.__version__}, {versions}\n")
    print("| " + " | ".join(HEADINGS) + " |")
    print("| " + " | ".join("---" for _ in HEADINGS) + " |", flush=True)
    for name in options.names:
        for ratio in RATIOS[name]:
            for form in FORMS:
                print("| " + " | ".join(row(name, ratio, form)) + " |", flush=True)


if __name__ == "__main__":
    main()
