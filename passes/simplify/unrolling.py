"""Loops over layers become the layers: a constant number of turns, each with its own weights.

JAX's `lax.scan` over the layers of a network (`nn.scan` of Flax, `hk.layer_stack` of Haiku) is
exported as a Loop or Scan whose body looks up its weights in stacked constants by the number of the
turn. In that form a weight is data to its layer: no kernel of integers, no rank and no channel of
it can be chosen. Unrolled, the layers are like those of any network. What is computed stays the
same; ONNX operator specifications Loop and Scan.

Only where the stacked constants are much larger than the nodes that come in place of one body, and
only loops of the main graph: others are left as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.graph import (
    Names,
    add_initializer,
    attribute,
    bodies,
    constant,
    graphs_of,
    is_constant,
    is_standard,
    standard_opset,
    static_shape,
)
from onnxpress.passes.simplify.inference import InferShapes
from onnxpress.passes.simplify.loops import origin, replace_result

__all__ = ["UnrollLoops"]

_MOST_TURNS = 256
_NODE_BYTES = 200
"""Of a node in a file, with its names and what is known of its output."""
_TIMES = 20
"""That the constants are larger than the nodes, so that the file grows by a twentieth at most."""
_SAME_NUMBER = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape"})
"""Operators that change the type or shape of the number of a turn alone."""
_LEAST_OPSET = 13
"""From which on Unsqueeze takes its axes as an input, and Scan has the form that is read here."""


@dataclass(frozen=True)
class _Layers:
    """A loop that can be unrolled.

    Attributes:
        node: the loop.
        body: what it does in a turn.
        turns: how many.
        states: how many values each turn hands to the next.
        first_state: the place of the first among the body's inputs.
        first_result: likewise among its outputs.
        looked_up: nodes of the body that look up a part of a constant by the number of the turn.
        scanned: of a Scan, values of which each turn is given a part, and the axis.
    """

    node: ir.Node
    body: ir.Graph
    turns: int
    states: int
    first_state: int
    first_result: int
    looked_up: tuple[ir.Node, ...]
    scanned: tuple[tuple[ir.Value, int], ...] = ()


class UnrollLoops(ir.passes.InPlacePass):
    """Put the turns of loops over stacked weights in a row."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        if standard_opset(model) < _LEAST_OPSET:
            return ir.passes.PassResult(model, modified=False)
        loops = [node for node in model.graph if is_standard(node)]
        read = {"Loop": _of_loop, "Scan": _of_scan}
        found = [read[node.op_type](node) for node in loops if node.op_type in read]
        layers = [one for one in found if one is not None and _pays(one)]
        if layers:
            names = Names(model)
            for one in layers:
                _unroll(names, one)
            InferShapes().call(model)
        return ir.passes.PassResult(model, bool(layers))


def _of_loop(node: ir.Node) -> _Layers | None:
    """A Loop with a known number of turns that nothing ends before."""
    (body,) = bodies(node)
    trips, going_on = constant(node.inputs[0]), node.inputs[1]
    again = origin(body.outputs[0])
    always = again is body.inputs[1] or _is_true(again)
    if trips is None or trips.size != 1 or not (going_on is None or _is_true(going_on)):
        return None
    turns = int(trips.reshape(()))
    if not always or not 0 < turns <= _MOST_TURNS:
        return None
    looked_up = [
        inner
        for inner in body
        if is_standard(inner)
        and inner.op_type == "Gather"
        and is_constant(inner.inputs[0])
        and static_shape(inner.inputs[1]) in ((), (1,))
        and origin(inner.inputs[1], _SAME_NUMBER) is body.inputs[0]
        and _length(inner.inputs[0], attribute(inner, "axis", 0)) >= turns
    ]
    alone = tuple(inner for inner in looked_up if _read_by(inner.inputs[0], looked_up))
    return _Layers(node, body, turns, len(body.inputs) - 2, 2, 1, alone)


def _of_scan(node: ir.Node) -> _Layers | None:
    """A Scan, forwards, over constants of a known length."""
    (body,) = bodies(node)
    count = attribute(node, "num_scan_inputs", 0)
    states = len(node.inputs) - count
    given = [value for value in node.inputs[states:] if value is not None]
    axes = _numbers(node, "scan_input_axes", count)
    backwards = ("scan_input_directions", "scan_output_directions")
    if len(given) < count or any(any(_numbers(node, name, 0)) for name in backwards):
        return None
    lengths = {_length(v, a) for v, a in zip(given, axes, strict=True) if is_constant(v)}
    alone = all(_read_by(value, [node]) and given.count(value) == 1 for value in given)
    if (
        len(lengths) != 1
        or not alone
        or any(_numbers(node, "scan_output_axes", 0))
        or body.initializers
    ):
        return None
    (turns,) = lengths
    if not 0 < turns <= _MOST_TURNS:
        return None
    return _Layers(node, body, turns, states, 0, 0, (), tuple(zip(given, axes, strict=True)))


def _read_by(value: ir.Value | None, nodes: Sequence[ir.Node]) -> bool:
    """Whether none but these nodes read it: what another one reads would be there twice."""
    return value is not None and all(use.node in nodes for use in value.uses())


def _numbers(node: ir.Node, name: str, count: int) -> Sequence[int]:
    found = node.attributes.get(name)
    return [0] * count if found is None else list(found.as_ints())


