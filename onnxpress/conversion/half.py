"""Half precision: float32 weights and activations in float16, inputs and outputs as they are.

The conversion is onnxruntime's own (`onnxruntime.transformers.float16`), which keeps operators
without a half kernel in float32. It leaves nodes out of order; they are sorted here. Inputs and
outputs keep their types behind Cast nodes; `strip_casts` takes those away afterwards.
"""

import onnx
import onnx_ir as ir

from onnxpress.model_file import PROTOBUF_LIMIT_BYTES, weight_bytes

__all__ = ["strip_casts", "to_half"]

_INTEGERS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
)


def to_half(model: ir.Model) -> tuple[ir.Model, str | None]:
    """The model in half precision, or the same model and the reason why not."""
    from onnxruntime.transformers import float16  # noqa: PLC0415 - only where asked for

    operators = {node.op_type for node in model.graph.all_nodes()}
    mixed = sorted(operators & set(_INTEGERS))
    if mixed:
        return model, f"the model computes in integers already ({mixed[0]})"
    if weight_bytes(model) >= PROTOBUF_LIMIT_BYTES:
        return model, "the model is larger than 2 GB"
    if model.functions:
        return model, "the model has functions; simplify puts them in line"
    try:
        converted = float16.convert_float_to_float16(ir.to_proto(model), keep_io_types=True)
        half = ir.from_proto(converted)
        half.graph.sort()
        onnx.checker.check_model(ir.to_proto(half))
    except (ValueError, RuntimeError, AssertionError, KeyError, onnx.checker.ValidationError) as e:
        return model, f"onnxruntime's converter fails: {' '.join(str(e).split())[:160]}"
    if not any(node.op_type == "Cast" for node in half.graph.all_nodes()) and not any(
        value.dtype == ir.DataType.FLOAT16 for value in half.graph.initializers.values()
    ):
        return model, "it has no float32 tensors"
    return half, None


def strip_casts(model: ir.Model) -> ir.Model:
    """A copy whose inputs and outputs are half where only a Cast makes them float32."""
    stripped = model.clone()
    graph = stripped.graph
    for value in list(graph.inputs):
        users = [use.node for use in value.uses()]
        if value.dtype == ir.DataType.FLOAT and users and all(_casts(n) for n in users):
            value.type = ir.TensorType(ir.DataType.FLOAT16)
            for node in users:
                ir.convenience.replace_all_uses_with(node.outputs[0], value)
                graph.remove(node, safe=True)
    for index, value in enumerate(list(graph.outputs)):
        cast = value.producer()
        if cast is None or cast.op_type != "Cast" or value.dtype != ir.DataType.FLOAT:
            continue
        source = cast.inputs[0]
        if source is None or source.dtype != ir.DataType.FLOAT16 or value.uses():
            continue
        if source.is_graph_input() or source.is_graph_output():
            continue
        name = value.name
        graph.outputs[index] = source
        graph.remove(cast, safe=True)
        source.name, source.shape = name, value.shape
    return stripped


def _casts(node: ir.Node) -> bool:
    return (
        node.op_type == "Cast"
        and node.attributes["to"].as_int() == ir.DataType.FLOAT16
        and not node.outputs[0].is_graph_output()
    )
