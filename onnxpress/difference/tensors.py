"""The tensors of a model that depend on its inputs, in the order in which they are computed.

Constants, and what is computed from constants alone, differ between files that compute the same:
they are no tensors here. A tensor inside an If body can be replaced from outside (`forcible`), as
its body runs once; one inside a Loop or Scan can only be observed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, ShapeInferencePass

from onnxpress.difference.quantized import show_real_values
from onnxpress.errors import ModelError
from onnxpress.graph import (
    RANDOM_OPERATORS,
    Names,
    bodies,
    graphs_of,
    is_standard,
    name_nodes_apart,
)

__all__ = ["Tensor", "Tensors", "prepared", "random_nodes", "stretch", "tensors_of"]

_REPEATED = ("Loop", "Scan")


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor that depends on the inputs.

    Attributes:
        name: unique in the model, bodies included.
        node: what computes it; `None` for an input of the model or of a body.
        position: in the order of computation.
        reads: a name for every input of the node, empty for a constant; then what it gives on
            from bodies.
        forcible: whether its consumers can be given another value from outside.
    """

    name: str
    node: ir.Node | None
    position: int
    reads: tuple[str, ...]
    forcible: bool

    @property
    def op_type(self) -> str:
        """Of the node; empty for inputs."""
        return "" if self.node is None else self.node.op_type


@dataclass(frozen=True, slots=True)
class Tensors:
    """A prepared model and its tensors.

    Attributes:
        model: with a name for every node and for every value.
        by_name: all tensors in the order of computation.
    """

    model: ir.Model
    by_name: Mapping[str, Tensor]

    @property
    def inputs(self) -> list[str]:
        """Names of the model's inputs that are no constants."""
        return [value.name or "" for value in self.model.graph.inputs if value.name in self.by_name]

    def readers(self) -> dict[str, list[Tensor]]:
        """The tensors that are computed from each."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.by_name}
        for tensor in self.by_name.values():
            for name in dict.fromkeys(tensor.reads):
                if name:
                    found[name].append(tensor)
        return found


def prepared(model: ir.Model, source: str) -> ir.Model:
    """A copy with functions inlined, types worked out, and a name for every node and value.

    Raises:
        ModelError: types or functions contradict each other.
    """
    copy = model.clone()
    try:
        if copy.functions:
            copy = InlinePass()(copy).model
        copy = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(copy).model
    except (ValueError, RuntimeError, ir.passes.PassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{source}: its shapes cannot be worked out: {reason} [M008]") from error
    _name_values_apart(copy)
    show_real_values(copy)
    name_nodes_apart(copy)
    return copy


def _name_values_apart(model: ir.Model) -> None:
    """Bodies beside each other may use a name twice; the later ones get a number behind it."""
    free, taken = Names(model), set()
    for graph in graphs_of(model.graph):
        for value in (*graph.inputs, *(out for node in graph for out in node.outputs)):
            if not value.name:
                continue
            if value.name in taken:
                value.name = free.free(value.name)
            taken.add(value.name)


def tensors_of(model: ir.Model) -> Tensors:
    """All tensors of a prepared model that depend on its inputs or are drawn at random."""
    found: dict[str, Tensor] = {}
    for value in model.graph.inputs:
        if value.name and value.name not in model.graph.initializers:
            found[value.name] = Tensor(value.name, None, len(found), (), forcible=False)
    _walk(model.graph, found, forcible=True)
    return Tensors(model, found)


def _walk(graph: ir.Graph, found: dict[str, Tensor], *, forcible: bool) -> None:
    for node in graph:
        inner = forcible and node.op_type not in _REPEATED
        for body in bodies(node):
            # What a body is given each time it runs stands for what the node reads.
            for value in body.inputs:
                if value.name:
                    reads = tuple(n for n in _names(node.inputs, found) if n)
                    found[value.name] = Tensor(value.name, None, len(found), reads, forcible=False)
            _walk(body, found, forcible=inner)
        reads = _names(node.inputs, found)
        for index, value in enumerate(node.outputs):
            inside = _handed_on(node, index, found)
            if value.name and (any(reads) or inside or _is_random(node)):
                found[value.name] = Tensor(
                    value.name, node, len(found), (*reads, *inside), forcible=forcible
                )


def _names(values: Sequence[ir.Value | None], found: Mapping[str, Tensor]) -> tuple[str, ...]:
    names = [(value.name or "") if value is not None else "" for value in values]
    return tuple(name if name in found else "" for name in names)


def _handed_on(node: ir.Node, index: int, found: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What bodies give as this output: of an If exactly that, of a Loop or Scan any of theirs."""
    names = []
    for body in bodies(node):
        given = body.outputs if node.op_type in _REPEATED else body.outputs[index : index + 1]
        names += [name for name in _names(tuple(given), found) if name]
    return tuple(names)


def _is_random(node: ir.Node) -> bool:
    return is_standard(node) and node.op_type in RANDOM_OPERATORS


def random_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes that draw other numbers in every run: those without a seed."""
    return [
        node
        for node in model.graph.all_nodes()
        if (_is_random(node) and "seed" not in node.attributes) or _drops_out(node)
    ]


def _drops_out(node: ir.Node) -> bool:
    """A Dropout that is left in training mode, without a seed."""
    if not is_standard(node) or node.op_type != "Dropout" or "seed" in node.attributes:
        return False
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None or mode.const_value is None:
        return False
    return bool(mode.const_value.numpy().any())


def stretch(tensors: Tensors, name: str, paired: Iterable[str]) -> list[Tensor]:
    """The tensors from the last paired ones to this one, in the order of computation."""
    stops = set(paired)
    found = {name: tensors.by_name[name]}
    waiting = [name]
    while waiting:
        for read in tensors.by_name[waiting.pop()].reads:
            if read and read not in stops and read not in found:
                found[read] = tensors.by_name[read]
                waiting.append(read)
    return sorted(found.values(), key=lambda tensor: tensor.position)
