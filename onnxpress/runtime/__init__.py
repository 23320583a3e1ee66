"""Run models with onnxruntime: one way to open, to run and to time.

- `session`: a model that can be run, and the options that change what it computes.
- `latency`: two sessions timed in turn.
- `profile`: where the time of a run goes, node by node.
- `operators`: what onnxruntime makes of a graph.
- `threads`: as many for numpy's products, and one for its decompositions.
"""

from onnxpress.runtime.latency import Clock, Latency, compare_latency
from onnxpress.runtime.operators import (
    executed_operators,
    is_integer_operator,
    nodes_of,
    seen_by_providers,
)
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
from onnxpress.runtime.threads import (
    cholesky,
    eigh,
    eigvalsh,
    inv,
    numpy_threads,
    pinv,
    qr,
    solve,
    svd,
)

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
    "cholesky",
    "compare_latency",
    "eigh",
    "eigvalsh",
    "executed_operators",
    "inv",
    "is_integer_operator",
    "nodes_of",
    "numpy_threads",
    "pinv",
    "qr",
    "seen_by_providers",
    "solve",
    "structural_refusal",
    "svd",
]
