"""Layers with a constant weight: views of an onnx_ir model that every pass works on.

A *layer* is a constant weight together with all its consumers. Whatever the operator's own
layout, its matrix is `[out, in]`; layers with groups hold the rows of group after group, each
row over the inputs of its own group. The layouts follow the ONNX operator specifications:

- Gemm: `B` is `[in, out]`, or `[out, in]` with transB.
- MatMul: a constant right side is `[..., in, out]`, a constant left side `[..., out, in]`;
  every leading index of a batched weight counts as a group.
- Conv: `[out, in/groups, *kernel]`; the inputs of a row are the receptive field.
- ConvTranspose: `[in, out/groups, *kernel]`; the outputs of a row are the scattered field.
- Gather (axis 0): an embedding `[in, out]`, its input a one-hot vector.
- LSTM, GRU, RNN: W and R `[directions, out, in]` (`recurrent.py`), every direction a group.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import attribute, graphs_of, is_constant, is_standard, node_label
from onnxpress.recurrent import (
    HIDDEN_WEIGHT,
    INPUT_WEIGHT,
    RECURRENT,
    is_recurrent,
    recurrent_multiply_adds,
)
from onnxpress.spill import kept
from onnxpress.storage import stored_bytes

__all__ = [
    "FLOAT_TYPES",
    "INTEGER_WEIGHTS",
    "WEIGHT_INPUTS",
    "Layer",
    "Matrix",
    "Use",
    "find_layers",
    "from_matrix",
    "is_scaled_gemm",
    "multiply_adds",
    "output_channel_axis",
    "to_matrix",
]

Matrix = npt.NDArray[np.floating]

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})
WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (0, 1),
    "Gather": (0,),
    **dict.fromkeys(RECURRENT, (INPUT_WEIGHT, HIDDEN_WEIGHT)),
}
"""Which inputs of an operator may be the weight of a layer."""
INTEGER_WEIGHTS = {
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
}
"""Which input of an operator on integers is the weight."""
_ROWS_LAST_BUT_ONE = ("gemm_out_in", "out_in", "directions_out_in")


@dataclass(frozen=True, slots=True)
class Use:
    """One consumer of a weight: the node and which of its inputs the weight is."""

    node: ir.Node
    index: int

    @property
    def layout(self) -> str:
        """Which axes are inputs and outputs; weights shared across layouts are left alone."""
        node = self.node
        if node.op_type == "Gemm":
            return "gemm_out_in" if attribute(node, "transB", 0) else "in_out"
        if node.op_type == "MatMul":
            return "in_out" if self.index == 1 else "out_in"
        if node.op_type == "Gather":
            return "in_out"
        if node.op_type in RECURRENT:
            return "directions_out_in"
        return f"{node.op_type.lower()}_{attribute(node, 'group', 1)}"


@dataclass(frozen=True, slots=True)
class Layer:
    """A constant weight with all its consumers.

    Attributes:
        name: the weight's name, which is the layer's name everywhere.
        weight: the initializer.
        graph: the graph that owns it.
        uses: every use of the weight as the weight of a linear operator.
        other_uses: consumers that use it in another way; with any of these, or with uses
            of several layouts, changing the layer is not safe.
        in_subgraph: whether a consumer lives in an If/Loop/Scan body or a function.
    """

    name: str
    weight: ir.Value
    graph: ir.Graph
    uses: tuple[Use, ...]
    other_uses: tuple[ir.Node, ...]
    in_subgraph: bool

    @property
    def node(self) -> ir.Node:
        """The first consumer, which stands for all."""
        return self.uses[0].node

    @property
    def op_type(self) -> str:
        """The operator of the first consumer."""
        return self.node.op_type

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape as stored."""
        assert self.weight.const_value is not None
        return tuple(int(dim) for dim in self.weight.const_value.shape.numpy())

    @property
    def dtype(self) -> ir.DataType:
        """The weight's element type."""
        assert self.weight.const_value is not None
        return self.weight.const_value.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the weight in the file."""
        return stored_bytes(self.weight)

    @property
    def groups(self) -> int:
        """Convolution groups, directions, or the matrices in a batched MatMul weight."""
        if self.op_type in ("Conv", "ConvTranspose"):
            return int(attribute(self.node, "group", 1))
        if self.op_type == "MatMul":
            return math.prod(self.shape[:-2])
        return self.shape[0] if self.op_type in RECURRENT else 1

    @property
    def unsafe(self) -> str | None:
        """Why the weight must not be changed, or `None`."""
        if self.other_uses:
            node = self.other_uses[0]
            return f"its weight is also used by {node_label(node)} in another way [L002]"
        layouts = {use.layout for use in self.uses}
        if len(layouts) > 1:
            return f"shared by {len(self.uses)} nodes with different layouts [L002]"
        if self.weight.is_graph_output():
            return "its weight is an output of the graph [L003]"
        return None

    @property
    def array(self) -> Matrix:
        """The weight as stored."""
        assert self.weight.const_value is not None
        return self.weight.const_value.numpy()

    def read(self) -> Matrix:
        """The weight as `[out, in]` in its own float type; groups one below the other."""
        return to_matrix(self.array, self.uses[0], self.groups)

    def write(self, matrix: Matrix) -> None:
        """Put `[out, in]` back in the operator's own layout and type; every use sees it."""
        array = from_matrix(np.asarray(matrix), self.shape, self.uses[0], self.groups)
        self.write_stored(array)

    def write_stored(self, array: npt.NDArray[np.generic]) -> None:
        """Replace the stored array by one of the same shape."""
        tensor = ir.Tensor(
            np.ascontiguousarray(array.astype(self.array.dtype, copy=False)),
            dtype=self.dtype,
            name=self.name,
        )
        self.weight.const_value = kept(self.graph, tensor)


