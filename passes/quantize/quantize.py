"""The pass itself: candidates by predicted noise, and the rewrite to QDQ or integer weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.errors import UsageError
from onnxpress.graph import (
    Layer,
    add_initializer,
    constant,
    from_matrix,
    is_standard,
    output_channel_axis,
    remembered_names,
    take_over,
    to_matrix,
    unique_name,
)
from onnxpress.opset import standard_opset
from onnxpress.passes.quantize.folding import divide, divisible
from onnxpress.passes.quantize.placement import (
    WITHOUT_WEIGHTS,
    dynamic_refusal,
    fused_output,
    input_of,
    joined_by_concat,
    operator_inputs,
    scale_source,
    static_refusal,
)
from onnxpress.passes.quantize.ranges import (
    BOUNDS,
    RANGE_METHODS,
    ActivationRange,
    choose_range,
    range_between,
)
from onnxpress.passes.quantize.restoring import integer_weights, restored
from onnxpress.passes.quantize.rounding import round_compensated
from onnxpress.passes.quantize.smoothing import Smoothing, choose_smoothing, smoothing_scales
from onnxpress.passes.quantize.weights import QuantizedWeight, quantize_weight
from onnxpress.plan import Candidate, Context, Decision, Parameter, Pass, Proposal, Skip, Stage
from onnxpress.reconstruction import output_energy, relative_error, repaired
from onnxpress.statistics import LayerStatistics, Observations, TensorStatistics

__all__ = ["Quantize"]

Parameters = Mapping[str, Parameter]

_NODE_BYTES = 160
_BIAS_LIMIT = 2.0**30
_SIXTEEN_BIT_OPSET = 21
_LARGEST_STEP = 2.0
"""A tensor may lose a bit to have one scale with the Concat that reads it, which then copies."""
_PRUNED_SHARE = 0.2
_LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "u8s8": {"activation_type": "uint8", "weight_type": "int8", "weight_bits": 8},
    "u8u8": {"activation_type": "uint8", "weight_type": "uint8", "weight_bits": 8},
    "s8s8": {"activation_type": "int8", "weight_type": "int8", "weight_bits": 8},
    "u8s7": {"activation_type": "uint8", "weight_type": "int8", "weight_bits": 7},
    "u16s8": {"activation_type": "uint16", "weight_type": "int8", "weight_bits": 8},
    "u16u8": {"activation_type": "uint16", "weight_type": "uint8", "weight_bits": 8},
}
_LEAST_SHARE = 5e-4
"""Of the bytes of all weights: less is not worth any loss, and small layers are sensitive."""


@dataclass(frozen=True)
class Quantize(Pass):
    """Eight-bit integers for weights, and for activations where that pays."""

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.NUMBER_FORM
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
            "NPUs), or auto: as the target wants."
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
        return _SIXTEEN_BIT_OPSET if self.layout.startswith("u16") else self.minimum_opset

    def prepare(self, model: ir.Model) -> ir.Model:
        """Without the integers that are in it already, where they shall be replaced."""
        return restored(model) if self.requantize else model

    @property
    def refines(self) -> bool:
        """Only where asked for: it multiplies the time."""
        return self.refinement

    def _fitted(self, context: Context) -> Context:
        """The context with the layout that was asked for in place of the target's."""
        target = replace(
            context.target,
            per_channel=context.target.per_channel and self.per_channel,
            **({} if self.layout == "auto" else _LAYOUTS[self.layout]),
        )
        return replace(context, target=target)

    def observes(self, context: Context) -> Observations:
        """Gram matrices of all layers; inputs and outputs of those with an integer kernel."""
        layers = frozenset(layer.name for layer in context.layers if _compensable(layer))
        if self.form in ("weight_only", "dynamic"):
            return Observations(layers=layers, gram=True)
        tensors: set[str] = set()
        keepers = _keepers(context)
        for layer in context.layers:
            if static_refusal(layer, context.target.quantized_operators) is None:
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
        proposals: list[Proposal | Skip] = []
        for layer in context.layers:
            reason = "its weight has no elements" if 0 in layer.shape else layer.unsafe
            if reason is None and not np.isfinite(layer.read()).all():
                reason = "its weight holds NaN or infinity"
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
                continue
            candidates: list[Candidate] = []
            limit: str | None = None
            if self.form in ("auto", "static"):
                static, limit = self._static(context, layer)
                candidates += [static] if static is not None else []
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

    def _static(self, context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
        reason = static_refusal(layer, context.target.quantized_operators)
        if reason is None and standard_opset(context.model) < context.target.minimum_opset:
            reason = f"opset {standard_opset(context.model)} has no per-channel QDQ"
        if reason is None and context.statistics is None:
            reason = "without calibration data the ranges of its activations are unknown"
        if reason is not None:
            return None, reason
        source = self._range(context, input_of(layer))
        result = self._range(context, fused_output(layer.node))
        if source is None or result is None:
            return None, "its activations were not observed, or are not finite"
        moments = context.moments(layer)
        if moments is None or moments.rows == 0 or not moments.absolute_maximum.any():
            return None, "the calibration data never exercises it: its inputs are all zero"
        matrix = layer.read()
        smoothing = _smoothing(context, layer, source)
        parameters: dict[str, Parameter] = {"form": "static"}
        read = matrix
        if smoothing is not None:
            source = smoothing.range
            parameters["smoothing"] = smoothing.strength
            read = matrix * _factors(context, layer, smoothing.strength)
        parameters |= _named("input", source) | _named("output", result)
        rounded = _static_integers(context, layer, parameters)
        error = rounded.error + _input_error(matrix, moments, read, source)
        if layer.op_type == "Conv":
            error += result.error
        return Candidate(parameters, error, _saved(layer, rounded.weight)), None

    def _dynamic(self, context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
        """MatMulInteger on an input that is quantized by its own range at every run."""
        reason = dynamic_refusal(layer, context.target.quantized_operators)
        moments = context.moments(layer)
        if reason is None and (moments is None or moments.rows == 0):
            reason = "without calibration data the error of its activations is unknown"
        if reason is not None or moments is None:
            return None, reason
        low, high = float(moments.minimum.min()), float(moments.maximum.max())
        if not np.isfinite((low, high)).all() or low == high:
            return None, "the calibration data never exercises it: its inputs never vary"
        plain = range_between(low, high, signed=False)
        matrix = layer.read()
        smoothing = _smoothing(context, layer, plain, "dynamic")
        parameters: dict[str, Parameter] = {"form": "dynamic"}
        read, span = matrix, plain
        if smoothing is not None:
            span = smoothing.range
            parameters["smoothing"] = smoothing.strength
            read = matrix * _factors(context, layer, smoothing.strength)
        rounded = _dynamic_integers(context, layer, parameters)
        error = rounded.error + _input_error(matrix, moments, read, span)
        return Candidate(parameters, error, _saved(layer, rounded.weight)), None

    def _range(self, context: Context, value: ir.Value) -> ActivationRange | None:
        """Of a tensor of the model that was observed; one for a Concat and what it reads."""
        keepers = context.cached(("keepers", id(context.model)), [], lambda: _keepers(context))
        source = scale_source(value, keepers)
        own = self._own_range(context, source)
        joined = context.cached(
            ("joined", id(context.model)), [], lambda: joined_by_concat(keepers)
        ).get(source, ())
        if own is None or not joined:
            return own
        ranges = [self._own_range(context, other) for other in joined]
        whole = self._merged_range(context, joined)
        if whole is None or any(r is None or whole.scale > _LARGEST_STEP * r.scale for r in ranges):
            return own
        return replace(whole, noise=max(own.noise, whole.scale**2 / 12), signal=own.signal)

    def _merged_range(self, context: Context, values: Sequence[ir.Value]) -> ActivationRange | None:
        """Of all values of several tensors together."""
        assert context.statistics is not None
        signed, bits = _integers(context)
        merged = TensorStatistics()
        for value in values:
            found = context.statistics.tensors.get(value.name or "")
            if found is None or found.minimum > found.maximum:
                return None
            merged.merge(found)
        key = ("merged range", values[0].name, self.ranges, signed, bits)
        return context.cached(
            key,
            [],
            lambda: choose_range(merged, signed=signed, bits=bits, method=self.ranges),
        )

    def _own_range(self, context: Context, source: ir.Value) -> ActivationRange | None:
        assert context.statistics is not None
        found = context.statistics.tensors.get(source.name or "")
        if found is None or found.minimum > found.maximum:
            return None
        signed, bits = _integers(context)
        producer = source.producer()
        bounds = None
        if producer is not None and is_standard(producer):
            bounds = BOUNDS.get(producer.op_type)
        return context.cached(
            ("range", source.name, self.ranges, signed, bits),
            [],
            lambda: choose_range(
                found, signed=signed, bits=bits, method=self.ranges, bounds=bounds
            ),
        )

    def _between(self, context: Context) -> list[Proposal | Skip]:
        if context.statistics is None or (
            standard_opset(context.model) < context.target.minimum_opset
        ):
            return []
        proposals: list[Proposal | Skip] = []
        for node in _operators(context):
            result = self._range(context, fused_output(node))
            if result is not None:
                parameters: dict[str, Parameter] = {"form": "static"}
                parameters |= _named("output", result)
                candidate = Candidate(parameters, result.error, carried=True)
                proposals.append(Proposal(node.name or "", (candidate,)))
        return proposals

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Write integer weights and QDQ pairs as decided; activations need no statistics."""
        with remembered_names(context.model.graph):
            self._rewrite(self._fitted(context), decisions)

    def _rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        nodes = {node.name: node for node in _operators(context)}
        static = {
            decision.site: decision.candidate.parameters
            for decision in decisions
            if decision.candidate.parameters["form"] == "static"
        }
        pairs = _Pairs(context)
        layers = [context.layer(site) for site in static if site not in nodes]
        smoothed = _insert_smoothing(context, layers, static)
        for layer in layers:
            pairs.want_input(layer, static[layer.name])
            if layer.op_type == "Conv":
                pairs.want_output(layer.node, static[layer.name])
        for node in context.model.graph:
            if node.name in static and node.name in nodes:
                pairs.join(node, static[node.name])
        pairs.fill_outputs(layers)
        for layer in layers:
            _write_static(context, layer, static[layer.name])
        dynamic = {
            decision.site: decision.candidate.parameters
            for decision in decisions
            if decision.candidate.parameters["form"] == "dynamic"
        }
        smoothed += _write_dynamic(context, dynamic)
        for decision in decisions:
            if decision.candidate.parameters["form"] == "weight_only":
                _write_weight_only(context, context.layer(decision.site))
        # Last, so that what is folded into weights meets them in their final form.
        pairs.move(_fold_smoothing(smoothed, pairs.tensors))
        pairs.insert()


@dataclass(frozen=True)
class _Smoothed:
    """A tensor that is divided by scales for the layers that read it.

    Attributes:
        value: the tensor.
        node: the Mul behind it.
        axis: of its channels.
        scales: `[channels]`.
    """

    value: ir.Value
    node: ir.Node
    axis: int
    scales: npt.NDArray[np.float32]


def _write_dynamic(context: Context, dynamic: Mapping[str, Parameters]) -> list[_Smoothed]:
    """DynamicQuantizeLinear once for a tensor, then MatMulInteger, Cast and Mul for each layer.

    onnxruntime fuses these, and the Add behind, into one kernel. Returns what was smoothed.
    """
    graph = context.model.graph
    layers = [context.layer(site) for site in dynamic]
    # Before anything is inserted: the integers depend on who reads what.
    rounded = [_dynamic_integers(context, layer, dynamic[layer.name]) for layer in layers]
    smoothed = _insert_smoothing(context, layers, dynamic)
    quantized: dict[ir.Value, ir.Node] = {}
    for layer, found in zip(layers, rounded, strict=True):
        node = layer.node
        if found.offset is not None:
            shift_bias(graph, node, found.offset)
        value = input_of(layer)
        if value not in quantized:
            made = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3)
            made.name = f"{value.name}_DynamicQuantizeLinear"
            for output, part in zip(
                made.outputs, ("quantized", "scale", "zero_point"), strict=True
            ):
                output.name = unique_name(graph, f"{value.name}_{part}")
            _insert_behind(graph, value, [made])
            quantized[value] = made
        values, scale, zero_point = quantized[value].outputs
        # MatMulInteger takes [in, out], whatever the Gemm had.
        axis = found.weight.axis
        integers = found.weight.values if axis == 1 else found.weight.values.T
        weight = add_initializer(graph, f"{layer.name}_quantized", np.ascontiguousarray(integers))
        scales = add_initializer(graph, f"{layer.name}_scale", found.weight.scales)
        none = add_initializer(graph, f"{layer.name}_zero_point", np.zeros((), np.int8))
        stem = node.name or layer.name
        product = ir.Node("", "MatMulInteger", [values, weight, zero_point, none])
        cast_attribute = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        steps = [product, ir.Node("", "Cast", [product.outputs[0]], [cast_attribute])]
        steps.append(ir.Node("", "Mul", [scale, scales]))
        steps.append(ir.Node("", "Mul", [steps[1].outputs[0], steps[2].outputs[0]]))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            steps.append(ir.Node("", "Add", [steps[3].outputs[0], bias]))
        for number, step in enumerate(steps):
            step.name = f"{stem}_dynamic_{number}"
            step.outputs[0].name = unique_name(graph, f"{layer.name}_dynamic_{number}")
        graph.insert_before(node, steps)
        take_over(node, steps[-1])
        _drop(layer.weight)
    return smoothed


def _insert_smoothing(
    context: Context, layers: Sequence[Layer], chosen: Mapping[str, Parameters]
) -> list[_Smoothed]:
    """Divide inputs by their smoothing scales, once for all layers that read a tensor."""
    graph = context.model.graph
    smoothed = [layer for layer in layers if chosen[layer.name].get("smoothing")]
    found = {
        layer.name: _smoothing_scales(context, layer, float(chosen[layer.name]["smoothing"]))
        for layer in smoothed
    }
    made: dict[ir.Value, _Smoothed] = {}
    for layer in smoothed:
        value = input_of(layer)
        if value not in made:
            stem = value.name or "tensor"
            scales, axis = found[layer.name], _channel_axis(layer)
            inverse = (1.0 / scales.astype(np.float64)).astype(np.float32)
            if axis == 1:
                inverse = inverse.reshape(-1, *[1] * (len(layer.shape) - 2))
            factor = add_initializer(graph, f"{stem}_smoothing", inverse)
            node = ir.Node("", "Mul", [value, factor], name=f"{factor.name}_Mul")
            node.outputs[0].name = unique_name(graph, f"{stem}_smoothed")
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            _insert_behind(graph, value, [node])
            made[value] = _Smoothed(value, node, axis, scales)
        use = layer.uses[0]
        index = 1 - use.index if layer.op_type == "MatMul" else 0
        use.node.replace_input_with(index, made[value].node.outputs[0])
    return list(made.values())


def _fold_smoothing(
    smoothed: Sequence[_Smoothed], quantized: Collection[ir.Value] = ()
) -> dict[ir.Value, ir.Value]:
    """Fold what can be folded; from the Mul outputs that are gone to the tensors in their place.

    Args:
        smoothed: as inserted.
        quantized: tensors with a pair, whose ranges stay.
    """
    moved: dict[ir.Value, ir.Value] = {}
    for found in smoothed:
        alone = list(found.value.consumers()) == [found.node]
        if found.value in quantized and found.node.outputs[0] not in quantized:
            continue
        if not alone or not divide(found.value, found.axis, found.scales, quantized):
            continue
        output, factor = found.node.outputs[0], found.node.inputs[1]
        ir.convenience.replace_all_uses_with(output, found.value)
        assert isinstance(found.node.graph, ir.Graph)
        found.node.graph.remove(found.node, safe=True)
        assert factor is not None
        _drop(factor)
        moved[output] = found.value
    return moved


def _integers(context: Context) -> tuple[bool, int]:
    """Whether the integers of activations are signed, and their bits."""
    kind = np.iinfo(context.target.activation_type)
    return kind.min < 0, kind.bits


def _keepers(context: Context) -> dict[str, ir.Node]:
    return {node.name or "": node for node in _operators(context)}


def _operators(context: Context) -> list[ir.Node]:
    """Operators without weights that have an integer kernel and read only activations."""
    return [
        node
        for node in context.model.graph
        if is_standard(node)
        and node.name
        and node.op_type in WITHOUT_WEIGHTS
        and node.op_type in context.target.quantized_operators
        and operator_inputs(node) is not None
        and node.outputs[0].dtype == ir.DataType.FLOAT
    ]


def _named(which: str, found: ActivationRange) -> dict[str, Parameter]:
    return {f"{which}_scale": found.scale, f"{which}_zero_point": found.zero_point}


def _input_error(
    matrix: npt.NDArray[np.floating],
    moments: LayerStatistics,
    read: npt.NDArray[np.floating],
    span: ActivationRange,
) -> float:
    """Share of the output's power that the rounding of the input adds through `read`."""
    energy = output_energy(matrix, moments.gram, moments.second_moment)
    noise = span.noise * float(np.square(read, dtype=np.float64).sum())
    return noise / energy if energy > 0 else 0.0


def _matrix(layer: Layer, array: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """An array of the weight's shape as `[out, in]`."""
    return to_matrix(array, layer.uses[0], layer.groups)


def _bias(layer: Layer) -> npt.NDArray[np.float64] | None:
    inputs = layer.node.inputs
    values = constant(inputs[2]) if len(inputs) > 2 else None
    if values is None:
        return None
    outputs = layer.read().shape[0]
    return np.broadcast_to(np.asarray(values, np.float64).reshape(-1), (outputs,))


def _compensable(layer: Layer) -> bool:
    """Whether the inputs of the one node that reads the weight say how to round it."""
    return len(layer.uses) == 1 and not layer.in_subgraph and layer.op_type != "Gather"


@dataclass(frozen=True)
class _Rounded:
    """A layer's weight in integers.

    Attributes:
        weight: of the smoothed weight, where the input is smoothed.
        offset: `[out]` what the bias has to take up (ΔW·μ; arXiv 1906.04721), or `None`.
        error: power of the output's change, by weights alone, over that of the output.
    """

    weight: QuantizedWeight
    offset: npt.NDArray[np.float64] | None
    error: float


def _rounded(
    context: Context,
    layer: Layer,
    weight: QuantizedWeight,
    factors: npt.NDArray[np.floating] | None = None,
) -> _Rounded:
    """Round so that errors cancel, where the layer's inputs were observed.

    Args:
        context: with statistics, or without for nearest rounding.
        layer: whose weight it is.
        weight: rounded to the nearest.
        factors: `[out, in]` the smoothing that is in `weight` already.
    """
    moments = context.moments(layer) if _compensable(layer) else None
    matrix = layer.read().astype(np.float64)
    found = weight
    biased = moments is not None and takes_bias(layer)
    gram = None
    if moments is not None and moments.rows:
        gram = moments.centred_gram if biased else moments.gram
    one = np.ones(1) if factors is None else np.asarray(factors, np.float64)
    groups = 1 if moments is None else len(moments.mean)
    # Zeros that were made on purpose are worth more than what rounding them away gains.
    pruned = bool((matrix == 0).mean() > _PRUNED_SHARE)
    target, drift = repaired(matrix, moments, biased=biased)
    if pruned:
        target = np.where(matrix == 0, 0.0, target)
    if gram is not None and weight.axis is not None and not context.draft:
        shape = weight.values.shape
        scales = _matrix(
            layer, np.broadcast_to(weight.broadcast_scales(), shape).astype(np.float64)
        )[:, 0]
        smoothed_gram = gram
        if factors is not None:
            # All rows of a group have the factors of the group.
            of_group = one[:: len(one) // groups]
            smoothed_gram = gram / (of_group[:, :, None] * of_group[:, None, :])
        # Static, dynamic and weight-only forms mostly have the same scales.
        key = ("integers", weight.highest, scales.tobytes(), one.tobytes())
        integers = context.cached(
            key,
            [layer],
            lambda: round_compensated(
                target * one, scales, smoothed_gram, weight.highest, keep_zeros=pruned
            ).astype(np.int8),
        )
        whole_numbers = integers.astype(np.float64)
        stored = from_matrix(whole_numbers, layer.shape, layer.uses[0], layer.groups)
        whole = stored + weight.zero_point
        values = whole.astype(np.uint8) if weight.zero_point else whole.astype(np.int8)
        found = replace(weight, values=values)
    delta = _matrix(layer, found.dequantize()) / one - target
    if moments is None or not moments.rows:
        return _Rounded(found, None, relative_error(delta, matrix, None))
    energy = output_energy(matrix, moments.gram, moments.second_moment)
    offset = None
    if biased:
        grouped = delta.reshape(len(moments.mean), -1, delta.shape[1])
        offset = drift - (grouped @ moments.mean[:, :, None]).reshape(-1)
        if gram is None:
            # The variance of the inputs is all that is left once the mean is taken up.
            second = np.maximum(moments.second_moment - moments.mean**2, 0.0)
            lost = output_energy(delta, None, second)
        else:
            lost = output_energy(delta, gram)
    else:
        lost = output_energy(delta, moments.gram, moments.second_moment)
    return _Rounded(found, offset, max(lost, 0.0) / energy if energy > 0 else 0.0)


def _static_integers(context: Context, layer: Layer, parameters: Parameters) -> _Rounded:
    """The weight for an integer kernel, its scales large enough for an int32 bias."""
    strength = float(parameters.get("smoothing", 0.0))
    input_scale = float(parameters["input_scale"])
    key = ("static", input_scale, strength)
    return context.cached(
        key, [layer], lambda: _static_rounded(context, layer, input_scale, strength)
    )


def _static_rounded(
    context: Context, layer: Layer, input_scale: float, strength: float
) -> _Rounded:
    target = context.target
    bias = _bias(layer)
    least: npt.NDArray[np.float64] | float = 0.0
    if bias is not None:
        least = np.abs(bias) / (input_scale * _BIAS_LIMIT)
        if not target.per_channel:
            least = float(least.max())
    stored, factors = _smoothed_weight(context, layer, strength)
    weight = quantize_weight(
        stored,
        output_channel_axis(layer) if target.per_channel else None,
        bits=target.weight_bits,
        unsigned=target.weight_type == "uint8",
        least_scales=least,
    )
    return _rounded(context, layer, weight, factors)


def _smoothed_weight(
    context: Context, layer: Layer, strength: float
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.float32] | None]:
    """The weight as stored, times smoothing scales, and those `[out, in]`; `None` at strength 0."""
    assert layer.weight.const_value is not None
    stored = layer.weight.const_value.numpy()
    if not strength:
        return stored, None
    factors = _factors(context, layer, strength)
    matrix = np.asarray(layer.read() * factors, stored.dtype)
    return from_matrix(matrix, layer.shape, layer.uses[0], layer.groups), factors


def _dynamic_integers(context: Context, layer: Layer, parameters: Parameters) -> _Rounded:
    strength = float(parameters.get("smoothing", 0.0))

    def make() -> _Rounded:
        stored, factors = _smoothed_weight(context, layer, strength)
        bits = context.target.weight_bits
        weight = quantize_weight(stored, output_channel_axis(layer), bits=bits)
        return _rounded(context, layer, weight, factors)

    return context.cached(("dynamic", strength), [layer], make)


def _weight_only_integers(context: Context, layer: Layer) -> _Rounded:
    def make() -> _Rounded:
        assert layer.weight.const_value is not None
        # An embedding's rows are words of very different norms: a scale each.
        axis = 0 if layer.op_type == "Gather" else output_channel_axis(layer)
        weight = quantize_weight(layer.weight.const_value.numpy(), 0 if axis is None else axis)
        return _nearest(layer, weight) if axis is None else _rounded(context, layer, weight)

    return context.cached("weight_only", [layer], make)


def _nearest(layer: Layer, weight: QuantizedWeight) -> _Rounded:
    matrix = layer.read()
    delta = _matrix(layer, weight.dequantize()) - matrix
    return _Rounded(weight, None, relative_error(delta, matrix, None))


def _readers(context: Context, layer: Layer) -> list[tuple[Layer, LayerStatistics]]:
    """All observed layers that could compute in integers and read what `layer` reads."""
    value = input_of(layer)
    operators = context.target.quantized_operators
    return [
        (other, moments)
        for other in context.layers
        if (other.op_type == "Conv") == (layer.op_type == "Conv")
        and static_refusal(other, operators) is None
        and input_of(other) is value
        and (moments := context.moments(other)) is not None
    ]


def _channels(layer: Layer) -> npt.NDArray[np.intp]:
    """`[groups, in]`: which channel of its input tensor each input of a row is."""
    inputs = int(layer.read().shape[1])
    if layer.op_type != "Conv":
        return np.arange(inputs)[None]
    per_group = layer.shape[1]
    within = np.repeat(np.arange(per_group), inputs // per_group)
    return np.asarray(within + per_group * np.arange(layer.groups)[:, None], np.intp)


def _channel_axis(layer: Layer) -> int:
    return 1 if layer.op_type == "Conv" else -1


def _smoothing(
    context: Context, layer: Layer, plain: ActivationRange, form: str = "static"
) -> Smoothing | None:
    """How the layer's input is smoothed, the same for all that read it."""
    key = ("smoothing", form, input_of(layer).name)
    if not context.target.per_channel:
        return None
    if key not in context.cache:
        readers = _readers(context, layer)
        value = input_of(layer)
        everyone = {reader.node for reader, _ in readers} >= set(value.consumers())
        free = everyone and divisible(value, _channel_axis(layer))
        signed, bits = (False, 8) if form == "dynamic" else _integers(context)
        # Between convolutions a Mul would cost more than it saves.
        context.cache[key] = (
            choose_smoothing(
                [reader.read() for reader, _ in readers],
                [moments for _, moments in readers],
                plain,
                signed=signed,
                bits=bits,
                channels=[_channels(reader) for reader, _ in readers],
                free=free,
            )
            if readers and (free or layer.op_type != "Conv")
            else None
        )
    return cast("Smoothing | None", context.cache[key])


def _smoothing_scales(context: Context, layer: Layer, strength: float) -> npt.NDArray[np.float32]:
    """`[channels]` of the layer's input."""
    # Kept by layer: a rewrite has changed what the layers read when it asks again.
    key = ("smoothing scales", layer.name, strength)
    if key not in context.cache:
        readers = _readers(context, layer)
        scales = smoothing_scales(
            [reader.read() for reader, _ in readers],
            [moments for _, moments in readers],
            strength,
            [_channels(reader) for reader, _ in readers],
        )
        for reader, _ in readers:
            context.cache["smoothing scales", reader.name, strength] = scales
    return cast("npt.NDArray[np.float32]", context.cache[key])


def _factors(context: Context, layer: Layer, strength: float) -> npt.NDArray[np.float32]:
    """`[out, in]` what the layer's matrix is multiplied with where its input is smoothed."""
    channels = _channels(layer)
    rows = layer.read().shape[0] // len(channels)
    return np.repeat(_smoothing_scales(context, layer, strength)[channels], rows, axis=0)


def _saved(layer: Layer, weight: QuantizedWeight) -> int:
    return layer.nbytes - weight.values.nbytes - weight.scales.nbytes - _NODE_BYTES


def _weight_only(context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
    rounded = _weight_only_integers(context, layer)
    saved = _saved(layer, rounded.weight)
    if saved <= 0:
        return None, "too small: its scales would take what is saved"
    total = sum(other.nbytes for other in context.layers)
    if saved < _LEAST_SHARE * total:
        return None, f"too small: {saved:,} bytes of {total:,} are not worth any loss"
    return Candidate({"form": "weight_only"}, rounded.error, saved, neutral=True), None


def _write_static(context: Context, layer: Layer, parameters: Parameters) -> None:
    graph, node = layer.graph, layer.node
    input_scale = float(parameters["input_scale"])
    rounded = _static_integers(context, layer, parameters)
    weight = rounded.weight
    scales = weight.scales if weight.axis is not None else weight.scales.reshape(())
    if rounded.offset is not None:
        shift_bias(graph, node, rounded.offset)
    bias = _bias(layer)
    node.replace_input_with(
        layer.uses[0].index,
        _dequantize(context, layer.name, weight.values, scales, weight.zero_point, weight.axis),
    )
    if bias is not None:
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        bias_scales = np.maximum(bias_scales, np.finfo(np.float32).tiny)
        integers = np.clip(
            np.round(bias / bias_scales.astype(np.float64)), -(2.0**31), 2.0**31 - 1
        ).astype(np.int32)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        old = node.inputs[2]
        axis = 0 if bias_scales.ndim else None
        stem = f"{layer.name}_bias" if old is None else old.name
        name = unique_name(graph, f"{stem}_int32")
        node.replace_input_with(2, _dequantize(context, name, integers, bias_scales, 0, axis))
        if old is not None:
            _drop(old)
    _drop(layer.weight)


def _drop(value: ir.Value) -> None:
    if not value.uses() and value.graph is not None and not value.is_graph_output():
        del value.graph.initializers[value.name or ""]


def _dequantize(
    context: Context,
    stem: str,
    values: npt.NDArray[np.generic],
    scales: npt.NDArray[np.float32],
    zero_point: int,
    axis: int | None,
) -> ir.Value:
    """Integers behind DequantizeLinear, as the first nodes of the graph."""
    graph = context.model.graph
    inputs = [
        add_initializer(graph, f"{stem}_quantized", values),
        add_initializer(graph, f"{stem}_scale", scales),
    ]
    zeros = np.full(scales.shape, zero_point, values.dtype)
    inputs.append(add_initializer(graph, f"{stem}_zero_point", zeros))
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", "DequantizeLinear", inputs, attributes, name=f"{stem}_DequantizeLinear")
    output = node.outputs[0]
    output.name = unique_name(graph, f"{stem}_dequantized")
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(values.shape)
    _prepend(graph, [node])
    return output


def _prepend(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _insert_behind(graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
    """After the node that computes a value, or first where none of this graph does."""
    producer = value.producer()
    if producer is None or producer.graph is not graph:
        _prepend(graph, nodes)
    else:
        graph.insert_after(producer, nodes)


def _write_weight_only(context: Context, layer: Layer) -> None:
    graph = layer.graph
    rounded = _weight_only_integers(context, layer)
    weight = rounded.weight
    if rounded.offset is not None:
        shift_bias(graph, layer.node, rounded.offset)
    stored = layer.weight.const_value
    assert stored is not None
    scales = weight.broadcast_scales().astype(stored.numpy().dtype)
    integers = add_initializer(graph, f"{layer.name}_quantized", weight.values)
    factor = add_initializer(graph, f"{layer.name}_scale", scales, layer.dtype)
    cast = ir.Node(
        "",
        "Cast",
        [integers],
        [ir.AttrInt64("to", int(layer.dtype))],
        name=f"{layer.name}_Cast",
    )
    cast.outputs[0].name = unique_name(graph, f"{layer.name}_cast")
    scaled = ir.Node("", "Mul", [cast.outputs[0], factor], name=f"{layer.name}_Mul")
    for node in (cast, scaled):
        node.outputs[0].type = ir.TensorType(layer.dtype)
        node.outputs[0].shape = ir.Shape(layer.shape)
    _prepend(graph, [cast, scaled])
    ir.convenience.replace_all_uses_with(layer.weight, scaled.outputs[0])
    del graph.initializers[layer.name]
    scaled.outputs[0].name = layer.name


class _Pairs:
    """The QDQ pairs of a rewrite: gathered first, then inserted, one per tensor."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keepers = _keepers(context)
        self._ranges: dict[ir.Value, tuple[float, int]] = {}
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        self._integer: set[ir.Value] = set()

    def want_input(self, layer: Layer, parameters: Parameters) -> None:
        """The layer reads its input through a pair."""
        value = input_of(layer)
        self._ranges[value] = _scale(parameters, "input")
        self._readers.setdefault(value, []).append(layer.node)

    def want_output(self, node: ir.Node, parameters: Parameters) -> None:
        """Everyone reads the node's output, behind a fused activation, through a pair."""
        value = fused_output(node)
        self._ranges[value] = _scale(parameters, "output")
        self._integer.add(value)

    def join(self, node: ir.Node, parameters: Parameters) -> None:
        """An operator without weights computes in integers if all it reads is in integers."""
        inputs = operator_inputs(node)
        if inputs is not None and all(value in self._integer for value in inputs):
            self.want_output(node, parameters)

    def fill_outputs(self, layers: list[Layer]) -> None:
        """Gemm and MatMul outputs that an integer kernel reads are integers themselves."""
        for layer in layers:
            output = fused_output(layer.node)
            if layer.op_type != "Conv" and output in self._readers:
                self._integer.add(output)

    @property
    def tensors(self) -> frozenset[ir.Value]:
        """All that get a pair."""
        return frozenset(self._ranges)

    def move(self, moved: Mapping[ir.Value, ir.Value]) -> None:
        """Pairs of tensors that are gone go to those in their place, with their ranges."""
        for old, new in moved.items():
            if old not in self._ranges:
                continue
            self._ranges[new] = self._ranges.pop(old)
            self._readers.setdefault(new, []).extend(self._readers.pop(old, []))

    def insert(self) -> None:
        """Put every pair into the graph."""
        graph = self._context.model.graph
        for value, (scale, zero_point) in self._ranges.items():
            self._insert(graph, value, scale, zero_point)

    def _insert(self, graph: ir.Graph, value: ir.Value, scale: float, zero_point: int) -> None:
        kind = np.dtype(self._context.target.activation_type)
        # Sixteen bits came to ONNX's own operators with opset 21, to onnxruntime's before.
        domain = ""
        if kind.itemsize > 1 and standard_opset(self._context.model) < _SIXTEEN_BIT_OPSET:
            domain = "com.microsoft"
            graph.opset_imports.setdefault(domain, 1)
        stem = value.name or "tensor"
        factor = add_initializer(graph, f"{stem}_scale", np.asarray(scale, np.float32))
        zero = add_initializer(graph, f"{stem}_zero_point", np.asarray(zero_point, kind))
        is_output = value.is_graph_output()
        # Of a tensor computed in float only integer kernels read the rounded form.
        everyone = value in self._integer
        users = [usage for usage in value.uses() if everyone or usage.node in self._readers[value]]
        quantize = ir.Node(domain, "QuantizeLinear", [value, factor, zero])
        quantize.name = f"{stem}_QuantizeLinear"
        dequantize = ir.Node(domain, "DequantizeLinear", [quantize.outputs[0], factor, zero])
        dequantize.name = f"{stem}_DequantizeLinear"
        quantize.outputs[0].name = unique_name(graph, f"{stem}_quantized")
        quantize.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(kind))
        quantize.outputs[0].shape = value.shape
        result = dequantize.outputs[0]
        result.name = unique_name(graph, f"{stem}_dequantized")
        result.type, result.shape = value.type, value.shape
        _insert_behind(graph, value, [quantize, dequantize])
        for node, index in users:
            node.replace_input_with(index, result)
        if is_output and everyone:
            self._rename_output(graph, value, result)

    def _rename_output(self, graph: ir.Graph, value: ir.Value, result: ir.Value) -> None:
        name = value.name or ""
        value.name = unique_name(graph, f"{name}_float")
        result.name = name
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = result


def _scale(parameters: Parameters, which: str) -> tuple[float, int]:
    return float(parameters[f"{which}_scale"]), int(parameters[f"{which}_zero_point"])
