"""Claims against findings: press by default, then judge on fresh samples that nothing has seen.

    python benchmarks/claims.py NAME ... [--folder DIR] [--time-limit S]

For each model: what the command claims after `--calibration` and `--evaluation` (its verdict, the
worst metric with its bound, the worst SQNR), and what is found on `fresh.npz`, of other sources
(`models/make_data.py --fresh`), judged by an evaluator of its own. A claim agrees where the drop
found lies within the bound claimed, and the budget holds. Rows are Markdown, and results stay in
the folder.
"""

import argparse
import json
from pathlib import Path

from press import MODELS, paths

import onnxpress
from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator, Measurement
from onnxpress.report.document import document
from onnxpress.runtime import Session

HEADING = (
    "| model | smaller | faster | verdict | claimed | worst dB | fresh samples | found | worst dB "
    "| elsewhere | agrees | s |"
)


def fresh_of(name: str) -> Path:
    """The fresh samples of a model."""
    return MODELS / ".cache" / ("fashion" if name.startswith("fashion") else name) / "fresh.npz"


def metric_text(found: Measurement) -> str:
    """The metric that lost most, with its bound."""
    worst = found.worst_metric
    if worst is None:
        return "–"
    return f"{worst.name} −{worst.drop:.2f} (at most {worst.interval[1]:.2f})"


def elsewhere(found: Measurement) -> str:
    """The probe that is nearest to its limit."""
    near = [probe for probe in found.probes if probe.output]
    if not near:
        return "–"
    worst = min(near, key=lambda probe: probe.sqnr_db - probe.least_db)
    return f"{worst.name} {worst.sqnr_db:.1f}"


def row(name: str, folder: Path, time_limit: float | None) -> str:
    """Press, judge on fresh samples, and say both."""
    model, calibration, evaluation = paths(name)
    result = onnxpress.optimize(
        model, calibration=calibration, evaluation=evaluation, time_limit=time_limit
    )
    out = folder / f"{name}.onnx"
    result.save(out)
    (folder / f"{name}.json").write_text(json.dumps(document(result)), encoding="utf-8")
    validation = result.validation
    assert validation is not None
    original = Session(model)
    samples = load_samples(fresh_of(name), original.inputs)
    judge = Evaluator(original, samples, Budget(), model=model_file.load(model))
    found = judge.measure(Session(out))
    claimed = validation.measurement.worst_metric
    bound = 100.0 if claimed is None else claimed.interval[1]
    agrees = judge.holds(found) and found.drop <= bound
    size = document(result)["size"]
    assert validation.judgement is not None
    return (
        f"| {name} | {size['ratio']:.2f}x | {validation.latency.speedup:.2f}x "
        f"| {validation.judgement.verdict} | {metric_text(validation.measurement)} "
        f"| {validation.measurement.worst_sqnr_db:.1f} | {len(samples):,} | {metric_text(found)} "
        f"| {found.worst_sqnr_db:.1f} | {elsewhere(found)} "
        f"| {'yes' if agrees else 'no: ' + (judge.broken(found) or 'beyond the bound')} "
        f"| {result.seconds:.0f} |"
    )


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("claims"))
    parser.add_argument("--time-limit", type=float, default=None)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(HEADING)
    print("| --- " * HEADING.count(" | ") + "| --- |", flush=True)
    for name in options.names:
        print(row(name, options.folder, options.time_limit), flush=True)


if __name__ == "__main__":
    main()
