"""What the nodes of a graph read: captures of their bodies included, constants told apart."""

from collections.abc import Iterator

import onnx_ir as ir

from onnxpress.graph import RANDOM_OPERATORS, bodies, is_standard

__all__ = ["constant_values", "node_weights", "reads"]

_RANDOM = RANDOM_OPERATORS | {"Dropout"}
"""Operators that give something else each time they run; they must run once."""


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Values that belong to the node's own graph and that it or its bodies read."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node):
        yield from (value for value in _read_inside(body) if value.graph is node.graph)


def _read_inside(body: ir.Graph) -> Iterator[ir.Value]:
    """All that is read in a body and the bodies in it; its outputs may be values from around."""
    yield from body.outputs
    for node in body:
        yield from (value for value in node.inputs if value is not None)
        for inner in bodies(node):
            yield from _read_inside(inner)


def constant_values(graph: ir.Graph) -> frozenset[ir.Value]:
    """Values of a graph that nodes compute of constants alone, the same in every run.

    Each block that reads one computes it anew, as it holds its own initializers.
    """
    found: set[ir.Value] = set()
    for node in graph:
        if not is_standard(node) or node.op_type in _RANDOM or bodies(node):
            continue
        if all(value is None or _is_fixed(value) or value in found for value in node.inputs):
            found.update(node.outputs)
    return frozenset(found)


def _is_fixed(value: ir.Value) -> bool:
    """Whether it is an initializer that no caller overrides."""
    return value.is_initializer() and not value.is_graph_input()


def node_weights(node: ir.Node, constants: frozenset[ir.Value]) -> Iterator[ir.Value]:
    """Constants that a node needs at hand: those it reads, and those in its bodies."""
    yield from (value for value in reads(node) if value.is_initializer() or value in constants)
    for body in bodies(node):
        yield from body.initializers.values()
        for inner in body:
            yield from node_weights(inner, constants)
