"""Observe tensors by name, also those inside If, Loop and Scan bodies.

Tensors of the main graph become outputs of a copy. A tensor inside bodies is put into a sequence
that travels from body to body: it starts empty in the main graph, every run of the tensor's body
appends to it (SequenceInsert), Loops carry it from iteration to iteration, branches of an If that
do not hold the tensor hand it on. At the end it holds one array for each time the body ran, of
whatever shape; none where the branch was never taken. A Scan cannot carry sequences: there the
tensor becomes a scan output, stacked along a new first axis, which is taken apart again.

What a body reads of the graphs around it is seen as often as the body runs, if it is asked for by
its `input_key`; by its name, as often as it is computed.

The sequences are those of ONNX's own operators (Sequence* from opset 11, in If and Loop from 13).
"""

import collections
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress.graph import is_standard, prepend, remembered_names, standard_opset, unique_name
from onnxpress.layers import FLOAT_TYPES, Layer
from onnxpress.runtime import Array, Feed, Session

__all__ = ["Observer", "input_key", "observable"]

logger = logging.getLogger(__name__)

_BODIES = ("If", "Loop", "Scan")
_SEQUENCES_IN_BODIES_OPSET = 13


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor is.

    Attributes:
        value: the tensor.
        route: node and attribute of every body around it, from the outside in.
        scans: how many leading axes of `value` count the iterations of Scans.
    """

    value: ir.Value
    route: tuple[tuple[ir.Node, str], ...] = ()
    scans: int = 0


class Observer:
    """A session of a copy of a model that gives tensors by name.

    Attributes:
        names: what it gives.
        lost: what is in bodies and onnxruntime turned out unable to give; what it gave of them
            before is incomplete.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], *, threads: int = 0) -> None:
        """Open it.

        Args:
            model: not changed.
            names: of tensors, or `input_key`s; what is not `observable` is never given.
            threads: of onnxruntime.
        """
        self.lost: frozenset[str] = frozenset()
        self._model, self._threads = model, threads
        inputs = {value.name for value in model.graph.inputs}
        places = _places(model)
        found = {name: place for name in names if (place := _find(places, name)) is not None}
        self.names = frozenset(found)
        made = [name for name in found if name not in inputs]
        self._plain = [name for name in made if not found[name].route]
        try:
            self._open(made)
        except ModelError as error:
            self._without_bodies(error)

    def _open(self, names: Sequence[str]) -> None:
        self._outputs = dict.fromkeys(names, "")
        model, self._outputs, self._scans = _exposed(self._model, names)
        self._session = Session(model, threads=self._threads, arena=False)

    def _without_bodies(self, error: ModelError) -> None:
        lost = frozenset(self._outputs) - frozenset(self._plain)
        if not lost:
            raise error
        logger.warning("%d tensors inside subgraphs cannot be observed: %s", len(lost), error)
        self.lost = lost
        self._open(self._plain)

    def run(self, feed: Feed, names: Sequence[str]) -> dict[str, list[Array]]:
        """One array for each time a tensor was computed in a run; inputs come from the feed.

        Raises:
            ModelError: onnxruntime fails on these inputs.
        """
        asked = {name: self._outputs[name] for name in names if name in self._outputs}
        given = {name: [feed[name]] for name in names if name in feed}
        if not asked:
            return given
        try:
            found = self._session.run_sequences(feed, list(asked.values()))
        except ModelError as error:
            # A Scan stacks only what has one shape in all iterations.
            self._without_bodies(error)
            return self.run(feed, names)
        for name, output in asked.items():
            depth = self._scans.get(name, 0)
            given[name] = [part for array in found[output] for part in _unstacked(array, depth)]
        return given


def _unstacked(array: Array, scans: int) -> list[Array]:
    return list(array.reshape(-1, *array.shape[scans:])) if scans and array.size else [array]


def observable(model: ir.Model) -> frozenset[str]:
    """Names of the tensors that can be observed.

    A name that two tensors have, in branches beside each other for instance, is left out, and of
    what is inside bodies all that is not float, and what is in an If or Loop inside a Scan.
    """
    return frozenset(_places(model))


def input_key(layer: Layer) -> str:
    """The name of the tensor a layer reads, and where it does if that is in another graph."""
    use = layer.uses[0]
    if layer.op_type == "MatMul":
        value = use.node.inputs[1 - use.index]
    else:
        value = use.node.inputs[1 if layer.op_type == "Gather" else 0]
    name = "" if value is None else value.name or ""
    if value is None or value.graph is use.node.graph:
        return name
    return f"{name}\n{use.node.outputs[0].name}"


