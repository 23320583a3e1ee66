"""What no pass treats, and why: integers, custom operators, small weights, or no numbers."""

from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.beyond_ir import ML_DOMAIN, bytes_in_attributes
from onnxpress.enumeration import few
from onnxpress.graph import constant, graphs_of, is_constant, is_standard, static_shape
from onnxpress.layers import FLOAT_TYPES, find_layers
from onnxpress.model_file import weight_bytes
from onnxpress.pieces import pieces
from onnxpress.stored import LEAST_BYTES, StoredWeight, find_stored

__all__ = [
    "IN_ATTRIBUTES",
    "nothing_to_compress",
    "odd_numbers",
    "untreated_weights",
    "why_no_layer",
]

_LEAST = 64
"""Elements: below, a constant is an index, an axis, a scale."""
IN_ATTRIBUTES = f"the parameters are attributes ({ML_DOMAIN}) [L026]"
_FEW_BYTES = 4096
"""Of constants beside what attributes hold: edges, scales of features."""
_SHARE = 0.05
_NAMED = 5
"""Weights that a sentence names."""
_THROUGH = ("DequantizeLinear", "Cast")
"""What only changes the form of a weight: its reader is the layer."""
_INTEGERS = "in integers already"
_UNPACKING = ("Cast", "Reshape", "Add", "Sub", "Mul", "Slice", "ScatterND")
"""What packed integers go through on their way to their reader."""
_BYTES = 256
"""Rows of a table that says what each byte holds."""
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
    bits: Counter[ir.Value] = Counter()
    for node in model.graph.all_nodes():
        if _is_table(node):
            weight, own_bits, own_nodes = _unpacked(node)
            bits[weight] += own_bits
            nodes |= own_nodes
    for weight, number in bits.items():
        readers = [user.op_type for user, _ in weight.uses()] or ["no operator"]
        found[f"in integers of {number} bits already"][readers[0]] += 1
    for node in model.graph.all_nodes():
        if node in nodes or (is_standard(node) and node.op_type in _THROUGH):
            continue
        for value in node.inputs:
            reason = _reason(value)
            if reason is not None and value not in own:
                found[reason][node.op_type] += 1
                break
    return {reason: dict(counts.most_common()) for reason, counts in sorted(found.items())}


def _is_table(node: ir.Node) -> bool:
    """Whether a node looks up what the bytes of a constant hold (the form `quantize` packs)."""
    if node.op_type != "Gather" or not is_standard(node) or node.inputs[1] is None:
        return False
    table, cast = node.inputs[0], node.inputs[1].producer()
    shape = static_shape(table) if is_constant(table) else None
    if table is None or table.dtype != ir.DataType.INT8 or not shape or shape[0] != _BYTES:
        return False
    packed = None if cast is None or cast.op_type != "Cast" else cast.inputs[0]
    return packed is not None and packed.dtype == ir.DataType.UINT8 and is_constant(packed)


def _unpacked(table: ir.Node) -> tuple[ir.Value, int, set[ir.Node]]:
    """The weight that comes of a table, the bits that it adds, and the nodes on the way."""
    parts = (static_shape(table.inputs[0]) or (1,))[-1]
    value, bits, nodes = table.outputs[0], 8 // parts, {table}
    while len(uses := tuple(value.uses())) == 1:
        node, place = uses[0]
        # Codes may be looked up in a table of levels.
        levels = node.op_type == "Gather" and place == 1
        if node.op_type not in _UNPACKING and not levels:
            break
        # Zero points are no part of the codes.
        bits = 0 if node.op_type == "Sub" and place == 1 else bits
        nodes.add(node)
        # Its steps come from nodes of their own.
        nodes |= {made for v in node.inputs if v is not None and (made := v.producer()) is not None}
        value = node.outputs[0]
    return value, bits, nodes


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
        f"{largest.op_type} and the like ({ML_DOMAIN}), which no pass changes [L026]"
    )


def odd_numbers(model: ir.Model) -> str:
    """Which weights hold NaN, infinities or denormal numbers, and how many; or nothing.

    A tensor of one number beside infinities is a mask, and no matter.
    """
    found = []
    for graph in graphs_of(model.graph):
        for name, value in graph.initializers.items():
            counted = _counted(constant(value)) if value.dtype in FLOAT_TYPES else ""
            if counted:
                found.append(f"{name} ({counted})")
    if not found:
        return ""
    return (
        f"weights with numbers that are not ordinary, which stay as they are: "
        f"{few(found, _NAMED)}; layers with NaN or infinity are left alone [W010]"
    )


def _counted(array: npt.NDArray[np.generic] | None) -> str:
    if array is None or not array.size:
        return ""
    # Half precision has few bits of exponent: there denormal numbers are ordinary.
    tiny = 0.0 if array.dtype == np.float16 else float(np.finfo(str(array.dtype)).tiny)
    not_numbers = infinite = denormal = 0
    ends: set[float] = set()
    for floats in pieces(array):
        finite = np.isfinite(floats)
        numbers = floats
        if not finite.all():
            numbers = floats[finite]
            missing = int(np.isnan(floats).sum())
            not_numbers += missing
            infinite += floats.size - numbers.size - missing
        if numbers.size:
            ends |= {float(numbers.min()), float(numbers.max())}
        if tiny:
            sizes = np.abs(numbers)
            denormal += int(np.count_nonzero((sizes > 0) & (sizes < tiny)))
    if len(ends) <= 1 and not not_numbers:
        infinite = 0
    counts = ((not_numbers, "NaN"), (infinite, "infinite"), (denormal, "denormal"))
    return ", ".join(f"{number:,} {what}" for number, what in counts if number)


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
    if not found and nothing_to_compress(model):
        return IN_ATTRIBUTES
    if not found:
        return "no layer with a constant weight in float is left [L027]"
    return "; ".join(
        f"its weights are {reason} ({', '.join(f'{name} {n}' for name, n in counts.items())})"
        for reason, counts in found.items()
    )


def _is_free(stored: StoredWeight) -> bool:
    return stored.refusal is None


def _operator(stored: StoredWeight) -> str:
    return stored.op_type
