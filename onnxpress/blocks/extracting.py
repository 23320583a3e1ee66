"""Parts of a model as models of their own: from tensors that are known to tensors that are wanted.

Whatever a part needs goes with it: initializers, shared ones too, what is computed of constants,
functions, and what its bodies capture. Its nodes keep their names and order.
"""

from collections.abc import Container, Iterable

import onnx_ir as ir

from onnxpress.blocks.reading import constant_values, reads
from onnxpress.graph import bodies

__all__ = ["Parts"]

_FIRST_WITH_CONSTANTS = 4
"""The IR version from which on initializers need not be inputs."""


class Parts:
    """A model, looked over once so that each part costs no more than its own nodes.

    Attributes:
        model: not changed, nor to be changed meanwhile.
        values: of the main graph, by name.
        constants: those computed of constants alone.
    """

    def __init__(self, model: ir.Model) -> None:
        """Look it over."""
        self.model = model
        graph = model.graph
        self.constants = constant_values(graph)
        self.values: dict[str, ir.Value] = {
            value.name: value
            for value in (*graph.inputs, *graph.initializers.values())
            if value.name
        }
        self.order: dict[ir.Node, int] = {}
        for place, node in enumerate(graph):
            self.order[node] = place
            self.values.update((value.name, value) for value in node.outputs if value.name)

    def frontier(self, known: Container[str], wanted: Iterable[ir.Value]) -> frozenset[str]:
        """Names of the known tensors that are enough to compute what is wanted."""
        return frozenset(v.name or "" for v in self._needed(known, wanted)[1] if v.name in known)

    def computed(self, known: Container[str], wanted: Iterable[ir.Value]) -> frozenset[str]:
        """Names of all tensors that are computed, in bodies too, from known ones to wanted ones."""
        nodes, waiting = self._needed(known, wanted)[0], list[ir.Node]()
        names: set[str] = set()
        waiting += nodes
        while waiting:
            node = waiting.pop()
            names.update(value.name or "" for value in node.outputs)
            for body in bodies(node):
                waiting.extend(body)
        return frozenset(names)

    def part(self, known: Container[str], wanted: Iterable[ir.Value]) -> ir.Model:
        """A model that takes known tensors, and inputs of the model, and gives what is wanted.

        Args:
            known: names of tensors that need not be computed.
            wanted: values of the main graph; known ones are given as they come.
        """
        outputs = list(wanted)
        nodes, inputs, held = self._needed(known, outputs)
        view = ir.GraphView(
            inputs,
            outputs,
            nodes=sorted(nodes, key=self.order.__getitem__),
            initializers=held,
            opset_imports=dict(self.model.graph.opset_imports),
            name=self.model.graph.name,
        )
        graph = view.clone()
        # Types of maps are kept there; see `beyond_ir`.
        graph.meta.update(self.model.graph.meta)
        return ir.Model(
            graph,
            ir_version=max(self.model.ir_version, _FIRST_WITH_CONSTANTS),
            functions=self._functions(nodes),
        )

    def _needed(
        self, known: Container[str], wanted: Iterable[ir.Value]
    ) -> tuple[list[ir.Node], list[ir.Value], list[ir.Value]]:
        """Nodes, where the way back to what is known or given ends, and initializers."""
        nodes: dict[ir.Node, None] = {}
        ends: dict[ir.Value, None] = {}
        held: dict[ir.Value, None] = {}
        waiting = list(wanted)
        while waiting:
            value = waiting.pop()
            node = value.producer()
            if value.is_initializer():
                held[value] = None
            if value.is_graph_input() or (node is not None and value.name in known):
                ends[value] = None
            elif node is not None and node not in nodes:
                nodes[node] = None
                waiting.extend(reads(node))
        # A node that runs for another of its outputs gives this one too: no name is defined twice.
        open_ends = (value for value in ends if value.producer() not in nodes)
        by_name = sorted(open_ends, key=lambda value: value.name or "")
        return list(nodes), by_name, sorted(held, key=lambda value: value.name or "")

    def _functions(self, nodes: Iterable[ir.Node]) -> list[ir.Function]:
        """Those that nodes call, and those these call."""
        every = self.model.functions
        found: dict[ir.OperatorIdentifier, ir.Function] = {}
        waiting = list(nodes) if every else []
        while waiting:
            node = waiting.pop()
            key = node.op_identifier()
            if key in every and key not in found:
                found[key] = every[key]
                waiting.extend(every[key])
            for body in bodies(node):
                waiting.extend(body)
        return [found[key] for key in sorted(found)]
