"""The common ground of several targets: one model that is good for all of them."""

import dataclasses
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

from onnxpress.errors import UsageError
from onnxpress.targets.target import LAYOUTS, Target

__all__ = ["common"]

_FLOAT16 = ("none", "storage", "arithmetic")


def common(targets: Sequence[Target]) -> Target:
    """Intersect the tables of targets; of one, the target itself.

    An operator is quantized where every target has an integer kernel for it or leaves it to the
    CPU provider in any case; one that takes it in float only would be split around it.

    Raises:
        UsageError: two tables exclude each other; the message names both and the field.
    """
    if any(not target.layouts for target in targets):
        # One computes in float only: whatever integers the others prefer does not matter.
        none: dict[str, Any] = {"layouts": (), "quantized_operators": frozenset()}
        targets = [dataclasses.replace(target, **none) for target in targets]
    return reduce(_meet, targets)


def _meet(a: Target, b: Target) -> Target:
    layouts = _layouts(a, b)
    per_channel = tuple(
        layout
        for layout in layouts
        if layout in a.per_channel_layouts and layout in b.per_channel_layouts
    )
    preferred = LAYOUTS[layouts[0]] if layouts else LAYOUTS["u8s8"]
    forms = tuple(form for form in a.file_forms if form in b.file_forms)
    if not forms:
        raise _exclusive(a, b, "file_forms", a.file_forms, b.file_forms)
    minimum = max(a.minimum_opset, b.minimum_opset)
    maximum = min(a.maximum_opset, b.maximum_opset)
    if minimum > maximum:
        spans = [f"{t.minimum_opset} to {t.maximum_opset}" for t in (a, b)]
        raise _exclusive(a, b, "minimum_opset and maximum_opset", [spans[0]], [spans[1]])
    types = tuple(name for name in a.types if name in b.types)
    if not types:
        raise _exclusive(a, b, "types", a.types, b.types)
    return dataclasses.replace(
        a,
        name=f"{a.name}+{b.name}",
        description=f"good for {' and '.join((*a.members, *b.members))}",
        members=tuple(dict.fromkeys((*a.members, *b.members))),
        layouts=layouts,
        per_channel_layouts=per_channel,
        activation_type=preferred.activation_type,
        weight_type=preferred.weight_type,
        per_channel=bool(layouts) and layouts[0] in per_channel,
        weight_bits=min(a.weight_bits, b.weight_bits),
        four_bit_weights=a.four_bit_weights and b.four_bit_weights,
        quantized_operators=_quantized(a, b) if layouts else frozenset(),
        quantizes_any=a.quantizes_any and b.quantizes_any,
        float16=min(a.float16, b.float16, key=_FLOAT16.index),
        sparsity=a.sparsity if a.sparsity == b.sparsity else "none",
        blocked_layout=a.blocked_layout or b.blocked_layout,
        rank_quantum=math.lcm(a.rank_quantum, b.rank_quantum),
        channel_quantum=math.lcm(a.channel_quantum, b.channel_quantum),
        minimum_opset=minimum,
        maximum_opset=maximum,
        static_shapes=a.static_shapes or b.static_shapes,
        maximum_rank=min(a.maximum_rank, b.maximum_rank),
        file_forms=forms,
        external_data=a.external_data and b.external_data,
        timed_here=a.timed_here and b.timed_here,
        placement=_placement(a, b),
        shares_cpu_memory=a.shares_cpu_memory and b.shares_cpu_memory,
        passes_through=a.passes_through & b.passes_through,
        types=types,
        # What any of them takes: the rules are each target's own, see `Target.members`.
        operators={**b.operators, **a.operators},
        sources=dict.fromkeys(a.sources, f"{a.name}, {b.name}"),
    )


def _layouts(a: Target, b: Target) -> tuple[str, ...]:
    """What both compute, by the sum of both preferences."""
    if not a.layouts and not b.layouts:
        return ()
    shared = [layout for layout in a.layouts if layout in b.layouts]
    if not shared:
        raise _exclusive(a, b, "layouts", a.layouts, b.layouts)
    return tuple(
        sorted(shared, key=lambda layout: a.layouts.index(layout) + b.layouts.index(layout))
    )


def _placement(a: Target, b: Target) -> str:
    if "all" in (a.placement, b.placement):
        return "all"
    return a.placement if a.placement == b.placement else "kernels"


def _quantized(a: Target, b: Target) -> frozenset[str]:
    kept = set()
    for operator in a.quantized_operators | b.quantized_operators:
        # A range that is measured at every run is no Q/DQ pair: it must be in every table.
        optional = operator != "DynamicQuantizeLinear"
        if all(
            operator in target.quantized_operators or (optional and not target.takes(operator))
            for target in (a, b)
        ):
            kept.add(operator)
    return frozenset(kept)


def _exclusive(
    a: Target, b: Target, field: str, left: Sequence[str], right: Sequence[str]
) -> UsageError:
    return UsageError(
        f"targets {a.name!r} and {b.name!r} cannot share one model: {field} is {', '.join(left)} "
        f"for the first and {', '.join(right)} for the second; press one model each with "
        "--per-target"
    )
