"""Residual blocks y = x + f(x) that may be left out whole: y becomes x.

How much a block does (its influence: Men et al., ShortGPT, arXiv 2403.03853, there by the cosine
of x and y) is taken as the power of f(x) over that of y.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.graph import bodies, constant, is_standard
from onnxpress.layers import Layer
from onnxpress.passes.prune.coupling import Atoms, Dynamic
from onnxpress.passes.prune.reader import Reader
from onnxpress.recurrent import HIDDEN_WEIGHT, is_recurrent

__all__ = ["Block", "find_blocks", "remove_block"]


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        name: of the output of its addition, behind `block:`, which is the site's name.
        last: the layer whose output f(x) is, or `None` where something else comes last.
        inside: layers that nothing else needs.
        readers: the next layers that read y.
    """

    name: str
    last: str | None
    inside: tuple[str, ...]
    readers: tuple[str, ...]


def find_blocks(model: ir.Model, layers: Sequence[Layer], reader: Reader) -> list[Block]:
    """Residual blocks of the main graph with layers of their own."""
    by_node = {
        use.node: layer.name
        for layer in layers
        for use in layer.uses
        # What reads the input of a recurrent operator is W.
        if not (is_recurrent(use.node) and use.index == HIDDEN_WEIGHT)
    }
    ancestors, owners = _ancestors(model.graph), _owners(model.graph)
    found = []
    for node in model.graph:
        if node.op_type not in ("Add", "Sum") or not is_standard(node) or len(node.inputs) != 2:
            continue
        # Its own sum may not be an output: the name has to stay, x may be one too.
        if node.outputs[0].is_graph_output():
            continue
        for place in (0, 1):
            shortcut, branch = node.inputs[place], node.inputs[1 - place]
            if shortcut is None or branch is None or branch.producer() is None:
                continue
            if shortcut not in ancestors.get(branch, frozenset()):
                continue
            if not _same_axes(reader, shortcut, node.outputs[0]):
                continue
            dead = _needed_only_by(node, branch, owners)
            inside = tuple(
                layer.name for layer in layers if all(use.node in dead for use in layer.uses)
            )
            if inside:
                maker = _through_bias(branch)
                # What a recurrent operator gives does not follow from W alone.
                plain = None if maker is None or is_recurrent(maker) else maker
                last = None if plain is None else by_node.get(plain)
                readers = tuple(dict.fromkeys(_next(node.outputs[0], by_node)))
                name = f"block:{node.outputs[0].name}"
                found.append(Block(name, last, inside, readers))
    return found


def remove_block(model: ir.Model, name: str) -> None:
    """Let x stand for y, in place; nodes that nothing needs any more stay."""
    wanted = name.removeprefix("block:")
    for node in model.graph:
        if node.outputs[0].name != wanted:
            continue
        ancestors = _ancestors(model.graph)
        first, second = node.inputs
        assert first is not None
        assert second is not None
        shortcut = first if first in ancestors.get(second, frozenset()) else second
        ir.convenience.replace_all_uses_with(node.outputs[0], shortcut)
        return


def _through_bias(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and node.op_type == "Add" and is_standard(node):
        inner = [v for v in node.inputs if v is not None and constant(v) is None]
        if len(inner) != 1:
            return node
        node = inner[0].producer()
    return node


def _ancestors(graph: ir.Graph) -> dict[ir.Value, frozenset[ir.Value]]:
    """For every value of the main graph the values with several readers that it depends on."""
    known: dict[ir.Value, frozenset[ir.Value]] = {}
    for node in graph:
        above: set[ir.Value] = set()
        for value in node.inputs:
            if value is None:
                continue
            above |= known.get(value, frozenset())
            if len(list(value.uses())) > 1 and value.const_value is None:
                above.add(value)
        found = frozenset(above)
        known.update(dict.fromkeys(node.outputs, found))
    return known


def _same_axes(reader: Reader, first: ir.Value, second: ir.Value) -> bool:
    one, other = reader.axes(first), reader.axes(second)
    if one is None or other is None or len(one) != len(other):
        return False
    return all(
        (isinstance(a, Dynamic) and isinstance(b, Dynamic)) or _size(a) == _size(b)
        for a, b in zip(one, other, strict=True)
    )


def _size(axis: Atoms | Dynamic) -> int:
    return -1 if isinstance(axis, Dynamic) else len(axis)


def _owners(graph: ir.Graph) -> dict[ir.Node, ir.Node]:
    """The node of a graph that holds it, for each node of its subgraphs."""
    return {inner: node for node in graph for inner in _inner(node)}


def _inner(node: ir.Node) -> Iterator[ir.Node]:
    return (inner for body in bodies(node) for inner in body.all_nodes())


def _needed_only_by(
    node: ir.Node, branch: ir.Value, owners: Mapping[ir.Node, ir.Node]
) -> set[ir.Node]:
    """Nodes that are of no use once `node` does not read `branch`."""
    dead: set[ir.Node] = set()

    def idle(value: ir.Value) -> bool:
        if value.is_graph_output():
            return False
        users = (user for user, _ in value.uses() if not (user is node and value is branch))
        return all(owners.get(user, user) in dead for user in users)

    waiting = [branch.producer()]
    while waiting:
        current = waiting.pop()
        # It is asked again when the next of its readers is of no use.
        if current is None or current in dead or not all(map(idle, current.outputs)):
            continue
        dead.add(current)
        read = [current.inputs, *(inner.inputs for inner in _inner(current))]
        made = [value.producer() for values in read for value in values if value is not None]
        waiting += [owners.get(maker, maker) for maker in made if maker is not None]
    return dead


def _next(value: ir.Value, by_node: dict[ir.Node, str]) -> list[str]:
    """The layers that read a value, directly or through other operators."""
    found: list[str] = []
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for user, _ in current.uses():
            if user in by_node:
                found.append(by_node[user])
            else:
                waiting += user.outputs
    return found
