"""By which names a user can speak of what passes change: layers, and nodes between them.

A layer is named after its weight; people see the names of nodes, and those of the model as it was
given, before it was simplified. A layer of the simplified model goes by all of them: back from its
output, by the tensor's name in the given model, up to the operator with a weight, stand the nodes
that became it.
"""

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.graph import bodies, is_standard
from onnxpress.layers import WEIGHT_INPUTS, Use, find_layers
from onnxpress.stored import StoredWeight, find_stored

__all__ = ["Selectable", "closeness", "matching", "origin_of", "selectable_sites"]


@dataclass(frozen=True, slots=True)
class Selectable:
    """A layer, or a node that is none.

    Attributes:
        name: of the site in the model that passes see.
        aliases: other names of it, of nodes and in the model before simplification.
        operators: types of its nodes, in both models.
        is_layer: whether it has a constant weight.
    """

    name: str
    aliases: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    is_layer: bool = False

    @property
    def all_names(self) -> frozenset[str]:
        """By which it is found."""
        return self.aliases | {self.name}


def matching(pattern: str, sites: Iterable[Selectable]) -> frozenset[str]:
    """Names of the sites that a name, an operator type or a pattern of names stands for.

    What is a name or a type is no pattern, so that names may have brackets.
    """
    known = list(sites)
    found = [site for site in known if pattern in site.all_names | site.operators]
    if not found:
        found = [
            site
            for site in known
            if any(fnmatch.fnmatchcase(name, pattern) for name in site.all_names)
        ]
    return frozenset(site.name for site in found)


def closeness(pattern: str, sites: Iterable[Selectable]) -> int:
    """How closely it says what it means: 2 a name, 1 a pattern of names, 0 an operator type."""
    known = list(sites)
    if any(pattern in site.all_names for site in known):
        return 2
    return 0 if any(pattern in site.operators for site in known) else 1


def origin_of(name: str, layers: Collection[str]) -> str:
    """The layer that a layer was made of: passes put those in its place whose names begin with its.

    Args:
        name: of the layer.
        layers: names of all layers there were.
    """
    if name in layers:
        return name
    stem = name
    while "_" in stem:
        stem = stem.rpartition("_")[0]
        if stem in layers:
            return stem
    return name


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a node is in the model that was given."""

    names: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()


def selectable_sites(model: ir.Model, given: ir.Model | None = None) -> list[Selectable]:
    """All layers of a model, in its order, then its other nodes.

    Args:
        model: that passes see.
        given: what it was before simplification; its names count too.
    """
    ancestry = None if given is None else _Ancestry(given)
    layers = find_layers(model)
    stored = {item.name: item for item in find_stored(model, layers)}
    found = [
        _of_uses(layer.name, (*layer.uses, *_uses(stored.pop(layer.name, None))), ancestry)
        for layer in layers
    ]
    found += [_of_uses(name, item.uses, ancestry) for name, item in stored.items()]
    # What reads a stored weight may be a site of its own besides.
    own = {use.node for layer in layers for use in layer.uses}
    for node in model.graph.all_nodes():
        if node in own or not node.name:
            continue
        origin = _Origin() if ancestry is None else ancestry.of(node, through=False)
        operators = origin.operators | {node.op_type}
        found.append(Selectable(node.name, origin.names, operators))
    return found


def _uses(stored: StoredWeight | None) -> Sequence[Use]:
    return () if stored is None else stored.uses


def _of_uses(weight: str, uses: Sequence[Use], ancestry: "_Ancestry | None") -> Selectable:
    names: set[str] = set()
    operators: set[str] = set()
    for use in uses:
        names.add(use.node.name or weight)
        operators.add(use.node.op_type)
        if ancestry is not None:
            origin = ancestry.of(use.node, through=True)
            names |= origin.names | ancestry.stacked(weight)
            operators |= origin.operators
    return Selectable(weight, frozenset(names), frozenset(operators), is_layer=True)


class _Ancestry:
    """The nodes of a model by the tensors they compute."""

    def __init__(self, model: ir.Model) -> None:
        self._producers: dict[str, ir.Node] = {}
        self._fixed: set[ir.Value] = set()
        self._constants = frozenset(name for graph in model.graphs() for name in graph.initializers)
        self._has_loops = any(node.op_type in ("Loop", "Scan") for node in model.graph)
        for node in model.graph.all_nodes():
            for value in node.outputs:
                self._producers[value.name or ""] = node
            if not bodies(node) and all(map(self._is_fixed, node.inputs)):
                self._fixed.update(node.outputs)

    def of(self, node: ir.Node, *, through: bool) -> _Origin:
        """What computed the node's output in this model.

        Args:
            node: of the simplified model.
            through: whether the nodes before it up to an operator with a weight are part of it.
        """
        value: str | None = node.outputs[0].name if node.outputs else None
        names: set[str] = set()
        in_turn = False
        if value is not None and self._has_loops:
            # Turns that became layers have their number behind the names of the body.
            value, in_turn = origin_of(value, self._producers), value not in self._producers
        while value is not None and value in self._producers:
            found = self._producers[value]
            if found.name:
                names.add(found.name)
            weights = list(self._weights(found))
            # In a turn a weight was looked up, and so no constant.
            if weights or in_turn:
                return _Origin(frozenset(names.union(weights)), frozenset({found.op_type}))
            if not through:
                return _Origin(frozenset(names), frozenset({found.op_type}))
            varying = [v for v in found.inputs if v is not None and not self._is_fixed(v)]
            value = varying[0].name if len(varying) == 1 else None
        # No operator with a weight: the layer was made of something else.
        return _Origin()

    def stacked(self, weight: str) -> frozenset[str]:
        """The constant of a loop that a weight was a turn's part of, by its name; none: nothing."""
        name = origin_of(weight, self._constants) if self._has_loops else weight
        return frozenset({name} - {weight})

    def _weights(self, node: ir.Node) -> Iterator[str]:
        """Names of a node's weights, which may still be computed from constants."""
        if not is_standard(node):
            return
        for index in WEIGHT_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and self._is_fixed(value):
                yield value.name or ""

    def _is_fixed(self, value: ir.Value | None) -> bool:
        if value is None or value in self._fixed:
            return True
        return value.const_value is not None and not value.is_graph_input()
