"""The last word: the written model against the original, on held-out data, in onnxruntime."""

from onnxpress.validation.evaluator import Budget, Evaluator, Measurement
from onnxpress.validation.fidelity import OutputFidelity
from onnxpress.validation.verdict import Validation, interface_problems, validate

__all__ = [
    "Budget",
    "Evaluator",
    "Measurement",
    "OutputFidelity",
    "Validation",
    "interface_problems",
    "validate",
]