def to_matrix(array: Matrix, use: Use, groups: int) -> Matrix:
    """An operator's weight as `[out, in]` (see the module's table of layouts)."""
    op_type = use.node.op_type
    if op_type == "Conv":
        return array.reshape(array.shape[0], -1)
    if op_type == "ConvTranspose":
        inputs = array.shape[0] // groups
        return array.reshape(groups, inputs, -1).swapaxes(1, 2).reshape(-1, inputs)
    if use.layout in _ROWS_LAST_BUT_ONE:
        return array.reshape(-1, array.shape[-1])
    return array.swapaxes(-1, -2).reshape(-1, array.shape[-2])


def from_matrix(matrix: Matrix, shape: Sequence[int], use: Use, groups: int) -> Matrix:
    """The inverse of `to_matrix` for a weight stored as `shape`."""
    op_type = use.node.op_type
    if op_type == "Conv":
        return matrix.reshape(shape)
    if op_type == "ConvTranspose":
        inputs = shape[0] // groups
        return matrix.reshape(groups, -1, inputs).swapaxes(1, 2).reshape(shape)
    if use.layout in _ROWS_LAST_BUT_ONE:
        return matrix.reshape(shape)
    return matrix.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)


def output_channel_axis(layer: Layer) -> int | None:
    """The axis of the stored weight along which outputs run; `None` where it is not one axis."""
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1 if layer.groups == 1 else None
    if layer.op_type in RECURRENT:
        return 1 if layer.groups == 1 else None
    if layer.uses[0].layout == "gemm_out_in":
        return 0
    rank = len(layer.shape)
    return rank - 2 if layer.uses[0].layout == "out_in" else rank - 1


def is_scaled_gemm(node: ir.Node) -> bool:
    """Whether alpha or beta of a Gemm scales the product or the bias."""
    return node.op_type == "Gemm" and any(
        name in node.attributes and node.attributes[name].as_float() != 1.0
        for name in ("alpha", "beta")
    )


def multiply_adds(node: ir.Node, sizes: Callable[[ir.Value], Sequence[int]] | None = None) -> int:
    """Multiply-adds of one run of an operator with a weight; 0 of other operators.

    Args:
        node: any.
        sizes: the shapes of its tensors; by default as the model says, where a dynamic dimension
            counts as 1 and an unknown shape as nothing.
    """
    if not is_standard(node) or node.op_type not in WEIGHT_INPUTS or node.op_type == "Gather":
        return 0
    if is_recurrent(node):
        return recurrent_multiply_adds(node, sizes)
    left, right = node.inputs[0], node.inputs[1]
    output = node.outputs[0]
    if left is None or right is None or (sizes is None and right.shape is None):
        return 0
    of = sizes or _sizes
    weight = of(right)
    if node.op_type == "ConvTranspose":
        return math.prod(of(left)) * math.prod(weight[1:]) if of(left) else 0
    if sizes is None and output.shape is None:
        return 0
    outputs = math.prod(of(output))
    if node.op_type == "Conv":
        return outputs * math.prod(weight[1:])
    if not weight:
        return 0
    if node.op_type == "Gemm":
        return outputs * weight[1 if attribute(node, "transB", 0) else 0]
    return outputs * weight[max(0, len(weight) - 2)]


def _sizes(value: ir.Value) -> list[int]:
    return [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]


def _graphs(model: ir.Model) -> Iterator[tuple[ir.Graph, bool]]:
    for graph in graphs_of(model.graph):
        yield graph, graph is not model.graph


def find_layers(model: ir.Model) -> list[Layer]:
    """All layers with a constant float weight, in graph order, subgraphs after the main graph.

    Weights inside functions are not seen: simplification inlines functions first.
    """
    layers: list[Layer] = []
    for graph, is_subgraph in _graphs(model):
        for value in graph.initializers.values():
            if not is_constant(value) or value.dtype not in FLOAT_TYPES:
                continue
            uses: list[Use] = []
            others: list[ir.Node] = []
            for node, index in value.uses():
                if _is_weight_use(node, index, value):
                    uses.append(Use(node, index))
                else:
                    others.append(node)
            if not uses:
                continue
            inside = is_subgraph or any(use.node.graph is not model.graph for use in uses)
            layers.append(Layer(value.name or "", value, graph, tuple(uses), tuple(others), inside))
    order = {id(node): index for index, node in enumerate(model.graph.all_nodes())}
    layers.sort(key=lambda layer: (order.get(id(layer.node), 0), layer.name))
    return layers


def _is_weight_use(node: ir.Node, index: int, value: ir.Value) -> bool:
    if not is_standard(node) or index not in WEIGHT_INPUTS.get(node.op_type, ()):
        return False
    assert value.const_value is not None
    rank = len(value.const_value.shape)
    if node.op_type == "Gather":
        return rank == 2 and attribute(node, "axis", 0) == 0
    if node.op_type == "MatMul":
        other = node.inputs[1 - index]
        return rank >= 2 and not is_constant(other)
    if node.op_type == "Gemm":
        return rank == 2 and not is_constant(node.inputs[0])
    if node.op_type in RECURRENT:
        return rank == 3 and value.const_value.size > 0
    return rank >= 3
