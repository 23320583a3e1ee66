"""A layer alone, as wide as it is and as narrow as it would be, to be timed."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxpress.contract import TimingSubgraph
from onnxpress.graph import attribute
from onnxpress.layers import Layer
from onnxpress.passes.prune.layout import Side
from onnxpress.statistics import LayerStatistics

__all__ = ["gone", "narrower"]

_CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}


def narrower(
    layer: Layer, side: Side, units: Collection[int], moments: LayerStatistics | None
) -> TimingSubgraph | None:
    """The layer before and after its units are removed; `None` where nothing is to be timed."""
    if moments is None or not moments.input_shape or layer.op_type not in _CHANNEL_AXIS:
        return None
    if layer.dtype != ir.DataType.FLOAT or layer.uses[0].layout == "out_in":
        return None
    gone = np.asarray(sorted(units), np.int64)
    outputs, inputs = ((~np.isin(axis, gone)).mean() for axis in (side.outputs, side.inputs))
    groups = attribute(layer.node, "group", 1)
    if layer.op_type == "ConvTranspose" and groups > 1:
        return None
    depthwise = layer.op_type == "Conv" and groups > 1 and layer.shape[1] == 1
    if depthwise:
        inputs = outputs
    if outputs == inputs == 1:
        return None
    axis = _CHANNEL_AXIS[layer.op_type]
    if layer.op_type == "Gemm" and attribute(layer.node, "transA", 0):
        axis = 0
    shape = list(moments.input_shape)
    before = tuple(shape)
    shape[axis] = round(shape[axis] * inputs)
    after = tuple(shape)
    weight = list(layer.shape)
    out_axis, in_axis = _weight_axes(layer)
    weight[out_axis] = round(weight[out_axis] * outputs)
    if not depthwise:
        weight[in_axis] = round(weight[in_axis] * inputs)
    # Equal attributes, shapes and widths take equal time.
    attributes = {name: attr for name, attr in layer.node.attributes.items() if name != "group"}
    described = tuple(sorted(str(attr) for attr in attributes.values()))
    key = (layer.op_type, described, groups, layer.shape, before, tuple(weight), after)

    def build() -> tuple[ir.Model, ir.Model]:
        new_groups = after[1] if depthwise else groups
        return (
            _alone(layer, attributes, layer.shape, before, groups),
            _alone(layer, attributes, tuple(weight), after, new_groups),
        )

    return TimingSubgraph(key, build, (before, after))


def gone(layer: Layer, moments: LayerStatistics | None) -> TimingSubgraph | None:
    """The layer, and nothing in its place; `None` where nothing is to be timed."""
    if moments is None or not moments.input_shape or layer.op_type not in _CHANNEL_AXIS:
        return None
    if layer.dtype != ir.DataType.FLOAT or layer.uses[0].layout == "out_in":
        return None
    attributes = dict(layer.node.attributes)
    groups = attribute(layer.node, "group", 1)
    shape = moments.input_shape
    described = tuple(sorted(str(attr) for attr in attributes.values()))

    def build() -> tuple[ir.Model, ir.Model]:
        nothing = _model(layer, ir.Node("", "Identity", [_tensor(1)]))
        return _alone(layer, attributes, layer.shape, shape, groups), nothing

    return TimingSubgraph((layer.op_type, described, layer.shape, shape), build, (shape, (1,)))


def _weight_axes(layer: Layer) -> tuple[int, int]:
    """(outputs, inputs) of the stored weight."""
    if layer.op_type == "Conv" or layer.uses[0].layout == "gemm_out_in":
        return 0, 1
    return 1, 0


def _alone(
    layer: Layer,
    attributes: dict[str, ir.Attr],
    shape: tuple[int, ...],
    tensor: tuple[int, ...],
    groups: int,
) -> ir.Model:
    """A model of one node with a weight of its own; what it holds does not matter for the time."""
    drawn = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight = ir.Value(
        name="weight",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(shape),
        const_value=ir.Tensor(drawn, name="weight"),
    )
    kept = dict(attributes)
    if layer.op_type in ("Conv", "ConvTranspose"):
        kept["group"] = ir.AttrInt64("group", groups)
    source = _tensor(len(tensor))
    return _model(
        layer, ir.Node("", layer.op_type, [source, weight], attributes=list(kept.values()))
    )


def _tensor(rank: int) -> ir.Value:
    kind = ir.TensorType(ir.DataType.FLOAT)
    return ir.Value(name="x", type=kind, shape=ir.Shape([None] * rank))


def _model(layer: Layer, node: ir.Node) -> ir.Model:
    source, weights = node.inputs[0], [value for value in node.inputs[1:] if value is not None]
    assert source is not None
    node.outputs[0].name, node.outputs[0].type = "y", source.type
    graph = ir.Graph(
        [source],
        node.outputs,
        nodes=[node],
        initializers=weights,
        opset_imports=dict(layer.graph.opset_imports) or {"": 17},
        name="alone",
    )
    return ir.Model(graph, ir_version=8)
