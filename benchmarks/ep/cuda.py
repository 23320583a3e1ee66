"""Check the committed models on CUDA and TensorRT: for a machine with an NVIDIA GPU.

    python benchmarks/ep/cuda.py [--wheels FOLDER] [--python PYTHON] [--output docs/cuda.md]

Needs Python with onnxruntime's CPU build and this package, and torch for its CUDA libraries; no
network. `onnxruntime-gpu` comes as a wheel in pieces of at most 60 MiB, made where there is one:

    pip download --no-deps onnxruntime-gpu==1.31.1 -d wheels
    cd wheels && for f in onnxruntime_gpu-*.whl; do split -b 60M $f $f.part- && rm $f; done

`--wheels` joins the pieces and unpacks them into a folder of their own, which stands before the
CPU build's in the checking process alone. Without `--wheels` the interpreter given by `--python`
(default: this one) must have `onnxruntime-gpu`.

Models: the committed networks as they are, and pressed for the targets `cuda` and `tensorrt`, as
`optimize` does by default. Placement, kernels, outputs and interleaved latency as in
`onnxpress validate --ep cuda`. Takes under five minutes: at most 60 s for each check, and the
search for each pressed model ends after 30 s.
"""

import argparse
import datetime as dt
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnxpress
from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.providers import ProviderOptions, check_providers
from onnxpress.report.columns import PROVIDER_COLUMNS, Column
from onnxpress.report.document import provider_document
from onnxpress.report.markdown import markdown_heading, markdown_row
from onnxpress.runtime import Session

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("fashion_cnn", "fashion_mlp", "fashion_mobile")
PROVIDERS = ("cuda", "tensorrt")
COLUMNS: tuple[Column[Any], ...] = (
    Column("model", "model", None, number=False),
    Column("form", "optimized for", None, number=False),
    *(column for column in PROVIDER_COLUMNS if column.heading),
    Column("detail", "detail", None, number=False),
)


def unpack(wheels: Path, target: Path) -> None:
    """Join pieces named WHEEL.part-*, and unpack all wheels of a folder."""
    names = {path.name.split(".part-")[0] for path in wheels.glob("*.whl*")}
    if not names:
        raise SystemExit(f"{wheels}: found no wheels and no pieces of one (*.whl.part-*)")
    for name in sorted(names):
        pieces = sorted(wheels.glob(f"{name}.part-*")) or [wheels / name]
        whole = target / name
        with whole.open("wb") as stream:
            for piece in pieces:
                with piece.open("rb") as source:
                    shutil.copyfileobj(source, stream)
        shutil.unpack_archive(whole, target / "site", "zip")
        whole.unlink()


def write_config(python: str, site: Path | None, path: Path) -> None:
    """A provider configuration with the unpacked wheels before everything else."""
    extra = f'environment = {{ PYTHONPATH = "{site}" }}\n' if site is not None else ""
    path.write_text(
        "".join(f'[ep.{name}]\npython = "{python}"\n{extra}' for name in PROVIDERS),
        encoding="utf-8",
    )


def gpu() -> str:
    """What the driver calls the card, with the driver's version."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no NVIDIA GPU"


def rows(config: Path) -> list[str]:
    """One row for each model, form and provider."""
    lines = []
    for name in NAMES:
        original = MODELS / f"{name}.onnx"
        session = Session(original)
        evaluation = load_samples(MODELS / "fashion_evaluation.npz", session.inputs)
        evaluator = Evaluator(session, evaluation.take(range(64)), Budget())
        loaded = model_file.load(original)
        for form in ("fp32", *PROVIDERS):
            model = loaded
            if form != "fp32":
                model = onnxpress.optimize(
                    original,
                    calibration=MODELS / "fashion_calibration.npz",
                    target=form,
                    time_limit=30,
                ).model
            for provider in PROVIDERS if form == "fp32" else (form,):
                options = ProviderOptions((provider,), config=config, time_limit=60)
                (verdict,) = check_providers(options, model, loaded, evaluator)
                found = {"model": name, "form": form, **provider_document(verdict)}
                lines.append(markdown_row(COLUMNS, found))
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Check everything and write the dated matrix."""
    parser = argparse.ArgumentParser(description="Check the committed models on an NVIDIA GPU.")
    parser.add_argument("--wheels", type=Path, help="folder with onnxruntime-gpu, whole or cut")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--output", type=Path, default=Path("docs/cuda.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        site = None
        if options.wheels is not None:
            unpack(options.wheels, Path(folder))
            site = Path(folder, "site")
        config = Path(folder, "onnxpress.toml")
        write_config(options.python, site, config)
        lines = rows(config)
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    header = [
        "# CUDA and TensorRT",
        "",
        f"{date}, {gpu()}, {platform.machine()}, `python benchmarks/ep/cuda.py`.",
        "Columns as in [providers.md](providers.md).",
        "",
        *markdown_heading(COLUMNS),
    ]
    options.output.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
