"""Which range each activation gets, and which operators between layers may be in integers."""

import collections
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxpress.contract import Context, memoised, memoised_of_model
from onnxpress.graph import constant, is_standard
from onnxpress.passes.quantize.qdq_rules import (
    WITHOUT_WEIGHTS,
    joined_by_concat,
    operator_inputs,
    scale_source,
)
from onnxpress.passes.quantize.ranges import BOUNDS, ActivationRange, choose_range, range_between
from onnxpress.statistics import TensorStatistics
from onnxpress.targets import LAYOUTS

__all__ = [
    "activation_range",
    "computes_wide",
    "integer_operators",
    "integer_type",
    "operators_between",
    "range_source",
    "regridded",
    "widened",
]

_NARROW = 8
_LARGEST_STEP = 2.0
"""A tensor may lose a bit to have one scale with the Concat that reads it, which then copies."""
_SPARE = 2.0
"""A 16-bit range reaches so much further than what was seen: a bit of precision that is not missed
for values beyond, whose clipping is most of what such a model loses (2 dB of 23 in text
detection)."""


@memoised
def _chosen(
    context: Context,
    seen: TensorStatistics,
    method: str,
    bounds: tuple[float, float] | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> ActivationRange | None:
    signed, bits = integer_type(context)
    found = choose_range(seen, signed=signed, bits=bits, method=method, bounds=bounds)
    if found is None or bits == _NARROW or method != "mse" or bounds is not None:
        return found
    low, high = limits
    spare = range_between(
        max(_SPARE * seen.minimum, low), min(_SPARE * seen.maximum, high), signed=signed, bits=bits
    )
    return replace(spare, signal=found.signal)


def _limits(source: ir.Value) -> tuple[float, float]:
    """Of a Clip's output, so that the range performs the Clip, which is then dropped."""
    node = source.producer()
    if node is None or node.op_type != "Clip" or not is_standard(node):
        return -np.inf, np.inf
    ends = [constant(value) for value in (*node.inputs[1:], None, None)[:2]]
    low, high = (
        default if end is None else float(end.reshape(-1)[0])
        for end, default in zip(ends, (-np.inf, np.inf), strict=True)
    )
    return low, high


def _own_range(context: Context, source: ir.Value, method: str) -> ActivationRange | None:
    assert context.statistics is not None
    found = context.statistics.tensors.get(source.name or "")
    if found is None or found.minimum > found.maximum:
        return None
    producer = source.producer()
    bounds = None
    if producer is not None and is_standard(producer):
        bounds = BOUNDS.get(producer.op_type)
    return _chosen(context, found, method, bounds, _limits(source))


def _merged_range(
    context: Context, values: Sequence[ir.Value], method: str
) -> ActivationRange | None:
    """Of all values of several tensors together."""
    assert context.statistics is not None
    seen = [context.statistics.tensors.get(value.name or "") for value in values]
    known = [found for found in seen if found is not None and found.minimum <= found.maximum]
    return _chosen_together(context, known, method) if len(known) == len(seen) else None


@memoised
def _chosen_together(
    context: Context, seen: Sequence[TensorStatistics], method: str
) -> ActivationRange | None:
    merged = TensorStatistics()
    for found in seen:
        merged.merge(found)
    return _chosen(context, merged, method)


def activation_range(context: Context, value: ir.Value, method: str) -> ActivationRange | None:
    """Of a tensor of the model that was observed; one for a Concat and what it reads."""
    source = range_source(context, value)
    own = _own_range(context, source, method)
    joined = _joined(context).get(source, ())
    if own is None or not joined:
        return own
    ranges = [_own_range(context, other, method) for other in joined]
    whole = _merged_range(context, joined, method)
    if whole is None or any(r is None or whole.scale > _LARGEST_STEP * r.scale for r in ranges):
        return own
    return replace(whole, noise=max(own.noise, whole.scale**2 / 12), signal=own.signal)


def range_source(context: Context, value: ir.Value) -> ir.Value:
    """The tensor whose range `value` has: itself, or what reshapes and pooling make it of."""
    return scale_source(value, _known_integer_operators(context))


@memoised_of_model
def _known_integer_operators(context: Context) -> dict[str, ir.Node]:
    """Of the model that is proposed on."""
    return integer_operators(replace(context, model=context.base, layers=()))


@memoised_of_model
def _joined(context: Context) -> dict[ir.Value, tuple[ir.Value, ...]]:
    return joined_by_concat(_known_integer_operators(context))


def integer_type(context: Context) -> tuple[bool, int]:
    """Whether the integers of activations are signed, and their bits."""
    kind = np.iinfo(context.target.activation_type)
    return kind.min < 0, kind.bits


def widened(context: Context) -> Context:
    """The context with activations of 16 bits in place of 8."""
    kind = context.target.activation_type.replace("8", "16")
    return replace(context, target=replace(context.target, activation_type=kind))


def computes_wide(context: Context) -> bool:
    """Whether the target computes with activations of 16 bits beside those of 8.

    Weights stay as they are: of the same type, and with a scale per channel where they have one.
    """
    target = context.target
    wide = widened(context).target
    wanted = wide.activation_type, wide.weight_type
    return target.activation_type != wide.activation_type and any(
        (LAYOUTS[name].activation_type, LAYOUTS[name].weight_type) == wanted
        and (not target.per_channel or name in target.per_channel_layouts)
        for name in target.layouts
    )


def regridded(scale: float, zero_point: int, *, signed: bool, finer: bool) -> tuple[float, int]:
    """The same range in 16 bits instead of 8 (`finer`), which holds all numbers of 8; or back."""
    steps = 32767 / 127 if signed else 65535 / 255
    if finer:
        return float(np.float32(scale / steps)), round(zero_point * steps)
    return float(np.float32(scale * steps)), round(zero_point / steps)


def integer_operators(context: Context) -> dict[str, ir.Node]:
    """`operators_between` by name."""
    return {node.name or "": node for node in operators_between(context)}


def operators_between(context: Context) -> list[ir.Node]:
    """Operators without weights that have an integer kernel and read only activations.

    In the order of the graph, bodies behind their node. A name that two nodes have means neither.
    """
    nodes = list(context.model.graph.all_nodes())
    times = collections.Counter(node.name for node in nodes)
    return [
        node
        for node in nodes
        if is_standard(node)
        and node.name
        and times[node.name] == 1
        and node.op_type in WITHOUT_WEIGHTS
        and node.op_type in context.target.quantized_operators
        and operator_inputs(node) is not None
        and node.outputs[0].dtype == ir.DataType.FLOAT
    ]
