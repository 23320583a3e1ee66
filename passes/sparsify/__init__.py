"""Set weights to zero so that the rest still give the same outputs.

- `sparsify`: the pass: which layers, how many weights, what it costs.
- `masks`: which weights go, by importance and pattern.
- `compensate`: what the others become, so that the outputs change least.
"""

from onnxpress.passes.sparsify.sparsify import Sparsify

__all__ = ["Sparsify"]
