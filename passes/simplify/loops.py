"""What a loop carries around unchanged is handed to its body from outside instead.

A Loop's or Scan's state that the body returns as it came (exporters of TensorFlow carry the weights
of recurrent cells so) is the same value in every turn and behind the loop: the body reads the
outer value itself, and the state is gone. Constants become visible as such inside the body. ONNX
operator specifications Loop and Scan: bodies see the values of the graphs around them.
"""

from collections.abc import Collection

import onnx_ir as ir

from onnxpress.graph import attribute, bodies, is_standard, standard_opset

__all__ = ["BypassIdentity", "HoistInvariants", "origin", "replace_result"]

_FIRST_STATE = 2
"""Of a Loop's inputs: behind the trip count and the condition."""
_SCAN_OPSET = 9
"""Before, Scan has batches and lengths of its own."""


class HoistInvariants(ir.passes.InPlacePass):
    """Take states that never change out of loops, the innermost loops first."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        changed = 0
        has_scan = standard_opset(model) >= _SCAN_OPSET
        loops = [node for node in model.graph.all_nodes() if is_standard(node)]
        for node in reversed(loops):
            if node.op_type == "Loop":
                changed += _hoist(node, _FIRST_STATE, len(node.inputs) - _FIRST_STATE, 1)
            elif node.op_type == "Scan" and has_scan:
                states = len(node.inputs) - attribute(node, "num_scan_inputs", 0)
                changed += _hoist(node, 0, states, 0)
        return ir.passes.PassResult(model, bool(changed))


def _hoist(node: ir.Node, first: int, states: int, first_returned: int) -> bool:
    """Take out what one loop never changes.

    Args:
        node: the loop.
        first: of its inputs, and of the body's, that is a state.
        states: how many there are.
        first_returned: of the body's outputs that is a state.
    """
    (body,) = bodies(node)
    invariant = [
        place
        for place in range(states)
        if origin(body.outputs[first_returned + place]) is body.inputs[first + place]
        and node.inputs[first + place] is not None
    ]
    if not invariant or not isinstance(node.graph, ir.Graph):
        return False
    for place in invariant:
        inside, outside = body.inputs[first + place], node.inputs[first + place]
        assert outside is not None
        # This output goes with the state; a body gives no value of another graph.
        body.outputs[first_returned + place] = body.outputs[0]
        _copy_into_results(body, inside, outside)
        ir.convenience.replace_all_uses_with(inside, outside)
        replace_result(node, place, outside)
    kept = [place for place in range(states) if place not in invariant]
    _rebuild(node, body, first, states, first_returned, kept)
    return True


def origin(
    value: ir.Value | None, through: Collection[str] = frozenset({"Identity"})
) -> ir.Value | None:
    """What a value is a plain copy of, or made of by these operators alone."""
    while value is not None:
        producer = value.producer()
        if producer is None or not is_standard(producer) or producer.op_type not in through:
            break
        value = producer.inputs[0]
    return value


def _copy_into_results(body: ir.Graph, inside: ir.Value, outside: ir.Value) -> None:
    """Let a state that is a result of each turn too be a copy of the outer value there."""
    for place, value in enumerate(body.outputs):
        if value is inside:
            same = ir.Node("", "Identity", [outside])
            same.outputs[0].type, same.outputs[0].shape = inside.type, inside.shape
            body.append(same)
            body.outputs[place] = same.outputs[0]


def replace_result(node: ir.Node, place: int, outside: ir.Value) -> None:
    """Behind the loop, read what went in; an output of the graph stays a value of its own."""
    result = node.outputs[place]
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if result.is_graph_output():
        same = ir.Node("", "Identity", [outside])
        copy = same.outputs[0]
        copy.type, copy.shape, name = result.type, result.shape, result.name
        graph.insert_after(node, same)
        ir.convenience.replace_all_uses_with(result, copy, replace_graph_outputs=True)
        result.name, copy.name = None, name
    else:
        ir.convenience.replace_all_uses_with(result, outside)


def _rebuild(
    node: ir.Node, body: ir.Graph, first: int, states: int, first_returned: int, kept: list[int]
) -> None:
    """Put a loop with fewer states in the place of one: a node's outputs cannot be taken away."""

    def chosen(values: list[ir.Value], start: int) -> list[ir.Value]:
        states_kept = [values[start + place] for place in kept]
        return [*values[:start], *states_kept, *values[start + states :]]

    inputs = list(node.inputs)
    others = [inputs[first + place] for place in kept]
    new_inputs = [*inputs[:first], *others, *inputs[first + states :]]
    returned, received = list(body.outputs), list(body.inputs)
    results = chosen(list(node.outputs), 0)
    for values, wanted in (
        (body.outputs, chosen(returned, first_returned)),
        (body.inputs, chosen(received, first)),
    ):
        values.clear()
        values.extend(wanted)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    new = ir.Node(
        node.domain,
        node.op_type,
        new_inputs,
        list(node.attributes.values()),
        overload=node.overload,
        num_outputs=len(results),
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    graph.insert_after(node, new)
    for old, fresh in zip(results, new.outputs, strict=True):
        fresh.type, fresh.shape, name = old.type, old.shape, old.name
        ir.convenience.replace_all_uses_with(old, fresh, replace_graph_outputs=True)
        old.name, fresh.name = None, name
    graph.remove(node, safe=True)


class BypassIdentity(ir.passes.InPlacePass):
    """Let the readers of a copy read the original; bodies within its scope see that too.

    onnx-ir's own elimination hands values between graphs, so it is kept from models with bodies.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place; copies that nobody reads are removed later."""
        changed = 0
        for node in model.graph.all_nodes():
            if not is_standard(node) or node.op_type != "Identity":
                continue
            origin, copy = node.inputs[0], node.outputs[0]
            if origin is None or not copy.uses():
                continue
            ir.convenience.replace_all_uses_with(copy, origin)
            changed += 1
        return ir.passes.PassResult(model, bool(changed))
