"""Which nodes cannot compute in half precision: their numbers do not fit.

Half (IEEE 754 binary16) ends at 65504 and has its full precision down to 2^-14; below that it has
steps of 2^-24. A processor that widens half to float32 shows neither end. So a node stays in
float32 where a tensor that it reads or gives, or a sum or square inside it, comes within a factor
of `MARGIN` of the upper end on the samples, where a tensor lies below the lower end altogether
(an epsilon of 1e-12), or where what it divides by, or takes a root or logarithm of, does in part.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxpress.conversion.precision import Flow, Slot, Unit
from onnxpress.graph import graphs_of, is_standard

__all__ = ["LARGEST", "MARGIN", "SMALLEST", "Magnitudes", "too_wide"]

LARGEST = 65504.0
SMALLEST = 2.0**-14
"""Of the numbers that half holds with all its bits."""
MARGIN = 4.0
"""Other samples reach further, and kernels add up in other orders."""
_DIVISORS: Mapping[str, int] = {
    "BatchNormalization": 4,
    "Div": 1,
    "Log": 0,
    "Pow": 0,
    "Reciprocal": 0,
    "Sqrt": 0,
}
"""Operators that magnify what is small, and the index of the input they magnify."""


@dataclass(frozen=True)
class Magnitudes:
    """How large and how small numbers become on samples.

    Attributes:
        largest: the largest finite magnitude, by tensor.
        smallest: the smallest that is not zero, by tensor.
        inside: the largest magnitude of sums and squares that an operator does not give, by its
            first output; of a normalization `small_inside` is the least variance, with its epsilon.
        small_inside: see there.
        source: the samples.
        made_up: whether they are random inputs.
    """

    largest: Mapping[str, float] = field(default_factory=dict)
    smallest: Mapping[str, float] = field(default_factory=dict)
    inside: Mapping[str, float] = field(default_factory=dict)
    small_inside: Mapping[str, float] = field(default_factory=dict)
    source: str = "no samples"
    made_up: bool = True


def too_wide(model: ir.Model, flow: Flow, found: Magnitudes) -> dict[Unit, str]:
    """Units that have to stay in float32, each with the reason: a tensor and its range."""
    reasons: dict[Unit, str] = {}
    for unit in flow.units:
        if isinstance(unit, Slot) or not unit.outputs:
            continue
        first = unit.outputs[0].name or ""
        if found.inside.get(first, 0.0) * MARGIN > LARGEST:
            reasons[unit] = f"inside {first} sums reach {found.inside[first]:.3g}"
        elif found.small_inside.get(first, 1.0) < SMALLEST:
            reasons[unit] = f"inside {first} a divisor falls to {found.small_inside[first]:.3g}"
    for value, reason in _values(model, found):
        for unit in flow.beside(value):
            reasons.setdefault(unit, reason)
    return reasons


def _values(model: ir.Model, found: Magnitudes) -> Iterator[tuple[ir.Value, str]]:
    """Tensors that do not fit, and why."""
    graphs = graphs_of(model.graph)
    values = [
        *(value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())),
        *(output for graph in graphs for node in graph for output in node.outputs),
    ]
    for value in values:
        name = value.name or ""
        largest, smallest = _magnitudes(value, found)
        if largest * MARGIN > LARGEST and (largest > LARGEST or not _is_weight(value)):
            yield value, f"{name} reaches {largest:.3g}"
        elif 0 < largest < SMALLEST:
            yield value, f"{name} is {largest:.3g} at most"
        elif smallest < SMALLEST and _divides(value):
            yield value, f"{name}, a divisor, falls to {smallest:.3g}"


def _magnitudes(value: ir.Value, found: Magnitudes) -> tuple[float, float]:
    """The largest magnitude and the smallest but zero; 0 and 1 where nothing is known."""
    tensor = _constant(value)
    if tensor is None:
        name = value.name or ""
        return found.largest.get(name, 0.0), found.smallest.get(name, 1.0)
    if tensor.dtype != ir.DataType.FLOAT or not tensor.size:
        return 0.0, 1.0
    sizes = np.abs(tensor.numpy())
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return (float(sizes.max()), float(sizes.min())) if sizes.size else (0.0, 1.0)


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or "value" not in node.attributes:
        return None
    return node.attributes["value"].as_tensor()


def _is_weight(value: ir.Value) -> bool:
    """Constants are known: other samples do not make them larger."""
    return _constant(value) is not None


def _divides(value: ir.Value) -> bool:
    return any(
        is_standard(use.node) and _DIVISORS.get(use.node.op_type) == use.idx for use in value.uses()
    )
