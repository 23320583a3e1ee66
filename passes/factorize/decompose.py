"""Factors of low rank that keep a layer's outputs, for matrices and convolutions.

Two factors of a matrix: the principal components of the outputs, the best there is
(`reconstruction.low_rank`; DRONE, NeurIPS 2021; SVD-LLM, arXiv 2403.07378). A convolution's
`[out, in, height, width]` also splits in ways that a matrix does not:

- spatial: a column of `rank` channels, then a row (arXiv 1405.3866);
- tucker: 1×1 to fewer channels, K×K among fewer, 1×1 back (arXiv 1511.06530).

Neither has a closed form for given inputs, so their factors start from truncated SVDs and are
refined in turn: for one factor with the others held, E‖Wx − W'x‖² is a linear least squares
problem, solved by a few steps of conjugate gradients (alternating least squares). No inverse is
formed, so few samples or dead inputs do no harm.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxpress.reconstruction import output_energy

__all__ = ["Effort", "Factored", "spatial", "tucker"]

Float64 = npt.NDArray[np.float64]

Effort = Literal["form", "quick", "best"]
_EFFORTS: dict[Effort, tuple[int, int]] = {"form": (0, 0), "quick": (1, 2), "best": (2, 8)}
"""Rounds over all factors, and steps of conjugate gradients for each.

Quick takes a fifth of the time for 1.1 to 2 times the least error, 1.4 times on most layers of a
detector; the truncated SVDs alone are of the right form.
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
    left, singular, right = np.linalg.svd(unfolded, full_matrices=False)
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
    back = np.linalg.eigh(by_output @ by_output.T)[1][:, ::-1][:, :rank]
    inward = np.linalg.eigh(by_input @ by_input.T)[1][:, ::-1][:, :input_rank].T
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
    """Alternating least squares; `expression` composes the factors by `numpy.einsum`."""
    outputs = weight.shape[0]
    target = weight.reshape(outputs, -1)
    rounds, steps = _EFFORTS[effort]
    inputs, result = expression.split("->")
    terms = inputs.split(",")

    def compose(parts: list[Float64]) -> Float64:
        product = np.einsum(expression, *parts, optimize=True)
        return np.asarray(product, np.float64).reshape(outputs, -1)

    def weighed(matrix: Float64) -> Float64:
        return matrix if gram is None else matrix @ gram

    def adjoint(matrix: Float64, place: int) -> Float64:
        others = [term for at, term in enumerate(terms) if at != place]
        parts = [part for at, part in enumerate(factors) if at != place]
        back = f"{result},{','.join(others)}->{terms[place]}"
        found = np.einsum(back, matrix.reshape(weight.shape), *parts, optimize=True)
        return np.asarray(found, np.float64)

    for _ in range(rounds):
        for place in range(len(factors)):
            residual = adjoint(weighed(target - compose(factors)), place)
            direction, energy = residual, float((residual * residual).sum())
            for _ in range(steps):
                moved = [*factors]
                moved[place] = direction
                image = adjoint(weighed(compose(moved)), place)
                curvature = float((direction * image).sum())
                if curvature <= 0 or energy <= 0:
                    break
                step = energy / curvature
                factors = [*factors]
                factors[place] = factors[place] + step * direction
                residual = residual - step * image
                renewed = float((residual * residual).sum())
                direction, energy = residual + renewed / energy * direction, renewed
    product = compose(factors)
    whole = None if gram is None else gram[None]
    energy = output_energy(target, whole)
    lost = output_energy(target - product, whole)
    return factors, product, max(lost, 0.0) / energy if energy > 0 else 0.0
