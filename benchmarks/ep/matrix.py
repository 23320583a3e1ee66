"""Three models, the layouts our targets prefer, every provider: one committed matrix.

    python benchmarks/ep/matrix.py [--model NAME …] [--layout NAME …] [--ep NAME …]

Presses each model into each layout once (kept in `--folder`), checks it on every provider in a
process of its own, and writes `docs/providers.md` from all results so far, which are kept in
`benchmarks/ep/matrix.json`; so it may be run in parts. Needs `models/fetch.py`,
`models/make_data.py` and `onnxpress doctor --install all`; what is absent stands in the matrix as
that.

Latency: interleaved rounds of the float original and the model on the same provider.
"""

import argparse
import datetime as dt
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxpress
from onnxpress import model_file, registry
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.output_file import replace_file
from onnxpress.providers import ProviderOptions, check_providers, provider_names
from onnxpress.report.columns import PROVIDER_COLUMNS, Column
from onnxpress.report.document import provider_document
from onnxpress.report.markdown import markdown_heading, markdown_row
from onnxpress.runtime import Session
from onnxpress.targets import processor_features

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "models"
RESULTS = HERE / "matrix.json"
PAGE = HERE.parents[1] / "docs" / "providers.md"
FILES = {
    name: (folder / model, folder / calibration, folder / evaluation)
    for name, folder, model, calibration, evaluation in (
        (
            "fashion_cnn",
            MODELS,
            "fashion_cnn.onnx",
            "fashion_calibration.npz",
            "fashion_evaluation.npz",
        ),
        ("minilm", MODELS / ".cache/minilm", "model.onnx", "calibration.npz", "evaluation.npz"),
        ("ocr_rec", MODELS / ".cache/ocr_rec", "model.onnx", "calibration.npz", "evaluation.npz"),
    )
}
LAYOUTS = ("fp32", "fp16", "u8u8", "u8s8", "u8s7", "s8s8")
PER_CHANNEL = {"u8u8": False, "u8s8": True, "u8s7": True, "s8s8": True}
NO_LIMIT_DB = -300.0
INTRODUCTION = """# Execution providers

What a model did where. A provider runs in a process and, where it must, an interpreter of its own;
onnxruntime's record says which nodes it took; its outputs are compared with the float original and
with the same file computed exactly (Q and DQ in float). See [targets.md](targets.md) for the rules.

```sh
onnxpress validate MODEL --reference ORIGINAL --ep qnn --ep web --require-ep qnn
onnxpress optimize MODEL --ep all          # the same as the last step
onnxpress doctor                           # what can run here; --run runs a small model
onnxpress doctor --install all             # installs what can be, writes onnxpress.toml
```

| verdict | means | counts for `--require-ep` |
| --- | --- | --- |
| ran | on the provider, with at least one multiply-add placed there | yes |
| emulated (by what) | likewise, on what stands in for the device | yes |
| static | only the provider's rules were applied | no |
| absent (why, and how to get it) | it could be installed, and is not | no |
| failed (what) | it crashed, hung, took nothing, or lost the budget | no |

`onnxpress.toml` (here or `~/.config/onnxpress/config.toml`, or `--ep-config`) says where a provider
lives; `doctor --install` writes it:

```toml
[ep.openvino]
python = ".venv-ep/openvino/bin/python"     # or a list, an emulator and its arguments first
environment = { NAME = "value" }            # added to the provider's own
options = { device_type = "GPU" }           # provider options, likewise

[ep.web]
packages = ".venv-ep/web"                   # the folder with node_modules
```

The tests of the real providers are `pytest -m ep`.

## With an NVIDIA GPU

`python benchmarks/ep/cuda.py` checks models on CUDA, and TensorRT when it is there, with placement,
kernels and timings; it says in its docstring how to bring `onnxruntime-gpu` to a machine without a
network. What it found on an H200: [27 November 2026](results/2026-11-27-cuda.md). The rows below
come from a machine without one and say `static`.
"""


def press(
    name: str, layout: str, folder: Path, files: Mapping[str, tuple[Path, Path, Path]] = FILES
) -> Path:
    """The model in a layout: every layer that can be, whatever it costs."""
    original, calibration, _ = files[name]
    target = folder / f"{name}.{layout}.onnx"
    if layout == "fp32":
        return original
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    passes: list[Any] = ["simplify"]
    if layout != "fp16":
        settings = {"form": "static", "layout": layout, "per_channel": PER_CHANNEL[layout]}
        passes = [registry.create("quantize", settings)]
    result = onnxpress.optimize(
        original,
        calibration=calibration,
        passes=passes,
        goal="size",
        metric="none",
        min_sqnr=NO_LIMIT_DB,
        float16="keep-io" if layout == "fp16" else "no",
    )
    model_file.save(result.model, target)
    return target