def _find(places: Mapping[str, "_Place"], key: str) -> "_Place | None":
    """By a name or an `input_key`."""
    name, _, beside = key.partition("\n")
    place = places.get(name)
    if not beside or place is None or beside not in places:
        return None if beside else place
    inner = places[beside]
    return replace(place, route=inner.route) if place.value.dtype in FLOAT_TYPES else None


def _places(model: ir.Model) -> dict[str, _Place]:
    found: dict[str, _Place] = {}
    times: collections.Counter[str] = collections.Counter()
    for graph, route in _graphs(model.graph, ()):
        values = list(graph.inputs)
        for node in graph:
            values.extend(node.outputs)
        times.update(value.name for value in values if value.name)
        if _passable(model, route):
            found.update(
                (value.name, _Place(value, route))
                for value in values
                if value.name and (not route or value.dtype in FLOAT_TYPES)
            )
    return {name: place for name, place in found.items() if times[name] == 1}


def _graphs(
    graph: ir.Graph, route: tuple[tuple[ir.Node, str], ...]
) -> Iterator[tuple[ir.Graph, tuple[tuple[ir.Node, str], ...]]]:
    """The graph and all bodies in it, each with the way to it."""
    yield graph, route
    for node in graph:
        for attribute in node.attributes.values():
            if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
                yield from _graphs(attribute.as_graph(), (*route, (node, attribute.name)))


def _passable(model: ir.Model, route: Sequence[tuple[ir.Node, str]]) -> bool:
    kinds = [node.op_type for node, _ in route]
    first_scan = kinds.index("Scan") if "Scan" in kinds else len(kinds)
    return not route or (
        standard_opset(model) >= _SEQUENCES_IN_BODIES_OPSET
        and all(is_standard(node) and node.op_type in _BODIES for node, _ in route)
        and all(kind == "Scan" for kind in kinds[first_scan:])
    )


def _exposed(
    model: ir.Model, names: Sequence[str]
) -> tuple[ir.Model, dict[str, str], dict[str, int]]:
    """A copy with the tensors as outputs; the output of each name; how deep each is stacked."""
    copy = model.clone()
    graph = copy.graph
    known = _places(copy)
    outputs = {name: name for name in names}
    present = {value.name for value in graph.outputs}
    with remembered_names(graph):
        found = {name: place for name in names if (place := _find(known, name)) is not None}
        places = {name: _out_of_scans(graph, place) for name, place in found.items()}
        for name, place in places.items():
            if not place.route and place.value.name not in present:
                graph.outputs.append(place.value)
                outputs[name] = place.value.name or ""
        inside = {name: place for name, place in places.items() if place.route}
        threads = _Threads(graph, {})
        starts = {name: threads.step("SequenceEmpty", [], place) for name, place in inside.items()}
        ends = threads.through(graph, inside, {n: node.outputs[0] for n, node in starts.items()})
        prepend(graph, list(starts.values()))
    for name, end in ends.items():
        graph.outputs.append(end)
        outputs[name] = end.name or ""
    return copy, outputs, {name: place.scans for name, place in places.items() if place.scans}


def _out_of_scans(graph: ir.Graph, place: _Place) -> _Place:
    """The tensor stacked over the iterations of the Scans that it is in."""
    while place.route and place.route[-1][0].op_type == "Scan":
        node, attribute = place.route[-1]
        body = node.attributes[attribute].as_graph()
        each = ir.Node("", "Identity", [place.value])
        each.outputs[0].type, each.outputs[0].shape = place.value.type, place.value.shape
        each.outputs[0].name = unique_name(graph, f"{place.value.name}_each")
        body.append(each)
        body.outputs.append(each.outputs[0])
        for name in ("scan_output_axes", "scan_output_directions"):
            if name in node.attributes:
                values = [*node.attributes[name].as_ints(), 0]
                node.attributes.add(ir.AttrInt64s(name, values))
        node.resize_outputs(len(node.outputs) + 1)
        stacked = node.outputs[-1]
        stacked.type = place.value.type
        stacked.name = unique_name(graph, f"{place.value.name}_stacked")
        place = _Place(stacked, place.route[:-1], place.scans + 1)
    return place