def _is_true(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and bool(array.reshape(()))


def _length(value: ir.Value | None, axis: int) -> int:
    """Of a constant along an axis; 0 where it is not known."""
    shape = static_shape(value)
    return shape[axis] if shape and -len(shape) <= axis < len(shape) else 0


def _pays(layers: _Layers) -> bool:
    """Whether the constants that the turns look up outweigh the nodes."""
    stacked = {value for node in layers.looked_up if (value := node.inputs[0]) is not None}
    stacked |= {value for value, _ in layers.scanned if is_constant(value)}
    nbytes = sum(value.const_value.nbytes for value in stacked if value.const_value is not None)
    nodes = sum(len(graph) for graph in graphs_of(layers.body))
    return nbytes >= _TIMES * _NODE_BYTES * nodes * layers.turns


def _unroll(names: Names, layers: _Layers) -> None:
    """Put a loop's turns in its place."""
    node, graph = layers.node, layers.node.graph
    assert isinstance(graph, ir.Graph)
    first = layers.first_state
    held = {
        name: add_initializer(names, graph, name, tensor.numpy(), tensor.dtype)
        for name, value in layers.body.initializers.items()
        if (tensor := value.const_value) is not None
    }
    truth = add_initializer(names, graph, "goes_on", np.ones((), np.bool_)) if first else None
    states = list(node.inputs[first : first + layers.states])
    lists: list[list[ir.Value]] = [[] for _ in node.outputs[layers.states :]]
    for turn in range(layers.turns):
        number = add_initializer(names, graph, f"turn_{turn}", np.array(turn, np.int64))
        parts = [_part(names, graph, node, value, axis, number) for value, axis in layers.scanned]
        given = [*([number, truth] if first else []), *states, *parts]
        results = _turn(names, layers, turn, given, held)[layers.first_result :]
        states = list(results[: layers.states])
        for collected, value in zip(lists, results[layers.states :], strict=True):
            collected.append(value)
    for place, state in enumerate(states):
        assert state is not None
        replace_result(node, place, state)
    for place, collected in enumerate(lists, layers.states):
        result = node.outputs[place]
        if result.uses() or result.is_graph_output():
            replace_result(node, place, _stacked(names, node, collected))
    graph.remove(node, safe=True)


def _turn(
    names: Names,
    layers: _Layers,
    turn: int,
    given: Sequence[ir.Value | None],
    held: Mapping[str, ir.Value],
) -> list[ir.Value]:
    """Put one turn's nodes before the loop.

    Args:
        names: of the model.
        layers: the loop.
        turn: its number.
        given: what the body is given.
        held: the body's own constants, by name, as they stand in the graph around it.

    Returns:
        What the nodes give, by the outputs of the body.
    """
    graph = layers.node.graph
    assert isinstance(graph, ir.Graph)
    copy = layers.body.clone(allow_outer_scope_values=True)
    twins = dict(zip(layers.body, copy, strict=True))
    stands_for = {value: held[name] for name, value in copy.initializers.items()}
    for inside, outside in zip(copy.inputs, given, strict=True):
        assert outside is not None
        stands_for[inside] = outside
    for looked_up in layers.looked_up:
        table = looked_up.inputs[0]
        assert table is not None
        single = static_shape(looked_up.inputs[1]) == (1,)
        axis = attribute(looked_up, "axis", 0)
        part = _sliced(names, graph, table, axis, turn, kept=single)
        stands_for[twins[looked_up].outputs[0]] = part
    results = [stands_for.get(value, value) for value in copy.outputs]
    copy.outputs.clear()
    for inside, outside in stands_for.items():
        ir.convenience.replace_all_uses_with(inside, outside)
    gone = {twins[looked_up] for looked_up in layers.looked_up}
    nodes = [node for node in copy if node not in gone]
    copy.remove(list(copy))
    for node in nodes:
        node.name = names.free(f"{node.name}_{turn}")
        for value in node.outputs:
            if value.name:
                value.name = names.free(f"{value.name}_{turn}")
    graph.insert_before(layers.node, nodes)
    return results


def _sliced(
    names: Names, graph: ir.Graph, value: ir.Value, axis: int, turn: int, *, kept: bool = False
) -> ir.Value:
    """A turn's part of a stacked constant.

    Args:
        names: of the model.
        graph: where it is registered.
        value: the constant.
        axis: along which it is stacked.
        turn: its number.
        kept: whether the axis stays, with one element.
    """
    array = constant(value)
    assert array is not None
    assert value.dtype is not None
    part = np.take(array, [turn], axis) if kept else np.take(array, turn, axis)
    return add_initializer(names, graph, f"{value.name}_{turn}", part, value.dtype)


def _part(
    names: Names, graph: ir.Graph, node: ir.Node, value: ir.Value, axis: int, number: ir.Value
) -> ir.Value:
    """A turn's part of what a Scan goes over, a constant or not."""
    array = constant(number)
    assert array is not None
    if is_constant(value):
        return _sliced(names, graph, value, axis, int(array))
    taken = ir.Node("", "Gather", [value, number], [ir.AttrInt64("axis", axis)])
    return _put(names, node, taken, f"{value.name}_{int(array)}")


def _stacked(names: Names, node: ir.Node, values: Sequence[ir.Value]) -> ir.Value:
    """What each turn gives, along a new first axis."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    axes = add_initializer(names, graph, "first_axis", np.array([0], np.int64))
    rows = [
        _put(names, node, ir.Node("", "Unsqueeze", [value, axes]), f"{value.name}_row")
        for value in values
    ]
    stacked = ir.Node("", "Concat", rows, [ir.AttrInt64("axis", 0)])
    return _put(names, node, stacked, f"{values[0].name}_stacked")


def _put(names: Names, before: ir.Node, node: ir.Node, wanted: str) -> ir.Value:
    """A new node before another one, with names of its own; what it gives."""
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    name = names.free(wanted)
    node.name, node.outputs[0].name = name, name
    graph.insert_before(before, node)
    return node.outputs[0]
