"""What a model lost against its original: fidelity, task metric, interface; and the budget."""

from onnxpress.judge.evaluator import DEFAULT_MIN_SQNR, Budget, Evaluator, Measurement
from onnxpress.judge.fidelity import OutputFidelity
from onnxpress.judge.interface import interface_problems

__all__ = [
    "DEFAULT_MIN_SQNR",
    "Budget",
    "Evaluator",
    "Measurement",
    "OutputFidelity",
    "interface_problems",
]
