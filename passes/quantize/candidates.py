"""What a layer may become, with the noise that is predicted of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Candidate, Context, Layer, Parameter, memoised_of_model
from onnxpress.graph import standard_opset
from onnxpress.passes.quantize.absorbing import shorter_range
from onnxpress.passes.quantize.activations import (
    activation_range,
    computes_wide,
    integer_type,
    range_source,
    regridded,
    widened,
)
from onnxpress.passes.quantize.equalizing import smoothing_factors, smoothing_of
from onnxpress.passes.quantize.goals import layer_energy
from onnxpress.passes.quantize.integers import (
    dynamic_integers,
    nearest_bytes,
    static_integers,
    weight_only_integers,
)
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.qdq_rules import (
    dynamic_refusal,
    fused_output,
    input_of,
    rounds_output,
    static_refusal,
)
from onnxpress.passes.quantize.ranges import ActivationRange, range_between
from onnxpress.passes.quantize.stored_forms import StoredForms
from onnxpress.passes.quantize.weights import QuantizedWeight

__all__ = [
    "DYNAMIC",
    "LEAST_SHARE",
    "STATIC",
    "STORES",
    "WIDE",
    "Offering",
    "between_candidate",
    "dynamic_candidates",
    "static_candidates",
    "weight_bytes",
    "weight_only_candidate",
]

STORES = ("auto", "weight_only")
"""Forms in which weights may be stored alone."""
DYNAMIC, STATIC, WIDE = "dynamic", "static", "static_16_bit"
_NODE_BYTES, _NAMES = 100, 8
"""Of two nodes and two tensors beside a weight: all but names, and how often these name it."""
_PAIRS_BYTES = 840
"""More, of the pairs around a layer and its bias, which neighbours share mostly."""
_STATIC_OPSET = 10
_DYNAMIC_OPSET = 11
LEAST_SHARE = 5e-4
"""Of the bytes of all weights: less is not worth any loss, and small layers are sensitive."""

Ranges = tuple[ActivationRange, ActivationRange]
"""Of a layer's input and output."""


@dataclass(frozen=True, slots=True)
class Offering:
    """What the settings allow.

    Attributes:
        form: static, dynamic, weight_only, or auto: all of them.
        ranges: how activation ranges are chosen.
        sixteen_bit: layers that have to compute with 16-bit activations.
        mixes_widths: whether others may, where the target has kernels for both widths.
        absorbs: whether high biases may be moved on.
        stored: in how many bits weights may lie in the file.
    """

    form: str
    ranges: str
    sixteen_bit: frozenset[str]
    mixes_widths: bool
    absorbs: bool
    stored: StoredForms

    @property
    def stores(self) -> bool:
        """Whether weights may be stored in integers and expanded when the model is loaded."""
        return self.form in STORES

    def mixes(self, context: Context) -> bool:
        """Whether activations of both widths may meet in one model."""
        return bool(self.sixteen_bit) or (self.mixes_widths and computes_wide(context))


def static_candidates(
    context: Context, layer: Layer, offering: Offering
) -> tuple[list[Candidate], str | None]:
    """With activations of 8 bits, and of 16 where that is possible and nearer; or why not.

    Those of 8 bits may have weights of fewer in the file.
    """
    reason = static_refusal(layer, context.target.quantized_operators)
    if reason is None and standard_opset(context.model) < _STATIC_OPSET:
        reason = f"opset {standard_opset(context.model)} has no QuantizeLinear [Q002]"
    if reason is None and context.statistics is None:
        reason = "without calibration data the ranges of its activations are unknown [Q003]"
    if reason is not None:
        return [], reason
    moments = context.moments(layer)
    plain = _ranges(context, layer, offering.ranges)
    if plain is None:
        values = [input_of(layer), fused_output(layer.node)]
        return [], _unobserved(context, [range_source(context, v) for v in values], layer)
    if moments is None or moments.rows == 0 or not moments.absolute_maximum.any():
        return [], "the calibration data never exercises it: its inputs are all zero [L013]"
    wide = None
    if offering.mixes(context):
        wide = _ranges(widened(context), layer, offering.ranges)
    narrow, found = _static(context, layer, plain, wide, STATIC, offering)
    if wide is not None:
        nearer, _ = _static(context, layer, wide, plain, WIDE, offering)
        if layer.name in offering.sixteen_bit:
            return [nearer], None
        found += [nearer] if nearer.predicted_error < narrow.predicted_error else []
    return found, None


def _ranges(context: Context, layer: Layer, method: str) -> Ranges | None:
    source = activation_range(context, input_of(layer), method)
    result = activation_range(context, fused_output(layer.node), method)
    return None if source is None or result is None else (source, result)


