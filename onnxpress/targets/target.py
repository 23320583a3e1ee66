"""What a target's file says: every field with its type, its meaning and what follows from it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge

from onnxpress.targets.layout import LAYOUTS, Layout, LayoutName
from onnxpress.targets.meet import (
    agreed,
    both,
    either,
    exclusive,
    first,
    highest,
    lowest,
    multiple,
    shared,
    union,
    weakest,
)
from onnxpress.targets.operator_rule import OperatorRule
from onnxpress.targets.schema import derived, fact, identity
from onnxpress.targets.words import in_words

__all__ = ["Target"]

_FileForm = Literal["onnx", "ort"]
_Half = Literal["none", "storage", "arithmetic"]
_LowBitOperator = Literal["DequantizeLinear", "GatherBlockQuantized", "MatMulNBits"]
_Positive = Annotated[int, Ge(1)]
_Natural = Annotated[int, Ge(0)]


def _preferred(values: Mapping[str, Any]) -> Layout:
    return LAYOUTS[(*values["layouts"], "u8s8")[0]]


def _by_both_preferences(a: "Target", b: "Target", name: str) -> tuple[LayoutName, ...]:
    if not a.layouts and not b.layouts:
        return ()
    found: list[LayoutName] = [layout for layout in a.layouts if layout in b.layouts]
    if not found:
        raise exclusive(a, b, name, a.layouts, b.layouts)
    found.sort(key=lambda layout: a.layouts.index(layout) + b.layouts.index(layout))
    return tuple(found)


def _per_channel_in_both(a: "Target", b: "Target", name: str) -> tuple[LayoutName, ...]:
    return tuple(
        layout
        for layout in _by_both_preferences(a, b, "layouts")
        if layout in a.per_channel_layouts and layout in b.per_channel_layouts
    )


def _quantized_in_both(a: "Target", b: "Target", name: str) -> frozenset[str]:
    """Those with an integer kernel wherever they are not left to the CPU provider anyway."""
    kept = set()
    for operator in a.quantized_operators | b.quantized_operators:
        # A range that is measured at every run is no Q/DQ pair: it must be in every table.
        optional = not operator.startswith("DynamicQuantize")
        if all(
            operator in target.quantized_operators or (optional and not target.takes(operator))
            for target in (a, b)
        ):
            kept.add(operator)
    return frozenset(kept)


def _lowest_opset_of_both(a: "Target", b: "Target", name: str) -> int:
    maximum = min(a.maximum_opset, b.maximum_opset)
    if max(a.minimum_opset, b.minimum_opset) > maximum:
        spans = [f"{target.minimum_opset} to {target.maximum_opset}" for target in (a, b)]
        raise exclusive(a, b, "minimum_opset and maximum_opset", spans[:1], spans[1:])
    return maximum


def _partitioned_as_both(a: "Target", b: "Target", name: str) -> str:
    if "all" in (a.partitioning, b.partitioning):
        return "all"
    return a.partitioning if a.partitioning == b.partitioning else "kernels"


def _members_of_both(a: "Target", b: "Target", name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*a.members, *b.members)))


def _computes_integers(target: "Target") -> bool:
    return bool(target.layouts)


def _is_single(target: "Target") -> bool:
    return len(target.members) == 1


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What a provider accepts.

    To add a field, declare it here and give it in every file that has no members: reader,
    intersection and `targets show` follow the declaration.
    """

    name: str = field(
        metadata=identity(
            "of the built-in file, the path of another, or of several with a plus between",
            lambda a, b, _: f"{a.name}+{b.name}",
        )
    )
    description: str = field(
        metadata=identity(
            "one line",
            lambda a, b, _: f"good for {' and '.join((*a.members, *b.members))}",
        )
    )
    provider: str = field(metadata=identity("onnxruntime's name of the execution provider", first))
    members: tuple[str, ...] = field(
        metadata=identity(
            "names of the targets whose common ground this is; its own name otherwise",
            _members_of_both,
        )
    )
    layouts: tuple[LayoutName, ...] = field(
        metadata=fact(
            "integer layouts it computes correctly, the preferred first",
            _by_both_preferences,
            show=lambda names: ", ".join(names) or "none: float only",
        )
    )
    per_channel_layouts: tuple[LayoutName, ...] = field(
        metadata=fact(
            "those of the layouts in which weights may have a scale per output channel",
            _per_channel_in_both,
            show=lambda names: ", ".join(names) or "none: one scale a tensor",
            applies=_computes_integers,
        )
    )
    activation_type: str = field(
        metadata=derived(
            "of the preferred layout: `uint8`, `int8`, `uint16` or `int16`",
            lambda values: _preferred(values).activation_type,
        )
    )
    weight_type: str = field(
        metadata=derived(
            "of the preferred layout: `int8` or `uint8`",
            lambda values: _preferred(values).weight_type,
        )
    )
    per_channel: bool = field(
        metadata=derived(
            "whether the preferred layout may have a scale per output channel",
            lambda values: bool(set(values["layouts"][:1]) & set(values["per_channel_layouts"])),
        )
    )
    weight_bits: Literal[7, 8] = field(
        metadata=fact(
            "8, or 7 where 8 would saturate in 16-bit sums",
            lowest,
            applies=_computes_integers,
        )
    )
    four_bit_weights: bool = field(metadata=fact("whether weights of 4 bits have kernels", both))
    low_bit_operators: frozenset[
        Literal["DequantizeLinear", "GatherBlockQuantized", "MatMulNBits"]
    ] = field(
        metadata=fact(
            "operators that read weights of few bits in blocks: `DequantizeLinear` (opset 21), and "
            "onnxruntime's own",
            both,
            show=lambda names: ", ".join(sorted(names)) or "none",
        )
    )
    quantized_operators: frozenset[str] = field(
        metadata=fact(
            "operators that have an integer kernel between Q and DQ, and onnxruntime's "
            "DynamicQuantizeLSTM",
            _quantized_in_both,
            applies=_computes_integers,
        )
    )
    quantizes_any: bool = field(
        metadata=fact(
            "whether every operator it takes may stand between Q and DQ",
            both,
            applies=_computes_integers,
        )
    )
    float16: _Half = field(
        metadata=fact(
            "`none`: half types are not taken; `storage`: taken, computed in float32; "
            "`arithmetic`: computed in half",
            weakest(get_args(_Half)),
        )
    )
    sparsity: Literal["none", "2:4"] = field(
        metadata=fact("`none`, or the pattern its kernels skip", agreed("none"))
    )
    blocked_layout: bool = field(
        metadata=fact(
            "whether the provider keeps convolutions in a blocked layout of its own, so that "
            "operators between them which it computes outside cost two conversions",
            either,
        )
    )
    rank_quantum: _Positive = field(
        metadata=fact("ranks below the next multiple cost what the multiple costs", multiple)
    )
    channel_quantum: _Positive = field(
        metadata=fact("the same for channel counts of convolutions", multiple)
    )
    minimum_opset: _Positive = field(metadata=fact("what the integer forms need", highest))
    maximum_opset: _Positive = field(
        metadata=fact("the newest opset whose operators it knows", _lowest_opset_of_both)
    )
    static_shapes: bool = field(
        metadata=fact(
            "whether every shape must be known when the session opens",
            either,
            show=lambda needed: "every shape must be known" if needed else "not needed",
        )
    )
    maximum_rank: _Positive = field(metadata=fact("of any tensor", lowest))
    file_forms: tuple[_FileForm, ...] = field(
        metadata=fact(
            "`onnx` or `ort`, the preferred first",
            shared,
            show=lambda forms: ", ".join(f".{form}" for form in forms),
        )
    )
    external_data: bool = field(
        metadata=fact("whether weights may lie in a file of their own", both)
    )
    timed_here: bool = field(
        metadata=fact(
            "whether the time of a run in this process is the time on the target; where not, "
            "choices go by size and work",
            both,
        )
    )
    launch_multiply_adds: _Natural = field(
        metadata=fact(
            "multiply-adds that take as long as one kernel more in a run; a form with more "
            "kernels has to save so many for each where a run is not timed; 0: not known",
            highest,
            show=lambda number: f"{number:,}" if number else "not known",
        )
    )
    partitioning: Literal["all", "kernels", "compiled"] = field(
        metadata=fact(
            "what onnxruntime gives it: `all`: every node; `kernels`: node by node; `compiled`: "
            "whole subgraphs, so that one partition matters",
            _partitioned_as_both,
            applies=_is_single,
        )
    )
    shares_cpu_memory: bool = field(
        metadata=fact(
            "whether nodes that stay with the CPU provider cost no copy",
            both,
            applies=_is_single,
        )
    )
    passes_through: frozenset[str] = field(
        metadata=fact(
            "operators that the CPU provider computes between its own nodes without a conversion "
            "of layout or a copy, so that they end no partition",
            both,
            applies=_is_single,
        )
    )
    types: tuple[str, ...] = field(
        metadata=fact("element types of tensors it computes with", shared, applies=_is_single)
    )
    # The rules of a common ground are each member's own, so that their union is only what any
    # of them takes.
    operators: Mapping[str, OperatorRule] = field(
        repr=False,
        metadata=fact(
            "what it takes, by operator; empty where `partitioning` is `all`",
            union,
            show=lambda rules: f"{len(rules)}, by name in --json" if rules else "all",
            applies=_is_single,
        ),
    )
    sources: Mapping[str, str] = field(
        repr=False,
        metadata=identity(
            "where each fact comes from, by field",
            lambda a, b, _: dict.fromkeys(a.sources, in_words(_members_of_both(a, b, "members"))),
        ),
    )

    def takes(self, operator: str) -> bool:
        """Whether any node of the operator could be taken."""
        return self.partitioning == "all" or operator in self.operators

    def takes_quantized(self, operator: str) -> bool:
        """Whether any node of the operator could be taken between Q and DQ."""
        if self.partitioning == "all":
            return operator in self.quantized_operators
        found = self.operators.get(operator)
        if found is None:
            return False
        return self.quantizes_any if found.quantized is None else bool(found.quantized)
