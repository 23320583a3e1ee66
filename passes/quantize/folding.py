"""Fold a division by channel into what computes a tensor, exactly: cross-layer equalization.

A scale of 1/s for each channel passes back through whatever is homogeneous (Relu, LeakyRelu,
PRelu, pooling; max(0, x)/s = max(0, x/s) for s > 0) into the weights and bias of the layer before,
depthwise ones included, or into the scale and bias of a LayerNormalization (arXiv 1906.04721,
2211.10438). Clip at 6 and the sigmoids are not homogeneous: there nothing is folded. Weights that
are in integers already keep them; only their scales change.
"""

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant, is_standard

__all__ = ["divide", "divisible"]

Scales = npt.NDArray[np.floating]

_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"}
)
_CHAIN = 8
"""Longer chains than normalization, bias and activation do not occur."""

Step = Callable[[Names, Scales], None]


def divisible(value: ir.Value, axis: int, kept: Collection[str] = ()) -> bool:
    """Whether `divide` can act: all that computes the channels is constant and read by no one else.

    Args:
        value: a tensor of the graph; who reads it does not matter.
        axis: of its channels: 1, or -1 for the last.
        kept: names of weights that must stay as they are.
    """
    return _steps(value, axis, kept=kept) is not None


def divide(
    names: Names,
    value: ir.Value,
    axis: int,
    scales: Scales,
    ranged: Collection[ir.Value] = (),
    kept: Collection[str] = (),
) -> bool:
    """Let `value / scales` be computed in place of `value`; `False`: nothing was changed.

    Args:
        names: that are free in the model.
        value: of which every reader wants the quotient.
        axis: as for `divisible`.
        scales: `[channels]`, above 0.
        ranged: tensors whose ranges are fixed, so that nothing is divided through them.
        kept: as for `divisible`.
    """
    steps = _steps(value, axis, ranged, kept)
    if steps is None:
        return False
    for step in steps:
        step(names, np.asarray(scales, np.float64))
    return True


def _steps(
    value: ir.Value,
    axis: int,
    ranged: Collection[ir.Value] = (),
    kept: Collection[str] = (),
) -> list[Step] | None:
    """What has to be divided, or `None` where something stands in the way."""
    steps: list[Step] = []
    for _ in range(_CHAIN):
        node = value.producer()
        if node is None or not is_standard(node) or value.is_graph_output():
            return None
        if any(given is not None and given.name in kept for given in node.inputs):
            return None
        source = node.inputs[0] if node.inputs else None
        if node.op_type in ("Conv", "Gemm", "LayerNormalization"):
            found = _parameters(node, axis)
            return None if found is None else steps + found
        if node.op_type == "MatMul" and axis == -1:
            step = _divided(node, 1, -1)
            return None if step is None else [*steps, step]
        if node.op_type in ("Add", "Mul") and axis == -1:
            index = next((i for i, v in enumerate(node.inputs) if constant(v) is not None), None)
            step = None if index is None else _divided(node, index, -1)
            if index is None or step is None:
                return None
            number = constant(node.inputs[index])
            if node.op_type == "Mul" and number is not None and number.size == 1:
                # A number, as the half in Gelu: runtimes fuse what surrounds it.
                return None
            steps.append(step)
            if node.op_type == "Mul":
                return steps
            source = node.inputs[1 - index]
        elif node.op_type not in _HOMOGENEOUS:
            return None
        if source is None or source in ranged or len(list(source.uses())) != 1:
            return None
        value = source
    return None


def _parameters(node: ir.Node, axis: int) -> list[Step] | None:
    """Of a node that multiplies and adds constants for each output channel."""
    if node.op_type == "LayerNormalization":
        if axis != -1 or attribute(node, "axis", -1) != -1 or len(node.outputs) > 1:
            return None
        wanted = [(1, -1), (2, -1)]
    elif node.op_type == "Conv":
        wanted = [(1, 0), (2, 0)]
    else:
        wanted = [(1, 0 if attribute(node, "transB", 0) else 1), (2, -1)]
        if axis not in (1, -1):
            return None
    if node.op_type == "Conv" and axis != 1:
        return None
    steps = []
    for index, along in wanted:
        if index < len(node.inputs) and node.inputs[index] is not None:
            step = _divided(node, index, along)
            if step is None:
                return None
            steps.append(step)
    return steps


def _divided(node: ir.Node, index: int, along: int) -> Step | None:
    """Divide a constant input along an axis: itself, or the scale it is dequantized by."""
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    if value is not None and constant(value) is not None:
        return lambda names, scales: _replace(names, node, index, along, scales)
    if producer is None or len(list(producer.outputs[0].uses())) != 1:
        return None
    if producer.op_type == "DequantizeLinear" and constant(producer.inputs[0]) is not None:
        factor = constant(producer.inputs[1])
        if factor is None or factor.ndim != 1:
            return None
        return lambda names, scales: _replace(names, producer, 1, 0, scales)
    if producer.op_type == "Mul" and constant(producer.inputs[1]) is not None:
        cast = producer.inputs[0]
        origin = None if cast is None else cast.producer()
        factor = constant(producer.inputs[1])
        whole = factor is not None and factor.ndim >= 2
        if whole and origin is not None and origin.op_type == "Cast":
            return lambda names, scales: _replace(names, producer, 1, along, scales)
    return None


def _replace(names: Names, node: ir.Node, index: int, along: int, scales: Scales) -> None:
    """A new initializer, since other nodes may read the old one."""
    value = node.inputs[index]
    stored = constant(value)
    assert value is not None
    assert stored is not None
    graph = value.graph if value.graph is not None else node.graph
    assert isinstance(graph, ir.Graph)
    shape = [1] * max(stored.ndim, 1)
    shape[along] = len(scales)
    divided = (stored.astype(np.float64) / scales.reshape(shape)).astype(stored.dtype)
    node.replace_input_with(
        index, add_initializer(names, graph, f"{value.name}_equalized", divided)
    )
    if not value.uses() and not value.is_graph_output():
        del graph.initializers[value.name or ""]
