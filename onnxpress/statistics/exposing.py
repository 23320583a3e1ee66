"""Observe tensors by name, also those inside If, Loop and Scan bodies.

Tensors of the main graph become outputs of a copy. A tensor inside bodies is put into a sequence
that travels from body to body: it starts empty in the main graph, every run of the tensor's body
appends to it (SequenceInsert), Loops carry it from iteration to iteration, branches of an If that
do not hold the tensor hand it on. At the end it holds one array for each time the body ran, of
whatever shape; none where the branch was never taken. A Scan cannot carry sequences: there the
tensor becomes a scan output, stacked along a new first axis, which is taken apart again.

What a body reads of the graphs around it is seen as often as the body runs, if it is asked for by
its `input_key`; by its name, as often as it is computed. What R of a recurrent operator multiplies
is no tensor of the model, and is put together from what is (`states.py`).
"""

import collections
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress.graph import Names, is_standard, prepend, standard_opset
from onnxpress.layers import FLOAT_TYPES, Layer
from onnxpress.recurrent import HIDDEN_WEIGHT, is_recurrent, why_states_are_unseen
from onnxpress.runtime import Array, Feed, Session
from onnxpress.statistics.sequences import Place, Threads
from onnxpress.statistics.states import STATES, add_states, states_key

__all__ = ["Observer", "input_key", "observable", "outermost"]

logger = logging.getLogger(__name__)

_BODIES = ("If", "Loop", "Scan")
_SEQUENCES_IN_BODIES_OPSET = 13


class Observer:
    """A session of a copy of a model that gives tensors by name.

    Attributes:
        names: what it gives.
        lost: what is in bodies and onnxruntime turned out unable to give; what it gave of them
            before is incomplete.
    """

    def __init__(
        self,
        model: ir.Model,
        names: Sequence[str],
        *,
        threads: int = 0,
        optimize: bool = True,
    ) -> None:
        """Open it.

        Args:
            model: not changed.
            names: of tensors, or `input_key`s; what is not `observable` is never given.
            threads: of onnxruntime.
            optimize: whether onnxruntime may fuse nodes; without, a part of a model gives the same
                bits as the whole.
        """
        self._optimize = optimize
        self.lost: frozenset[str] = frozenset()
        self._model, self._threads = model, threads
        inputs = {value.name for value in model.graph.inputs}
        places = _places(model)
        found = {name: place for name in names if (place := _find(places, name)) is not None}
        self.names = frozenset(found)
        made = [name for name in found if name not in inputs]
        self._plain = [name for name in made if not found[name].route]
        self._outputs: dict[str, str] = {}
        if not made:
            # All of it is fed.
            return
        try:
            self._open(made)
        except ModelError as error:
            self._without_bodies(error)

    def _open(self, names: Sequence[str]) -> None:
        self._outputs = dict.fromkeys(names, "")
        model, self._outputs, self._scans = _exposed(self._model, names)
        self._session = Session(model, threads=self._threads, arena=False, optimize=self._optimize)

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
    """Names of the tensors that can be observed, and the keys of hidden states.

    A name that two tensors have, in branches beside each other for instance, is left out, and of
    what is inside bodies all that is not float, and what is in an If or Loop inside a Scan.
    """
    return frozenset(_places(model))


def outermost(model: ir.Model, keys: Iterable[str]) -> dict[str, str]:
    """For names and keys, the tensor of the main graph whose node computes what they stand for.

    What is not `observable` is left out.
    """
    places = _places(model)
    found: dict[str, str] = {}
    for key in keys:
        place = _find(places, key)
        if place is not None:
            values = place.route[0][0].outputs if place.route else (place.value,)
            found[key] = next(value.name for value in values if value.name)
    return found


def input_key(layer: Layer) -> str:
    """The name of the tensor a layer reads, and where it does if that is in another graph.

    For R of a recurrent operator the `states_key`.
    """
    use = layer.uses[0]
    if is_recurrent(use.node) and use.index == HIDDEN_WEIGHT:
        return states_key(use.node) or ""
    if layer.op_type == "MatMul":
        value = use.node.inputs[1 - use.index]
    else:
        value = use.node.inputs[1 if layer.op_type == "Gather" else 0]
    name = "" if value is None else value.name or ""
    if value is None or value.graph is use.node.graph:
        return name
    # Optional outputs that nothing reads have no name.
    beside = next((output.name for output in use.node.outputs if output.name), "")
    return f"{name}\n{beside}"


def _find(places: Mapping[str, Place], key: str) -> "Place | None":
    """By a name or an `input_key`."""
    if key.startswith(STATES):
        return places.get(key)
    name, _, beside = key.partition("\n")
    place = places.get(name)
    if not beside or place is None or beside not in places:
        return None if beside else place
    inner = places[beside]
    return replace(place, route=inner.route) if place.value.dtype in FLOAT_TYPES else None


def _places(model: ir.Model) -> dict[str, Place]:
    found: dict[str, Place] = {}
    times: collections.Counter[str] = collections.Counter()
    for graph, route in _graphs(model.graph, ()):
        values = list(graph.inputs)
        states: dict[str, ir.Value] = {}
        for node in graph:
            values.extend(node.outputs)
            key = states_key(node) if is_recurrent(node) else None
            if key is not None and why_states_are_unseen(node) is None:
                # Any of its outputs stands for the node.
                states[key] = next(value for value in node.outputs if value.name)
        times.update(value.name for value in values if value.name)
        times.update(list(states))
        if _passable(model, route):
            found.update((key, Place(value, route)) for key, value in states.items())
            found.update(
                (value.name, Place(value, route))
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
    free = Names(copy)
    found = {name: place for name in names if (place := _find(known, name)) is not None}
    for name, place in found.items():
        node = place.value.producer()
        if name.startswith(STATES) and node is not None:
            states = add_states(free, node, standard_opset(copy))
            found[name] = replace(place, value=states)
    places = {name: _out_of_scans(free, place) for name, place in found.items()}
    for name, place in places.items():
        if not place.route and place.value.name not in present:
            graph.outputs.append(place.value)
            outputs[name] = place.value.name or ""
    inside = {name: place for name, place in places.items() if place.route}
    threads = Threads(free, {})
    starts = {name: threads.step("SequenceEmpty", [], place) for name, place in inside.items()}
    ends = threads.through(graph, inside, {n: node.outputs[0] for n, node in starts.items()})
    prepend(graph, list(starts.values()))
    for name, end in ends.items():
        graph.outputs.append(end)
        outputs[name] = end.name or ""
    return copy, outputs, {name: place.scans for name, place in places.items() if place.scans}


def _out_of_scans(names: Names, place: Place) -> Place:
    """The tensor stacked over the iterations of the Scans that it is in."""
    while place.route and place.route[-1][0].op_type == "Scan":
        node, attribute = place.route[-1]
        body = node.attributes[attribute].as_graph()
        each = ir.Node("", "Identity", [place.value])
        each.outputs[0].type, each.outputs[0].shape = place.value.type, place.value.shape
        each.outputs[0].name = names.free(f"{place.value.name}_each")
        body.append(each)
        body.outputs.append(each.outputs[0])
        for given in ("scan_output_axes", "scan_output_directions"):
            if given in node.attributes:
                values = [*node.attributes[given].as_ints(), 0]
                node.attributes.add(ir.AttrInt64s(given, values))
        node.resize_outputs(len(node.outputs) + 1)
        stacked = node.outputs[-1]
        stacked.type = place.value.type
        stacked.name = names.free(f"{place.value.name}_stacked")
        place = Place(stacked, place.route[:-1], place.scans + 1)
    return place
