"""What a layer's weights become when some are zero, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.bias import takes_bias
from onnxpress.contract import Context, Layer, LayerStatistics, Parameter, memoised
from onnxpress.passes.sparsify.compensate import Problem, alternating, columns, solve_masked
from onnxpress.passes.sparsify.masks import Pattern, keep_highest, keep_n_of_m
from onnxpress.reconstruction import damped_gram, output_energy, relative_error, repaired
from onnxpress.runtime import pinv

__all__ = ["Float64", "error_of", "kernel_of", "scores_of", "solved"]

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Masking = tuple[Pattern | None, bool]
"""N:M, and whether each row gets its share."""
Parameters = Mapping[str, Parameter]


@memoised
def solved(
    context: Context, masking: Masking, layer: Layer, parameters: Parameters
) -> tuple[Float64, Float64 | None]:
    """The layer's new weight `[out, in]`, and what its bias has to take up."""
    importance = str(parameters["importance"])
    compensation = str(parameters["compensation"])
    matrix = np.asarray(layer.read(), np.float64)
    moments = context.moments(layer)
    if compensation == "none" or moments is None or moments.gram is None:
        scores = scores_of(context, layer, importance)
        return np.where(_kept(masking, layer, scores, parameters), matrix, 0.0), None
    goal = _goal(context, layer, _biased(layer, parameters))
    grouped, gram = goal.weights, goal.gram

    def choose(scores: npt.NDArray[np.floating]) -> Mask:
        flat = scores.reshape(-1, scores.shape[2])
        return _kept(masking, layer, flat, parameters).reshape(scores.shape)

    if compensation == "columns":
        found = columns(grouped, gram, choose)
    elif importance == "second_order":
        found = alternating(goal.problem, choose)
    else:
        scores = scores_of(context, layer, importance).reshape(grouped.shape)
        found = solve_masked(goal.problem, choose(scores))
    result = found.reshape(matrix.shape)
    if not np.isfinite(result).all():
        scores = scores_of(context, layer, "wanda")
        return np.where(_kept(masking, layer, scores, parameters), matrix, 0.0), None
    if goal.drift is None:
        return result, None
    lost = (grouped - found) @ moments.mean[:, :, None]
    return result, goal.drift + lost.reshape(-1)


@dataclass(frozen=True)
class _Goal:
    """What a layer's weights are to come near, for all sparsities.

    Attributes:
        weights: `[groups, out, in]`, fitted to what the sparse network feeds the layer.
        gram: `[groups, in, in]` by which errors count.
        drift: `[out]` what the bias has to take up for that; `None` without a bias.
        problem: of both.
    """

    weights: Float64
    gram: Float64
    drift: Float64 | None
    problem: Problem


@memoised
def _goal(context: Context, layer: Layer, biased: bool) -> _Goal:  # noqa: FBT001 - a key, not a switch
    moments = context.moments(layer)
    assert moments is not None
    weights, drift = repaired(layer.read(), moments, biased=biased)
    gram = moments.centred_gram if biased else moments.gram
    assert gram is not None
    damped = damped_gram(gram, moments.rows)
    grouped = weights.reshape(len(damped), -1, weights.shape[1])
    return _Goal(grouped, damped, drift if biased else None, Problem.of(grouped, damped))


def _kept(
    masking: Masking,
    layer: Layer,
    scores: npt.NDArray[np.floating],
    parameters: Parameters,
) -> Mask:
    """The mask of what stays, of a layer's scores or of a block of its columns."""
    pattern, by_row = masking
    if "threshold" in parameters:
        return np.asarray(scores > float(parameters["threshold"]), bool)
    if pattern is not None:
        whole = scores.shape[1] == layer.read().shape[1]
        return keep_n_of_m(scores, pattern, kernel_of(layer) if whole else 1)
    size = scores.shape[1] if by_row else scores.size
    return keep_highest(scores, round(float(parameters["sparsity"]) * size), by_row=by_row)


def kernel_of(layer: Layer) -> int:
    """Places of a convolution's kernel; 1 for matrices."""
    return int(np.prod(layer.shape[2:])) if layer.op_type == "Conv" else 1


def _biased(layer: Layer, parameters: Parameters) -> bool:
    """Whether a bias takes up the mean of what is lost."""
    return parameters["compensation"] == "alternating" and takes_bias(layer)


def error_of(
    found: Float64, layer: Layer, moments: LayerStatistics | None, parameters: Parameters
) -> float:
    """Power of the output's change over the power of the output.

    Args:
        found: `[out, in]` the new weight.
        layer: as it was.
        moments: of its inputs, or `None`.
        parameters: of the candidate.
    """
    matrix = layer.read()
    delta = found - matrix
    if moments is None:
        return relative_error(delta, matrix, None)
    energy = output_energy(matrix, moments.gram, moments.second_moment)
    gram = moments.centred_gram if _biased(layer, parameters) else moments.gram
    lost = output_energy(delta, gram, moments.second_moment)
    return lost / energy if energy > 0 else 0.0


def scores_of(context: Context, layer: Layer, importance: str) -> Float64:
    """`[out, in]` importance of every weight.

    Magnitude |w|; Wanda |w|·√E[x²] (arXiv 2306.11695); second order w²/[H⁻¹]ᵢᵢ, what the output
    loses at best (Optimal Brain Surgeon), as its root. To compare layers, the latter two are
    divided by the norm of the layer's output.
    """
    magnitude = np.abs(np.asarray(layer.read(), np.float64))
    moments = context.moments(layer)
    if importance == "magnitude" or moments is None:
        return magnitude
    norms = np.sqrt(moments.second_moment)
    if importance == "second_order" and moments.gram is not None:
        damped = damped_gram(moments.gram, moments.rows)
        norms = 1 / np.sqrt(np.einsum("gii->gi", pinv(damped)))
    grouped = magnitude.reshape(len(norms), -1, norms.shape[1]) * norms[:, None, :]
    energy = output_energy(layer.read(), moments.gram, moments.second_moment)
    scores: Float64 = grouped.reshape(magnitude.shape)
    return scores / np.sqrt(energy) if energy > 0 else scores
