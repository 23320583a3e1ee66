"""The weights that stay make up for those that go: least squares on the layer's outputs.

min tr((W − W')·H·(W − W')ᵀ) over W' with at most so many weights. Two solvers:

- `columns`: SparseGPT (arXiv 2301.00774): block after block of columns, those with the least
  w²/[H⁻¹]ᵢᵢ go and the columns behind take up the error.
- `alternating`: ALPS (arXiv 2406.07831): alternating direction method of multipliers between the
  least squares and the projection onto the pattern, with a rising penalty; it revises its choice
  of weights, which the columns' greedy order cannot.

The latter then solves for the weights of the mask it found, by conjugate gradients on the masked
problem. It scales inputs to unit power first, so that magnitudes are comparable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.reconstruction import damped_gram
from onnxpress.runtime import cholesky, eigh, inv

__all__ = ["Problem", "alternating", "columns", "solve_masked"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Choose = Callable[[npt.NDArray[np.floating]], Mask]
"""From scores `[groups, out, in]` the mask of what stays."""

_BLOCK = 128
_STEPS = 12
_ITERATIONS = 60
_PENALTY = 0.1
"""Of the inputs' power, to begin with; ALPS starts there too."""


@dataclass(frozen=True)
class Problem:
    """A layer's weights and inputs, scaled to inputs of unit power; shared by all sparsities.

    float32 is enough for a choice of weights, and halves the time.

    Attributes:
        scales: `[groups, 1, in]` root of the inputs' power.
        target: `[groups, out, in]` weights times scales.
        gram: `[groups, in, in]` of the scaled inputs.
        damped: the same with a ridge.
        values: `[groups, 1, in]` eigenvalues of the Gram matrix.
        vectors: `[groups, in, in]` its eigenvectors.
    """

    scales: Float64
    target: Float32
    gram: Float32
    damped: Float32
    values: Float32
    vectors: Float32

    @classmethod
    def of(cls, weights: Float64, gram: Float64) -> "Problem":
        """From weights `[groups, out, in]` and the Gram matrix `[groups, in, in]` H.

        H is centred where a bias takes up the mean.
        """
        power = np.einsum("gii->gi", gram)
        floor = np.maximum(power.mean(axis=1, keepdims=True) * 1e-8, np.finfo(np.float64).tiny)
        scales = np.sqrt(np.maximum(power, floor))
        scaled = gram / (scales[:, :, None] * scales[:, None, :])
        values, vectors = eigh(scaled)
        return cls(
            scales[:, None, :],
            (weights * scales[:, None, :]).astype(np.float32),
            scaled.astype(np.float32),
            damped_gram(scaled).astype(np.float32),
            np.maximum(values, 0).astype(np.float32)[:, None, :],
            vectors.astype(np.float32),
        )


def alternating(problem: Problem, choose: Choose) -> Float64:
    """ALPS, and an exact solution on its mask.

    Args:
        problem: of the layer.
        choose: the pattern: what stays by scores.

    Returns:
        `[groups, out, in]` weights with zeros.
    """
    start, vectors = problem.target, problem.vectors
    back = vectors.swapaxes(1, 2)
    pull = start @ problem.gram
    mask = choose(np.abs(start))
    kept = np.where(mask, start, np.float32(0))
    dual = np.zeros_like(kept)
    penalty = np.float32(_PENALTY)
    for iteration in range(_ITERATIONS):
        right = pull + penalty * kept - dual
        dense = ((right @ vectors) / (problem.values + penalty)) @ back
        towards = dense + dual / penalty
        renewed = choose(np.abs(towards))
        kept = np.where(renewed, towards, np.float32(0))
        dual = dual + penalty * (dense - kept)
        changed = float((renewed != mask).sum()) / max(float(renewed.sum()), 1.0)
        mask = renewed
        if changed == 0 and iteration > 0:
            break
        # Faster while the choice still moves much. ALPS waits three iterations each time: the
        # layer then errs 3 to 15% less, the network on unseen samples no less, for three times
        # the work.
        penalty *= np.float32(1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1)
    return _solve(problem, mask, kept)


def columns(weights: Float64, gram: Float64, choose: Choose) -> Float64:
    """SparseGPT's updates as published; weights and Gram matrix as for `Problem.of`.

    `choose` is asked for a block of columns at a time, so it must work by share.
    """
    inputs = weights.shape[2]
    damped = damped_gram(gram)
    inverse = inv(damped)
    upper = cholesky(inverse).swapaxes(1, 2)
    left = weights.copy()
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        diagonal = np.einsum("gii->gi", upper)[:, None, start:end]
        mask = choose((left[:, :, start:end] / diagonal) ** 2)
        errors = np.empty(left[:, :, start:end].shape)
        for at in range(start, end):
            column = left[:, :, at].copy()
            new = np.where(mask[:, :, at - start], column, 0.0)
            error = (column - new) / upper[:, at, at][:, None]
            left[:, :, at:end] -= error[:, :, None] * upper[:, at, at:end][:, None, :]
            left[:, :, at] = new
            errors[:, :, at - start] = error
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    return left


def solve_masked(problem: Problem, mask: Mask) -> Float64:
    """The least squares answer with the zeros where `mask` is false."""
    return _solve(problem, mask, problem.target)


def _solve(problem: Problem, mask: Mask, start: Float32) -> Float64:
    """Conjugate gradients, every row on its own."""
    found = np.where(mask, start, np.float32(0))
    residual = np.where(mask, (problem.target - found) @ problem.damped, np.float32(0))
    direction = residual
    energy = np.square(residual).sum(axis=2, keepdims=True)
    for _ in range(_STEPS):
        image = np.where(mask, direction @ problem.damped, np.float32(0))
        curvature = (direction * image).sum(axis=2, keepdims=True)
        step = np.divide(energy, curvature, out=np.zeros_like(energy), where=curvature > 0)
        found = found + step * direction
        residual = residual - step * image
        renewed = np.square(residual).sum(axis=2, keepdims=True)
        ratio = np.divide(renewed, energy, out=np.zeros_like(energy), where=energy > 0)
        direction, energy = residual + ratio * direction, renewed
    return found / problem.scales
