"""Fold what exporters leave before W, R and B of LSTM, GRU and RNN.

PyTorch orders gates otherwise than ONNX, so that its exporter slices each weight and puts the
slices together again. A constant that is sliced several times, in branches of an If perhaps, looks
as if folding added to it, slice for slice; seen together, as much goes as comes. It also computes
initial states of zeros, which the operators take where none is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx.reference
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, constant, is_standard
from onnxpress.recurrent import BIAS, INITIAL_STATE, INPUT_WEIGHT, is_recurrent

__all__ = ["DropZeroStates", "FoldGateOrder"]

_MOVES = frozenset(
    ("Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
)
_SPREAD = ("Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")
"""What makes nothing but zeros of zeros."""
_NODE_BYTES = 64
"""Of a node with the names of its tensors, at least."""
_FEW = 64
"""Elements: below, a constant is an axis or a shape."""

Array = npt.NDArray[np.generic]


class FoldGateOrder(ir.passes.InPlacePass):
    """Make initializers of weights that are only put in another order, where the file shrinks."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        groups: dict[frozenset[ir.Value], list[_Moved]] = {}
        for node in model.graph.all_nodes():
            for index in range(INPUT_WEIGHT, BIAS + 1) if is_recurrent(node) else ():
                found = _moved(node, index)
                if found is not None:
                    groups.setdefault(found.sources, []).append(found)
        names, opsets = Names(model), dict(model.graph.opset_imports)
        folded = [_fold(names, model.graph, group, opsets) for group in groups.values()]
        return ir.passes.PassResult(model, any(folded))


class DropZeroStates(ir.passes.InPlacePass):
    """Leave out initial_h and initial_c that are zero whatever the batch."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        dropped = 0
        for node in model.graph.all_nodes():
            for index in (INITIAL_STATE, INITIAL_STATE + 1) if is_recurrent(node) else ():
                if index < len(node.inputs) and _is_zero(node.inputs[index]):
                    node.replace_input_with(index, None)
                    dropped += 1
        return ir.passes.PassResult(model, bool(dropped))


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a tensor holds nothing but zeros, of a shape that may be computed."""
    array = constant(value)
    if array is not None:
        # A negative zero is none to whoever divides by it, which no cell does.
        return not array.any()
    node = None if value is None else value.producer()
    if node is None or not is_standard(node):
        return False
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return filled is None or not filled.as_tensor().numpy().any()
    return node.op_type in _SPREAD and _is_zero(node.inputs[0])


@dataclass(frozen=True)
class _Moved:
    """An input of a recurrent operator that is made of constants.

    Attributes:
        node: the operator.
        index: of its input.
        nodes: what makes it, in their order.
        sources: the constants it is made of, without axes and shapes.
    """

    node: ir.Node
    index: int
    nodes: tuple[ir.Node, ...]
    sources: frozenset[ir.Value] = field(default_factory=frozenset)


def _moved(node: ir.Node, index: int) -> _Moved | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.producer() is None:
        return None
    nodes: dict[ir.Node, None] = {}
    sources: set[ir.Value] = set()
    waiting: list[ir.Value] = [value]
    while waiting:
        current = waiting.pop()
        maker = current.producer()
        if maker is None:
            if constant(current) is None or current.const_value is None:
                return None
            sources.update([current] if current.const_value.size >= _FEW else [])
        elif maker.op_type not in _MOVES or not is_standard(maker):
            return None
        elif maker not in nodes:
            nodes[maker] = None
            waiting += [v for v in maker.inputs if v is not None]
    return _Moved(node, index, tuple(reversed(nodes)), frozenset(sources))


def _fold(names: Names, graph: ir.Graph, group: list[_Moved], opsets: dict[str, int]) -> bool:
    """Fold all that is made of the same constants, or nothing."""
    made: dict[tuple[object, ...], tuple[Array, list[_Moved]]] = {}
    for one in group:
        array = _computed(one, opsets)
        key = array.dtype.str, array.shape, array.tobytes()
        made.setdefault(key, (array, []))[1].append(one)
    dead = _needed_only_by(group)
    freed = sum(
        value.const_value.nbytes
        for value in group[0].sources
        if value.const_value is not None and all(user in dead for user, _ in value.uses())
    )
    if sum(array.nbytes for array, _ in made.values()) > freed + _NODE_BYTES * len(dead):
        return False
    for array, users in made.values():
        old = users[0].node.inputs[users[0].index]
        stem = old.name if old is not None and old.name else "weight"
        value = add_initializer(names, graph, f"{stem}_folded", array, dtype=_dtype(users[0]))
        for user in users:
            user.node.replace_input_with(user.index, value)
    return True


def _dtype(moved: _Moved) -> ir.DataType | None:
    return next((value.dtype for value in moved.sources), None)


def _needed_only_by(group: list[_Moved]) -> set[ir.Node]:
    """Nodes that nothing else reads once the group's inputs are constants."""
    places = {(one.node, one.index) for one in group}
    dead = {node for one in group for node in one.nodes}
    while True:
        alive = {node for node in dead if any(_is_read(v, dead, places) for v in node.outputs)}
        if not alive:
            return dead
        dead -= alive


def _is_read(value: ir.Value, dead: set[ir.Node], places: set[tuple[ir.Node, int]]) -> bool:
    if value.is_graph_output():
        return True
    return any(user not in dead and (user, at) not in places for user, at in value.uses())


def _computed(moved: _Moved, opsets: dict[str, int]) -> Array:
    """What the nodes make of their constants, by onnx's reference evaluator."""
    known: dict[ir.Value, Array] = {}
    for node in _in_order(moved):
        given = [v for v in dict.fromkeys(node.inputs) if v is not None]
        feed = {str(v.name): known[v] if v in known else constant(v) for v in given}
        evaluator = onnx.reference.ReferenceEvaluator(
            onnx.helper.make_function(
                "",
                "moved",
                list(feed),
                [str(v.name) for v in node.outputs],
                [ir.to_proto(node)],
                [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            )
        )
        results = evaluator.run(None, feed, {})
        known.update(zip(node.outputs, map(np.asarray, results), strict=True))
    last = moved.node.inputs[moved.index]
    assert last is not None
    return known[last]


def _in_order(moved: _Moved) -> Iterator[ir.Node]:
    """Every node behind those that make what it reads."""
    waiting, done = list(moved.nodes), set[ir.Node]()
    while waiting:
        node = waiting.pop(0)
        makers = {v.producer() for v in node.inputs if v is not None} - {None}
        if makers <= done:
            done.add(node)
            yield node
        else:
            waiting.append(node)
