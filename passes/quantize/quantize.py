"""The pass itself: candidates by predicted noise, and how what is decided is carried out."""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Candidate, Context, Decision, Parameter, Pass, Proposal, Skip, Stage
from onnxpress.errors import UsageError
from onnxpress.graph import remembered_names, standard_opset
from onnxpress.layers import Layer
from onnxpress.passes.quantize.absorbing import absorb, shorter_range
from onnxpress.passes.quantize.activations import (
    activation_range,
    computes_wide,
    integer_operators,
    integer_type,
    operators_between,
    range_source,
    regridded,
    widened,
)
from onnxpress.passes.quantize.equalizing import (
    fold_smoothing,
    insert_smoothing,
    smoothing_factors,
    smoothing_of,
)
from onnxpress.passes.quantize.integers import (
    compensable,
    dynamic_integers,
    layer_energy,
    static_integers,
    weight_only_integers,
)
from onnxpress.passes.quantize.pairs import SIXTEEN_BIT_OPSET, Pairs
from onnxpress.passes.quantize.placement import (
    dynamic_refusal,
    fused_output,
    input_of,
    rounds_output,
    scale_source,
    static_refusal,
)
from onnxpress.passes.quantize.ranges import RANGE_METHODS, ActivationRange, range_between
from onnxpress.passes.quantize.restoring import integer_weights, restored
from onnxpress.passes.quantize.weights import QuantizedWeight
from onnxpress.passes.quantize.writing import write_dynamic, write_static, write_weight_only
from onnxpress.statistics import Observations
from onnxpress.targets import LAYOUTS

__all__ = ["Quantize"]

Parameters = Mapping[str, Parameter]

_NODE_BYTES = 160
_LAYOUTS = ("u8s8", "u8u8", "s8s8", "u8s7", "u16s8", "u16u8")
_STATIC, _WIDE = "static", "static_16_bit"
_STATIC_OPSET = 10
_DYNAMIC_OPSET = 11
_LEAST_SHARE = 5e-4
"""Of the bytes of all weights: less is not worth any loss, and small layers are sensitive."""


