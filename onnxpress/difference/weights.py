"""Constants of two models: which are added, removed or different, by name and by value."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.graph import constant, is_standard
from onnxpress.runtime import Array

__all__ = ["ChangedWeight", "WeightsCompared", "compare_weights", "constant_array"]


@dataclass(frozen=True, slots=True)
class ChangedWeight:
    """A constant of one name and another content.

    Attributes:
        name: in both models.
        before: type and shape in A.
        after: in B.
        noise: of the difference over the power of A's; `None` where types or shapes differ.
    """

    name: str
    before: str
    after: str
    noise: float | None


@dataclass(frozen=True, slots=True)
class WeightsCompared:
    """All constants of two models.

    Attributes:
        equal: how many are the same under one name.
        renamed: names in A and in B of one content.
        changed: one name, another content.
        removed: only in A.
        added: only in B.
        bytes: of all of A's, and of B's.
    """

    equal: int
    renamed: tuple[tuple[str, str], ...]
    changed: tuple[ChangedWeight, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    bytes: tuple[int, int]


def constant_array(value: ir.Value | None) -> Array | None:
    """The array of an initializer, of a Constant node, or of one of these dequantized or cast."""
    found = constant(value)
    if found is not None or value is None:
        return found
    node = value.producer()
    if node is None or not is_standard(node):
        return None
    if node.op_type == "Constant":
        tensor = node.attributes.get("value")
        return None if tensor is None else tensor.as_tensor().numpy()
    if node.op_type in ("Identity", "Cast"):
        return constant_array(node.inputs[0])
    return _dequantized(node) if node.op_type == "DequantizeLinear" else None


def _dequantized(node: ir.Node) -> Array | None:
    """Of a scale for the whole tensor or along one axis; `None` for blocks."""
    stored, scale = constant_array(node.inputs[0]), constant_array(node.inputs[1])
    point = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if stored is None or scale is None or scale.ndim > 1:
        return None
    shape = [1] * stored.ndim
    # The axis means nothing where the scale has one element, and may not be there.
    if scale.size > 1:
        shape[node.attributes["axis"].as_int() if "axis" in node.attributes else 1] = scale.size
    zero = 0.0 if point is None else point.astype(np.float64).reshape(shape)
    return np.asarray((stored.astype(np.float64) - zero) * scale.astype(np.float64).reshape(shape))


def compare_weights(a: ir.Model, b: ir.Model) -> WeightsCompared:
    """Compare all initializers and constants, those of bodies included."""
    ones, others = dict(_constants(a)), dict(_constants(b))
    sizes = tuple(sum(tensor.nbytes for tensor in side.values()) for side in (ones, others))
    digests = {name: _digest(tensor) for name, tensor in ones.items()}
    of_b = {name: _digest(tensor) for name, tensor in others.items()}
    common = [name for name in ones if name in others]
    equal = [name for name in common if digests[name] == of_b[name]]
    changed = tuple(
        _changed(name, ones[name], others[name]) for name in common if name not in set(equal)
    )
    added = [name for name in others if name not in ones]
    renamed = _renamed([n for n in ones if n not in others], added, digests, of_b)
    gone = {name for name, _ in renamed}
    come = {name for _, name in renamed}
    return WeightsCompared(
        len(equal),
        renamed,
        changed,
        tuple(name for name in ones if name not in others and name not in gone),
        tuple(name for name in added if name not in come),
        (sizes[0], sizes[1]),
    )


def _renamed(
    removed: Sequence[str], added: Sequence[str], before: dict[str, str], after: dict[str, str]
) -> tuple[tuple[str, str], ...]:
    waiting: dict[str, list[str]] = {}
    for name in added:
        waiting.setdefault(after[name], []).append(name)
    return tuple(
        (name, waiting[before[name]].pop(0)) for name in removed if waiting.get(before[name])
    )


def _constants(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
        for node in graph:
            if node.op_type == "Constant" and is_standard(node) and "value" in node.attributes:
                yield node.outputs[0].name or "", node.attributes["value"].as_tensor()


def _digest(tensor: ir.TensorProtocol) -> str:
    head = f"{tensor.dtype.name}{list(tensor.shape.numpy())}".encode()
    return hashlib.sha256(head + tensor.tobytes()).hexdigest()


def _changed(name: str, one: ir.TensorProtocol, other: ir.TensorProtocol) -> ChangedWeight:
    noise = None
    if one.shape == other.shape and one.dtype == other.dtype and one.dtype != ir.DataType.STRING:
        before, after = (tensor.numpy().astype(np.float64) for tensor in (one, other))
        power = float(np.mean(np.square(before))) if before.size else 0.0
        difference = float(np.mean(np.square(before - after))) if before.size else 0.0
        noise = difference / power if power else (np.inf if difference else 0.0)
    return ChangedWeight(name, _described(one), _described(other), noise)


def _described(tensor: ir.TensorProtocol) -> str:
    return f"{tensor.dtype.name.lower()}[{', '.join(str(d) for d in tensor.shape.numpy())}]"
