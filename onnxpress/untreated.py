"""Constant weights that are no layer to any pass: in integers already, or of other operators."""

from collections import Counter

import onnx_ir as ir

from onnxpress.graph import constant, is_standard
from onnxpress.layers import FLOAT_TYPES, find_layers

__all__ = ["untreated_weights", "why_no_layer"]

_LEAST = 64
"""Elements: below, a constant is an index, an axis, a scale."""
_THROUGH = ("DequantizeLinear", "Cast")
"""What only changes the form of a weight: its reader is the layer."""


def untreated_weights(model: ir.Model) -> dict[str, dict[str, int]]:
    """How many nodes of which operator have such weights, by why they are left alone."""
    layers = {use.node for layer in find_layers(model) for use in layer.uses}
    integer: Counter[str] = Counter()
    other: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        if node in layers or (is_standard(node) and node.op_type in _THROUGH):
            continue
        for value in node.inputs:
            stored = _stored(value)
            if stored is not None:
                (other if stored.dtype in FLOAT_TYPES else integer)[node.op_type] += 1
                break
    found = {"in integers already": integer, "of operators that no pass treats": other}
    return {reason: dict(counts.most_common()) for reason, counts in found.items() if counts}


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The constant matrix or larger tensor behind an input, or `None`."""
    producer = None if value is None else value.producer()
    if producer is not None and is_standard(producer) and producer.op_type in _THROUGH:
        value = producer.inputs[0]
    if value is None or value.const_value is None or constant(value) is None:
        return None
    tensor = value.const_value
    return value if len(tensor.shape) >= 2 and tensor.size >= _LEAST else None


def why_no_layer(model: ir.Model) -> str:
    """What became of the weights of a model in which no layer is found."""
    found = untreated_weights(model)
    if not found:
        return "no layer with a constant weight in float is left"
    return "; ".join(
        f"its weights are {reason} ({', '.join(f'{name} {n}' for name, n in counts.items())})"
        for reason, counts in found.items()
    )