@dataclass(frozen=True)
class _Threads:
    """Sequences led through bodies to the tensors that they gather.

    Attributes:
        root: the main graph.
        replaced: outputs of Loops by what stands in their place.
    """

    root: ir.Graph
    replaced: dict[ir.Value, ir.Value]

    def step(self, op_type: str, inputs: Sequence[ir.Value], place: _Place) -> ir.Node:
        """A node that gives a sequence of tensors of the place's type."""
        attributes = []
        if op_type == "SequenceEmpty":
            attributes.append(ir.AttrInt64("dtype", int(_dtype(place))))
        node = ir.Node("", op_type, inputs, attributes)
        self._typed({"": place}, node.outputs)
        return node

    def through(
        self, graph: ir.Graph, places: dict[str, _Place], starts: dict[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """The sequences at the end of a graph, from those at its start; routes begin in it."""
        ends: dict[str, ir.Value] = {}
        nested: dict[ir.Node, dict[str, _Place]] = {}
        for name, place in places.items():
            if place.route:
                nested.setdefault(place.route[0][0], {})[name] = place
        for node, inner in nested.items():
            enter = self._through_loop if node.op_type == "Loop" else self._through_if
            ends.update(enter(node, inner, {name: starts[name] for name in inner}))
        for name, place in places.items():
            if not place.route:
                value = self.replaced.get(place.value, place.value)
                node = self.step("SequenceInsert", [starts[name], value], place)
                graph.append(node)
                ends[name] = node.outputs[0]
        return ends

    def _through_if(
        self, node: ir.Node, places: dict[str, _Place], starts: dict[str, ir.Value]
    ) -> dict[str, ir.Value]:
        for attribute in list(node.attributes.values()):
            branch = attribute.as_graph()
            here = _inside(places, attribute.name)
            ends = self.through(branch, here, starts)
            for name, place in places.items():
                if name not in here:
                    ends[name] = self._handed_on(branch, starts[name], place)
            branch.outputs.extend(ends[name] for name in places)
        count = len(node.outputs)
        node.resize_outputs(count + len(places))
        return self._typed(places, node.outputs[count:])

    def _through_loop(
        self, node: ir.Node, places: dict[str, _Place], starts: dict[str, ir.Value]
    ) -> dict[str, ir.Value]:
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        body = node.attributes["body"].as_graph()
        carried = max(len(node.inputs) - 2, 0)
        heads = self._typed(places, [ir.Value() for _ in places])
        body.inputs.extend(heads.values())
        ends = self.through(body, _inside(places, "body"), heads)
        # Carried values come before scan outputs.
        body.outputs[1 + carried : 1 + carried] = [ends[name] for name in places]
        inputs = [*node.inputs, *[None] * (2 - len(node.inputs)), *starts.values()]
        new = ir.Node(
            "",
            "Loop",
            inputs,
            list(node.attributes.values()),
            num_outputs=len(node.outputs) + len(places),
            name=node.name,
        )
        graph.insert_before(node, [new])
        kept = [*new.outputs[:carried], *new.outputs[carried + len(places) :]]
        for old, own in zip(node.outputs, kept, strict=True):
            own.name, own.type, own.shape = old.name, old.type, old.shape
            ir.convenience.replace_all_uses_with(old, own, replace_graph_outputs=True)
            self.replaced[old] = own
        graph.remove(node, safe=True)
        return self._typed(places, new.outputs[carried : carried + len(places)])

    def _handed_on(self, graph: ir.Graph, start: ir.Value, place: _Place) -> ir.Value:
        """The same sequence from inside the graph; Identity takes sequences from opset 14 only."""
        dtype = _dtype(place)
        zero = ir.Tensor(np.zeros((), dtype.numpy()), dtype=dtype)
        one_more = ir.Node("", "Constant", [], [ir.AttrTensor("value", zero)])
        one_more.outputs[0].name = unique_name(self.root, "one_more")
        longer = self.step("SequenceInsert", [start, one_more.outputs[0]], place)
        same = self.step("SequenceErase", [longer.outputs[0]], place)
        graph.extend([one_more, longer, same])
        return same.outputs[0]

    def _typed(self, places: dict[str, _Place], values: Sequence[ir.Value]) -> dict[str, ir.Value]:
        """The values as sequences of tensors like the places', named after them."""
        found = dict(zip(places, values, strict=True))
        for name, value in found.items():
            value.type = ir.SequenceType(ir.TensorType(_dtype(places[name])))
            value.name = unique_name(self.root, f"{places[name].value.name}_observed")
        return found


def _dtype(place: _Place) -> ir.DataType:
    dtype = place.value.dtype
    assert dtype is not None
    return dtype


def _inside(places: dict[str, _Place], attribute: str) -> dict[str, _Place]:
    """Those in one body of a node, with the way on from there."""
    return {
        name: replace(place, route=place.route[1:])
        for name, place in places.items()
        if place.route[0][1] == attribute
    }