@dataclass(frozen=True)
class Quantize(Pass):
    """Eight-bit integers for weights, and for activations where that pays."""

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.QUANTIZATION
    minimum_opset: ClassVar[int] = 13
    rewrites_from_statistics: ClassVar[bool] = True

    form: str = field(
        default="auto",
        metadata={
            "help": "static (integer kernels, needs calibration data), dynamic (MatMul and Gemm "
            "measure their input at every run), weight_only, or auto: the best mixture."
        },
    )

    layout: str = field(
        default="auto",
        metadata={
            "help": "Types of activations and weights: u8s8, u8u8, s8s8 (zero point 0), u8s7 (no "
            "saturation without fused 8-bit dot products), u16s8, u16u8 (16-bit activations, for "
            "NPUs), or auto: as the target wants, which may be 8 and 16 bits in one model."
        },
    )
    sixteen_bit: str = field(
        default="",
        metadata={
            "help": "Layers that compute with 16-bit activations amid 8-bit ones, by name, "
            "separated by commas; empty: the worst ones, where the target has such kernels."
        },
    )
    per_channel: bool = field(
        default=True,
        metadata={"help": "A scale for each output channel of a weight, where the target can."},
    )
    ranges: str = field(
        default="mse",
        metadata={
            "help": "How activation ranges are chosen: mse (least squared error), minmax, "
            "percentile (99.99%) or entropy."
        },
    )
    absorption: bool = field(
        default=False,
        metadata={
            "help": "Move what a channel behind Relu always exceeds into the next bias, where that "
            "shortens its 8-bit range; gained 0.15 dB at best on the public models."
        },
    )
    requantize: bool = field(
        default=False,
        metadata={
            "help": "Take out the integers a model already has and quantize it anew; otherwise "
            "they are left."
        },
    )
    refinement: bool = field(
        default=False,
        metadata={
            "help": "Round each layer again for what the quantized network feeds it; takes a run "
            "over the calibration data for every level of the network."
        },
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.layout not in ("auto", *_LAYOUTS):
            raise UsageError(
                f"quantize: layout is {self.layout!r}; expected auto, {', '.join(_LAYOUTS)}"
            )
        if self.ranges not in RANGE_METHODS:
            raise UsageError(
                f"quantize: ranges is {self.ranges!r}; expected one of {', '.join(RANGE_METHODS)}"
            )
        if self.form not in ("auto", "static", "dynamic", "weight_only"):
            raise UsageError(
                f"quantize: form is {self.form!r}; expected auto, static, dynamic or weight_only"
            )

    @property
    def needed_opset(self) -> int:
        """Sixteen-bit integers came with 21; where it cannot be raised, another domain serves."""
        wide = self.layout.startswith("u16") or self._forced
        return SIXTEEN_BIT_OPSET if wide else self.minimum_opset

    @property
    def _forced(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.sixteen_bit.split(",") if name.strip())

    def prepare(self, model: ir.Model) -> ir.Model:
        """Without the integers that are in it already, where they shall be replaced."""
        return restored(model) if self.requantize else model

    @property
    def refines(self) -> bool:
        """Only where asked for: it multiplies the time."""
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
        layers = frozenset(layer.name for layer in context.layers if compensable(layer))
        if self.form == "weight_only":
            return Observations(layers=layers, gram=True)
        tensors: set[str] = set()
        integer = [
            layer
            for layer in context.layers
            if static_refusal(layer, context.target.quantized_operators) is None
        ]
        if self.form == "dynamic":
            # That a branch is never taken shows in these.
            tensors.update(layer.node.outputs[0].name or "" for layer in integer)
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
        unknown = self._forced - {layer.name for layer in context.layers}
        if unknown:
            raise UsageError(
                f"quantize: sixteen_bit names {min(unknown)!r}, which is no layer of this model "
                "with a constant weight; `onnxpress inspect` lists them"
            )
        proposals: list[Proposal | Skip] = []
        times = collections.Counter(layer.name for layer in context.layers)
        for layer in context.layers:
            reason = "its weight has no elements" if 0 in layer.shape else layer.unsafe
            if times[layer.name] > 1:
                reason = "weights of several subgraphs have its name: simplify the model first"
            if reason is None and not np.isfinite(layer.read()).all():
                reason = "its weight holds NaN or infinity"
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
                continue
            candidates: list[Candidate] = []
            limit: str | None = None
            if self.form in ("auto", "static"):
                static, limit = self._static(context, layer)
                candidates += static
            if self.form in ("auto", "dynamic"):
                dynamic, reason = self._dynamic(context, layer)
                candidates += [dynamic] if dynamic is not None else []
                limit = limit or (None if candidates else reason)
            if self.form in ("auto", "weight_only"):
                weight_only, small = _weight_only(context, layer)
                candidates += [weight_only] if weight_only is not None else []
                limit = limit or small
            if candidates:
                proposals.append(Proposal(layer.name, tuple(candidates), limit))
            else:
                proposals.append(Skip(layer.name, limit or "no form fits it"))
        proposals += [
            Skip(name, "is in integers already; requantize quantizes it anew")
            for name in integer_weights(context.model)
        ]
        if self.form in ("auto", "static"):
            proposals += self._between(context)
        return proposals

    def _static(self, context: Context, layer: Layer) -> tuple[list[Candidate], str | None]:
        """With activations of 8 bits, and of 16 where that is possible and nearer."""
        reason = static_refusal(layer, context.target.quantized_operators)
        if reason is None and standard_opset(context.model) < _STATIC_OPSET:
            reason = f"opset {standard_opset(context.model)} has no QuantizeLinear"
        if reason is None and context.statistics is None:
            reason = "without calibration data the ranges of its activations are unknown"
        if reason is not None:
            return [], reason
        moments = context.moments(layer)
        plain = self._ranges(context, layer)
        if plain is None:
            values = [input_of(layer), fused_output(layer.node)]
            return [], _unobserved(context, [range_source(context, v) for v in values], layer)
        if moments is None or moments.rows == 0 or not moments.absolute_maximum.any():
            return [], "the calibration data never exercises it: its inputs are all zero"
        wide = self._ranges(widened(context), layer) if self._mixes(context) else None
        found = [self._candidate(context, layer, plain, wide, form=_STATIC)]
        if wide is not None:
            nearer = self._candidate(context, layer, wide, plain, form=_WIDE)
            if layer.name in self._forced:
                return [nearer], None
            found += [nearer] if nearer.predicted_error < found[0].predicted_error else []
        return found, None

    def _mixes(self, context: Context) -> bool:
        return bool(self._forced) or (self.layout == "auto" and computes_wide(context))

    def _ranges(
        self, context: Context, layer: Layer
    ) -> tuple[ActivationRange, ActivationRange] | None:
        """Of the layer's input and output."""
        source = activation_range(context, input_of(layer), self.ranges)
        result = activation_range(context, fused_output(layer.node), self.ranges)
        return None if source is None or result is None else (source, result)

    def _candidate(
        self,
        context: Context,
        layer: Layer,
        own: tuple[ActivationRange, ActivationRange],
        other: tuple[ActivationRange, ActivationRange] | None,
        *,
        form: str,
    ) -> Candidate:
        """Of one width of activations; `other`: the ranges in the other width, if both may meet."""
        moments = context.moments(layer)
        assert moments is not None
        (source, result), matrix = own, layer.read()
        energy = layer_energy(context, layer, moments)
        # One division for all that read the tensor, whatever their width.
        narrow = own if other is None or form == _STATIC else other
        smoothing = smoothing_of(context, layer, narrow[0])
        parameters: dict[str, Parameter] = {"form": form}
        read = matrix
        if smoothing is not None:
            source = smoothing.range
            if form == _WIDE:
                signed, _ = integer_type(context)
                finer = regridded(source.scale, source.zero_point, signed=signed, finer=True)
                source = replace(
                    source, scale=finer[0], zero_point=finer[1], noise=finer[0] ** 2 / 12
                )
            parameters["smoothing"] = smoothing.strength
            read = matrix * smoothing_factors(context, layer, smoothing.strength)
        shorter = None
        # A 16-bit range is fine enough; refinement sees the shorter inputs itself.
        if self.absorption and not self.refinement and form == _STATIC:
            strength = 0.0 if smoothing is None else smoothing.strength
            shorter = shorter_range(context, layer, source, strength)
        if shorter is not None:
            source = shorter
            parameters["absorbed"] = True
        parameters |= _named("input", source) | _named("output", result)
        if other is not None:
            parameters |= _named("other_output", other[1])
        rounded = static_integers(context, layer, parameters)
        error = rounded.error + _input_error(energy, read, source)
        if rounds_output(layer):
            error += result.error
        return Candidate(parameters, error, _saved(layer, rounded.weight))

    def _dynamic(self, context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
        """MatMulInteger on an input that is quantized by its own range at every run."""
        reason = dynamic_refusal(layer, context.target.quantized_operators)
        moments = context.moments(layer)
        if reason is None and standard_opset(context.model) < _DYNAMIC_OPSET:
            reason = f"opset {standard_opset(context.model)} has no DynamicQuantizeLinear"
        if reason is None and context.statistics is None:
            reason = "without calibration data the error of its activations is unknown"
        if reason is None and (moments is None or moments.rows == 0):
            reason = _unobserved(context, layer.node.outputs, layer)
        if reason is not None or moments is None:
            return None, reason
        low, high = float(moments.minimum.min()), float(moments.maximum.max())
        if not np.isfinite((low, high)).all() or low == high:
            return None, "the calibration data never exercises it: its inputs never vary"
        plain = range_between(low, high, signed=False)
        energy = layer_energy(context, layer, moments)
        matrix = layer.read()
        smoothing = smoothing_of(context, layer, plain, "dynamic")
        parameters: dict[str, Parameter] = {"form": "dynamic"}
        read, span = matrix, plain
        if smoothing is not None:
            span = smoothing.range
            parameters["smoothing"] = smoothing.strength
            read = matrix * smoothing_factors(context, layer, smoothing.strength)
        rounded = dynamic_integers(context, layer, parameters)
        error = rounded.error + _input_error(energy, read, span)
        return Candidate(parameters, error, _saved(layer, rounded.weight)), None

    def _between(self, context: Context) -> list[Proposal | Skip]:
        if context.statistics is None or standard_opset(context.model) < _STATIC_OPSET:
            return []
        proposals: list[Proposal | Skip] = []
        for node in operators_between(context):
            result = activation_range(context, fused_output(node), self.ranges)
            if result is not None:
                parameters: dict[str, Parameter] = {"form": _STATIC}
                parameters |= _named("output", result)
                wide = None
                if self._mixes(context):
                    wide = activation_range(widened(context), fused_output(node), self.ranges)
                if wide is not None:
                    parameters |= _named("other_output", wide)
                candidate = Candidate(parameters, result.error, carried=True)
                proposals.append(Proposal(node.name or "", (candidate,)))
        return proposals

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Write integer weights and QDQ pairs as decided; activations need no statistics."""
        with remembered_names(context.model.graph):
            self._rewrite(self._fitted(context), decisions)

    def _rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        nodes = {node.name: node for node in operators_between(context)}
        by_form: dict[str, dict[str, Parameters]] = {}
        for decision in decisions:
            parameters = decision.candidate.parameters
            by_form.setdefault(str(parameters["form"]), {})[decision.site] = parameters
        wide = by_form.get(_WIDE, {})
        static = by_form.get(_STATIC, {}) | wide
        pairs = Pairs(context)
        layers = [context.layer(site) for site in static if site not in nodes]
        absorb(context, layers, static)
        smoothed = insert_smoothing(context, layers, static)
        for layer in layers:
            pairs.want_input(layer, static[layer.name], wide=layer.name in wide)
        for layer in layers:
            if rounds_output(layer):
                pairs.want_output(layer.node, static[layer.name], wide=layer.name in wide)
        for name, node in nodes.items():
            if name in static:
                pairs.join(node, static[name])
        pairs.fill_outputs(layers, static)
        pairs.widen(smoothed)
        for layer in layers:
            write_static(context, layer, static[layer.name], pairs.input_scale(layer))
        smoothed += write_dynamic(context, by_form.get("dynamic", {}))
        for site in by_form.get("weight_only", {}):
            write_weight_only(context, context.layer(site))
        # Last, so that what is folded into weights meets them in their final form.
        pairs.move(fold_smoothing(smoothed, pairs.tensors))
        pairs.insert()


def _unobserved(context: Context, values: Sequence[ir.Value], layer: Layer) -> str:
    """Why statistics of a layer's activations are missing or useless."""
    assert context.statistics is not None
    for value in values:
        found = context.statistics.tensors.get(value.name or "")
        if found is None:
            return "its activations cannot be observed"
        if found.minimum > found.maximum:
            where = " of the subgraph that it is in" if layer.in_subgraph else ""
            return f"the calibration data never exercises it: no run{where} gave it an input"
    return "its activations are not finite"


def _named(which: str, found: ActivationRange) -> dict[str, Parameter]:
    return {f"{which}_scale": found.scale, f"{which}_zero_point": found.zero_point}


def _input_error(energy: float, read: npt.NDArray[np.floating], span: ActivationRange) -> float:
    """Share of the output's power `energy` that the rounding of the input adds through `read`."""
    noise = span.noise * float(np.square(read, dtype=np.float64).sum())
    return noise / energy if energy > 0 else 0.0


def _saved(layer: Layer, weight: QuantizedWeight) -> int:
    return layer.nbytes - weight.values.nbytes - weight.scales.nbytes - _NODE_BYTES


def _weight_only(context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
    rounded = weight_only_integers(context, layer)
    saved = _saved(layer, rounded.weight)
    if saved <= 0:
        return None, "too small: its scales would take what is saved"
    total = sum(other.nbytes for other in context.layers)
    if saved < _LEAST_SHARE * total:
        return None, f"too small: {saved:,} bytes of {total:,} are not worth any loss"
    return Candidate({"form": "weight_only"}, rounded.error, saved, keeps_kernels=True), None
