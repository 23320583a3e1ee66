"""Optimize every committed and fetched model with and without data, and print one row each.

    python benchmarks/press.py [NAME ...] [--markdown FILE]

Fetch the public models first (`models/fetch.py`, `models/make_data.py`). The columns are the rows
of the report's closing table, all by `onnxpress.optimize` with its defaults.
"""

import argparse
import collections
import datetime as dt
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxpress
from onnxpress.errors import OnnxpressError
from onnxpress.report.columns import Document
from onnxpress.report.document import document
from onnxpress.report.markdown import markdown_line
from onnxpress.report.rows import RESULT_ROWS, VALIDATION_ROWS, Row

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
    "model", "data", *(row.heading for row in (*RESULT_ROWS, *VALIDATION_ROWS)), "forms",
    "seconds", "verdict",
)  # fmt: skip


def paths(name: str) -> tuple[Path, Path, Path]:
    """(model, calibration, evaluation); the data may be absent."""
    if name.startswith("fashion"):
        data = MODELS / "fashion_calibration.npz", MODELS / "fashion_evaluation.npz"
        return MODELS / f"{name}.onnx", *data
    folder = MODELS / ".cache" / name
    return folder / "model.onnx", folder / "calibration.npz", folder / "evaluation.npz"


def row(name: str, *, with_data: bool) -> tuple[str, ...]:
    """Optimize one model."""
    model, calibration, evaluation = paths(name)
    started = time.monotonic()
    given = {"calibration": calibration, "evaluation": evaluation} if with_data else {}
    label = "yes" if with_data else "no"
    try:
        result = onnxpress.optimize(model, **given)  # type: ignore[arg-type]
    except OnnxpressError as error:
        return (name, label, *[""] * (len(HEADINGS) - 3), f"error: {error}")
    report = document(result)
    forms = collections.Counter(
        decision.candidate.family or stage.pass_.name
        for stage in result.stages
        for decision in stage.decisions
        if not decision.candidate.carried
    )
    return (
        name,
        label,
        *(_said(row, report) for row in RESULT_ROWS),
        *(_said(row, report["validation"]) for row in VALIDATION_ROWS),
        ", ".join(f"{count} {form}" for form, count in sorted(forms.items())),
        f"{time.monotonic() - started:.0f}",
        "within the budget" if result.within_budget else "; ".join(result.problems),
    )


def _said(row: Row[Any], found: Document | None) -> str:
    """A row of the closing table in one cell; empty where nothing could be run."""
    lines = [] if found is None else list(row.lines(found))
    named = len(lines) > 1
    return "; ".join(f"{line.heading.strip()} {line}" if named else str(line) for line in lines)


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
        markdown_line(HEADINGS),
        markdown_line(["---" for _ in HEADINGS]),
    ]
    print("\n".join(lines), flush=True)
    for name in options.names or NAMES:
        model, calibration, _ = paths(name)
        if not model.exists():
            continue
        for with_data in (False, True) if calibration.exists() else (False,):
            lines.append(markdown_line(row(name, with_data=with_data)))
            print(lines[-1], flush=True)
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
