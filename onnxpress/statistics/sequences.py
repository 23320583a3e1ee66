"""Lead a sequence through If and Loop bodies to each tensor inside that is to be gathered.

The sequences are those of ONNX's own operators (Sequence* from opset 11, in If and Loop from 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names

__all__ = ["Place", "Threads"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is.

    Attributes:
        value: the tensor.
        route: node and attribute of every body around it, from the outside in.
        scans: how many leading axes of `value` count the iterations of Scans.
    """

    value: ir.Value
    route: tuple[tuple[ir.Node, str], ...] = ()
    scans: int = 0


@dataclass(frozen=True)
class Threads:
    """Sequences led through bodies to the tensors that they gather.

    Attributes:
        names: that are free in the model.
        replaced: outputs of Loops by what stands in their place.
    """

    names: Names
    replaced: dict[ir.Value, ir.Value]

    def step(self, op_type: str, inputs: Sequence[ir.Value], place: Place) -> ir.Node:
        """A node that gives a sequence of tensors of the place's type."""
        attributes = []
        if op_type == "SequenceEmpty":
            attributes.append(ir.AttrInt64("dtype", int(dtype_of(place))))
        node = ir.Node("", op_type, inputs, attributes)
        self._typed({"": place}, node.outputs)
        return node

    def through(
        self, graph: ir.Graph, places: dict[str, Place], starts: dict[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """The sequences at the end of a graph, from those at its start; routes begin in it."""
        ends: dict[str, ir.Value] = {}
        nested: dict[ir.Node, dict[str, Place]] = {}
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
        self, node: ir.Node, places: dict[str, Place], starts: dict[str, ir.Value]
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
        self, node: ir.Node, places: dict[str, Place], starts: dict[str, ir.Value]
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

    def _handed_on(self, graph: ir.Graph, start: ir.Value, place: Place) -> ir.Value:
        """The same sequence from inside the graph; Identity takes sequences from opset 14 only."""
        dtype = dtype_of(place)
        zero = ir.Tensor(np.zeros((), dtype.numpy()), dtype=dtype)
        one_more = ir.Node("", "Constant", [], [ir.AttrTensor("value", zero)])
        one_more.outputs[0].name = self.names.free("one_more")
        longer = self.step("SequenceInsert", [start, one_more.outputs[0]], place)
        same = self.step("SequenceErase", [longer.outputs[0]], place)
        graph.extend([one_more, longer, same])
        return same.outputs[0]

    def _typed(self, places: dict[str, Place], values: Sequence[ir.Value]) -> dict[str, ir.Value]:
        """The values as sequences of tensors like the places', named after them."""
        found = dict(zip(places, values, strict=True))
        for name, value in found.items():
            value.type = ir.SequenceType(ir.TensorType(dtype_of(places[name])))
            value.name = self.names.free(f"{places[name].value.name}_observed")
        return found


def dtype_of(place: Place) -> ir.DataType:
    dtype = place.value.dtype
    assert dtype is not None
    return dtype


def _inside(places: dict[str, Place], attribute: str) -> dict[str, Place]:
    """Those in one body of a node, with the way on from there."""
    return {
        name: replace(place, route=place.route[1:])
        for name, place in places.items()
        if place.route[0][1] == attribute
    }
