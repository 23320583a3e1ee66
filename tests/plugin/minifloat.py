"""Store weights as floats of 8 or 16 bits, expanded once when the model is loaded.

W becomes s·Cast(F): F of fewer bits, s a power of two that brings the largest weight to the end of
F's range, so that the product adds no error of its own. onnxruntime folds Cast and Mul when it
loads the model: the file is smaller; memory, kernels and speed stay as they were.

ONNX operator Cast (8-bit floats since opset 19); the 8-bit format is arXiv 2209.05433's E4M3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from annotated_types import Interval

from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Layer,
    LayerStatistics,
    Observations,
    Pass,
    Proposal,
    Quota,
    RecipeError,
    Skip,
    Stage,
    add_initializer,
    memoised,
    relative_error,
    repaired,
    setting,
    shift_bias,
    takes_bias,
)

Float64 = npt.NDArray[np.float64]

NODE_BYTES = 250
"""Of a Cast and a Mul with their names."""
SMALLEST = -126
"""Exponent of a float32 that is not denormal."""


@dataclass(frozen=True, slots=True)
class Format:
    """A float of fewer bits.

    Attributes:
        type: ONNX's.
        largest: finite number.
        opset: the first whose Cast takes it.
    """

    type: ir.DataType
    largest: float
    opset: int


FORMATS = {
    "float8": Format(ir.DataType.FLOAT8E4M3FN, 448.0, 19),
    "float16": Format(ir.DataType.FLOAT16, 65504.0, 9),
}


@dataclass(frozen=True)
class Minifloat(Pass):
    """Weights as floats of fewer bits."""

    name: ClassVar[str] = "minifloat"
    stage: ClassVar[Stage] = Stage.QUANTIZATION
    rewrites_from_statistics: ClassVar[bool] = True

    form: Literal["auto", "float8", "float16"] = setting(
        "auto", "What weights are stored as; auto: what the budget allows."
    )
    share: Annotated[float, Interval(gt=0, lt=0.75)] | None = setting(
        None, "Save this share of the bytes of all weights. Without: the budget decides."
    )
    most_error: Annotated[float, Interval(gt=0, le=1)] = setting(
        0.01, "Leave a layer alone whose output would err by more of its power."
    )
    layers: tuple[str, ...] = setting(
        (), "Only this layer, by name; may be repeated. Without: all."
    )
    refinement: bool = setting(
        default=True, help="Fit each layer again to what the rewritten network feeds it."
    )

    def conflict(self) -> str | None:
        """A share that 16 bits cannot save."""
        if self.form == "float16" and self.share is not None and self.share > 0.5:
            return f"share is {self.share:g}, but float16 saves half at most"
        return None

    @property
    def needed_opset(self) -> int:
        """That of the smallest format which may be used."""
        return FORMATS["float16" if self.form == "float16" else "float8"].opset

    @property
    def refines(self) -> bool:
        """`rewrite` fits weights to statistics, so newer ones make them better."""
        return self.refinement

    def observes(self, context: Context) -> Observations:
        """The Gram matrices of all layers."""
        return Observations(layers=frozenset(layer.name for layer in context.layers), gram=True)

    def quota(self, context: Context) -> Quota | None:
        """The bytes to save for the wanted share."""
        if self.share is None:
            return None
        return Quota("saved_bytes", self.share * sum(layer.nbytes for layer in context.layers))

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Every format that is near enough, the smallest first."""
        chosen = context.named_layers(self.layers, self.name)
        return [self._proposal(context, layer) for layer in chosen]

    def _proposal(self, context: Context, layer: Layer) -> Proposal | Skip:
        reason = refusal(layer)
        if reason is not None:
            return Skip(layer.name, reason)
        candidates: list[Candidate] = []
        limits: list[str] = []
        for family in FORMATS if self.form == "auto" else (self.form,):
            candidate = candidate_of(context, layer, family)
            limit = self._limit(context, candidate)
            if limit is None:
                candidates.append(candidate)
            else:
                limits.append(limit)
        if not candidates:
            return Skip(layer.name, limits[0])
        return Proposal(layer.name, tuple(candidates), limits[0] if limits else None)

    def _limit(self, context: Context, candidate: Candidate) -> str | None:
        """Why a candidate is not offered, or `None`."""
        family, opset = candidate.family, context.model.opset_imports.get("", 1)
        if opset < FORMATS[family].opset:
            return f"opset {opset} cannot cast from {family}"
        if candidate.saved_bytes <= 0:
            return "too small: the nodes that expand it would take what is saved"
        if candidate.predicted_error > self.most_error:
            error = candidate.predicted_error
            return f"as {family} its output would err by {error:.1%}, over {self.most_error:.1%}"
        return None

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Store the decided weights, and let biases take up the mean of what that changes."""
        for decision in decisions:
            layer = context.layer(decision.site)
            if decision.candidate.parameters["corrected"] and moments_of(context, layer) is None:
                raise RecipeError(
                    f"{layer.name!r} was fitted to calibration data; give it with --calibration"
                )
            fitted = fit(context, layer, decision.candidate.family)
            for use in layer.uses:
                shift_bias(context.names, layer.graph, use.node, fitted.offset)
            store(context, layer, fitted, FORMATS[decision.candidate.family].type)


def refusal(layer: Layer) -> str | None:
    """Why a layer is left alone whatever the settings say, or `None`."""
    if layer.unsafe is not None:
        return layer.unsafe
    if layer.dtype != ir.DataType.FLOAT:
        return f"its weight is {layer.dtype.name.lower()}, not float32"
    weights = layer.read()
    if not np.isfinite(weights).all():
        return "its weight holds NaN or infinity"
    return None if weights.any() else "its weight is all zeros"


def moments_of(context: Context, layer: Layer) -> LayerStatistics | None:
    """What was observed of the layer's inputs, where anything was."""
    moments = context.moments(layer)
    return moments if moments is not None and moments.rows else None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A weight that a format can hold.

    Attributes:
        weights: `[out, in]`.
        scale: a power of two.
        offset: `[out]` what the bias takes up; zeros where there is none to do so.
        error: of the output, relative to its power.
    """

    weights: Float64
    scale: float
    offset: Float64
    error: float


@memoised
def fit(context: Context, layer: Layer, family: str) -> Fitted:
    """Round W to a format: the error is tr(ΔW·H·ΔWᵀ) over tr(W·H·Wᵀ), H = E[xxᵀ]."""
    moments = moments_of(context, layer)
    biased = moments is not None and takes_bias(layer)
    wanted, offset = repaired(layer.read(), moments, biased=biased)
    kind = FORMATS[family]
    exponent = np.ceil(np.log2(np.abs(wanted).max() / kind.largest))
    scale = float(2.0 ** max(exponent, SMALLEST))
    weights = (wanted / scale).astype(kind.type.numpy()).astype(np.float64) * scale
    change = weights - wanted
    if moments is None:
        return Fitted(weights, scale, offset, relative_error(change, wanted, None))
    if biased:
        by_group = change.reshape(len(moments.mean), -1, change.shape[1])
        offset = offset - (by_group @ moments.mean[:, :, None]).reshape(-1)
    error = relative_error(change, wanted, moments.gram, moments.second_moment)
    return Fitted(weights, scale, offset, error)


def candidate_of(context: Context, layer: Layer, family: str) -> Candidate:
    """What a format saves and loses."""
    stored = math.prod(layer.shape) * FORMATS[family].type.itemsize
    return Candidate(
        {"corrected": moments_of(context, layer) is not None},
        predicted_error=fit(context, layer, family).error,
        saved_bytes=int(layer.nbytes - stored - NODE_BYTES),
        family=family,
        keeps_kernels=True,
    )


def store(context: Context, layer: Layer, fitted: Fitted, kind: ir.DataType) -> None:
    """Put a Cast and a Mul in the place of the weight, for all its uses."""
    names, graph = context.names, layer.graph
    layer.write(fitted.weights)
    assert layer.weight.const_value is not None
    numbers = (layer.weight.const_value.numpy() / fitted.scale).astype(kind.numpy())
    few_bits = add_initializer(names, graph, f"{layer.name}_{kind.name.lower()}", numbers, kind)
    scale = np.asarray(fitted.scale, np.float32)
    factor = add_initializer(names, graph, f"{layer.name}_scale", scale)
    to = ir.AttrInt64("to", ir.DataType.FLOAT)
    cast = ir.Node("", "Cast", [few_bits], [to], name=names.free(f"{layer.name}_cast"))
    cast.outputs[0].name = names.free(f"{layer.name}_unscaled")
    product = [cast.outputs[0], factor]
    expanded = ir.Node("", "Mul", product, name=names.free(f"{layer.name}_expanded"))
    expanded.outputs[0].type, expanded.outputs[0].shape = layer.weight.type, layer.weight.shape
    graph.insert_before(graph[0], [cast, expanded])
    ir.convenience.replace_all_uses_with(layer.weight, expanded.outputs[0])
    del graph.initializers[layer.name]
    expanded.outputs[0].name = layer.name
