"""Constant weights that no pass treats, and why: integers, custom operators, small ones."""

from collections import Counter, defaultdict

import onnx_ir as ir

from onnxpress.graph import constant, is_standard
from onnxpress.layers import FLOAT_TYPES, find_layers
from onnxpress.stored import LEAST_BYTES, StoredWeight, find_stored

__all__ = ["untreated_weights", "why_no_layer"]

_LEAST = 64
"""Elements: below, a constant is an index, an axis, a scale."""
_THROUGH = ("DequantizeLinear", "Cast")
"""What only changes the form of a weight: its reader is the layer."""
_INTEGERS = "in integers already"
_SMALL = f"of fewer than {LEAST_BYTES:,} bytes"


def untreated_weights(model: ir.Model) -> dict[str, dict[str, int]]:
    """How many nodes of which operator have such weights, by why they are left alone."""
    layers = find_layers(model)
    stored = find_stored(model, layers)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for item in stored:
        if item.refusal is not None:
            found[f"left as they are ({item.refusal})"][item.op_type] += 1
    own = {layer.weight for layer in layers} | {item.weight for item in stored}
    nodes = {use.node for layer in layers for use in layer.uses}
    nodes |= {use.node for item in stored for use in item.uses}
    for node in model.graph.all_nodes():
        if node in nodes or (is_standard(node) and node.op_type in _THROUGH):
            continue
        for value in node.inputs:
            reason = _reason(value)
            if reason is not None and value not in own:
                found[reason][node.op_type] += 1
                break
    return {reason: dict(counts.most_common()) for reason, counts in sorted(found.items())}


def _reason(value: ir.Value | None) -> str | None:
    """Why the constant matrix or larger tensor behind an input is left; `None`: there is none."""
    producer = None if value is None else value.producer()
    if producer is not None and is_standard(producer) and producer.op_type in _THROUGH:
        value = producer.inputs[0]
    if value is None or value.const_value is None or constant(value) is None:
        return None
    tensor = value.const_value
    # A row of numbers, with axes of one besides, is a bias or a scale.
    if sum(size > 1 for size in tensor.shape.numpy()) < 2 or tensor.size < _LEAST:
        return None
    if tensor.dtype not in FLOAT_TYPES:
        return _INTEGERS
    return _SMALL if tensor.nbytes < LEAST_BYTES else None


def why_no_layer(model: ir.Model) -> str:
    """What became of the weights of a model in which no layer is found."""
    found = untreated_weights(model)
    only_stored = Counter(map(_operator, filter(_is_free, find_stored(model))))
    if only_stored:
        found = {"read in ways that allow another stored form and no more": only_stored, **found}
    if not found:
        return "no layer with a constant weight in float is left"
    return "; ".join(
        f"its weights are {reason} ({', '.join(f'{name} {n}' for name, n in counts.items())})"
        for reason, counts in found.items()
    )


def _is_free(stored: StoredWeight) -> bool:
    return stored.refusal is None


def _operator(stored: StoredWeight) -> str:
    return stored.op_type
