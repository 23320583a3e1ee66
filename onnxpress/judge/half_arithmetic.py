"""What a half model keeps where half is computed in half: the judge's second opinion.

A processor that computes half types in float32 shows neither overflow nor rounding. So the same
judge measures the model once more, emulated: each operator rounds what it gives to half.
"""

import onnx_ir as ir

from onnxpress.conversion.emulation import emulated
from onnxpress.conversion.half import computes_in_half, prepared, refusal
from onnxpress.judge.evaluator import Evaluator
from onnxpress.judge.measurement import Measurement
from onnxpress.runtime import Session

__all__ = ["measured_in_half"]


def measured_in_half(evaluator: Evaluator, model: ir.Model, *, threads: int) -> Measurement | None:
    """Measure a model emulated, on all samples; `None` where it has nothing to emulate.

    Args:
        evaluator: judges.
        model: not changed.
        threads: of onnxruntime.

    Raises:
        ModelError: the emulated model cannot be run.
    """
    if refusal(model) is not None:
        return None
    typed = prepared(model)
    if not computes_in_half(typed):
        return None
    session = Session(emulated(typed), threads=threads, optimize=False)
    return evaluator.measure(session, len(evaluator.samples))
