"""What a provider is asked about: the graph as onnxruntime shows it, node by node or as units.

An operator with its DequantizeLinear and QuantizeLinear around it is one unit, as in onnxruntime's
node units.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnxpress.errors import ModelError
from onnxpress.runtime import seen_by_providers

__all__ = ["DEQUANTIZE", "QUANTIZE", "Unit", "is_constant", "model_as_shown", "units_of"]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_MAY_END_IN_FLOAT = ("Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a provider takes as a whole or not at all.

    Attributes:
        node: that computes.
        members: with the DequantizeLinear and QuantizeLinear around it.
        quantized: whether it has them.
    """

    node: ir.Node
    members: tuple[ir.Node, ...]
    quantized: bool


def model_as_shown(model: ir.Model) -> ir.Model:
    """What a provider is shown; of some models only nearly, by working out all shapes."""
    half = any(
        value.dtype == ir.DataType.FLOAT16
        for graph in model.graphs()
        for node in graph
        for value in node.outputs
    )
    if not half:
        try:
            return seen_by_providers(model)
        except ModelError:
            pass
    # A custom operator stops onnxruntime here, and for want of half kernels it puts casts around
    # nodes that other providers have kernels for.
    return ShapeInferencePass(data_prop=True)(model.clone()).model


def units_of(graph: ir.Graph) -> Iterator[Unit]:
    """Nodes in topological order, operators with the Q and DQ around them put together."""
    grouped: dict[ir.Node, Unit] = {}
    owned: set[ir.Node] = set()
    for node in graph:
        if node.op_type not in (QUANTIZE, DEQUANTIZE, "Constant"):
            unit = _group(node)
            if unit is not None:
                grouped[node] = unit
                owned.update(member for member in unit.members if member is not node)
    for node in graph:
        if node.op_type == "Constant" or node in owned:
            continue
        folded = bool(node.inputs) and all(is_constant(value) for value in node.inputs)
        if folded and node.op_type != DEQUANTIZE:
            continue
        yield grouped.get(node, Unit(node, (node,), quantized=False))


def _group(node: ir.Node) -> Unit | None:
    """The unit of an operator whose inputs come from DQ and whose outputs go to Q only."""
    before = [value.producer() for value in node.inputs if value is not None]
    dequantize = [n for n in before if n is not None and n.op_type == DEQUANTIZE]
    first = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if first is None or first not in dequantize:
        return None
    if any(n is not None and n not in dequantize for n in before):
        return None
    quantize: list[ir.Node] = []
    for output in node.outputs:
        users = [use.node for use in output.uses()]
        if output.is_graph_output() or any(user.op_type != QUANTIZE for user in users):
            quantize = []
            break
        quantize += users
    if not quantize and node.op_type not in _MAY_END_IN_FLOAT:
        return None
    return Unit(node, (*dict.fromkeys(dequantize), node, *quantize), quantized=True)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is known before the model runs, or is not given at all."""
    return value is None or (value.const_value is not None and not value.is_graph_input())
