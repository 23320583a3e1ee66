"""Hidden units of LSTM, GRU and RNN, by the ONNX operator specifications.

A unit is an index of the hidden state: its rows of every gate in W, R and B, its peepholes, its
column of R, its initial state, and its place in Y, Y_h and Y_c. Both directions have as many units,
so that those of one index go together. With all its constants at zero a unit's state stays zero
where the activation functions of candidate and output keep zero.
"""

import onnx_ir as ir

from onnxpress.graph import attribute, node_label
from onnxpress.passes.prune.coupling import Atoms, Axes, Dynamic
from onnxpress.passes.prune.reader import Reader, Rule, registering
from onnxpress.recurrent import RECURRENT, why_states_are_unseen

__all__ = ["RECURRENT_RULES"]

RECURRENT_RULES: dict[str, Rule] = {}

_rule = registering(RECURRENT_RULES)

_FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
"""Activation functions of a direction; all but the first of LSTM and GRU make values."""
_KEEP_ZERO = frozenset(("tanh", "relu", "leakyrelu", "elu", "softsign"))
_B, _INITIAL_H, _INITIAL_C, _P = 3, 5, 6, 7


@_rule(*RECURRENT)
def _recurrent(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    given = [reader.axes(value) for value in node.inputs[:3]]
    if None in given or len(given) < 3:
        return None
    axes, w, r = (known or [] for known in given)
    if (len(axes), len(w), len(r)) != (3, 3, 3):
        return None
    coupling, label = reader.coupling, node_label(node)
    reason = f"{label} carries them from step to step"
    coupling.block_all([*axes[:2], w[0], r[0]], reason)
    coupling.relate(axes[2], w[2], f"{label} computes with them")
    hidden = r[2]
    if isinstance(hidden, Dynamic):
        coupling.block_all([w[1], r[1]], reason)
        for value in node.outputs:
            reader.given(value, reason)
        return [None for _ in node.outputs]
    why = _why_all_stay(node)
    if why is not None:
        coupling.block(hidden, f"{label} keeps them: {why}")
    inputs = [*node.inputs, *[None] * (_P + 1 - len(node.inputs))]
    _relate_gates(reader, w[1], hidden, reason)
    _relate_gates(reader, r[1], hidden, reason)
    for place in (_B, _P):
        known = reader.axes(inputs[place])
        if known is not None:
            coupling.block(known[0], reason)
            _relate_gates(reader, known[1], hidden, reason)
        elif inputs[place] is not None:
            coupling.block(hidden, reason)
    for place in (_INITIAL_H, _INITIAL_C):
        reader.adopt(inputs[place], [Dynamic(), Dynamic(), hidden], reason)
    return _outputs(reader, node, axes, w[0], hidden)


def _relate_gates(reader: Reader, rows: Atoms | Dynamic, hidden: Atoms, reason: str) -> None:
    """Every gate has a row for each unit."""
    coupling = reader.coupling
    if isinstance(rows, Dynamic) or not len(hidden) or len(rows) % len(hidden):
        coupling.block(hidden, reason)
        coupling.block(rows, reason)
        return
    for start in range(0, len(rows), len(hidden)):
        coupling.unite(rows[start : start + len(hidden)], hidden, reason)


def _outputs(
    reader: Reader, node: ir.Node, axes: Axes, directions: Atoms | Dynamic, hidden: Atoms
) -> list[Axes | None]:
    """Y, Y_h and Y_c; those that nothing reads have no name."""
    first, second = axes[0], axes[1]
    last: Axes = [directions, second, hidden]
    whole: Axes = [first, directions, second, hidden]
    if attribute(node, "layout", 0):
        last, whole = [first, directions, hidden], [first, second, directions, hidden]
    for value in node.outputs:
        reader.coupling.vanishes[value] = True
    made: list[Axes | None] = [list(whole), list(last), list(last)]
    return made[: len(node.outputs)]


def _why_all_stay(node: ir.Node) -> str | None:
    functions = node.attributes.get("activations")
    number = _FUNCTIONS[node.op_type]
    names = [] if functions is None else [str(name).lower() for name in functions.as_strings()]
    for place, name in enumerate(names):
        gate = number > 1 and place % number == 0
        if not gate and name not in _KEEP_ZERO:
            return f"of nothing its function {name} makes something"
    return why_states_are_unseen(node)