def _static(
    context: Context,
    layer: Layer,
    own: Ranges,
    other: Ranges | None,
    family: str,
    offering: Offering,
) -> tuple[Candidate, list[Candidate]]:
    """Of one width of activations: with 8 bits in the file, and all that is offered.

    `other`: the ranges in the other width, if both may meet.
    """
    (source, result), matrix = own, layer.read()
    energy = layer_energy(context, layer)
    # One division for all that read the tensor, whatever their width.
    narrow = own if other is None or family == STATIC else other
    smoothing = smoothing_of(context, layer, narrow[0])
    parameters: dict[str, Parameter] = {}
    read = matrix
    if smoothing is not None:
        source = smoothing.range
        if family == WIDE:
            signed, _ = integer_type(context)
            scale, zero = regridded(source.scale, source.zero_point, signed=signed, finer=True)
            source = replace(source, scale=scale, zero_point=zero, noise=scale**2 / 12)
        parameters["smoothing"] = smoothing.strength
        read = matrix * smoothing_factors(context, layer, smoothing.strength)
    shorter = None
    # A 16-bit range is fine enough without absorption.
    if offering.absorbs and family == STATIC:
        strength = 0.0 if smoothing is None else smoothing.strength
        shorter = shorter_range(context, layer, source, strength)
    if shorter is not None:
        source = shorter
        parameters["absorbed"] = True
    parameters |= _named("input", source) | _named("output", result)
    if other is not None:
        parameters |= _named("other_output", other[1])
    rounded = static_integers(context, layer, parameters, source.scale)
    beside = _input_error(energy, read, source)
    if rounds_output(layer):
        beside += result.error
    saved = _saved(layer, rounded.weight) - _PAIRS_BYTES
    found = Candidate(parameters, rounded.error + beside, saved, family=family)
    if family == WIDE:
        return found, [found]

    def error_of(form: LowBitForm) -> float:
        return static_integers(context, layer, parameters, source.scale, form).error + beside

    return found, offering.stored.kernels(context, layer, found, error_of)


def dynamic_candidates(
    context: Context, layer: Layer, offering: Offering
) -> tuple[list[Candidate], str | None]:
    """MatMulInteger on an input that is quantized by its own range at every run; or why not."""
    reason = dynamic_refusal(layer, context.target.quantized_operators)
    moments = context.moments(layer)
    if reason is None and standard_opset(context.model) < _DYNAMIC_OPSET:
        reason = f"opset {standard_opset(context.model)} has no DynamicQuantizeLinear [Q002]"
    if reason is None and context.statistics is None:
        reason = "without calibration data the error of its activations is unknown [Q003]"
    if reason is None and (moments is None or moments.rows == 0):
        reason = _unobserved(context, layer.node.outputs, layer)
    if reason is not None or moments is None:
        return [], reason
    low, high = float(moments.minimum.min()), float(moments.maximum.max())
    if not np.isfinite((low, high)).all() or low == high:
        return [], "the calibration data never exercises it: its inputs never vary [L013]"
    plain = range_between(low, high, signed=False)
    matrix = layer.read()
    smoothing = smoothing_of(context, layer, plain, "dynamic")
    parameters: dict[str, Parameter] = {}
    read, span = matrix, plain
    if smoothing is not None:
        span = smoothing.range
        parameters["smoothing"] = smoothing.strength
        read = matrix * smoothing_factors(context, layer, smoothing.strength)
    rounded = dynamic_integers(context, layer, parameters)
    beside = _input_error(layer_energy(context, layer), read, span)
    saved = _saved(layer, rounded.weight)
    found = Candidate(parameters, rounded.error + beside, saved, family=DYNAMIC)

    def error_of(form: LowBitForm) -> float:
        return dynamic_integers(context, layer, parameters, form).error + beside

    return offering.stored.kernels(context, layer, found, error_of), None


def weight_only_candidate(context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
    """Integers that the runtime expands when it loads the model; or why not."""
    saved = layer.nbytes - nearest_bytes(layer) - _added_bytes(layer)
    if saved <= 0:
        return None, "too small: its scales would take what is saved [Q008]"
    total = weight_bytes(context)
    if saved < LEAST_SHARE * total:
        return None, f"too small: {saved:,} bytes of {total:,} are not worth any loss [Q008]"
    error = 0.0 if context.survey else weight_only_integers(context, layer).error
    return Candidate({}, error, saved, family="weight_only", keeps_kernels=True), None


@memoised_of_model
def weight_bytes(context: Context) -> int:
    """Of all weights that may be stored in integers."""
    return sum(weight.nbytes for weight in context.weights)


def between_candidate(context: Context, node: ir.Node, offering: Offering) -> Candidate | None:
    """An operator without weights in integers, if what it reads is too."""
    if context.statistics is None or standard_opset(context.model) < _STATIC_OPSET:
        return None
    result = activation_range(context, fused_output(node), offering.ranges)
    if result is None:
        return None
    parameters: dict[str, Parameter] = _named("output", result)
    if offering.mixes(context):
        wide = activation_range(widened(context), fused_output(node), offering.ranges)
        if wide is not None:
            parameters |= _named("other_output", wide)
    return Candidate(parameters, result.error, family=STATIC, carried=True)


def _unobserved(context: Context, values: Sequence[ir.Value], layer: Layer) -> str:
    """Why statistics of a layer's activations are missing or useless."""
    assert context.statistics is not None
    for value in values:
        found = context.statistics.tensors.get(value.name or "")
        if found is None:
            return "its activations cannot be observed [L014]"
        if found.minimum > found.maximum:
            where = " of the subgraph that it is in" if layer.in_subgraph else ""
            return f"the calibration data never exercises it: no run{where} gave it an input [L013]"
    return "its activations are not finite [L012]"


def _named(which: str, found: ActivationRange) -> dict[str, Parameter]:
    return {f"{which}_scale": found.scale, f"{which}_zero_point": found.zero_point}


def _input_error(energy: float, read: npt.NDArray[np.floating], span: ActivationRange) -> float:
    """Share of the output's power `energy` that the rounding of the input adds through `read`."""
    noise = span.noise * float(np.square(read, dtype=np.float64).sum())
    return noise / energy if energy > 0 else 0.0


def _saved(layer: Layer, weight: QuantizedWeight) -> int:
    return layer.nbytes - weight.values.nbytes - weight.scales.nbytes - _added_bytes(layer)


def _added_bytes(layer: Layer) -> int:
    return _NODE_BYTES + _NAMES * len(layer.name)
