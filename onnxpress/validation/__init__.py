"""The last word: the written model against the original, on held-out data, in onnxruntime."""

from onnxpress.validation.evaluator import (
    DEFAULT_MIN_SQNR,
    Budget,
    Evaluator,
    Measurement,
)
from onnxpress.validation.fidelity import OutputFidelity
from onnxpress.validation.static_rules import StaticReport, static_report
from onnxpress.validation.verdict import Validation, interface_problems, validate

__all__ = [
    "DEFAULT_MIN_SQNR",
    "Budget",
    "Evaluator",
    "Measurement",
    "OutputFidelity",
    "StaticReport",
    "Validation",
    "interface_problems",
    "static_report",
    "validate",
]
