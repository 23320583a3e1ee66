"""Press every committed and fetched model with and without data, and print one row each.

    python benchmarks/press.py [NAME ...] [--markdown FILE]

Fetch the public models first (`models/fetch.py`, `models/make_data.py`). Size, speed against
the original in interleaved rounds, task metric and SQNR of the worst output, all by
`onnxpress.optimize` with its defaults.
"""

import argparse
import datetime as dt
import platform
import time
from importlib import metadata
from pathlib import Path

import onnxpress
from onnxpress.errors import OnnxpressError

MODELS = Path(__file__).parents[1] / "models"
NAMES = (
    "fashion_cnn",
    "fashion_mlp",
    "ocr_rec",
    "ocr_det",
    "ocr_cls",
    "minilm",
    "magika",
    "layout",
    "silero_vad",
    "silero_vad_half",
    "silero_vad_ifless",
)
HEADINGS = (
    "model", "data", "MB", "times smaller", "times the speed", "metric", "drop", "SQNR dB",
    "factorized", "static int8", "int8 weights", "seconds", "verdict",
)  # fmt: skip


def paths(name: str) -> tuple[Path, Path, Path]:
    """(model, calibration, evaluation); the data may be absent."""
    if name.startswith("fashion"):
        data = MODELS / "fashion_calibration.npz", MODELS / "fashion_evaluation.npz"
        return MODELS / f"{name}.onnx", *data
    folder = MODELS / ".cache" / name
    return folder / "model.onnx", folder / "calibration.npz", folder / "evaluation.npz"


def row(name: str, *, with_data: bool) -> tuple[str, ...]:
    """Press one model."""
    model, calibration, evaluation = paths(name)
    started = time.monotonic()
    given = {"calibration": calibration, "evaluation": evaluation} if with_data else {}
    label = "yes" if with_data else "no"
    try:
        result = onnxpress.optimize(model, **given)  # type: ignore[arg-type]
    except OnnxpressError as error:
        return (name, label, *[""] * (len(HEADINGS) - 3), f"error: {error}")
    size = result.report["size"]
    validation = result.validation
    assert validation is not None
    found, latency = validation.measurement, validation.latency
    forms = [
        decision.candidate.parameters.get("form", stage.pass_.name)
        for stage in result.stages
        for decision in stage.decisions
        if not decision.candidate.carried
    ]
    return (
        name,
        label,
        f"{size['original_bytes'] / 1e6:.2f} to {size['bytes'] / 1e6:.2f}",
        f"{size['ratio']:.2f}",
        f"{latency.speedup:.2f} ({latency.low:.2f} to {latency.high:.2f})",
        "" if found.metric is None else f"{found.metric} {found.reference:.1f}",
        "" if found.metric is None else f"{found.drop:.2f}",
        f"{found.worst_sqnr_db:.1f}",
        str(forms.count("factorize")),
        str(forms.count("static")),
        str(forms.count("weight_only")),
        f"{time.monotonic() - started:.0f}",
        "within the budget" if result.within_budget else "; ".join(result.problems),
    )


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all that is there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx"))
    today = dt.datetime.now(tz=dt.UTC).date()
    lines = [
        f"{today}, onnxpress {onnxpress.__version__}, {versions}, {platform.machine()}",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "| " + " | ".join("---" for _ in HEADINGS) + " |",
    ]
    print("\n".join(lines), flush=True)
    for name in options.names or NAMES:
        model, calibration, _ = paths(name)
        if not model.exists():
            continue
        for with_data in (False, True) if calibration.exists() else (False,):
            lines.append("| " + " | ".join(row(name, with_data=with_data)) + " |")
            print(lines[-1], flush=True)
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
