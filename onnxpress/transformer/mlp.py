"""Pairs of linear layers around an activation, gated or not.

y = W₂·f(W₁x), or W₂·(f(W₁x)·W₃x) (gated: 2002.05202), W₁ and W₃ in one where an export has
joined them.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.transformer.projections import Projection
from onnxpress.transformer.tensors import Tensors

__all__ = ["MLP", "find_mlps"]

_ACTIVATIONS = {
    "BiasGelu": "gelu",
    "FastGelu": "gelu",
    "Gelu": "gelu",
    "Erf": "gelu",
    "QuickGelu": "quick gelu",
    "Relu": "relu",
    "LeakyRelu": "leaky relu",
    "Elu": "elu",
    "HardSwish": "hard swish",
    "HardSigmoid": "hard swish",
    "Mish": "mish",
    "Swish": "silu",
    "Sigmoid": "silu",
    "Softplus": "softplus",
    "Tanh": "gelu",
    "QLinearSigmoid": "silu",
}
_BETWEEN = frozenset(
    [
        *_ACTIVATIONS,
        *("Add", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear"),
        *("Exp", "Identity", "Mul", "Neg", "Pow", "QuantizeLinear", "Reshape", "Slice", "Split"),
        *("Sqrt", "Sub", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Max", "Min", "QLinearMul"),
        *("QLinearAdd", "Abs"),
    ]
)
_SQUARED = 2


@dataclass(frozen=True, slots=True, eq=False)
class MLP:
    """A pair.

    Attributes:
        up: the layers that read the stream, or the one that does.
        down: the layer that gives back.
        width: numbers between them.
        gated: whether the activation of one half is multiplied with another.
        activation: its name.
    """

    up: tuple[Projection, ...]
    down: Projection
    width: int
    gated: bool
    activation: str


def find_mlps(tensors: Tensors, projections: dict[ir.Node, Projection]) -> list[MLP]:
    """All of a model, in its order."""
    found = []
    for down in projections.values():
        mlp = _above(tensors, projections, down)
        if mlp is not None:
            found.append(mlp)
    return found


def _above(
    tensors: Tensors, projections: dict[ir.Node, Projection], down: Projection
) -> MLP | None:
    up: list[Projection] = []
    between: list[ir.Node] = []

    def passes(node: ir.Node) -> bool:
        return node not in projections and node.op_type in _BETWEEN

    for _, node in tensors.upward(down.source, passes):
        if node in projections:
            up.append(projections[node])
        elif node is None or node.op_type not in _BETWEEN:
            return None
        else:
            between.append(node)
    activation = _activation(tensors, between)
    if not up or activation is None or len({one.source for one in up}) > 1:
        return None
    made = sum(one.outputs for one in up)
    # What a width is multiplied by: one half is the gate of the other.
    if made not in (down.inputs, 2 * down.inputs):
        return None
    return MLP(tuple(up), down, down.inputs, made == 2 * down.inputs, activation)


def _activation(tensors: Tensors, between: list[ir.Node]) -> str | None:
    kinds = [node.op_type for node in between]
    names = [_ACTIVATIONS[kind] for kind in kinds if kind in _ACTIVATIONS]
    if not names:
        return "relu" if "Max" in kinds else "relu6" if "Clip" in kinds else None
    if names[0] == "relu" and any(_squares(tensors, node) for node in between):
        return "squared relu"
    if names[0] == "silu" and any(_is_quick(tensors, node) for node in between):
        return "quick gelu"
    if names[0] == "gelu" and "Softplus" in kinds:
        return "mish"
    return "gelu" if "Tanh" in kinds or "Erf" in kinds else names[0]


def _squares(tensors: Tensors, node: ir.Node) -> bool:
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    return node.op_type == "Pow" and tensors.number(node.inputs[1]) == _SQUARED


def _is_quick(tensors: Tensors, node: ir.Node) -> bool:
    """Whether it is the factor of x·σ(1.702·x)."""
    numbers = [tensors.number(value) for value in node.inputs] if node.op_type == "Mul" else []
    return any(one is not None and abs(one - 1.702) < 1e-2 for one in numbers)
