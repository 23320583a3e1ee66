"""Weights stored in half, and computed with as float32: a Cast that is done when a model is loaded.

The weight is constant, so onnxruntime folds its Cast when it opens the model: kernels, speed and
answers are those of float32 with rounded weights (`storage.half_form`), whatever the provider
computes in. What is divided by a power of two is multiplied again behind the Cast.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.conversion.shares import Answers, answers, decibels, left_out
from onnxpress.graph import Names, add_initializer, graphs_of, replace_initializer, standard_opset
from onnxpress.runtime import Feed, Session
from onnxpress.storage import BFLOAT16_OPSET, HalfForm, HalfStorage, half_form, is_large

__all__ = ["AIM_DB", "Stored", "chosen_storage", "stored_in_half"]

AIM_DB = 58.0
"""What half weights shall leave of every output on the choosing samples that lose most."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a weight.

    Attributes:
        name: the weight's.
        form: `float16`, `scaled float16`, `bfloat16`, or empty where it stays in float32.
        reason: why it is not plain float16; empty where it is.
        exact: whether nothing was rounded.
    """

    name: str
    form: str
    reason: str = ""
    exact: bool = False


def stored_in_half(
    model: ir.Model, without: Collection[str] = (), *, storage: HalfStorage | None = None
) -> tuple[ir.Model, tuple[Stored, ...]]:
    """A copy with its large float32 weights in half, in bodies too, and what became of each.

    Args:
        model: not changed.
        without: names of weights that stay.
        storage: which weights; `None`: all that have more than one axis.
    """
    copy = model.clone()
    names, found = Names(copy), []
    wide = standard_opset(copy) >= BFLOAT16_OPSET
    for graph in graphs_of(copy.graph):
        for value in list(graph.initializers.values()):
            chosen = _is_weight(value) if storage is None else storage.includes(value)
            if not chosen or value.name in without:
                continue
            assert value.const_value is not None
            array = value.const_value.numpy()
            form = half_form(array, bfloat16=wide)
            reason = "" if form is not None and form.kind == "float16" else _range(array)
            kind, exact = ("", False) if form is None else (form.kind, form.exact)
            found.append(Stored(value.name or "", kind, reason, exact))
            if form is not None:
                _write(names, graph, value, form)
    return copy, tuple(found)


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    free = not (value.is_graph_input() or value.is_graph_output())
    return tensor is not None and value.dtype == ir.DataType.FLOAT and free and is_large(tensor)


def _range(array: npt.NDArray[np.generic]) -> str:
    sizes = np.abs(array[np.isfinite(array)])
    smallest = float(sizes[sizes > 0].min(initial=np.inf))
    return f"its numbers lie between {smallest:.3g} and {float(sizes.max(initial=0.0)):.3g}"


def chosen_storage(
    model: ir.Model, feeds: Sequence[Feed], *, storage: HalfStorage | None = None
) -> tuple[ir.Model, tuple[Stored, ...], dict[str, float]]:
    """As `stored_in_half`, without the weights that lose too much, and what dB each leaves alone.

    Args:
        model: not changed.
        feeds: samples to choose by; without any all weights are taken.
        storage: which weights; `None`: all that have more than one axis.

    Raises:
        ModelError: onnxruntime cannot run the model or what was made of it.
    """
    made, found = stored_in_half(model, storage=storage)
    everything = [weight.name for weight in found if weight.form and not weight.exact]
    if not feeds or not everything:
        return made, found, {}
    sizes = {name: tensor.nbytes for name, tensor in _tensors(model).items()}

    def changed(names: Collection[str], some: Sequence[Feed]) -> Answers:
        return without(set(everything).difference(names), some)

    def without(names: Collection[str], some: Sequence[Feed]) -> Answers:
        return answers(Session(stored_in_half(model, names, storage=storage)[0]), some)

    wanted = answers(Session(model), feeds)
    costly, _ = left_out(everything, changed, without, wanted, feeds, AIM_DB, sizes.__getitem__)
    made, found = stored_in_half(model, costly, storage=storage)
    return made, found, {name: decibels(part) for name, part in costly.items()}


def _tensors(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    graphs = graphs_of(model.graph)
    return {
        value.name or "": value.const_value
        for graph in graphs
        for value in graph.initializers.values()
        if value.const_value is not None
    }


def _write(names: Names, graph: ir.Graph, value: ir.Value, form: HalfForm) -> None:
    """Put half numbers, a Cast and a power of two in the place of a weight."""
    name = value.name or ""
    half = add_initializer(names, graph, f"{name}_half", form.numbers)
    nodes = [ir.node("Cast", [half], {"to": ir.DataType.FLOAT}, name=names.free(f"{name}_cast"))]
    if form.exponent:
        scale = np.ldexp(np.float32(1), form.exponent)
        factor = add_initializer(names, graph, f"{name}_scale", scale)
        nodes[0].outputs[0].name = names.free(f"{name}_small")
        nodes.append(
            ir.node("Mul", [nodes[0].outputs[0], factor], name=names.free(f"{name}_scaling"))
        )
    whole = nodes[-1].outputs[0]
    for node in nodes:
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    replace_initializer(graph, value, nodes, whole)
