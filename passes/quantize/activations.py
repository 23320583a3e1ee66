"""Which range each activation gets, and which operators between layers may be in integers."""

import collections
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxpress.graph import is_standard
from onnxpress.passes.quantize.placement import (
    WITHOUT_WEIGHTS,
    joined_by_concat,
    operator_inputs,
    scale_source,
)
from onnxpress.passes.quantize.ranges import BOUNDS, ActivationRange, choose_range
from onnxpress.plan import Context
from onnxpress.statistics import TensorStatistics

__all__ = ["activation_range", "integer_type", "operators_between", "scale_keepers"]

_LARGEST_STEP = 2.0
"""A tensor may lose a bit to have one scale with the Concat that reads it, which then copies."""


def _own_range(context: Context, source: ir.Value, method: str) -> ActivationRange | None:
    assert context.statistics is not None
    found = context.statistics.tensors.get(source.name or "")
    if found is None or found.minimum > found.maximum:
        return None
    signed, bits = integer_type(context)
    producer = source.producer()
    bounds = None
    if producer is not None and is_standard(producer):
        bounds = BOUNDS.get(producer.op_type)
    return context.cached(
        ("range", source.name, method, signed, bits),
        [],
        lambda: choose_range(found, signed=signed, bits=bits, method=method, bounds=bounds),
    )


def _merged_range(
    context: Context, values: Sequence[ir.Value], method: str
) -> ActivationRange | None:
    """Of all values of several tensors together."""
    assert context.statistics is not None
    signed, bits = integer_type(context)
    merged = TensorStatistics()
    for value in values:
        found = context.statistics.tensors.get(value.name or "")
        if found is None or found.minimum > found.maximum:
            return None
        merged.merge(found)
    key = ("merged range", values[0].name, method, signed, bits)
    return context.cached(
        key,
        [],
        lambda: choose_range(merged, signed=signed, bits=bits, method=method),
    )


def activation_range(context: Context, value: ir.Value, method: str) -> ActivationRange | None:
    """Of a tensor of the model that was observed; one for a Concat and what it reads."""
    keepers = context.cached(("keepers", id(context.model)), [], lambda: scale_keepers(context))
    source = scale_source(value, keepers)
    own = _own_range(context, source, method)
    joined = context.cached(
        ("joined", id(context.model)), [], lambda: joined_by_concat(keepers)
    ).get(source, ())
    if own is None or not joined:
        return own
    ranges = [_own_range(context, other, method) for other in joined]
    whole = _merged_range(context, joined, method)
    if whole is None or any(r is None or whole.scale > _LARGEST_STEP * r.scale for r in ranges):
        return own
    return replace(whole, noise=max(own.noise, whole.scale**2 / 12), signal=own.signal)


def integer_type(context: Context) -> tuple[bool, int]:
    """Whether the integers of activations are signed, and their bits."""
    kind = np.iinfo(context.target.activation_type)
    return kind.min < 0, kind.bits


def scale_keepers(context: Context) -> dict[str, ir.Node]:
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
