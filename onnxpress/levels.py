"""In which order layers are fitted again, and which tensors are final by then."""

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from onnxpress.blocks import Cut
from onnxpress.graph import bodies
from onnxpress.layers import Layer

__all__ = ["boundaries", "levels_of"]


def levels_of(graph: ir.Graph, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers by how many of them come before on the longest way.

    However many there are: of layers that feed each other and are fitted at once, each makes up for
    what the one before makes up for too, and nothing is left of the network.
    """
    found: dict[int, list[Layer]] = {}
    own = {use.node for layer in layers for use in layer.uses}
    depths = _along(graph, lambda node, most: most + (node in own))
    for layer in layers:
        depth = min(depths.get(use.node.outputs[0], 0) for use in layer.uses)
        found.setdefault(depth, []).append(layer)
    return [found[depth] for depth in sorted(found)]


def _along(graph: ir.Graph, step: Callable[[ir.Node, int], int]) -> dict[ir.Value, int]:
    """Of each tensor what `step` makes of its node and of the most of what that reads."""
    found: dict[ir.Value, int] = {}

    def most(values: Iterable[ir.Value | None]) -> int:
        return max((found.get(value, 0) for value in values if value is not None), default=0)

    def descend(graph: ir.Graph) -> None:
        for node in graph:
            own = most(node.inputs)
            for body in bodies(node):
                found.update(dict.fromkeys(body.inputs, most(node.inputs)))
                descend(body)
                own = max(own, most(body.outputs))
            found.update(dict.fromkeys(node.outputs, step(node, own)))

    descend(graph)
    return found


def boundaries(
    graph: ir.Graph, levels: Sequence[Sequence[Layer]], blocks: Cut
) -> list[tuple[int, frozenset[str]]]:
    """Before each level, how many blocks have no layer left that is still to be fitted.

    And names of the tensors of the graph that depend on no such layer.
    """
    places: dict[ir.Node, int] = {}

    def enter(nodes: Iterable[ir.Node], place: int) -> None:
        for node in nodes:
            places[node] = place
            for body in bodies(node):
                enter(body, place)

    for place, node in enumerate(graph):
        enter((node,), place)
    number = [n for n, block in enumerate(blocks.blocks) for _ in range(block.start, block.stop)]
    ends: list[int] = []
    nearest = len(blocks.blocks)
    for level in reversed(levels):
        first = (places[use.node] for layer in level for use in layer.uses)
        nearest = min(nearest, number[min(first)])
        ends.append(nearest)
    behind = {use.node: n for n, level in enumerate(levels, 1) for one in level for use in one.uses}
    needs = _along(graph, lambda node, most: max(most, behind.get(node, 0)))
    return [
        (end, frozenset(value.name for value, most in needs.items() if value.name and most <= n))
        for n, end in enumerate(reversed(ends))
    ]
