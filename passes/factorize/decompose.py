"""Factors of low rank that keep a layer's outputs, for matrices and convolutions.

Two factors of a matrix: the principal components of the outputs, the best there is
(`reconstruction.low_rank`; DRONE, NeurIPS 2021; SVD-LLM, arXiv 2403.07378). A convolution's
`[out, in, height, width]` also splits in ways that a matrix does not:

- spatial: a column of `rank` channels, then a row (arXiv 1405.3866);
- tucker: 1×1 to fewer channels, K×K among fewer, 1×1 back (arXiv 1511.06530).

Neither has a closed form for given inputs, so their factors start from truncated SVDs and are
refined in turn: for one factor with the others held, E‖Wx − W'x‖² is a linear least squares
problem (alternating least squares). The last factor's is solved, by a pseudo-inverse; the others'
by a few steps of conjugate gradients, so few samples or dead inputs do no harm, and in single
precision, which is more than so few steps reach.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxpress.reconstruction import output_energy
from onnxpress.runtime import eigh, pinv, qr, svd

__all__ = ["Effort", "Factored", "spatial", "tucker"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_SINGULAR = 1e-12
"""Directions that hold less of the power than this part of the strongest are not seen."""
Effort = Literal["form", "quick", "best"]
_EFFORTS: dict[Effort, tuple[int, int]] = {"form": (0, 0), "quick": (1, 2), "best": (2, 8)}
"""Rounds over all factors, and steps of conjugate gradients for each.

