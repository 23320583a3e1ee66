"""Say which node an error belongs to, and what differs between the nodes of the two models."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.difference.parting import TensorError
from onnxpress.difference.tensors import Tensor, Tensors, stretch
from onnxpress.difference.weights import constant_array
from onnxpress.recurrent import RECURRENT

__all__ = [
    "Explainer",
    "Parting",
    "attribute_text",
    "attributes_changed",
    "constants_changed",
]

_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)
_COPYING = {"DequantizeLinear": "quantized", "Cast": "cast"}
_NEGLIGIBLE = 1e-13
"""Noise over power of weights that were only written anew."""


@dataclass(frozen=True, slots=True)
class Parting:
    """A tensor whose own node adds an error.

    Attributes:
        error: how much.
        node: of A, which computes the tensor.
        operator: of that node, and what B does to the tensor where it is only copied.
        layer: the node of A that an optimizer has to leave alone: the last in between that has a
            weight of its own, or the node.
        between: the names of all nodes of A since the last tensors that have counterparts, this
            one the last; without those that compute constants.
        because: what differs between the nodes of A and of B, as far as it can be seen.
    """

    error: TensorError
    node: str
    operator: str
    layer: str
    between: tuple[str, ...]
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explainer:
    """Both models and their pairs: names of tensors of B to those of A."""

    a: Tensors
    b: Tensors
    pairs: Mapping[str, str]

    def parting(self, error: TensorError) -> Parting:
        """An error with its node and what differs there."""
        others = _nodes(stretch(self.b, error.counterpart.name, self.pairs))
        node = error.tensor.node
        name = error.tensor.name if node is None else node.name or ""
        operator = "input" if node is None else node.op_type
        ones = _nodes(stretch(self.a, error.tensor.name, self.pairs.values()))
        layers = [one.name or "" for one in ones if one.op_type in _WITH_WEIGHTS]
        layer = layers[-1] if layers else name
        if error.how == "copy":
            what = _COPYING.get(error.counterpart.op_type, "copied")
            return Parting(error, name, f"{operator}, {what}", layer, (), _copied(others))
        names = tuple(one.name or "" for one in ones)
        return Parting(error, name, operator, layer, names, tuple(_because(ones, others)))


def _nodes(tensors: list[Tensor]) -> list[ir.Node]:
    return list(dict.fromkeys(tensor.node for tensor in tensors if tensor.node is not None))


def _copied(nodes: list[ir.Node]) -> tuple[str, ...]:
    scales = []
    for node in nodes:
        if node.op_type == "QuantizeLinear":
            scale = constant_array(node.inputs[1])
            point = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
            if scale is not None and scale.size == 1:
                zero = "" if point is None else f", zero point {point.item()}"
                scales.append(f"quantized with scale {float(scale.item()):.4g}{zero}")
    return tuple(scales)


def _because(ones: list[ir.Node], others: list[ir.Node]) -> Iterator[str]:
    kinds = [[node.op_type for node in nodes] for nodes in (ones, others)]
    if kinds[0] != kinds[1]:
        after = ", ".join(kinds[1]) or "nothing"
        yield f"{', '.join(kinds[0]) or 'nothing'} became {after}"
        return
    for one, other in zip(ones, others, strict=True):
        yield from attributes_changed(one, other)
        yield from constants_changed(one, other)


def attributes_changed(one: ir.Node, other: ir.Node) -> Iterator[str]:
    """Attributes of two nodes of one operator that differ, in words."""
    for name in sorted({*one.attributes, *other.attributes}):
        before, after = (_value(node, name) for node in (one, other))
        if before != after:
            yield f"{name} {before} became {after}"


def _value(node: ir.Node, name: str) -> str:
    attribute = node.attributes.get(name)
    if attribute is None:
        return "by default"
    if attribute.is_ref() or attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.TENSOR):
        return attribute.type.name.lower()
    return attribute_text(attribute)


def attribute_text(attribute: ir.Attr) -> str:
    """Its value; floats as the file holds them, in 32 bits, also where Python had more."""
    if attribute.type == ir.AttributeType.FLOAT:
        return str(np.float32(attribute.as_float()))
    if attribute.type == ir.AttributeType.FLOATS:
        return f"({', '.join(str(np.float32(value)) for value in attribute.as_floats())})"
    return str(attribute.value)


def constants_changed(one: ir.Node, other: ir.Node) -> Iterator[str]:
    """Constants of two nodes of one operator that differ, dequantized, in words."""
    if len(one.inputs) != len(other.inputs):
        yield f"{len(one.inputs)} inputs became {len(other.inputs)}"
    for left, right in zip(one.inputs, other.inputs, strict=False):
        before, after = constant_array(left), constant_array(right)
        if before is None or after is None or left is None or right is None:
            continue
        if before.shape != after.shape:
            yield f"{left.name} {list(before.shape)} became {list(after.shape)}"
        elif before.dtype.kind in "fiub" and not _equal(before, after):
            yield f"{left.name} {_change(before, after)}"


def _equal(before: np.ndarray, after: np.ndarray) -> bool:
    noise = _noise(before, after)
    return noise == 0 or noise <= _NEGLIGIBLE * _power(before)


def _power(array: np.ndarray) -> float:
    """Of its finite numbers."""
    finite = array[np.isfinite(array)].astype(np.float64)
    return float(np.mean(np.square(finite))) if finite.size else 0.0


def _noise(before: np.ndarray, after: np.ndarray) -> float:
    if not before.size:
        return 0.0
    wide, other = before.astype(np.float64), after.astype(np.float64)
    # A mask of -inf is the same as itself.
    with np.errstate(invalid="ignore"):
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        difference = np.where(same, 0.0, wide - other)
    return float(np.mean(np.square(difference)))


def _change(before: np.ndarray, after: np.ndarray) -> str:
    if before.size == 1:
        return f"{before.item():.6g} became {after.item():.6g}"
    noise = _noise(before, after)
    if not math.isfinite(noise):
        return "has other places that are not finite"
    power = _power(before)
    decibels = 10 * math.log10(power / noise) if power else -math.inf
    return f"{list(before.shape)} differs ({decibels:.1f} dB)"
