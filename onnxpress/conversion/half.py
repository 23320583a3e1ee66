"""Half precision: float32 weights and activations in float16, inputs and outputs as they are.

The conversion is onnxruntime's own (`onnxruntime.transformers.float16`), which keeps operators
without a half kernel in float32, as here what does not fit (`half_range`). It leaves nodes out of
order; they are sorted here, and what goes from float32 to half and back is left in float32. Inputs
and outputs keep their types behind Cast nodes; `strip_casts` takes those away afterwards.
"""

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from onnxpress.beyond_ir import from_proto, to_proto
from onnxpress.graph import Names, insert_behind
from onnxpress.model_file import PROTOBUF_LIMIT_BYTES, weight_bytes

__all__ = ["rounded_to_half", "strip_casts", "to_half"]

_INTEGERS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
)


def to_half(model: ir.Model, in_float32: Iterable[ir.Node] = ()) -> tuple[ir.Model, str | None]:
    """The model in half precision, or the same model and the reason why not.

    Args:
        model: its nodes have names of their own; it is not changed.
        in_float32: nodes of its main graph that stay as they are, with Casts around.
    """
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
        converted = float16.convert_float_to_float16(
            to_proto(model),
            keep_io_types=True,
            node_block_list=[node.name or "" for node in in_float32],
        )
        half = from_proto(converted)
        half.graph.sort()
        _drop_round_trips(half.graph)
        onnx.checker.check_model(to_proto(half))
    except (ValueError, RuntimeError, AssertionError, KeyError, onnx.checker.ValidationError) as e:
        return model, f"onnxruntime's converter fails: {' '.join(str(e).split())[:160]}"
    if not any(node.op_type == "Cast" for node in half.graph.all_nodes()) and not any(
        value.dtype == ir.DataType.FLOAT16 for value in half.graph.initializers.values()
    ):
        return model, "it has no float32 tensors"
    return half, None


def _drop_round_trips(graph: ir.Graph) -> None:
    """Leave in float32 what one Cast makes half and another float32: between, it may not fit."""
    for back in list(graph):
        if not _casts(back, ir.DataType.FLOAT) or back.inputs[0] is None:
            continue
        there = back.inputs[0].producer()
        if there is None or not _casts(there, ir.DataType.FLOAT16):
            continue
        source, old = there.inputs[0], back.outputs[0]
        if source is None or source.dtype != ir.DataType.FLOAT:
            continue
        if old.is_graph_output():
            if source.is_graph_input() or source.is_graph_output() or source.is_initializer():
                continue
            name, shape = old.name, old.shape
            old.name = f"{name}_as_half"
            ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
            source.name, source.shape = name, shape
        else:
            ir.convenience.replace_all_uses_with(old, source)
        graph.remove(back, safe=True)
        half = there.outputs[0]
        if not half.uses() and not half.is_graph_output():
            graph.remove(there, safe=True)


def rounded_to_half(model: ir.Model, in_float32: Iterable[ir.Node] = ()) -> ir.Model:
    """A float32 copy that rounds every tensor to half: what half arithmetic gives, run anywhere.

    Sums inside one operator are float32, as the half kernels of GPUs have them.

    Args:
        model: not changed; what is in bodies is not rounded.
        in_float32: nodes of its main graph whose results are not rounded, nor what they read of
            each other.
    """
    wide = {node.name for node in in_float32}
    rounded = model.clone()
    graph, names = rounded.graph, Names(rounded)
    sources = list(dict.fromkeys((*graph.inputs, *graph.initializers.values())))
    sources += [output for node in graph for output in node.outputs]
    for value in sources:
        if value.dtype != ir.DataType.FLOAT:
            continue
        producer = value.producer()
        from_wide = producer is not None and producer.name in wide
        users = [use for use in value.uses() if not from_wide or use.node.name not in wide]
        if producer is None:
            users = [use for use in users if use.node.name not in wide]
        is_output = value.is_graph_output() and not from_wide
        if not users and not is_output:
            continue
        half = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16})
        back = ir.node("Cast", [half.outputs[0]], {"to": ir.DataType.FLOAT})
        for node in (half, back):
            node.name = names.free(f"{value.name}_rounding")
            node.outputs[0].name = names.free(f"{value.name}_rounded")
        for use in users:
            use.node.replace_input_with(use.idx, back.outputs[0])
        insert_behind(graph, value, [half, back])
        if is_output:
            _give_instead(graph, value, back.outputs[0], names)
    return rounded


def _give_instead(graph: ir.Graph, value: ir.Value, rounded: ir.Value, names: Names) -> None:
    """The rounded tensor as an output under the name of the one before."""
    if value.is_graph_input() or value.is_initializer():
        return
    name = value.name or ""
    value.name = names.free(f"{name}_exact")
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = rounded
    rounded.name, rounded.type, rounded.shape = name, value.type, value.shape


def strip_casts(model: ir.Model) -> ir.Model:
    """A copy whose inputs and outputs are half where only a Cast makes them float32."""
    stripped = model.clone()
    graph = stripped.graph
    for value in list(graph.inputs):
        users = [use.node for use in value.uses()]
        if value.dtype == ir.DataType.FLOAT and users and all(_to_half_inside(n) for n in users):
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


def _casts(node: ir.Node, to: ir.DataType) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() == to


def _to_half_inside(node: ir.Node) -> bool:
    return _casts(node, ir.DataType.FLOAT16) and not node.outputs[0].is_graph_output()
