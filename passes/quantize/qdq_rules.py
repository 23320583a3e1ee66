"""Where quantize and dequantize nodes go, by the rules of onnxruntime's QDQ fusions.

A layer's input gets a pair; a Conv's output always (QLinearConv has no float output), the
output of Gemm and MatMul only where an integer kernel reads it. An activation function that
the output range already performs (Relu, Clip) is passed over, and the runtime drops it.
Operators without weights join where everything they read is quantized already; reshapes and
pooling keep the scale of their input.
"""

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from onnxpress.graph import attribute, constant, is_standard
from onnxpress.layers import Layer, is_scaled_gemm

__all__ = [
    "KEEPS_SCALE",
    "PRODUCTS",
    "WITHOUT_WEIGHTS",
    "dynamic_refusal",
    "fused_output",
    "input_of",
    "joined_by_concat",
    "operator_inputs",
    "pair_refusal",
    "rounds_output",
    "scale_source",
    "static_refusal",
]

KEEPS_SCALE = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "MaxPool", "Resize"}
)
_OF_ALL_INPUTS = frozenset({"Add", "Sub", "Mul", "Div", "Concat"})
WITHOUT_WEIGHTS = (
    KEEPS_SCALE
    | _OF_ALL_INPUTS
    | {"AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Tanh", "Softmax", "HardSwish"}
)
_FUSED_ACTIVATIONS = ("Relu", "Clip")
PRODUCTS = ("Conv", "Gemm", "MatMul")


def static_refusal(layer: Layer, operators: Iterable[str]) -> str | None:
    """Why a layer cannot run as an integer kernel, or `None`."""
    node = layer.node
    if 0 in layer.shape:
        return "its weight has no elements [L004]"
    if layer.op_type not in PRODUCTS or layer.op_type not in operators:
        return (
            f"no integer kernel for {layer.op_type} with a quantized weight on this target [Q001]"
        )
    reason = pair_refusal(layer)
    if reason is not None:
        return reason
    if layer.op_type == "Gemm" and (is_scaled_gemm(node) or attribute(node, "transA", 0)):
        return "Gemm with alpha, beta or transA has no integer kernel [Q006]"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        values = constant(bias)
        outputs = layer.read().shape[0]
        if values is None:
            return "its bias is computed at run time [Q007]"
        if values.size not in (1, outputs):
            return "its bias is not one number per output [Q007]"
    if layer.op_type != "MatMul" and node.inputs[0] is None:
        return "it has no input [Q007]"
    return None


def pair_refusal(layer: Layer) -> str | None:
    """Why a product's input and weight cannot each have a pair, of whatever type, or `None`."""
    if len(layer.uses) > 1:
        return f"shared by {len(layer.uses)} nodes, whose inputs have different ranges [Q004]"
    if layer.dtype != ir.DataType.FLOAT:
        return f"its activations are {layer.dtype.name.lower()}, not float32 [Q005]"
    if layer.op_type == "MatMul" and (len(layer.shape) != 2 or layer.uses[0].index != 1):
        return "its weight is not a two-dimensional right side of MatMul [Q006]"
    return None


def dynamic_refusal(layer: Layer, operators: Iterable[str]) -> str | None:
    """Why a layer cannot quantize its input at run time, or `None`.

    Convolutions are left: ConvInteger ran at 0.2 times the float speed (onnxruntime 1.32).
    """
    if layer.op_type not in ("MatMul", "Gemm") or "DynamicQuantizeLinear" not in operators:
        return f"{layer.op_type} is not quantized dynamically on this target [Q001]"
    return static_refusal(layer, operators)


def rounds_output(layer: Layer) -> bool:
    """Whether the layer's output needs a pair for its kernel to be an integer one.

    QLinearConv has no float output. Of a MatMul of two axes and an Add behind it onnxruntime makes
    a Gemm before it looks at pairs, and a Gemm whose addend is computed has no integer kernel.
    """
    output = layer.node.outputs[0]
    if layer.op_type != "MatMul" or output.shape is None or len(output.shape) != 2:
        return layer.op_type == "Conv"
    uses = list(output.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return False
    return constant(uses[0].node.inputs[1 - uses[0].idx]) is None


def input_of(layer: Layer) -> ir.Value:
    """The activation a layer reads."""
    use = layer.uses[0]
    value = use.node.inputs[1 - use.index] if layer.op_type == "MatMul" else use.node.inputs[0]
    assert value is not None
    return value


def fused_output(node: ir.Node) -> ir.Value:
    """The node's output, or that of the Relu or Clip which alone reads it."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return output
    follower = uses[0].node
    if (
        is_standard(follower)
        and follower.op_type in _FUSED_ACTIVATIONS
        and follower.graph is node.graph
        and uses[0].idx == 0
        and all(constant(value) is not None for value in follower.inputs[1:] if value is not None)
    ):
        return follower.outputs[0]
    return output


def operator_inputs(node: ir.Node) -> list[ir.Value] | None:
    """The activations an operator without weights reads, or `None` where one is constant."""
    taken = node.inputs if node.op_type in _OF_ALL_INPUTS else node.inputs[:1]
    values = [value for value in taken if value is not None]
    if any(value.const_value is not None for value in values) or not values:
        return None
    return values


def scale_source(value: ir.Value, nodes: Mapping[str, ir.Node]) -> ir.Value:
    """The tensor whose scale `value` has to share: itself, or what a reshape or pooling reads."""
    producer = value.producer()
    while (
        producer is not None
        and producer.name in nodes
        and producer.op_type in KEEPS_SCALE
        and producer.inputs[0] is not None
    ):
        value = producer.inputs[0]
        producer = value.producer()
    return value


def joined_by_concat(nodes: Mapping[str, ir.Node]) -> dict[ir.Value, tuple[ir.Value, ...]]:
    """Tensors that Concats of `nodes` put together, each with all of its group.

    Args:
        nodes: operators without weights, by name.
    """
    groups: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node in nodes.values():
        if node.op_type != "Concat":
            continue
        members: dict[ir.Value, None] = {}
        for value in (*(operator_inputs(node) or ()), fused_output(node)):
            source = scale_source(value, nodes)
            members.update(dict.fromkeys(groups.get(source, (source,))))
        groups.update(dict.fromkeys(members, tuple(members)))
    return groups
