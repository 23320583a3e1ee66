"""What a target's file says, as data; `docs/targets.md` explains every field for authors."""

import dataclasses
from collections.abc import Mapping

__all__ = ["LAYOUTS", "PLACEMENTS", "Layout", "OperatorRule", "Target"]

_INTEGERS = {"u8": "uint8", "s8": "int8", "u16": "uint16", "s16": "int16"}


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Integer types of activations and weights, as `u8s8` for uint8 and int8.

    Attributes:
        activation_type: NumPy's name.
        weight_type: NumPy's name.
    """

    activation_type: str
    weight_type: str


LAYOUTS: Mapping[str, Layout] = {
    activations + weights: Layout(_INTEGERS[activations], _INTEGERS[weights])
    for activations in _INTEGERS
    for weights in ("u8", "s8")
}
"""All that a file may name."""

PLACEMENTS = ("all", "kernels", "compiled")


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorRule:
    """When a provider takes a node of one operator; what is left out is not restricted.

    Attributes:
        types: element types of the first input, besides those of the target.
        ranks: of the first input.
        known: axes of the first input that must not be dynamic.
        constant: inputs that must not be computed at run time, where they are given.
        attributes: allowed values of attributes, where they are given.
        outputs: how many outputs may be used.
        newest: the latest version of the operator (the opset that last changed it).
        behind: taken only as the activation function of one of these operators in float.
        quantized: layouts it takes between DequantizeLinear and QuantizeLinear; `None`: what
            the target says for all operators.
        per_channel: those of the layouts in which weights may have a scale per channel;
            `None`: as the target says.
        same_scale: between Q and DQ the output must have the input's scale.
        quantized_output: between Q and DQ the output must be quantized too.
        integers: element types on the integer side of QuantizeLinear and DequantizeLinear.
    """

    types: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    attributes: Mapping[str, tuple[int | float | str, ...]] = dataclasses.field(
        default_factory=dict
    )
    outputs: int = 0
    newest: int = 0
    behind: tuple[str, ...] = ()
    quantized: tuple[str, ...] | None = None
    per_channel: tuple[str, ...] | None = None
    same_scale: bool = False
    quantized_output: bool = False
    integers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What a provider accepts.

    Attributes:
        name: of the file, or the names of several with a plus between.
        description: one line.
        provider: onnxruntime's name of the execution provider.
        members: names of the targets whose common ground this is; its own name otherwise.
        layouts: integer layouts it computes correctly, the preferred first.
        per_channel_layouts: those in which weights may have a scale per output channel.
        activation_type: of the preferred layout: `uint8`, `int8`, `uint16` or `int16`.
        weight_type: of the preferred layout: `int8` or `uint8`.
        per_channel: whether the preferred layout may have a scale per output channel.
        weight_bits: 8, or 7 where 8 would saturate in 16-bit sums.
        four_bit_weights: whether weights of 4 bits have kernels.
        quantized_operators: operators that have an integer kernel between Q and DQ.
        quantizes_any: whether every operator it takes may stand between Q and DQ.
        float16: `none`: half types are not taken; `storage`: taken, computed in float32;
            `arithmetic`: computed in half.
        sparsity: `none`, or the pattern its kernels skip, as `2:4`.
        blocked_layout: whether the provider keeps convolutions in a blocked layout of its own,
            so that operators between them which it computes outside cost two conversions.
        rank_quantum: ranks below the next multiple cost what the multiple costs.
        channel_quantum: the same for channel counts of convolutions.
        minimum_opset: what the integer forms need.
        maximum_opset: the newest opset whose operators it knows.
        static_shapes: whether every shape must be known when the session opens.
        maximum_rank: of any tensor.
        file_forms: `onnx` or `ort`, the preferred first.
        external_data: whether weights may lie in a file of their own.
        timed_here: whether the time of a run in this process is the time on the target; where
            not, choices go by size and work.
        placement: `all`: takes every node; `kernels`: node by node; `compiled`: whole
            subgraphs, so that one partition matters.
        shares_cpu_memory: whether nodes that stay with the CPU provider cost no copy.
        passes_through: operators that the CPU provider computes between its own nodes without
            a conversion of layout or a copy, so that they end no partition.
        types: element types of tensors it computes with.
        operators: what it takes, by operator; empty where `placement` is `all`.
        sources: where each fact comes from, by field.
    """

    name: str
    description: str
    provider: str
    members: tuple[str, ...]
    layouts: tuple[str, ...]
    per_channel_layouts: tuple[str, ...]
    activation_type: str
    weight_type: str
    per_channel: bool
    weight_bits: int
    four_bit_weights: bool
    quantized_operators: frozenset[str]
    quantizes_any: bool
    float16: str
    sparsity: str
    blocked_layout: bool
    rank_quantum: int
    channel_quantum: int
    minimum_opset: int
    maximum_opset: int
    static_shapes: bool
    maximum_rank: int
    file_forms: tuple[str, ...]
    external_data: bool
    timed_here: bool
    placement: str
    shares_cpu_memory: bool
    passes_through: frozenset[str]
    types: tuple[str, ...]
    operators: Mapping[str, OperatorRule] = dataclasses.field(repr=False)
    sources: Mapping[str, str] = dataclasses.field(repr=False)

    def takes(self, operator: str) -> bool:
        """Whether any node of the operator could be taken."""
        return self.placement == "all" or operator in self.operators

    def takes_quantized(self, operator: str) -> bool:
        """Whether any node of the operator could be taken between Q and DQ."""
        if self.placement == "all":
            return operator in self.quantized_operators
        rule = self.operators.get(operator)
        if rule is None:
            return False
        return self.quantizes_any if rule.quantized is None else bool(rule.quantized)
