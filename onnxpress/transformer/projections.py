"""Linear layers over the last axis, in whichever form their weights are stored.

y = x·W + b as MatMul, Gemm, a convolution with a kernel of one, Einsum, or one of the integer
forms (ONNX: MatMulInteger, QLinearMatMul; com.microsoft: MatMulNBits, DynamicQuantizeMatMul …).
"""

import math
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.graph import attribute
from onnxpress.transformer.tensors import Tensors

__all__ = ["Projection", "find_projections", "products"]

_WEIGHT = {
    "MatMul": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "Gemm": 1,
    "FusedGemm": 1,
    "Conv": 1,
    "FusedConv": 1,
    "ConvInteger": 1,
    "QLinearMatMul": 3,
    "QLinearConv": 3,
    "MatMulNBits": 1,
    "Einsum": 1,
}
"""Which input is the weight."""
_GEMM_BIAS = {"Gemm": 2, "FusedGemm": 2, "Conv": 2, "FusedConv": 2, "QLinearConv": 8}
_OPERATOR_BIAS = {**_GEMM_BIAS, "MatMulNBits": 5, "DynamicQuantizeMatMul": 4}
_AFTER = frozenset(["Cast", "DequantizeLinear", "Mul", "QuantizeLinear", "Reshape"])
"""Between a product and its bias."""
_NARROW = 3
"""A kernel's axes begin behind two others."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A linear layer.

    Attributes:
        node: the operator.
        name: of the stored weight.
        source: the tensor it reads, before quantizers and reshapes.
        inputs: numbers that it reads at a place.
        outputs: numbers that it makes.
        bias: whether a constant is added.
    """

    node: ir.Node
    name: str
    source: ir.Value
    inputs: int
    outputs: int
    bias: bool


def find_projections(tensors: Tensors) -> dict[ir.Node, Projection]:
    """All of a model, by node."""
    found = {}
    for node in tensors.nodes:
        made = _projection(tensors, node)
        if made is not None:
            found[node] = made
    return found


def products(tensors: Tensors, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The two tensors that a node multiplies as matrices, where neither is a constant."""
    if node.op_type not in _WEIGHT or node.op_type in ("Conv", "MatMulNBits"):
        return None
    index = _WEIGHT[node.op_type]
    if len(node.inputs) <= index:
        return None
    first, second = node.inputs[0], node.inputs[index]
    if first is None or second is None:
        return None
    if tensors.is_constant(first) or tensors.is_constant(second):
        return None
    return first, second


def _projection(tensors: Tensors, node: ir.Node) -> Projection | None:
    index = _WEIGHT.get(node.op_type)
    if index is None or len(node.inputs) <= index:
        return None
    first, second = node.inputs[0], node.inputs[index]
    if first is None or second is None:
        return None
    left = node.op_type == "MatMul" and tensors.is_constant(first)
    weight, source = (first, second) if left else (second, first)
    if not tensors.is_constant(weight) or tensors.is_constant(source):
        return None
    sizes = _sizes(tensors, node, weight, left=left)
    if sizes is None:
        return None
    stored = tensors.stored(weight)
    return Projection(
        node,
        stored.name or weight.name or node.name or "",
        tensors.root(source),
        *sizes,
        bias=_has_bias(tensors, node),
    )


def _sizes(
    tensors: Tensors, node: ir.Node, weight: ir.Value, *, left: bool
) -> tuple[int, int] | None:
    """(inputs, outputs); `None` for a weight that is no matrix."""
    if node.op_type == "MatMulNBits":
        return attribute(node, "K", 0), attribute(node, "N", 0)
    found = tensors.sizes(weight)
    if found is None or None in found or len(found) < 2:
        return None
    sizes = [size for size in found if size is not None]
    if "Conv" in node.op_type:
        plain = len(sizes) >= _NARROW and math.prod(sizes[2:]) == 1
        return (sizes[1], sizes[0]) if plain and attribute(node, "group", 1) == 1 else None
    if node.op_type == "Einsum":
        return _einsum(node, sizes)
    turned = attribute(node, "transB", 0) == 1 or left
    # Vectors and tables of frequencies are multiplied too.
    if min(sizes[-2:]) < 2 or math.prod(sizes[:-2]) > 1:
        return None
    return (sizes[-1], sizes[-2]) if turned else (sizes[-2], sizes[-1])


def _einsum(node: ir.Node, sizes: list[int]) -> tuple[int, int] | None:
    equation = node.attributes["equation"].as_string().replace(" ", "")
    terms, _, result = equation.partition("->")
    letters = terms.split(",")[1] if terms.count(",") == 1 else ""
    if not result or len(letters) != len(sizes):
        return None
    made = math.prod(n for n, letter in zip(sizes, letters, strict=True) if letter in result)
    return math.prod(sizes) // made, made


def _has_bias(tensors: Tensors, node: ir.Node) -> bool:
    index = _OPERATOR_BIAS.get(node.op_type)
    if index is not None and len(node.inputs) > index and node.inputs[index] is not None:
        return True
    value = node.outputs[0]
    while len(uses := [use for use in value.uses() if use.node.op_type != "Shape"]) == 1:
        (user, place), value = uses[0], uses[0].node.outputs[0]
        if user.op_type in ("Add", "BiasGelu", "SkipLayerNormalization"):
            others = [one for at, one in enumerate(user.inputs) if at != place and one is not None]
            added = others[-1:] if user.op_type != "SkipLayerNormalization" else user.inputs[4:5]
            return any(one is not None and tensors.is_constant(one) for one in added)
        if user.op_type not in _AFTER:
            break
    return False
