"""How much memory a model takes while it is optimized."""

import onnx_ir as ir

from onnxpress.layers import FLOAT_TYPES

__all__ = ["needed_bytes"]

_COPIES = 4
"""Of all weights in single precision, at once: a session each of the original, the simplified model
and a candidate, whose kernels pack them anew, and what passes work out."""
_FLOAT_BYTES = 4


def needed_bytes(model: ir.Model) -> int:
    """About how much memory it takes to optimize a model by running it."""
    total = 0
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in FLOAT_TYPES:
                total += max(_FLOAT_BYTES * tensor.size, tensor.nbytes)
            elif tensor is not None:
                total += tensor.nbytes
    return _COPIES * total
