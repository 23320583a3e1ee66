"""Bytes of weights once a runtime has opened the model: what is constant is computed then.

onnxruntime folds every node all of whose inputs are constant, but for DequantizeLinear, which it
keeps for the kernels that it may be fused into, and lets go of what the node read. So weights that
operators expand take the bytes of what they expand to, whatever the file has. What kernels make of
them for themselves (packed in another order) comes beside that and is not counted.
"""

import math
from collections.abc import Iterator

import onnx_ir as ir

from onnxpress.graph import RANDOM_OPERATORS, bodies, graphs_of, is_standard

__all__ = ["loaded_bytes"]

_KEPT = frozenset({"DequantizeLinear"})


def loaded_bytes(model: ir.Model) -> Iterator[tuple[str, int]]:
    """Each constant that nodes still read once the model is open, with its bytes.

    One whose shape is not known counts with the bytes of what it is computed from.
    """
    sizes: dict[ir.Value, int] = {}
    for graph in graphs_of(model.graph):
        for value in graph.initializers.values():
            if value.const_value is not None:
                sizes[value] = value.const_value.nbytes
    for node in model.graph.all_nodes():
        inputs = [value for value in node.inputs if value is not None]
        if not _folds(node) or not all(value in sizes for value in inputs):
            continue
        for output in node.outputs:
            sizes[output] = _nbytes(node, output, sum(sizes[value] for value in inputs))
    for value, size in sizes.items():
        read = any(not _gone(use.node, sizes) for use in value.uses())
        if read or value.is_graph_output():
            yield value.name or "", size


def _folds(node: ir.Node) -> bool:
    """Whether a runtime computes it once, if all that it reads is constant."""
    return is_standard(node) and node.op_type not in _KEPT | RANDOM_OPERATORS and not bodies(node)


def _gone(node: ir.Node, sizes: dict[ir.Value, int]) -> bool:
    return all(output in sizes for output in node.outputs)


def _nbytes(node: ir.Node, output: ir.Value, otherwise: int) -> int:
    if node.op_type == "Constant":
        tensor = next((a.value for a in node.attributes.values() if a.name == "value"), None)
        return int(tensor.nbytes) if isinstance(tensor, ir.TensorProtocol) else 0
    shape = output.shape
    if shape is None or output.dtype is None or not shape.is_static():
        return otherwise
    return math.ceil(math.prod(shape.numpy()) * output.dtype.itemsize)
