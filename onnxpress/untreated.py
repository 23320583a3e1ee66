"""Constant weights that are no layer to any pass: in integers already, or of other operators."""

from collections import Counter

import onnx_ir as ir

from onnxpress.beyond_ir import ML_DOMAIN, bytes_in_attributes
from onnxpress.graph import constant, is_standard
from onnxpress.layers import FLOAT_TYPES, find_layers
from onnxpress.model_file import weight_bytes

__all__ = ["IN_ATTRIBUTES", "nothing_to_compress", "untreated_weights", "why_no_layer"]

_LEAST = 64
"""Elements: below, a constant is an index, an axis, a scale."""
IN_ATTRIBUTES = f"the parameters are attributes ({ML_DOMAIN})"
_FEW_BYTES = 4096
"""Of constants beside what attributes hold: edges, scales of features."""
_SHARE = 0.05
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


def nothing_to_compress(model: ir.Model) -> str:
    """That the model's parameters are attributes, as those of tree ensembles, or nothing.

    Their form is given by the operator: there is no smaller one, and no pass changes them.
    """
    nodes = [node for node in model.graph.all_nodes() if node.domain == ML_DOMAIN]
    held = sum(map(bytes_in_attributes, nodes))
    if not held or weight_bytes(model) > max(_FEW_BYTES, _SHARE * held):
        return ""
    largest = max(nodes, key=bytes_in_attributes)
    return (
        f"nothing to compress: the model's parameters ({held / 1e6:.3g} MB) are attributes of "
        f"{largest.op_type} and the like ({ML_DOMAIN}), which no pass changes"
    )


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
    if not found and nothing_to_compress(model):
        return IN_ATTRIBUTES
    if not found:
        return "no layer with a constant weight in float is left"
    return "; ".join(
        f"its weights are {reason} ({', '.join(f'{name} {n}' for name, n in counts.items())})"
        for reason, counts in found.items()
    )
