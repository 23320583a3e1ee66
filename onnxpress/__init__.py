"""Make an ONNX model smaller and faster, and prove what it cost."""

import importlib
import os
from typing import TYPE_CHECKING

from onnxpress.version import __version__

# onnxruntime looks up hosts and writes identifiers of the device when it is imported; no switch of
# its Python interface comes early enough. Processes that we start inherit this.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = [
    "Budget",
    "Pass",
    "Progress",
    "Result",
    "__version__",
    "distill",
    "load",
    "optimize",
    "save",
    "validate",
    "write_report",
]

if TYPE_CHECKING:
    from onnxpress.contract import Pass
    from onnxpress.distillation.distilling import distill
    from onnxpress.judge import Budget
    from onnxpress.model_file import load, save
    from onnxpress.pipeline import optimize
    from onnxpress.progress import Progress
    from onnxpress.report.writing import write_report
    from onnxpress.result import Result
    from onnxpress.validation import validate

_HOMES = {
    "Budget": "judge",
    "Pass": "contract",
    "Progress": "progress",
    "Result": "result",
    "distill": "distillation.distilling",
    "load": "model_file",
    "optimize": "pipeline",
    "save": "model_file",
    "validate": "validation",
    "write_report": "report.writing",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: onnxruntime and onnx_ir take a second."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"onnxpress.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxpress' has no attribute {name!r}")
