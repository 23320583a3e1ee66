"""What this machine is and what it can run: versions, processor, providers, what is missing."""

import dataclasses
import platform
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress.data import random_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.providers import ProviderOptions, check_providers, survey
from onnxpress.report.document import provider_document
from onnxpress.runtime import Session
from onnxpress.targets import processor_features

__all__ = ["examine"]

_PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")
_READERS = {
    "pictures": ("images", ["pillow"]),
    "texts": ("texts", ["tokenizers"]),
    "recordings": ("sounds", ["soundfile", "soxr"]),
}
"""Kinds of samples, the extra that brings their readers, and the packages in it."""
_FEATURES = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "8-bit dot product": {"avx512_vnni", "avx_vnni", "asimddp"},
    "8-bit matrix unit": {"amx_int8", "i8mm"},
    "half arithmetic": {"avx512_fp16", "asimdhp"},
}


def examine(
    config: Path | None = None,
    *,
    run: bool = False,
    progress: Tell = unheard,
) -> dict[str, Any]:
    """Everything as JSON-ready data.

    Args:
        config: where the providers are; `None`: the usual places.
        run: run a small convolution on every provider that is there.
        progress: told how far it is, see `Progress`.

    Raises:
        UsageError: the configuration means nothing.
    """
    installed = {dist.metadata["Name"].lower() for dist in metadata.distributions()}
    features = processor_features()
    progress(Progress("looking for providers"))
    findings = survey(config)
    problems = []
    if {"onnxruntime", "onnxruntime-gpu"} <= installed:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install one"
        )
    verdicts = []
    if run:
        names = [entry.provider for entry in findings if entry.state in ("runs", "emulated")]
        model = _small_model()
        original = Session(model)
        evaluator = Evaluator(original, random_samples(original, 2, 0), Budget())
        options = ProviderOptions(tuple(names), config=config, time_limit=60.0)
        verdicts = [
            provider_document(verdict)
            for verdict in check_providers(options, model, model, evaluator, progress=progress)
        ]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in _PACKAGES if name in installed},
        "processor": {name: bool(features & flags) for name, flags in _FEATURES.items()},
        "html_report": _extra("report", ["jinja2"], installed),
        "readers": {
            kind: _extra(extra, packages, installed) for kind, (extra, packages) in _READERS.items()
        },
        "providers": [dataclasses.asdict(entry) for entry in findings],
        "verdicts": verdicts,
        "problems": problems,
    }


def _extra(extra: str, packages: Sequence[str], installed: Collection[str]) -> str:
    """Whether an extra's packages are there, and how they come."""
    missing = [name for name in packages if name not in installed]
    if not missing:
        return "yes"
    return f"no: pip install 'onnxpress[{extra}]' ({', '.join(missing)} missing)"


def _small_model() -> ir.Model:
    """A convolution of 3 to 8 channels and its Relu, opset 13."""
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    value = ir.Value(name="weight", const_value=ir.tensor(weight, name="weight"))
    float32 = ir.TensorType(ir.DataType.FLOAT)
    image = ir.Value(name="image", shape=ir.Shape((1, 3, 16, 16)), type=float32)
    conv = ir.node("Conv", inputs=[image, value], name="conv")
    relu = ir.node("Relu", inputs=conv.outputs, name="relu")
    relu.outputs[0].name = "features"
    relu.outputs[0].type = float32
    relu.outputs[0].shape = ir.Shape((1, 8, 14, 14))
    graph = ir.Graph(
        [image],
        relu.outputs,
        nodes=[conv, relu],
        initializers=[value],
        opset_imports={"": 13},
        name="small",
    )
    return ir.Model(graph, ir_version=8)
