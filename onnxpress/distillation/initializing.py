"""Draw a student's weights anew, for a network that was never trained.

Weights of layers are normal with the variance that keeps that of activations: 2/fan_in before units
that cut one half off (He et al., arXiv:1502.01852, equation 10), else 2/(fan_in + fan_out) (Glorot
and Bengio 2010, equation 12). Biases are 0, scales of norms 1, statistics
those of nothing seen, embeddings normal by 0.02 (BERT,
arXiv:1810.04805), weights of LSTM and GRU normal by 1/√units.
"""

import math

import numpy as np
import onnx_ir as ir

from onnxpress.distillation.parameters import trainable
from onnxpress.distillation.rounded import Parameter
from onnxpress.errors import ModelError
from onnxpress.graph import attribute, is_standard
from onnxpress.layers import Layer, find_layers
from onnxpress.recurrent import RECURRENT
from onnxpress.runtime import Array

__all__ = ["drawn_anew"]

_HALVING = {"Relu", "LeakyRelu", "PRelu", "Elu", "HardSwish", "Gelu", "Clip", "Softplus", "Erf"}
"""Units that give little below zero; what PyTorch writes GELU as begins with Erf."""
_BETWEEN = {"Add", "Mul", "Div", "BatchNormalization", "InstanceNormalization", "Reshape"}
_DEEP = 6
"""Nodes between a layer and the unit behind it: a bias, a norm, the parts of one."""
_EMBEDDING = 0.02
_SLOPE = 0.25
"""Of PRelu (arXiv:1502.01852, section 2.1)."""


def drawn_anew(student: ir.Model, seed: int) -> ir.Model:
    """A copy with all trained arrays drawn or reset, the same for the same seed.

    Raises:
        ModelError: the student's weights are integers, which cannot be drawn.
    """
    model = student.clone()
    found = trainable(model)
    rounded = [p.stands_for for p in found.parameters.values() if p.scale is not None]
    if rounded:
        raise ModelError(
            f"the student's weight {rounded[0]!r} is stored in integers; expected float weights to "
            "draw anew: give the network before it was quantized, or leave --initialize out [M009]"
        )
    rng = np.random.default_rng(seed)
    layers = {layer.name: layer for layer in find_layers(model)}
    for parameter in found.parameters.values():
        value = model.graph.initializers[parameter.stands_for]
        layer = layers.get(parameter.stands_for)
        array = _reset(value, parameter) if layer is None else _drawn(layer, rng)
        stored = np.ascontiguousarray(array.astype(value.dtype.numpy()))  # type: ignore[union-attr]
        value.const_value = ir.Tensor(stored, dtype=value.dtype, name=value.name)
    for node in model.graph:
        if is_standard(node) and node.op_type == "BatchNormalization":
            _without_statistics(node)
    return model


def _without_statistics(node: ir.Node) -> None:
    """Mean 0 and variance 1: what was seen of other weights' outputs says nothing of these."""
    for value, number in zip(node.inputs[3:5], (0, 1), strict=True):
        if value is not None and value.const_value is not None:
            array = np.full(
                value.const_value.shape.numpy(), number, value.const_value.dtype.numpy()
            )
            value.const_value = ir.Tensor(array, dtype=value.dtype, name=value.name)


def _drawn(layer: Layer, rng: np.random.Generator) -> Array:
    """The weight of a layer as it is stored."""
    if layer.op_type == "Gather":
        return rng.normal(0, _EMBEDDING, layer.shape)
    if layer.op_type in RECURRENT:
        units = attribute(layer.node, "hidden_size", layer.shape[2])
        return rng.normal(0, 1 / math.sqrt(units), layer.shape)
    outputs, inputs = layer.read().shape
    window = math.prod(layer.shape[2:]) if "Conv" in layer.op_type else 1
    halved = any(_is_halved(use.node) for use in layer.uses)
    fans = inputs if halved else inputs + outputs * window
    return rng.normal(0, math.sqrt(2 / max(fans, 1)), layer.shape)


def _is_halved(node: ir.Node) -> bool:
    """Whether a unit that cuts off one half reads what a layer gives."""
    waiting, seen = [node], 0
    while waiting and seen < _DEEP:
        seen += 1
        for reader, _ in waiting.pop().outputs[0].uses():
            if is_standard(reader) and reader.op_type in _HALVING:
                return True
            if is_standard(reader) and reader.op_type in _BETWEEN:
                waiting.append(reader)
    return False


def _reset(value: ir.Value, parameter: Parameter) -> Array:
    """What is no weight of a layer: 1 where it multiplies, 0 where it is added."""
    node, index = next(iter(value.uses()))
    ones = node.op_type in ("Mul", "Div") or ("Normalization" in node.op_type and index == 1)
    if node.op_type == "PRelu":
        return np.full(parameter.start.shape, _SLOPE, np.float32)
    return np.full(parameter.start.shape, float(ones), np.float32)
