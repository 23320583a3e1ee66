"""Look rows up that exporters multiply with: one_hot(x) · W is row x of W.

JAX and TensorFlow write embeddings as a comparison with 0, 1, … n − 1, a Cast and a MatMul, which
runs over n numbers for each row that it picks (measured on a file type classifier: a quarter of
its time). Gather picks the same row, bit for bit; an index outside, whose one-hot vector is
zeros, gets a row of zeros of its own (ONNX operators Equal, OneHot, Gather).

What follows a lookup and works on each element alone, a bias or an activation function, is the
same for every row with the same index: the table takes it up.
"""

import numpy as np
import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress.graph import (
    Names,
    add_initializer,
    attribute,
    constant,
    is_standard,
    standard_opset,
    take_over,
)
from onnxpress.passes.simplify.activation_functions import is_operator
from onnxpress.pieces import is_finite
from onnxpress.runtime import Session

__all__ = ["FoldIntoTable", "LookUpOneHot"]

_POINTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Erf"}
    | {"Tanh", "Sigmoid", "Relu", "LeakyRelu", "HardSigmoid", "HardSwish", "Elu", "Softplus"}
    | {"Gelu", "Clip", "Min", "Max"}
)

_OPSET = 13
"""The first where Squeeze takes its axes as an input; Clip of integers came before."""
_INTEGERS = (
    ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8,
    ir.DataType.UINT16, ir.DataType.UINT32,
)  # fmt: skip


class LookUpOneHot(ir.passes.InPlacePass):
    """MatMul(one-hot vectors, W) → Gather(W, index)."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        if standard_opset(model) < _OPSET:
            return ir.passes.PassResult(model, modified=False)
        changed, names = False, Names(model)
        for node in list(model.graph):
            if is_operator(node, "MatMul"):
                changed |= _look_up(names, model.graph, node)
        return ir.passes.PassResult(model, changed)


def _look_up(names: Names, graph: ir.Graph, product: ir.Node) -> bool:
    vectors, weight = product.inputs
    if _producer(vectors, "Cast") is None and _producer(vectors, "OneHot") is None:
        return False
    table = constant(weight)
    if vectors is None or weight is None or table is None or table.ndim != 2:
        return False
    if len(list(weight.uses())) != 1 or table.dtype.kind != "f" or not is_finite(table):
        return False
    size = len(table)
    if size < 2:
        return False
    steps = _compared(names, graph, vectors, size) or _one_hot(names, graph, vectors, size)
    if steps is None:
        return False
    stem = product.outputs[0].name or "embedding"
    rows = np.concatenate((table, np.zeros_like(table[:1])))
    # Below the first row and beyond the last lies the row of zeros: index −1, or n.
    lowest, highest = (_number(names, graph, f"{stem}_{n}", n) for n in (-1, size))
    clip = ir.Node("", "Clip", [steps[-1].outputs[0], lowest, highest])
    gather = ir.Node(
        "", "Gather", [add_initializer(names, graph, f"{weight.name}_rows", rows), clip.outputs[0]]
    )
    made = [*steps, clip, gather]
    for number, step in enumerate(made):
        step.name = f"{product.name or stem}_row_{number}"
        step.outputs[0].name = names.free(f"{stem}_row_{number}")
    graph.insert_before(product, made)
    take_over(product, gather)
    return True


def _number(names: Names, graph: ir.Graph, name: str, number: int | list[int]) -> ir.Value:
    return add_initializer(names, graph, name, np.asarray(number, np.int64))


def _to_index(value: ir.Value) -> ir.Node:
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(ir.DataType.INT64))])


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if is_operator(node, op_type) else None


def _compared(names: Names, graph: ir.Graph, vectors: ir.Value, size: int) -> list[ir.Node] | None:
    """Nodes that compute the index, where the vectors are x == (first, first + 1, …)."""
    cast = _producer(vectors, "Cast")
    equal = _producer(cast.inputs[0], "Equal") if cast is not None else None
    if equal is None:
        return None
    for classes, x in (tuple(equal.inputs), tuple(reversed(equal.inputs))):
        numbers = constant(classes)
        if numbers is None or x is None or x.dtype not in _INTEGERS or x.shape is None:
            continue
        alone = numbers.ndim > 0 and numbers.size == numbers.shape[-1] == size
        if not alone or numbers.ndim > len(x.shape) or (np.diff(numbers.reshape(-1)) != 1).any():
            continue
        narrow = _before_expand(names, graph, x)
        if narrow is None:
            continue
        steps, last = narrow
        axis = _number(names, graph, f"{x.name}_last_axis", [-1])
        squeeze = ir.Node("", "Squeeze", [last, axis])
        steps += [squeeze, _to_index(squeeze.outputs[0])]
        first = int(numbers.reshape(-1)[0])
        if first:
            origin = _number(names, graph, f"{x.name}_first", first)
            steps.append(ir.Node("", "Sub", [steps[-1].outputs[0], origin]))
        return steps
    return None


def _before_expand(
    names: Names, graph: ir.Graph, x: ir.Value
) -> tuple[list[ir.Node], ir.Value] | None:
    """The tensor with a last axis of 1 that the comparison stretches, and nodes it needs."""
    assert x.shape is not None
    if len(x.shape) and x.shape[-1] == 1:
        return [], x
    expand = _producer(x, "Expand")
    narrow = None if expand is None else expand.inputs[0]
    if expand is None or narrow is None or narrow.shape is None or not len(narrow.shape):
        return None
    if narrow.shape[-1] != 1:
        return None
    # The other axes as they were to be, the last one as it is.
    stem = x.name or "index"
    numbers = ((0, [0]), (1, [-1]), (2, [1]))
    start, end, one = (_number(names, graph, f"{stem}_shape_{n}", number) for n, number in numbers)
    others = ir.Node("", "Slice", [expand.inputs[1], start, end])
    shape = ir.Node("", "Concat", [others.outputs[0], one], [ir.AttrInt64("axis", 0)])
    widened = ir.Node("", "Expand", [narrow, shape.outputs[0]])
    return [others, shape, widened], widened.outputs[0]


def _one_hot(names: Names, graph: ir.Graph, vectors: ir.Value, size: int) -> list[ir.Node] | None:
    """Likewise for OneHot along the last axis, whose negative indices count from the end."""
    node = _producer(vectors, "OneHot")
    if node is None or attribute(node, "axis", -1) != -1 or node.inputs[0] is None:
        return None
    depth, values = constant(node.inputs[1]), constant(node.inputs[2])
    if depth is None or values is None or int(depth.reshape(-1)[0]) != size:
        return None
    if values.reshape(-1).tolist() != [0, 1]:
        return None
    stem = vectors.name or "index"
    zero, turn = (
        _number(names, graph, f"{stem}_zero", 0),
        _number(names, graph, f"{stem}_size", size),
    )
    index = _to_index(node.inputs[0])
    negative = ir.Node("", "Less", [index.outputs[0], zero])
    turned = ir.Node("", "Add", [index.outputs[0], turn])
    chosen = [negative.outputs[0], turned.outputs[0], index.outputs[0]]
    return [index, negative, turned, ir.Node("", "Where", chosen)]


class FoldIntoTable(ir.passes.InPlacePass):
    """f(Gather(W, index)) → Gather(f(W), index), for all that works on each row alone.

    Only where one tensor leaves the region, so that one table takes the place of the other.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        changed, names = False, Names(model)
        for node in list(model.graph):
            if is_operator(node, "Gather"):
                changed |= _fold_region(names, model, node)
        return ir.passes.PassResult(model, changed)


