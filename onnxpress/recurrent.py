"""LSTM, GRU and RNN: what their inputs are, by the ONNX operator specifications.

X `[seq, batch, in]`, W `[directions, gates·hidden, in]`, R `[directions, gates·hidden, hidden]`,
B `[directions, 2·gates·hidden]` (W's half, then R's), Y `[seq, directions, batch, hidden]`; with
layout 1 (opset 14) the batch comes first: X `[batch, seq, in]`, Y `[batch, seq, directions,
hidden]`, initial_h `[batch, directions, hidden]`. Both directions read the same X, each multiplies
a hidden state of its own.
"""

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxpress.graph import attribute, is_standard

__all__ = [
    "BIAS",
    "HIDDEN_WEIGHT",
    "INITIAL_STATE",
    "INPUT_WEIGHT",
    "RECURRENT",
    "is_recurrent",
    "recurrent_multiply_adds",
    "why_states_are_unseen",
]

RECURRENT = ("LSTM", "GRU", "RNN")
INPUT_WEIGHT, HIDDEN_WEIGHT, BIAS, _LENGTHS, INITIAL_STATE = 1, 2, 3, 4, 5
"""Indices of inputs."""


def is_recurrent(node: ir.Node) -> bool:
    """Whether a node is one of ONNX's recurrent operators."""
    return node.op_type in RECURRENT and is_standard(node)


def why_states_are_unseen(node: ir.Node) -> str | None:
    """Why what R multiplies cannot be told from the node's outputs, or `None`."""
    if len(node.inputs) > _LENGTHS and node.inputs[_LENGTHS] is not None:
        return "sequences of a batch end at different steps"
    if node.op_type == "GRU" and not attribute(node, "linear_before_reset", 0):
        return "the reset gate scales the hidden state before the last gate reads it"
    return None


def recurrent_multiply_adds(
    node: ir.Node, sizes: Callable[[ir.Value], Sequence[int]] | None = None
) -> int:
    """Multiply-adds of one run.

    Args:
        node: of a recurrent operator.
        sizes: the shapes of its tensors; by default as the model says, where a dynamic dimension
            counts as 1 and an unknown shape as nothing.
    """
    of = sizes or _sizes
    if len(node.inputs) <= HIDDEN_WEIGHT or node.inputs[0] is None:
        return 0
    weights = node.inputs[INPUT_WEIGHT : HIDDEN_WEIGHT + 1]
    steps = math.prod(of(node.inputs[0])[:2])
    return steps * sum(math.prod(of(w)) for w in weights if w is not None and of(w))


def _sizes(value: ir.Value) -> list[int]:
    return [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
