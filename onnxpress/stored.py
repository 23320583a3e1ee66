"""Constant weights that are no layer of a linear operator, or that are read in several ways.

What is rounded in the file and expanded when the model is loaded is rounded for every reader
alike, so a *stored weight* may be stored in fewer bits whoever reads it: a table that an embedding
and, transposed, the last layer share; a constant of Einsum, Attention or a sum. Passes that change
what a layer computes (its shape, its integers) need a `Layer` instead.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import bodies, graphs_of, is_standard
from onnxpress.layers import FLOAT_TYPES, Layer, Use, find_layers
from onnxpress.recurrent import BIAS, is_recurrent
from onnxpress.scale_axes import Axes, final_uses, is_known_domain, preferred_axes
from onnxpress.storage import stored_bytes

__all__ = ["LEAST_BYTES", "StoredWeight", "beside", "find_stored"]

LEAST_BYTES = 1024
"""Below, scales and nodes take what is saved."""
_INTEGER_WORDS = ("Quant", "QLinear", "QGemm", "QAttention", "NBits", "Integer", "QMoE", "QOrdered")
_JUMPING = frozenset(
    [
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"),
        *("Floor", "Ceil", "Round", "Sign", "Mod", "Cast", "CastLike", "Log", "Reciprocal"),
        *("ArgMax", "ArgMin", "TopK", "NonZero", "Unique", "NonMaxSuppression", "Hardmax"),
    ]
)
"""Operators whose answer may jump at the least change of what they read."""
_ARGUMENTS = {
    "Clip": (1, 2),
    "Div": (1,),
    "Pad": (2,),
    "Resize": (1, 2),
    "RoiAlign": (1,),
    "Upsample": (1,),
}
"""Inputs that say what to do, or that are divided by: not what to do it with."""


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A constant float tensor with all that computes with it.

    Attributes:
        name: the constant's.
        weight: the initializer.
        graph: the graph that owns it.
        uses: nodes that compute with its elements, behind those that only move them.
        axes: sets of axes along which its readers want scales.
        refusal: why its numbers must stay as they are, or `None`.
        in_subgraph: whether a reader lives in an If/Loop/Scan body.
    """

    name: str
    weight: ir.Value
    graph: ir.Graph
    uses: tuple[Use, ...]
    axes: tuple[Axes, ...]
    refusal: str | None
    in_subgraph: bool

    @property
    def op_type(self) -> str:
        """The operator of the first reader."""
        return self.uses[0].node.op_type

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        assert self.weight.const_value is not None
        return tuple(int(dim) for dim in self.weight.const_value.shape.numpy())

    @property
    def nbytes(self) -> int:
        """In the file."""
        return stored_bytes(self.weight)

    @property
    def array(self) -> npt.NDArray[np.floating]:
        """The numbers."""
        assert self.weight.const_value is not None
        return self.weight.const_value.numpy()


def find_stored(model: ir.Model, layers: Collection[Layer] | None = None) -> list[StoredWeight]:
    """All constant float weights that no safe layer is made of, in graph order.

    A weight is a constant of at least `LEAST_BYTES` with more than one axis: what has one is a
    bias, a scale or a window. Biases and first states of recurrent operators have directions too.

    Args:
        model: simplified.
        layers: of the model; found if not given.
    """
    known = find_layers(model) if layers is None else layers
    own = {layer.weight for layer in known if layer.unsafe is None}
    order = {id(node): place for place, node in enumerate(model.graph.all_nodes())}
    fixed = _fixed(model)
    found: list[StoredWeight] = []
    for graph in graphs_of(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or value.dtype not in FLOAT_TYPES or tensor.nbytes < LEAST_BYTES:
                continue
            shape = [int(dim) for dim in tensor.shape.numpy()]
            several = sum(size > 1 for size in shape) > 1
            if not several or value in own or not _never_changes(value):
                continue
            uses = tuple(Use(node, index) for node, index in final_uses(value))
            if not uses or all(_is_bias(use) for use in uses):
                continue
            inside = any(use.node.graph is not model.graph for use in uses)
            axes = tuple(preferred_axes(value, shape))
            refusal = _refusal(value, uses, fixed)
            found.append(StoredWeight(value.name or "", value, graph, uses, axes, refusal, inside))
    found.sort(key=lambda item: (min(order.get(id(u.node), 0) for u in item.uses), item.name))
    return found


def beside(
    layers: Sequence[Layer], stored: Sequence[StoredWeight]
) -> tuple[Layer | StoredWeight, ...]:
    """All weights: layers, and stored weights that are none of them."""
    named = {layer.name for layer in layers}
    return (*layers, *(item for item in stored if item.name not in named))


def _is_bias(use: Use) -> bool:
    return is_recurrent(use.node) and use.index >= BIAS


def _fixed(model: ir.Model) -> set[ir.Value]:
    """Everything that is computed from constants alone, which a runtime does once."""
    found: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        given = [value for value in node.inputs if value is not None]
        known = all(value in found or _never_changes(value) for value in given)
        if given and known and not bodies(node):
            found.update(node.outputs)
    return found


def _never_changes(value: ir.Value) -> bool:
    """Without reading it."""
    return value.const_value is not None and not value.is_graph_input()


def _refusal(value: ir.Value, uses: tuple[Use, ...], fixed: Collection[ir.Value]) -> str | None:
    if any(moved.is_graph_output() for moved in _moved(value)):
        return "it is an output of the graph [L003]"
    for node, index in ((use.node, use.index) for use in uses):
        kind = node.op_type
        if not is_known_domain(node):
            return f"the custom operator {kind} reads it, and may need it as it is [L015]"
        if any(word in kind for word in _INTEGER_WORDS):
            return f"it belongs to the integers of {kind} [L015]"
        if is_standard(node) and (kind in _JUMPING or index in _ARGUMENTS.get(kind, ())):
            return f"{kind} reads it, whose answer may jump at the least change [L015]"
        if all(v is None or v in fixed or _never_changes(v) for v in node.inputs):
            return "it is part of a weight that is computed from constants [L015]"
    return None


def _moved(value: ir.Value) -> Iterator[ir.Value]:
    """A value and what only holds its elements in another place."""
    yield value
    final = {node for node, _ in final_uses(value)}
    for node, _ in value.uses():
        if node not in final:
            for output in node.outputs:
                yield from _moved(output)
