"""What a layer's rounded weight is to come near, and how near it comes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.bias import takes_bias
from onnxpress.contract import Context, memoised
from onnxpress.layers import Layer
from onnxpress.passes.quantize.tiles import gram_of, observed_power, tiled
from onnxpress.reconstruction import output_energy, relative_error, repaired, shrinkage

__all__ = ["PRUNED_SHARE", "Goal", "compensable", "goal_of", "judged", "layer_energy"]

PRUNED_SHARE = 0.2
"""Of zeros, above which they are taken to be made on purpose."""


@memoised
def layer_energy(context: Context, layer: Layer) -> float:
    """E‖Wx‖² of the layer as it is."""
    moments = context.moments(layer)
    assert moments is not None
    return observed_power(layer.read(), moments)


def compensable(layer: Layer) -> bool:
    """Whether the inputs of the one node that reads the weight say how to round it."""
    return len(layer.uses) == 1 and layer.op_type != "Gather"


@dataclass(frozen=True)
class Goal:
    """What a layer's integers are to come near.

    Attributes:
        weights: `[out, in]`, fitted to what the quantized network feeds the layer.
        drift: `[out]` what the bias has to take up for that.
        gram: `[groups, in, in]` by which errors count, or of a wide layer `[tiles, in / tiles,
            in / tiles]`; `None` where nothing was observed.
        tiles: how many; 1 of a layer that is not wide.
        shares: `[groups]` or `[tiles]` by which the Gram matrix is damped, as it is partly chance.
        biased: whether a bias takes up means.
        keeps_zeros: zeros that were made on purpose are worth more than what rounding them away
            gains.
    """

    weights: npt.NDArray[np.float64]
    drift: npt.NDArray[np.float64]
    gram: npt.NDArray[np.float64] | None
    tiles: int
    shares: npt.NDArray[np.float64] | None
    biased: bool
    keeps_zeros: bool


@memoised
def goal_of(context: Context, layer: Layer) -> Goal:
    """What the layer gave before, of what the quantized network feeds it."""
    moments = context.moments(layer) if compensable(layer) else None
    matrix = layer.read().astype(np.float64)
    biased = moments is not None and takes_bias(layer)
    gram, tiles, shares = None, 1, None
    if moments is not None and moments.rows:
        gram, tiles = gram_of(moments, centred=biased)
        if gram is not None:
            shares = shrinkage(gram, moments.centred_noise if biased else moments.noise)
    pruned = bool((matrix == 0).mean() > PRUNED_SHARE)
    target, drift = repaired(matrix, moments, biased=biased)
    if pruned:
        target = np.where(matrix == 0, 0.0, target)
    return Goal(target, drift, gram, tiles, shares, biased, pruned)


def judged(
    context: Context, layer: Layer, goal: Goal, delta: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.float64] | None, float]:
    """What the bias has to take up for a changed weight, and the error that is left.

    Args:
        context: of the layer.
        layer: whose weight is rounded.
        goal: of the layer.
        delta: `[out, in]` the rounded weight less that of the goal.

    Returns:
        `[out]` or `None`; power of the output's change over that of the output.
    """
    moments = context.moments(layer) if compensable(layer) else None
    if moments is None or not moments.rows:
        return None, relative_error(delta, layer.read(), None)
    energy = layer_energy(context, layer)
    offset = None
    if goal.biased:
        grouped = delta.reshape(len(moments.mean), -1, delta.shape[1])
        offset = goal.drift - (grouped @ moments.mean[:, :, None]).reshape(-1)
    if not goal.biased:
        lost = observed_power(delta, moments)
    elif goal.gram is not None:
        lost = output_energy(tiled(delta, goal.tiles), goal.gram)
    else:
        # The variance of the inputs is all that is left once the mean is taken up.
        second = np.maximum(moments.second_moment - moments.mean**2, 0.0)
        lost = output_energy(delta, None, second)
    return offset, max(lost, 0.0) / energy if energy > 0 else 0.0
