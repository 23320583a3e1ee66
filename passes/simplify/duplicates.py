"""Share equal initializers, as onnx-ir's pass does, without reading all weights to find none.

onnx-ir takes the hash of every tensor. Here a tensor is read only where another of its type and
shape begins, goes on and ends alike.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["ShareEqual"]

_SAMPLE = 256
"""Elements that are looked at in three places."""


class ShareEqual(ir.passes.InPlacePass):
    """One initializer for all of a graph that are equal in type, shape and every bit."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place; the first of equal ones stays."""
        shared = sum(_share(graph) for graph in model.graphs())
        return ir.passes.PassResult(model, bool(shared))


def _share(graph: ir.Graph) -> int:
    alike: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and not value.is_graph_input() and not value.is_graph_output():
            alike[tensor.dtype, tuple(tensor.shape.numpy()), _looked_at(tensor)].append(value)
    shared = 0
    for values in alike.values():
        first: dict[bytes, ir.Value] = {}
        for value in values if len(values) > 1 else ():
            assert value.const_value is not None
            kept = first.setdefault(_digest(value.const_value), value)
            if kept is not value:
                value.replace_all_uses_with(kept)
                del graph.initializers[value.name or ""]
                shared += 1
    return shared


def _array(tensor: ir.TensorProtocol) -> npt.NDArray[np.generic]:
    """In rows; texts as texts of one length."""
    if isinstance(tensor, ir.StringTensor):
        return np.array(tensor.string_data())
    return np.asarray(tensor.numpy())


def _looked_at(tensor: ir.TensorProtocol) -> bytes:
    """Bytes of the first, the middle and the last elements."""
    array = _array(tensor)
    if array.size <= 3 * _SAMPLE or not array.flags.c_contiguous:
        return array[:_SAMPLE].tobytes() if array.ndim else array.tobytes()
    flat = array.reshape(-1)
    middle = array.size // 2
    places = (slice(0, _SAMPLE), slice(middle, middle + _SAMPLE), slice(-_SAMPLE, None))
    return b"".join(flat[place].tobytes() for place in places)


def _digest(tensor: ir.TensorProtocol) -> bytes:
    array = np.ascontiguousarray(_array(tensor))
    return hashlib.sha512(array.reshape(-1).view(np.uint8).data).digest()
