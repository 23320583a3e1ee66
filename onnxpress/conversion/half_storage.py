"""Weights stored in half, and computed with as float32: a Cast that is done when a model is loaded.

The weight is constant, so onnxruntime folds its Cast when it opens the model: kernels, speed and
answers are those of float32 with rounded weights, whatever the provider computes in. Rounding to
half (11 bits of fraction) leaves about 73 dB of a weight. What is beyond its range is divided by a
power of two, which is exact, and multiplied again behind the Cast; where a weight's own range is
too wide for that, bfloat16 holds it, with 8 bits of fraction, about 55 dB; else it stays as it is.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.conversion.shares import Answers, answers, decibels, left_out
from onnxpress.graph import Names, add_initializer, graphs_of, replace_initializer, standard_opset
from onnxpress.runtime import Feed, Session

__all__ = ["AIM_DB", "Stored", "chosen_storage", "stored_in_half"]

AIM_DB = 58.0
"""What half weights shall leave of every output on the choosing samples that lose most."""

_LEAST_BYTES = 512
"""Of a float32 weight: below, a Cast takes more than is saved."""
_LEAST_AXES = 2
"""Biases and scales have one: they are few bytes and lose as much as weights."""
_LEAST_DB = 60.0
"""That a weight keeps as a whole, and each of its rows that is not tiny."""
_BFLOAT16_DB = 48.0
_NOTHING = 2.0**-60
"""Of the other rows' size: what a row has to be below for it not to count."""
_BFLOAT16_OPSET = 13
_TOP_EXPONENT = 14
"""Scaled weights end below 2^15, half ends at 65504."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a weight.

    Attributes:
        name: the weight's.
        form: `float16`, `scaled float16`, `bfloat16`, or empty where it stays in float32.
        reason: why it is not plain float16; empty where it is.
    """

    name: str
    form: str
    reason: str = ""


def stored_in_half(
    model: ir.Model, without: Collection[str] = ()
) -> tuple[ir.Model, tuple[Stored, ...]]:
    """A copy with its large float32 weights in half, in bodies too, and what became of each.

    Args:
        model: not changed.
        without: names of weights that stay.
    """
    copy = model.clone()
    names, found = Names(copy), []
    can_be_bfloat16 = standard_opset(copy) >= _BFLOAT16_OPSET
    for graph in graphs_of(copy.graph):
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if (
                tensor is None
                or value.dtype != ir.DataType.FLOAT
                or tensor.nbytes < _LEAST_BYTES
                or sum(size > 1 for size in tensor.shape.numpy()) < _LEAST_AXES
                or value.is_graph_input()
                or value.is_graph_output()
                or value.name in without
            ):
                continue
            stored, array, exponent = _form(value, can_be_bfloat16)
            found.append(stored)
            if array is not None:
                _write(names, graph, value, array, exponent)
    return copy, tuple(found)


def chosen_storage(
    model: ir.Model, feeds: Sequence[Feed]
) -> tuple[ir.Model, tuple[Stored, ...], dict[str, float]]:
    """As `stored_in_half`, without the weights that lose too much, and what dB each leaves alone.

    Args:
        model: not changed.
        feeds: samples to choose by; without any all weights are taken.

    Raises:
        ModelError: onnxruntime cannot run the model or what was made of it.
    """
    made, found = stored_in_half(model)
    everything = [weight.name for weight in found if weight.form]
    if not feeds or not everything:
        return made, found, {}
    sizes = {name: tensor.nbytes for name, tensor in _tensors(model).items()}

    def changed(names: Collection[str], some: Sequence[Feed]) -> Answers:
        return without(set(everything).difference(names), some)

    def without(names: Collection[str], some: Sequence[Feed]) -> Answers:
        return answers(Session(stored_in_half(model, names)[0]), some)

    wanted = answers(Session(model), feeds)
    costly, _ = left_out(everything, changed, without, wanted, feeds, AIM_DB, sizes.__getitem__)
    made, found = stored_in_half(model, costly)
    return made, found, {name: decibels(part) for name, part in costly.items()}


def _tensors(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    graphs = graphs_of(model.graph)
    return {
        value.name or "": value.const_value
        for graph in graphs
        for value in graph.initializers.values()
        if value.const_value is not None
    }


_Halves = npt.NDArray[np.generic]


def _form(
    value: ir.Value,
    can_be_bfloat16: bool,  # noqa: FBT001 - of an opset
) -> tuple[Stored, _Halves | None, int]:
    """The first form that keeps a weight, its numbers, and the power of two that divided them."""
    assert value.const_value is not None
    name, array = value.name or "", value.const_value.numpy()
    sizes = np.abs(array[np.isfinite(array)])
    largest = float(sizes.max(initial=0.0))
    with np.errstate(over="ignore"):
        plain = array.astype(np.float16)
    if _keeps(array, plain.astype(np.float32), _LEAST_DB):
        return Stored(name, "float16"), plain, 0
    smallest = float(sizes[sizes > 0].min(initial=np.inf))
    reason = f"its numbers lie between {smallest:.3g} and {largest:.3g}"
    exponent = int(np.frexp(largest)[1]) - 1 - _TOP_EXPONENT
    scaled = np.ldexp(array, -exponent).astype(np.float16)
    back = np.ldexp(scaled.astype(np.float32), exponent)
    if np.isfinite(np.ldexp(np.float32(1), exponent)) and _keeps(array, back, _LEAST_DB):
        return Stored(name, "scaled float16", reason), scaled, exponent
    if can_be_bfloat16:
        short = array.astype(ir.DataType.BFLOAT16.numpy())
        if _keeps(array, short.astype(np.float32), _BFLOAT16_DB):
            return Stored(name, "bfloat16", reason), short, 0
    return Stored(name, "", reason), None, 0


def _keeps(
    array: npt.NDArray[np.floating], found: npt.NDArray[np.floating], least_db: float
) -> bool:
    """Whether each row of the first axis is as near as that, but for rows that are nothing.

    A row that is small beside the others may be magnified behind the layer; one that training gave
    up and left at 1e-40 is not. What is not finite has to be the same.
    """
    finite = np.isfinite(array)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    rows = np.where(finite, array, 0).reshape(array.shape[0], -1)
    error = rows - np.where(finite, found, 0).reshape(rows.shape)
    noise = np.square(error, dtype=np.float64).sum(axis=1)
    power = np.square(rows, dtype=np.float64).sum(axis=1)
    nothing = power.mean() * _NOTHING**2
    return bool(np.all(noise <= np.maximum(power * 10 ** (-least_db / 10), nothing)))


def _write(names: Names, graph: ir.Graph, value: ir.Value, array: _Halves, exponent: int) -> None:
    """Put half numbers, a Cast and a power of two in the place of a weight."""
    name = value.name or ""
    half = add_initializer(names, graph, f"{name}_half", array)
    nodes = [ir.node("Cast", [half], {"to": ir.DataType.FLOAT}, name=names.free(f"{name}_cast"))]
    if exponent:
        scale = np.ldexp(np.float32(1), exponent)
        factor = add_initializer(names, graph, f"{name}_scale", scale)
        nodes[0].outputs[0].name = names.free(f"{name}_small")
        nodes.append(
            ir.node("Mul", [nodes[0].outputs[0], factor], name=names.free(f"{name}_scaling"))
        )
    whole = nodes[-1].outputs[0]
    for node in nodes:
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    replace_initializer(graph, value, nodes, whole)