def _fold_region(names: Names, model: ir.Model, gather: ir.Node) -> bool:
    data, rows = gather.inputs[0], gather.outputs[0]
    table = constant(data)
    if data is None or table is None or table.ndim != 2 or attribute(gather, "axis", 0) != 0:
        return False
    if rows.shape is None or table.dtype != np.float32 or len(data.uses()) != 1:
        return False
    inside: set[ir.Value] = {rows}
    region: list[ir.Node] = []
    for node in model.graph:
        if _row_by_row(node, inside, len(rows.shape), table.shape[1]):
            region.append(node)
            inside.add(node.outputs[0])
    members = set(region)
    leaving = [
        value
        for value in inside
        if value.is_graph_output() or any(use.node not in members for use in value.uses())
    ]
    if not region or len(leaving) != 1 or leaving[0] is rows:
        return False
    end = leaving[0]
    alone = ir.Model(
        ir.convenience.extract(model.graph, [rows], [end]), ir_version=model.ir_version
    )
    # As many axes as before, for constants that have them; the table's are the first and the last.
    shape = (len(table), *[1] * (len(rows.shape) - 2), table.shape[1])
    alone.graph.inputs[0].shape = ir.Shape(shape)
    try:
        found = Session(alone, threads=1).run({rows.name or "": table.reshape(shape)})
    except ModelError:
        return False
    made = found[end.name or ""].reshape(table.shape)
    folded = add_initializer(names, model.graph, f"{data.name}_of_{end.name}", made)
    inputs = [folded, gather.inputs[1]]
    looked_up = ir.Node("", "Gather", inputs, name=gather.name)
    producer = end.producer()
    assert producer is not None
    model.graph.insert_before(producer, [looked_up])
    take_over(producer, looked_up)
    return True


def _row_by_row(node: ir.Node, inside: set[ir.Value], rank: int, columns: int) -> bool:
    """Whether a node computes each element of a row from those of the same row and constants."""
    if not is_standard(node) or node.op_type not in _POINTWISE or len(node.outputs) != 1:
        return False
    if inside.isdisjoint(value for value in node.inputs if value is not None):
        return False
    for value in node.inputs:
        if value is None or value in inside:
            continue
        array = constant(value)
        if array is None or array.ndim > rank or array.size not in (1, columns):
            return False
        if array.size > 1 and array.shape[-1] != columns:
            return False
    return True
