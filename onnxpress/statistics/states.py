"""The hidden states that R of a recurrent operator multiplies, computed in a copy of the model.

Step t reads what step t − 1 gave, so forwards they are Y without its last step behind the initial
state; backwards Y without its first step before it. Where no initial state is given it is zero,
which adds nothing to any sum, and is left out.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, attribute
from onnxpress.recurrent import HIDDEN_WEIGHT, INITIAL_STATE, INPUT_WEIGHT

__all__ = ["STATES", "add_states", "states_key"]

STATES = "states of\n"
"""What the keys of hidden states begin with; no tensor of a file that a user names does."""
_SLICE_BY_INPUTS_OPSET = 10
_UNSQUEEZE_BY_INPUTS_OPSET = 13
_END = np.iinfo(np.int64).max


def states_key(node: ir.Node) -> str | None:
    """By which the states are asked for; `None` where the node gives nothing, or lacks a weight."""
    if len(node.inputs) <= HIDDEN_WEIGHT or None in node.inputs[INPUT_WEIGHT : HIDDEN_WEIGHT + 1]:
        return None
    named = next((value.name for value in node.outputs if value.name), None)
    return None if named is None else f"{STATES}{named}"


def add_states(names: Names, node: ir.Node, opset: int) -> ir.Value:
    """Nodes behind a recurrent operator that give `[steps, directions, batch, hidden]`, in place.

    With layout 1 it is `[batch, steps, directions, hidden]`, as Y is. Steps are one fewer without
    an initial state.
    """
    output, weight = node.outputs[0], node.inputs[INPUT_WEIGHT]
    assert weight is not None
    if not output.name:
        # Not asked for so far.
        output.name = names.free("recurrent_Y")
        output.type = ir.TensorType(weight.dtype or ir.DataType.FLOAT)
    made = _Made(names, node, opset)
    batch_first = attribute(node, "layout", 0)
    steps, directions = (1, 2) if batch_first else (0, 1)
    start = node.inputs[INITIAL_STATE] if len(node.inputs) > INITIAL_STATE else None
    before = None if start is None else made.unsqueeze(start, steps)
    kind = node.attributes.get("direction")
    way = "forward" if kind is None else kind.as_string()
    ways = ("forward", "reverse") if way == "bidirectional" else (way,)
    parts = []
    for index, one in enumerate(ways):
        own, first = output, before
        if len(ways) > 1:
            own = made.slice(own, directions, index, index + 1)
            first = None if first is None else made.slice(first, directions, index, index + 1)
        forward = one == "forward"
        shifted = made.slice(own, steps, 0, -1) if forward else made.slice(own, steps, 1, _END)
        if first is not None:
            ends = [first, shifted] if forward else [shifted, first]
            shifted = made.node("Concat", ends, axis=steps)
        parts.append(shifted)
    return parts[0] if len(parts) == 1 else made.node("Concat", parts, axis=directions)


class _Made:
    """Nodes behind one another, the first behind a recurrent operator."""

    def __init__(self, names: Names, behind: ir.Node, opset: int) -> None:
        self._names, self._last, self._opset = names, behind, opset
        weight = behind.inputs[HIDDEN_WEIGHT]
        assert weight is not None
        self._type = ir.TensorType(weight.dtype or ir.DataType.FLOAT)

    def node(self, op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        return self._put(ir.node(op_type, inputs, attributes=attributes))

    def slice(self, value: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        numbers = {"starts": [start], "ends": [end], "axes": [axis]}
        if self._opset < _SLICE_BY_INPUTS_OPSET:
            return self._put(ir.node("Slice", [value], attributes=numbers))
        return self._put(ir.node("Slice", [value, *map(self._constant, numbers.values())]))

    def unsqueeze(self, value: ir.Value, axis: int) -> ir.Value:
        if self._opset < _UNSQUEEZE_BY_INPUTS_OPSET:
            return self._put(ir.node("Unsqueeze", [value], attributes={"axes": [axis]}))
        return self._put(ir.node("Unsqueeze", [value, self._constant([axis])]))

    def _constant(self, numbers: list[int]) -> ir.Value:
        tensor = ir.Tensor(np.asarray(numbers, np.int64))
        node = ir.node("Constant", [], attributes={"value": ir.AttrTensor("value", tensor)})
        return self._put(node, ir.TensorType(ir.DataType.INT64))

    def _put(self, node: ir.Node, kind: ir.TensorType | None = None) -> ir.Value:
        graph, output = self._last.graph, node.outputs[0]
        assert isinstance(graph, ir.Graph)
        graph.insert_after(self._last, [node])
        self._last = node
        output.name, output.type = self._names.free("recurrent_states"), kind or self._type
        return output
