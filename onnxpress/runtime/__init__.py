"""Run models with onnxruntime: one way to open, to run and to time.

- `session`: a model that can be run, and the options that change what it computes.
- `latency`: two sessions timed in turn.
- `operators`: what onnxruntime makes of a graph.
- `threads`: as many for numpy.
"""

from onnxpress.runtime.latency import Clock, Latency, compare_latency
from onnxpress.runtime.operators import executed_operators, is_integer_operator, seen_by_providers
from onnxpress.runtime.session import (
    DEFAULT,
    EXACT,
    X64_PRECISE,
    Array,
    Feed,
    InputSpec,
    Session,
    structural_refusal,
)
from onnxpress.runtime.threads import eigh, numpy_threads, svd

__all__ = [
    "DEFAULT",
    "EXACT",
    "X64_PRECISE",
    "Array",
    "Clock",
    "Feed",
    "InputSpec",
    "Latency",
    "Session",
    "compare_latency",
    "eigh",
    "executed_operators",
    "is_integer_operator",
    "numpy_threads",
    "seen_by_providers",
    "structural_refusal",
    "svd",
]
