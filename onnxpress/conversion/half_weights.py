"""Weights that a file stores in half behind a Cast: float32 in between, then half again.

Passes look for weights where operators read them; behind a Cast they would only be stored data.
So such a model is opened with float32 weights, which are the same numbers, and says so (`storage`);
what is float32 in the end is stored in half again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxpress.conversion.half_storage import chosen_storage
from onnxpress.graph import Names, graphs_of, is_standard
from onnxpress.runtime import Feed
from onnxpress.spill import kept
from onnxpress.storage import (
    LEAST_BYTES,
    HalfStorage,
    known_exact,
    note_storage,
    storage_of,
)

__all__ = ["chosen_again", "stored_again", "with_float_weights"]

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_MOVING = frozenset(["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"])
"""Operators that hold the elements of their first input in another place."""


def with_float_weights(model: ir.Model) -> ir.Model:
    """A copy with float32 weights where a Cast made them so; the same model where none did.

    Functions are written out where a Cast in one of them may read a weight. A weight that is read
    in half too stays as it is: both would be stored.
    """
    if not any(_is_cast(node) for graph in _all_graphs(model) for node in graph):
        return model
    copy = model.clone()
    if any(_is_cast(node) for function in copy.functions.values() for node in function):
        InlinePass()(copy)
    found = [
        halves
        for graph in graphs_of(copy.graph)
        for value in _constants(graph)
        if (halves := _read_as_float(value)) is not None
    ]
    if not found:
        return model
    half = frozenset(_widen(Names(copy), halves) for halves in found)
    note_storage(copy, _storage(copy, half))
    return copy


def stored_again(model: ir.Model) -> ir.Model:
    """A model that came with weights in half, with what is float32 in half."""
    return chosen_again(model, ())[0]


def chosen_again(model: ir.Model, feeds: Sequence[Feed]) -> tuple[ir.Model, tuple[str, ...]]:
    """As `stored_again`, without the weights in which folding left more than half holds.

    Args:
        model: not changed; the model itself is given back where it did not come so.
        feeds: samples to choose by; without any all weights are stored.

    Returns:
        The model, and names of weights that stay in float32.

    Raises:
        ModelError: onnxruntime cannot run the model or what was made of it.
    """
    storage = storage_of(model.graph)
    if storage is None:
        return model, ()
    made, _, costly = chosen_storage(model, feeds, storage=storage)
    note_storage(made, None)
    return made, tuple(costly)


def _all_graphs(model: ir.Model) -> Sequence[ir.Graph | ir.Function]:
    return (*graphs_of(model.graph), *model.functions.values())


@dataclass(frozen=True, slots=True)
class _Halves:
    """A half constant of which only Casts to float32 are read.

    Attributes:
        value: the constant, or what a node Constant gives.
        moved: what holds its elements in another place.
        casts: to float32.
    """

    value: ir.Value
    moved: tuple[ir.Value, ...]
    casts: tuple[ir.Node, ...]


def _is_cast(node: ir.Node) -> bool:
    to = node.attributes.get("to")
    single = to is not None and not to.is_ref() and to.as_int() == ir.DataType.FLOAT
    return is_standard(node) and node.op_type == "Cast" and single


def _constants(graph: ir.Graph) -> list[ir.Value]:
    """Half constants of a graph: its initializers, and what nodes Constant give."""
    found = [value for value in graph.initializers.values() if not value.is_graph_input()]
    found += [node.outputs[0] for node in graph if node.op_type == "Constant"]
    return [value for value in found if _tensor(value) is not None]


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The numbers of a half constant; `None` of anything else."""
    tensor, node = value.const_value, value.producer()
    if node is not None:
        given = node.attributes.get("value")
        known = given is not None and not given.is_ref()
        tensor = given.as_tensor() if given is not None and known else None
    return tensor if tensor is not None and tensor.dtype in _HALVES else None


def _read_as_float(value: ir.Value) -> _Halves | None:
    moved: list[ir.Value] = []
    casts: list[ir.Node] = []
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current.is_graph_output():
            return None
        for node, index in current.uses():
            if _is_cast(node) and not node.outputs[0].is_graph_output():
                casts.append(node)
            elif is_standard(node) and node.op_type in _MOVING and index == 0:
                moved.append(node.outputs[0])
                waiting.append(node.outputs[0])
            else:
                return None
    return _Halves(value, tuple(moved), tuple(casts)) if casts else None


def _widen(names: Names, halves: _Halves) -> str:
    """Put float32 numbers in the place of half ones and their Casts; the weight's name."""
    value, (first, *_) = halves.value, halves.casts
    producer, tensor = value.producer(), _tensor(value)
    assert tensor is not None
    home = value.graph if producer is None else producer.graph
    assert isinstance(home, ir.Graph)
    # As the float model would call it, unless others of that name are in sight.
    alone = first.inputs[0] is value and first.graph is home
    name = first.outputs[0].name if alone else names.free(f"{value.name}_float")
    single = ir.TensorType(ir.DataType.FLOAT)
    wide = ir.Tensor(tensor.numpy().astype(np.float32), name=name)
    weight = ir.Value(
        name=name,
        type=single,
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=known_exact(kept(names.root, wide)),
    )
    for moved in halves.moved:
        moved.type = single
    for cast in halves.casts:
        source = cast.inputs[0]
        assert source is not None
        assert cast.graph is not None
        ir.convenience.replace_all_uses_with(cast.outputs[0], source)
        cast.graph.remove(cast, safe=True)
    ir.convenience.replace_all_uses_with(value, weight)
    if producer is None:
        del home.initializers[value.name or ""]
    else:
        home.remove(producer, safe=True)
    home.register_initializer(weight)
    return name or ""


def _storage(model: ir.Model, half: frozenset[str]) -> HalfStorage:
    sizes = {
        value.name or "": value.const_value.nbytes
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT
    }
    whole = {name: size for name, size in sizes.items() if name not in half and size >= LEAST_BYTES}
    usual = sum(sizes[name] for name in half) > sum(whole.values())
    return HalfStorage(half, frozenset(whole), usual)
