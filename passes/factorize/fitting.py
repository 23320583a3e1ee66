"""Factors of a layer under what its inputs are, worked out once for a layer and a form."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxpress.bias import takes_bias
from onnxpress.contract import Context, Layer, LayerStatistics, memoised
from onnxpress.passes.factorize.decompose import Effort, Factored, spatial, tucker
from onnxpress.passes.factorize.large import Inputs, Large, large_low_rank
from onnxpress.reconstruction import LowRank, damped_gram, low_rank, output_energy, repaired
from onnxpress.runtime import numpy_threads

__all__ = [
    "Floats",
    "biased_in",
    "components_of",
    "drift_of",
    "energy_scale",
    "factored",
    "joint_components",
    "wanted_of",
]

Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Components = LowRank | Large

_LARGE = 1 << 20
"""Elements of a weight that is neither copied nor decomposed as a whole."""


def biased_in(layer: Layer, weighting: str) -> bool:
    """Whether a bias takes up the mean of what is lost."""
    return weighting == "outputs" and takes_bias(layer)


def _gram(moments: LayerStatistics | None, weighting: str) -> Float64 | None:
    """`[in, in]` what the factors are fitted under."""
    if moments is None or moments.gram is None or weighting == "weights":
        return None
    if weighting == "inputs":
        return np.asarray(np.diag(np.diagonal(moments.gram[0])), np.float64)
    return np.asarray(damped_gram(moments.gram, moments.rows)[0], np.float64)


@memoised
def components_of(context: Context, layer: Layer, weighting: str) -> Components:
    """Principal components of the layer's outputs."""
    moments = context.moments(layer)
    biased = biased_in(layer, weighting)
    if layer.array.size > _LARGE:
        wanted = _wanted_floats(context, layer, weighting)
        return large_low_rank([wanted], [1.0], _inputs(moments, weighting, biased=biased))
    weights, _ = wanted_of(context, layer, weighting)
    mean = moments.mean[0] if moments is not None and biased else None
    return low_rank(weights, _gram(moments, weighting), mean)


def drift_of(context: Context, layer: Layer, weighting: str) -> Float64:
    """`[out]` what to add to a layer's bias, as inputs have drifted; see `wanted_of`."""
    moments = context.moments(layer)
    if moments is None or moments.cross is None:
        return np.zeros(layer.read().shape[0])
    return wanted_of(context, layer, weighting)[1]


def _wanted_floats(context: Context, layer: Layer, weighting: str) -> Floats:
    """What a layer should compute, without a copy where that is what it computes already."""
    moments = context.moments(layer)
    if moments is None or moments.cross is None:
        return np.asarray(layer.read())
    return wanted_of(context, layer, weighting)[0]


def _inputs(moments: LayerStatistics | None, weighting: str, *, biased: bool) -> Inputs | None:
    """What is known of a layer's inputs, centred where a bias takes up the mean."""
    if moments is None or moments.gram is None or weighting == "weights":
        return None
    mean = moments.mean[0] if biased else None

    def gram() -> Float64:
        found = _gram(moments, weighting)
        assert found is not None
        return found if mean is None else found - np.outer(mean, mean)

    return Inputs(gram, mean)


@memoised
def factored(
    context: Context,
    layer: Layer,
    form: str,
    rank: int,
    input_rank: int,
    weighting: str,
    *,
    effort: Effort,
) -> Factored:
    """A convolution in two (`spatial`) or three (`tucker`).

    Args:
        context: with statistics of the layer, or without.
        layer: a Conv of two spatial axes.
        form: `spatial` or `tucker`.
        rank: of the output side.
        input_rank: of the input side; `tucker` only.
        weighting: the setting.
        effort: how near to the best factors: of many sizes few are taken.
    """
    weight, gram = _goal(context, layer, weighting)
    if form == "spatial":
        return spatial(weight, gram, rank, effort=effort)
    return tucker(weight, gram, input_rank, rank, effort=effort)


@memoised
def _goal(context: Context, layer: Layer, weighting: str) -> tuple[Float64, Float64 | None]:
    """What a convolution should compute, `[out, in, height, width]`, and of which inputs."""
    moments = context.moments(layer)
    weights, _ = wanted_of(context, layer, weighting)
    gram = _gram(moments, weighting)
    if gram is not None and moments is not None and biased_in(layer, weighting):
        gram = gram - np.outer(moments.mean[0], moments.mean[0])
    return weights.reshape(layer.shape), gram


@memoised
def wanted_of(context: Context, layer: Layer, weighting: str) -> tuple[Float64, Float64]:
    """What a layer should compute of what it is fed, and what to add to its bias (`repaired`)."""
    biased = biased_in(layer, weighting)
    return repaired(layer.read(), context.moments(layer), biased=biased)


@memoised
def joint_components(context: Context, layers: Sequence[Layer], weighting: str) -> Components:
    """Components of all the layers' outputs, each scaled to the same energy."""
    moments = context.moments(layers[0])
    biased = all(biased_in(layer, weighting) for layer in layers)
    if sum(layer.array.size for layer in layers) > _LARGE:
        scales = [energy_scale(context, layer) for layer in layers]
        wanted = [_wanted_floats(context, layer, weighting) for layer in layers]
        return large_low_rank(wanted, scales, _inputs(moments, weighting, biased=biased))
    scaled = []
    for layer in layers:
        weights, _ = repaired(layer.read(), context.moments(layer), biased=biased)
        scaled.append(weights / energy_scale(context, layer))
    mean = moments.mean[0] if moments is not None and biased else None
    return low_rank(np.concatenate(scaled), _gram(moments, weighting), mean)


@memoised
def energy_scale(context: Context, layer: Layer) -> float:
    """Root of the energy of a layer's outputs."""
    moments = context.moments(layer)
    gram = None if moments is None else moments.gram
    with numpy_threads(1 if layer.array.size > _LARGE else 0):
        return math.sqrt(max(output_energy(layer.read(), gram), 1e-30))