def check(
    name: str, layout: str, providers: Sequence[str], folder: Path, limit: float, *, timed: bool
) -> None:
    """Check one model on providers and keep what came of it."""
    original, _, evaluation = FILES[name]
    session = Session(original)
    samples = load_samples(evaluation, session.inputs)
    # Nothing fails here for what it loses: the matrix shows it.
    evaluator = Evaluator(
        session, samples.take(range(64)), Budget(metric="none", min_sqnr=NO_LIMIT_DB)
    )
    model = model_file.load(press(name, layout, folder))
    reference = model_file.load(original)
    for provider in providers:
        options = ProviderOptions((provider,), time_limit=limit)
        (verdict,) = check_providers(options, model, reference, evaluator, threads=1)
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        found = provider_document(verdict)
        if not timed:
            found["latency"] = None
        if found["measurement"] is not None:
            found["measurement"]["source"] = evaluation.name
        found["processor"] = _processor()
        found["date"] = dt.datetime.now(tz=dt.UTC).date().isoformat()
        results[f"{name}/{layout}/{provider}"] = found
        ordered = dict(sorted(results.items()))
        with replace_file(RESULTS) as temporary:
            temporary.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        print(markdown_row(columns(), {"layout": f"{name} {layout}", **found}), flush=True)


def page(results: Mapping[str, Any]) -> str:
    """The document: one table a model, a row for each layout and provider."""
    lines = [INTRODUCTION, "## The matrix", ""]
    dates = sorted({found["date"] for found in results.values()})
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    timed = sorted({found["processor"] for found in results.values() if found["latency"]})
    lines += [
        f"{span}, `python benchmarks/ep/matrix.py`, speeds on {', '.join(timed)} with one thread.",
        "Versions:",
        "",
        *(f"- {line}" for line in _versions(results)),
        "",
        "Every layer that has the form is in it, whatever it costs, so that a row shows the layout",
        "and not the search. *Placed* is the share of multiply-adds on the provider (for `static`",
        "what its rules say); *samples* were compared; *SQNR* and *SQNR to exact* on the worst",
        "output, against the float original and against the same file computed exactly; *integer",
        "kernels* counts those that computed in integers (`?`: inside one compiled kernel, not",
        "visible); *speed* is relative to the float original on that provider with the quartiles",
        "of the rounds (wide where the machine was not quiet); not given under emulation, where",
        "it says nothing, nor where other work ran beside it (`--no-speed`).",
        "",
    ]
    for name in FILES:
        rows = [key.split("/") for key in results if key.startswith(f"{name}/")]
        if not rows:
            continue
        lines += [f"### {name}", "", *markdown_heading(columns())]
        order = {key: index for index, key in enumerate((*LAYOUTS, *provider_names()))}
        for _, layout, provider in sorted(rows, key=lambda row: (order[row[1]], order[row[2]])):
            found = results[f"{name}/{layout}/{provider}"]
            lines.append(markdown_row(columns(), {"layout": layout, **found}))
        lines.append("")
    return "\n".join(lines)


def columns() -> list[Column[Any]]:
    """The layout, what the report shows of a verdict with its detail, and the speed's quartiles."""
    shown = [column for column in PROVIDER_COLUMNS if column.heading]
    return [
        Column("layout", "layout", None, number=False),
        *(replace(c, text=_verdict) if c.key == "status" else c for c in shown),
        Column("quartiles", "quartiles of the speed", None, _quartiles),
    ]


def _verdict(found: Mapping[str, Any]) -> str:
    detail = found["detail"].split("; get it")[0].removesuffix("; by its rules")
    return f"{found['status']} ({detail})" if detail else found["status"]


def _quartiles(found: Mapping[str, Any]) -> str:
    latency = found["latency"]
    if latency is None:
        return ""
    low, high = latency["quartiles"]
    return f"{low:.2f} to {high:.2f}"


def _versions(results: Mapping[str, Any]) -> list[str]:
    found: dict[str, str] = {}
    for key, result in results.items():
        versions = result["versions"]
        if versions:
            names = {"plugin_version": "plug-in", "machine": "on"}
            wanted = ("onnxruntime", "plugin_version", "python", "machine")
            text = [f"{names.get(n, n)} {versions[n]}" for n in wanted if n in versions]
            found[key.rsplit("/", 1)[1]] = ", ".join(text)
    return [f"{name}: {found[name]}" for name in provider_names() if name in found]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            fused = processor_features() & {"avx512_vnni", "avx_vnni"}
            return f"{line.partition(':')[2].strip()} {'with' if fused else 'without'} VNNI"
    return platform.machine()


def main() -> None:
    """Check what was asked for and write the page."""
    parser = argparse.ArgumentParser(description="Make docs/providers.md.")
    parser.add_argument("--model", action="append", choices=FILES, default=None)
    parser.add_argument("--layout", action="append", choices=LAYOUTS, default=None)
    parser.add_argument("--ep", action="append", choices=provider_names(), default=None)
    parser.add_argument("--folder", type=Path, default=Path(".venv-ep/matrix"))
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds for each")
    parser.add_argument("--no-speed", action="store_true", help="the machine is not quiet")
    options = parser.parse_args()
    for name in options.model or FILES:
        if not all(path.exists() for path in FILES[name]):
            print(f"{name}: skipped: run models/fetch.py and models/make_data.py")
            continue
        for layout in options.layout or LAYOUTS:
            providers = options.ep or provider_names()
            check(
                name,
                layout,
                providers,
                options.folder,
                options.time_limit,
                timed=not options.no_speed,
            )
    if RESULTS.exists():
        text = page(json.loads(RESULTS.read_text(encoding="utf-8")))
        PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
