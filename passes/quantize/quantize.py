"""The pass itself: settings, what is observed, and how what is decided is carried out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import onnx_ir as ir
from annotated_types import Interval

from onnxpress.contract import (
    Context,
    Decision,
    Observations,
    Parameter,
    Pass,
    Proposal,
    Skip,
    Stage,
    setting,
)
from onnxpress.graph import standard_opset
from onnxpress.passes.quantize.activations import (
    integer_operators,
)
from onnxpress.passes.quantize.candidates import DYNAMIC, STATIC, STORES, WIDE, Offering
from onnxpress.passes.quantize.carrying_out import carry_out
from onnxpress.passes.quantize.float8 import FLOAT8, FLOAT8_OPSET, is_product, refuse_float8
from onnxpress.passes.quantize.forms import BYTE, KERNEL_FAMILIES
from onnxpress.passes.quantize.goals import compensable
from onnxpress.passes.quantize.layer_forms import FLOAT, SMALLEST, LayerForm, by_layer
from onnxpress.passes.quantize.levels import Kind, Layout
from onnxpress.passes.quantize.pairs import SIXTEEN_BIT_OPSET
from onnxpress.passes.quantize.proposing import proposals
from onnxpress.passes.quantize.qdq_rules import (
    fused_output,
    input_of,
    scale_source,
    static_refusal,
)
from onnxpress.passes.quantize.restoring import restored
from onnxpress.passes.quantize.stored_forms import (
    STORED_FAMILIES,
    StoredForms,
)
from onnxpress.targets import LAYOUTS

__all__ = ["Quantize"]

Parameters = Mapping[str, Parameter]


@dataclass(frozen=True)
class Quantize(Pass):
    """Eight-bit integers for weights, and for activations where that pays."""

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.QUANTIZATION
    families: ClassVar[tuple[str, ...]] = (
        *(STATIC, WIDE, DYNAMIC),
        *FLOAT8,
        *STORED_FAMILIES,
        *KERNEL_FAMILIES,
    )
    minimum_opset: ClassVar[int] = 13
    rewrites_from_statistics: ClassVar[bool] = True

    form: Literal["auto", "static", "dynamic", "weight_only", "float8_e4m3fn", "float8_e5m2"] = (
        setting(
            "auto",
            "static (integer kernels, needs calibration data), dynamic (MatMul and Gemm measure "
            "their input at every run), weight_only, float8_e4m3fn and float8_e5m2 (8-bit floats "
            "around products, for targets whose table lists them, needs calibration data), or "
            "auto: the best mixture of the first three.",
        )
    )
    layout: Literal["auto", "u8s8", "u8u8", "s8s8", "u8s7", "u16s8", "u16u8"] = setting(
        "auto",
        "Types of activations and weights: s8s8 has zero point 0, u8s7 does not saturate without "
        "fused 8-bit dot products, u16s8 and u16u8 are 16-bit activations for NPUs; auto: as the "
        "target wants, which may be 8 and 16 bits in one model.",
    )
    sixteen_bit: tuple[str, ...] = setting(
        (),
        "A layer that computes with 16-bit activations amid 8-bit ones, by name; may be repeated. "
        "Without: the worst ones, where the target has such kernels.",
    )
    weight_bits: tuple[Annotated[int, Interval(ge=2, le=8)], ...] = setting(
        (),
        "Bits of weights in the file, expanded at load, for integer kernels to 8; may be repeated, "
        "then the search mixes them. Without: 8, and 4 too where the goal is size.",
    )
    block_size: Annotated[int, Interval(ge=0, le=4096)] = setting(
        32,
        "Weights that share a scale where they have fewer than 8 bits, along the inputs; 0: all "
        "of an output.",
    )
    symmetric: bool = setting(
        default=True,
        help="Without zero points where weights have fewer than 8 bits.",
    )
    levels: tuple[Kind, ...] = setting(
        (),
        "The numbers that codes below 8 bits stand for: uniform, codebook (k-means, one of a "
        "weight, steps by block), row_codebook (one of each output, no blocks), log (powers of a "
        "base), power_sums (of two powers of two); may be repeated, then each weight gets what "
        "errs least. Without: uniform.",
    )
    power_of_two_scales: bool = setting(
        default=False,
        help="Scales that are powers of two where weights have fewer than 8 bits, and 2 as the "
        "base of log levels, for hardware that shifts.",
    )
    stored_as: Layout = setting(
        "packed",
        "How weights of few bits lie in the file: packed (unpacked at load, on any target), "
        "blocked (DequantizeLinear in blocks, 4 and 8 bits, opset 21), nbits (onnxruntime's "
        "MatMulNBits and GatherBlockQuantized, 2, 4 and 8 bits); what these do not read is packed.",
    )
    layer_forms: tuple[str, ...] = setting(
        (),
        "PATTERN=FORM for some layers in place of the settings of all: bits and size of blocks, "
        "'*attention*=4:32', a form, 'head.weight=static', or both and more, "
        "'Gather=3,4:128:codebook:weight_only'; 'head.weight=float' leaves it alone. Names as for "
        "--keep; may be repeated: a name counts for more than a pattern, then an operator type.",
    )
    per_channel: bool = setting(
        default=True,
        help="A scale for each output channel of a weight, where the target can.",
    )
    ranges: Literal["mse", "minmax", "percentile", "entropy"] = setting(
        "mse",
        "How activation ranges are chosen: mse is the least squared error, percentile 99.99%.",
    )
    absorption: bool = setting(
        default=False,
        help="Move what a channel behind Relu always exceeds into the next bias, where that "
        "shortens its 8-bit range; gained 0.15 dB at best on the public models.",
    )
    requantize: bool = setting(
        default=False,
        help="Take out the integers a model already has and quantize it anew; otherwise they are "
        "left.",
    )
    refinement: bool = setting(
        default=True, help="Round each layer again for what the quantized network feeds it."
    )

    def conflict(self) -> str | None:
        """Bits of weights that no form stores, or blocks whose scales take what is saved."""
        found = _conflict(self._offering)
        if self.form in FLOAT8 and (self.weight_bits or self.levels):
            found = f"weight_bits and levels are of integers, and form is {self.form!r}"
        for text in self.layer_forms if found is None else ():
            try:
                own = _conflict(LayerForm.parse(text).of(self._offering))
            except ValueError as error:
                return str(error)
            if own is not None:
                return f"layer_forms has {text!r}: {own}"
        return found

    def aimed_at(self, goal: str) -> "Quantize":
        """With 4 bits beside 8 where bytes count for more than time and nothing else was said.

        So too where it was said how levels below 8 bits lie, and not of how many bits.
        """
        low = goal == "size" or bool(self.levels) or self.power_of_two_scales
        mixes = low and not self.weight_bits and self.form not in FLOAT8
        return replace(self, weight_bits=SMALLEST) if mixes else self

    @property
    def _stored(self) -> StoredForms:
        return StoredForms(
            self.weight_bits,
            self.block_size,
            self.symmetric,
            self.levels,
            self.power_of_two_scales,
            self.stored_as,
        )

    @property
    def _offering(self) -> Offering:
        """What these settings allow of all layers."""
        return Offering(
            self.form,
            self.ranges,
            frozenset(self.sixteen_bit),
            mixes_widths=self.layout == "auto",
            absorbs=self.absorption,
            stored=self._stored,
        )

    @property
    def _offerings(self) -> list[Offering]:
        """Of all layers, and of those that something was said of."""
        some = [LayerForm.parse(text).of(self._offering) for text in self.layer_forms]
        return [self._offering, *some]

    @property
    def needed_opset(self) -> int:
        """Blocks and sixteen-bit integers came with 21; there is another domain for the latter."""
        blocked = any(own.stored.layout == "blocked" for own in self._offerings)
        wide = self.layout.startswith("u16") or self.sixteen_bit or blocked
        if wide:
            return SIXTEEN_BIT_OPSET
        floats = any(own.form in FLOAT8 for own in self._offerings)
        return FLOAT8_OPSET if floats else self.minimum_opset

    def prepare(self, model: ir.Model) -> ir.Model:
        """Without the integers that are in it already, where they shall be replaced."""
        return restored(model) if self.requantize else model

    @property
    def refines(self) -> bool:
        """Only where asked for: each layer is rounded twice, and its rows are summed twice."""
        return self.refinement

    def _fitted(self, context: Context) -> Context:
        """The context with the layout that was asked for in place of the target's.

        Where the opset is too low for scales per channel and could not be raised, because of
        subgraphs mostly, there is one for each weight.
        """
        target = context.target
        fits = standard_opset(context.model) >= target.minimum_opset
        allowed = target.per_channel or self.layout in target.per_channel_layouts
        target = replace(
            target,
            per_channel=allowed and self.per_channel and fits,
        )
        if self.layout != "auto":
            # Seven bits are stored in eight.
            layout = LAYOUTS[self.layout.replace("7", "8")]
            target = replace(
                target,
                activation_type=layout.activation_type,
                weight_type=layout.weight_type,
                weight_bits=7 if self.layout.endswith("7") else 8,
            )
        return replace(context, target=target)

    def observes(self, context: Context) -> Observations:
        """Gram matrices of all layers; inputs and outputs of those with an integer kernel."""
        looks_up = any(own.stored.counts_lookups for own in self._offerings)
        layers = frozenset(
            layer.name
            for layer in context.layers
            # Of embeddings, which rows are looked up.
            if compensable(layer) or (layer.op_type == "Gather" and looks_up)
        )
        forms = {own.form for own in self._offerings} - {FLOAT}
        if forms <= {"weight_only"}:
            return Observations(layers=layers, gram=True)
        tensors: set[str] = set()
        integer = [
            layer
            for layer in context.layers
            if static_refusal(layer, context.target.quantized_operators) is None
        ]
        if forms <= {"dynamic", "weight_only"}:
            # That a branch is never taken shows in these.
            tensors.update(layer.node.outputs[0].name or "" for layer in integer)
            return Observations(frozenset(tensors), layers, gram=True)
        if forms & set(FLOAT8):
            tensors.update(
                input_of(layer).name or "" for layer in context.layers if is_product(layer)
            )
        if not forms - set(FLOAT8) - {"weight_only"}:
            return Observations(frozenset(tensors), layers, gram=True)
        keepers = integer_operators(context)
        for layer in integer:
            for value in (input_of(layer), fused_output(layer.node)):
                tensors.add(scale_source(value, keepers).name or "")
        for node in keepers.values():
            tensors.add(scale_source(fused_output(node), keepers).name or "")
        return Observations(frozenset(tensors), layers, gram=True)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Static and weight-only candidates for layers; static ones for operators between.

        Errors are predicted for nearest rounding; what is decided is then rounded better.
        """
        context = replace(self._fitted(context), draft=True)
        for offering in self._offerings:
            offering.stored.refuse(context.target)
            if offering.form in FLOAT8:
                refuse_float8(offering.form, context.target)
        some = by_layer(context, self.layer_forms, self._offering)
        return proposals(context, self._offering, some)

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Write integer weights and QDQ pairs as decided; activations need no statistics."""
        carry_out(self._fitted(context), decisions)


def _conflict(offering: Offering) -> str | None:
    """Levels without bits to stand for them, or what is stored where nothing is only stored."""
    stored = offering.stored
    if (stored.kinds or stored.shifts) and stored.bits and min(stored.bits) == BYTE:
        name = "levels" if stored.kinds else "power_of_two_scales"
        return (
            f"{name} is for weights that are stored in fewer than 8 bits, and none shall be; "
            "expected weight_bits below 8 beside it"
        )
    if stored.layout != "packed" and offering.form not in (*STORES, FLOAT):
        return f"stored_as is for weights that are only stored, and form is {offering.form!r}"
    return stored.conflict()
