"""What outputs mean, what a model lost against its original, and whether that is allowed."""

from onnxpress.judge.budget import DEFAULT_MIN_SQNR, Budget
from onnxpress.judge.disagreement import Answer, Disagreement, Heard, most_different
from onnxpress.judge.evaluator import Evaluator, Runner
from onnxpress.judge.faults import ROUNDING_DB
from onnxpress.judge.fidelity import FidelitySum, OutputFidelity
from onnxpress.judge.half_arithmetic import measured_in_half
from onnxpress.judge.interface import interface_problems
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.measurement import Measurement, MetricFigure, ProbeFigure
from onnxpress.judge.promise import promised
from onnxpress.judge.reading import read_outputs
from onnxpress.judge.verdict import Judgement, Verdict, judgement

__all__ = [
    "DEFAULT_MIN_SQNR",
    "ROUNDING_DB",
    "Answer",
    "Budget",
    "Disagreement",
    "Evaluator",
    "FidelitySum",
    "Heard",
    "Judgement",
    "Kind",
    "Measurement",
    "MetricFigure",
    "OutputFidelity",
    "ProbeFigure",
    "Reading",
    "Runner",
    "Verdict",
    "interface_problems",
    "judgement",
    "measured_in_half",
    "most_different",
    "promised",
    "read_outputs",
]
