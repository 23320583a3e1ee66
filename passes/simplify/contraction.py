"""Einsum with a constant → MatMul, with a Reshape where several axes are summed over or made.

    Σₖ x[r…, k…] · w[k…, n…]  =  reshape(x, [r…, Πk]) · reshape(w, [Πk, Πn])

and, where labels of a batch stand right before the last two axes, a MatMul of stacked matrices.
Only the constant is transposed, so nothing is moved at run time; other equations stay (ONNX
Einsum-12).
A MatMul is a layer for every pass, has kernels for integers, and what follows it fuses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.einsum import Equation
from onnxpress.graph import Names, add_initializer, constant, take_over
from onnxpress.layers import FLOAT_TYPES

__all__ = ["ContractByMatMul"]

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Contraction:
    """What an Einsum is as a product of matrices.

    Attributes:
        order: of the constant's axes before it is reshaped.
        batch: how many of them, in front, count stacked matrices.
        summed: how many behind these are summed over.
        rest: axes of the other operand that the result begins with.
    """

    order: tuple[int, ...]
    batch: int
    summed: int
    rest: int


class ContractByMatMul(ir.passes.InPlacePass):
    """Write MatMul for every Einsum that is one."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        changed, names = 0, Names(model)
        for node in list(model.graph.all_nodes()):
            equation = Equation.of(node)
            if equation is not None and len(node.inputs) == 2:
                changed += _replace(names, node, equation)
        return ir.passes.PassResult(model, bool(changed))


def _replace(names: Names, node: ir.Node, equation: Equation) -> bool:
    index = 1 if constant(node.inputs[1]) is not None else 0
    weight, other = node.inputs[index], node.inputs[1 - index]
    array = constant(weight)
    if weight is None or other is None or array is None or weight.dtype not in FLOAT_TYPES:
        return False
    if other.shape is None or constant(other) is not None or not array.size:
        return False
    rank = len(other.shape)
    own = equation.labels(index, array.ndim)
    given = equation.labels(1 - index, rank)
    if own is None or given is None:
        return False
    found = _contraction(own, given, equation.result(given))
    if found is None or not (_alike(weight) or _is_plain(found, array.ndim)):
        return False
    # Einsum stretches axes of one element, which a sum of a product of matrices does not.
    sizes = dict(zip(own, array.shape, strict=True))
    dims = dict(zip(given, other.shape, strict=True))
    if any(dims[label] != size for label, size in sizes.items() if label in dims):
        return False
    _write(names, node, other, weight, found)
    return True


def _alike(weight: ir.Value) -> bool:
    """Whether no other reader needs the constant as it is."""
    uses = list(weight.uses())
    equations = {(str(node.attributes.get("equation")), index) for node, index in uses}
    return len(equations) == 1 and uses[0].node.op_type == "Einsum"


def _is_plain(found: _Contraction, rank: int) -> bool:
    return rank == 2 and found.order == (0, 1)


def _contraction(own: Labels, given: Labels, result: Labels) -> _Contraction | None:
    """How to multiply, or `None` where a transposed operand or another sum would be needed."""
    if any(len(set(labels)) < len(labels) for labels in (own, given, result)):
        return None
    if any(label.startswith("...") for label in own):
        return None
    summed = [label for label in given if label in own and label not in result]
    batch = [label for label in given if label in own and label in result]
    made = [label for label in result if label in own and label not in given]
    if not summed or not made or len(summed) + len(batch) + len(made) != len(own):
        return None
    rest = given[: len(given) - len(summed)]
    if (*rest, *summed) != given or (*rest, *made) != result:
        return None
    single = len(summed) == len(made) == 1 and rest[-1 - len(batch) : -1] == tuple(batch)
    if batch and not single:
        return None
    order = tuple(own.index(label) for label in (*batch, *summed, *made))
    return _Contraction(order, len(batch), len(summed), len(rest))


def _write(
    names: Names, node: ir.Node, other: ir.Value, weight: ir.Value, found: _Contraction
) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    assert weight.const_value is not None
    turned = np.transpose(weight.const_value.numpy(), found.order)
    sizes = turned.shape
    summed = sizes[found.batch : found.batch + found.summed]
    made = sizes[found.batch + found.summed :]
    shape = (*sizes[: found.batch], math.prod(summed), math.prod(made))
    home = weight.graph if weight.graph is not None else graph
    matrix = weight
    if not _is_plain(found, len(sizes)):
        array = np.ascontiguousarray(turned).reshape(shape)
        matrix = add_initializer(names, home, f"{weight.name}_matrix", array, weight.dtype)
    stem, steps = node.name or node.outputs[0].name or "Einsum", []
    value = other
    if len(summed) > 1:
        steps.append(_reshape(names, graph, value, found.rest, (math.prod(summed),)))
        value = steps[-1].outputs[0]
    product = ir.Node("", "MatMul", [value, matrix], name=names.free(f"{stem}_MatMul"))
    steps.append(product)
    if len(made) > 1:
        steps.append(_reshape(names, graph, product.outputs[0], found.rest, made))
    for number, step in enumerate(steps[:-1]):
        step.outputs[0].name = names.free(f"{stem}_{number}")
        step.outputs[0].type = ir.TensorType(weight.dtype or ir.DataType.FLOAT)
    graph.insert_before(node, steps)
    take_over(node, steps[-1])
    if matrix is not weight and not weight.uses() and not weight.is_graph_output():
        # Users know it by its name.
        name = weight.name
        del home.initializers[name or ""]
        matrix.name = name


def _reshape(
    names: Names, graph: ir.Graph, value: ir.Value, rest: int, sizes: Sequence[int]
) -> ir.Node:
    """Keep the first axes, whatever their size, and give the others these."""
    shape = np.asarray([*[0] * rest, *sizes], np.int64)
    wanted = add_initializer(names, graph, f"{value.name or 'product'}_shape", shape)
    return ir.Node("", "Reshape", [value, wanted], name=names.free(f"{value.name}_Reshape"))
