"""When a provider takes a node: every field of a rule with its type, its meaning and its words."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field

from onnxpress.targets.layout import LayoutName
from onnxpress.targets.schema import rule
from onnxpress.targets.words import all_of, one_of

__all__ = ["OperatorRule"]


def _attributes_in_words(attributes: Mapping[str, tuple[object, ...]]) -> str:
    return "; ".join(f"{name} {one_of(allowed)}" for name, allowed in attributes.items())


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorRule:
    """When a provider takes a node of one operator; what is left out is not restricted."""

    types: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "element types of the first input, besides those of the target",
            lambda names: f"also {', '.join(names)}",
        ),
    )
    ranks: tuple[int, ...] = field(
        default=(),
        metadata=rule("of the first input", lambda ranks: f"{one_of(ranks)} dimensions"),
    )
    known: tuple[int, ...] = field(
        default=(),
        metadata=rule(
            "axes of the first input that must not be dynamic",
            lambda axes: f"{'axes' if len(axes) > 1 else 'axis'} {all_of(axes)} known",
        ),
    )
    constant: tuple[int, ...] = field(
        default=(),
        metadata=rule(
            "inputs that must not be computed at run time, where they are given",
            lambda inputs: f"input{'s' * (len(inputs) > 1)} {all_of(inputs)} constant",
        ),
    )
    attributes: Mapping[str, tuple[int | float | str, ...]] = field(
        default_factory=dict,
        metadata=rule(
            "allowed values of attributes, where they are given",
            _attributes_in_words,
        ),
    )
    outputs: int = field(
        default=0,
        metadata=rule(
            "how many outputs may be used",
            lambda count: f"at most {count} output{'s' * (count > 1)}",
        ),
    )
    newest: int = field(
        default=0,
        metadata=rule(
            "the latest version of the operator (the opset that last changed it)",
            lambda opset: f"up to the operator of opset {opset}",
        ),
    )
    behind: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "taken only as the activation function of one of these operators in float",
            lambda operators: f"only behind {one_of(operators)}",
        ),
    )
    quantized: tuple[LayoutName, ...] | None = field(
        default=None,
        metadata=rule(
            "layouts it takes between DequantizeLinear and QuantizeLinear; none: in float only; "
            "left out: what the target says for all operators",
            lambda names: f"in integers as {one_of(names)}" if names else "in float only",
        ),
    )
    per_channel_layouts: tuple[LayoutName, ...] | None = field(
        default=None,
        metadata=rule(
            "those of the layouts in which weights may have a scale per output channel; left out: "
            "as the target says",
            lambda names: f"scale per channel {one_of(names) or 'never'}",
            applies=lambda owner: bool(owner.quantized),
        ),
    )
    same_scale: bool = field(
        default=False,
        metadata=rule(
            "between Q and DQ the output must have the input's scale",
            lambda _: "one scale for input and output",
        ),
    )
    quantized_output: bool = field(
        default=False,
        metadata=rule(
            "between Q and DQ the output must be quantized too",
            lambda _: "output quantized too",
        ),
    )
    integers: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "element types on the other side of QuantizeLinear and DequantizeLinear: integers, and "
            "8-bit floats",
            lambda names: f"integers {one_of(names)}",
        ),
    )
