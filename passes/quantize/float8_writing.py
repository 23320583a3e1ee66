"""Write pairs of 8-bit floats: around a product's input once a tensor, and before its weight."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Context, Parameter, shift_bias
from onnxpress.graph import add_initializer, drop_unused, insert_behind
from onnxpress.passes.quantize.float8 import FLOAT8, float8_weight
from onnxpress.passes.quantize.qdq_rules import input_of

__all__ = ["write_float8"]

_IR_VERSION = 10
"""That of opset 21."""


def write_float8(
    context: Context, decided: Mapping[str, Mapping[str, Mapping[str, Parameter]]]
) -> None:
    """Put pairs around the layers that were decided.

    Args:
        context: of the rewrite.
        decided: parameters by family and site.
    """
    for family in FLOAT8:
        layers = [context.layer(site) for site in decided.get(family, {})]
        layers = [layer for layer in layers if not context.is_idle(layer)]
        weights = [float8_weight(context, layer, family) for layer in layers]
        pairs: dict[ir.Value, ir.Value] = {}
        for layer, found in zip(layers, weights, strict=True):
            node, use = layer.node, layer.uses[0]
            if found.offset is not None:
                shift_bias(context.names, context.model.graph, node, found.offset)
            value = input_of(layer)
            if value not in pairs:
                scale = np.float32(decided[family][layer.name]["input_scale"])
                pairs[value] = _pair(context, value, np.asarray(scale), FLOAT8[family])
            place = 1 - use.index if layer.op_type == "MatMul" else 0
            node.replace_input_with(place, pairs[value])
            home = node.graph
            assert isinstance(home, ir.Graph)
            values = add_initializer(
                context.names, home, f"{layer.name}_float8", found.values, FLOAT8[family]
            )
            stem = values.name or layer.name
            steps = add_initializer(context.names, home, f"{stem}_scale", found.scales)
            made = _dequantize(context, home, values, steps, stem, found.axis)
            node.replace_input_with(use.index, made)
            drop_unused(layer.weight)
        if layers:
            version = context.model.ir_version or 0
            context.model.ir_version = max(version, _IR_VERSION)


def _pair(
    context: Context, value: ir.Value, scale: npt.NDArray[np.float32], kind: ir.DataType
) -> ir.Value:
    """QuantizeLinear and DequantizeLinear behind a tensor, in its own graph."""
    names, graph = context.names, value.graph or context.model.graph
    stem = f"{value.name or 'tensor'}_float8"
    factor = add_initializer(names, graph, f"{stem}_scale", scale)
    as_kind = ir.AttrInt64("output_dtype", int(kind))
    quantize = ir.Node("", "QuantizeLinear", [value, factor], [as_kind])
    quantize.name = names.free(f"{stem}_QuantizeLinear")
    output = quantize.outputs[0]
    output.name = names.free(stem)
    output.type, output.shape = ir.TensorType(kind), value.shape
    insert_behind(graph, value, [quantize])
    return _dequantize(context, graph, output, factor, stem)


def _dequantize(
    context: Context,
    graph: ir.Graph,
    values: ir.Value,
    scale: ir.Value,
    stem: str,
    axis: int | None = None,
) -> ir.Value:
    names = context.names
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", "DequantizeLinear", [values, scale], attributes)
    node.name = names.free(f"{stem}_DequantizeLinear")
    output = node.outputs[0]
    output.name = names.free(f"{stem}_dequantized")
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), values.shape
    insert_behind(graph, values, [node])
    return output