Quick takes a third of the time for 1.1 to 2 times the least error; the truncated SVDs alone are of
the right form.
"""


@dataclass(frozen=True)
class Factored:
    """A convolution's weight in factors, the first to act first.

    Attributes:
        factors: convolution weights `[out, in, height, width]`.
        product: `[out, in]` what they amount to.
        error: power of the output's change over the power of the output.
    """

    factors: tuple[Float64, ...]
    product: Float64
    error: float


def spatial(
    weight: Float64, gram: Float64 | None, rank: int, *, effort: Effort = "best"
) -> Factored:
    """A K×1 convolution to `rank` channels and a 1×K from them.

    Args:
        weight: `[out, in, height, width]`.
        gram: `[in·height·width]²`, centred where a bias takes up the mean; `None`: identity.
        rank: channels between.
        effort: how near to the best factors.
    """
    outputs, inputs, height, width = weight.shape
    root = _channel_scales(weight, gram)
    unfolded = (weight * root).transpose(1, 2, 0, 3).reshape(inputs * height, outputs * width)
    left, singular, right = svd(unfolded)
    left = left[:, :rank] * np.sqrt(singular[:rank])
    columns = left.T.reshape(rank, inputs, height) / root[0, :, :, 0]
    rows = (np.sqrt(singular[:rank])[:, None] * right[:rank]).reshape(rank, outputs, width)
    factors = [columns, rows.transpose(1, 0, 2)]
    factors, product, error = _alternate("rci,orj->ocij", factors, weight, gram, effort=effort)
    return Factored((factors[0][:, :, :, None], factors[1][:, :, None, :]), product, error)


def tucker(
    weight: Float64, gram: Float64 | None, input_rank: int, rank: int, *, effort: Effort = "best"
) -> Factored:
    """1×1 to `input_rank` channels, K×K from those to `rank`, 1×1 to the outputs.

    Args:
        weight: `[out, in, height, width]`.
        gram: as for `spatial`.
        input_rank: channels before the K×K.
        rank: channels behind it.
        effort: as for `spatial`.
    """
    outputs, inputs = weight.shape[:2]
    root = _channel_scales(weight, gram)
    scaled = weight * root
    by_output = scaled.reshape(outputs, -1)
    by_input = scaled.transpose(1, 0, 2, 3).reshape(inputs, -1)
    back = eigh(by_output @ by_output.T)[1][:, ::-1][:, :rank]
    inward = eigh(by_input @ by_input.T)[1][:, ::-1][:, :input_rank].T
    core = np.einsum("os,ocij,rc->srij", back, scaled, inward, optimize=True)
    # The scales are those of an input's channel alone here, so that they go into one factor.
    factors = [inward / root[0, :, 0, 0], core, back]
    factors, product, error = _alternate("rc,srij,os->ocij", factors, weight, gram, effort=effort)
    first, core, last = factors
    return Factored((first[:, :, None, None], core, last[:, :, None, None]), product, error)


def _channel_scales(weight: Float64, gram: Float64 | None) -> Float64:
    """`[1, in, 1, 1]` root mean square of each input channel; ones without data."""
    inputs = weight.shape[1]
    if gram is None:
        return np.ones((1, inputs, 1, 1))
    power = np.diagonal(gram).reshape(inputs, -1).mean(axis=1)
    floor = max(float(power.mean()) * 1e-6, float(np.finfo(np.float64).tiny))
    scales: Float64 = np.sqrt(np.maximum(power, floor))
    return scales.reshape(1, inputs, 1, 1)


def _alternate(
    expression: str,
    factors: list[Float64],
    weight: Float64,
    gram: Float64 | None,
    *,
    effort: Effort,
) -> tuple[list[Float64], Float64, float]:
    """Alternating least squares; `expression` composes the factors by `numpy.einsum`.

    The last factor, which gives the outputs, has a closed form. The others see of the outputs what
    that factor can reach, k = rank·width or rank directions: rotated into these, the problem is the
    same with k rows instead of all outputs.
    """
    rounds, steps = _EFFORTS[effort]
    target = weight.reshape(len(weight), -1)
    single = None if gram is None or not rounds else _single(gram)
    for _ in range(rounds):
        last = factors[-1]
        reached, triangle = qr(last.reshape(len(last), -1))
        inner = [*factors[:-1], triangle.reshape(-1, *last.shape[1:])]
        goal = (reached.T @ target).reshape(-1, *weight.shape[1:])
        for place in range(len(inner) - 1):
            inner = _descended(expression, inner, place, goal, single, steps)
        factors = [*inner[:-1], _last_factor(expression, [*inner[:-1], last], target, gram)]
    product = np.einsum(expression, *factors, optimize=True).reshape(target.shape)
    whole = None if gram is None else gram[None]
    energy = output_energy(target, whole)
    lost = output_energy(target - product, whole)
    return factors, product, max(lost, 0.0) / energy if energy > 0 else 0.0


def _single(gram: Float64) -> Float32:
    """A Gram matrix in single precision, in a unit in which it is finite there."""
    unit = float(np.diagonal(gram).max())
    return np.asarray(gram / unit if unit > 0 else gram, np.float32)


def _descended(
    expression: str,
    factors: list[Float64],
    place: int,
    goal: Float64,
    gram: Float32 | None,
    steps: int,
) -> list[Float64]:
    """The factors with one moved towards its least squares, by conjugate gradients.

    The unit of the Gram matrix does not count.
    """
    terms, result = expression.split("->")
    others = [term for at, term in enumerate(terms.split(",")) if at != place]
    back = f"{result},{','.join(others)}->{terms.split(',')[place]}"
    parts = [part for at, part in enumerate(factors) if at != place]
    target = goal.reshape(len(goal), -1)

    def composed(own: Float64) -> Float64:
        moved = [*factors[:place], own, *factors[place + 1 :]]
        return np.asarray(np.einsum(expression, *moved, optimize=True)).reshape(target.shape)

    def adjoint(matrix: Float64) -> Float64:
        weighed = matrix if gram is None else matrix.astype(np.float32) @ gram
        found = np.einsum(back, weighed.reshape(goal.shape), *parts, optimize=True)
        return np.asarray(found, np.float64)

    own = factors[place]
    residual = adjoint(target - composed(own))
    direction, energy = residual, float((residual * residual).sum())
    for _ in range(steps):
        image = adjoint(composed(direction))
        curvature = float((direction * image).sum())
        if curvature <= 0 or energy <= 0:
            break
        step = energy / curvature
        own = own + step * direction
        residual = residual - step * image
        renewed = float((residual * residual).sum())
        direction, energy = residual + renewed / energy * direction, renewed
    return [*factors[:place], own, *factors[place + 1 :]]


def _last_factor(
    expression: str, factors: list[Float64], target: Float64, gram: Float64 | None
) -> Float64:
    """The factor that gives the outputs, with the others held: F + (W − F·B)·G·Bᵀ·(B·G·Bᵀ)⁺.

    `B` is what the others amount to. As a correction of what there is, it leaves alone what the
    inputs do not show.
    """
    last = factors[-1]
    reached = math.prod(last.shape[1:])
    unit = np.eye(reached).reshape(reached, *last.shape[1:])
    basis = np.einsum(expression, *factors[:-1], unit, optimize=True).reshape(reached, -1)
    weighed = basis if gram is None else basis @ gram
    flat = last.reshape(len(last), reached)
    gradient = (target - flat @ basis) @ weighed.T
    inverse = pinv(weighed @ basis.T, rcond=_SINGULAR)
    return np.asarray((flat + gradient @ inverse).reshape(last.shape), np.float64)
