"""Codebooks: levels fitted to the weights themselves.

One-dimensional k-means (Lloyd, 1982) from equal steps and from quantiles, whichever ends nearer:
nothing is drawn at random. One level may be held at 0: a mean near it in its place adds up over the
many weights that are nearly 0 (25 dB of a layer of text recognition); elsewhere it costs up to 1.
Errors count by E[x²] of their input and by the square of the step. Once codes are chosen, the
levels of a codebook are fitted jointly by least squares in the metric of the layer's inputs: with
E_k the steps where the code is k, Σ_l tr(E_k G E_lᵀ) t_l = tr(E_k G Wᵀ).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.runtime import solve

__all__ = ["kmeans", "refitted_levels"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_ROUNDS = 60
_SETTLED = 1e-5
"""Of the largest weight: levels that move by less have settled."""
_APART = 8.0
"""Between tables that are searched as one: beyond what weights of one may be."""
_DAMPING = 0.01
"""Of the mean diagonal: what keeps levels of few weights where they are."""
_FIXED = 1e6


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over what was sorted, `[tables * n + 1]`, so that those of a stretch are differences.

    Attributes:
        keys: `[tables * n]` rising: the numbers, those of each table beyond those before.
        apart: `[tables, 1]` by how much.
        ends: `[tables, 1]` where each begins.
        count: n.
        mass: of weights.
        first: of weights times numbers.
    """

    keys: Float64
    apart: Float64
    ends: npt.NDArray[np.int64]
    count: int
    mass: Float64
    first: Float64

    def nearest_to(self, levels: Float64) -> tuple[Float64, Float64]:
        """`[tables, k]` mass, and mass times number, of what is nearest to each level."""
        middles = (levels[:, 1:] + levels[:, :-1]) / 2
        inner = np.searchsorted(self.keys, middles + self.apart)
        bounds = np.concatenate([self.ends, inner, self.ends + self.count], axis=1)
        return np.diff(self.mass[bounds], axis=1), np.diff(self.first[bounds], axis=1)


def kmeans(x: Float64, weights: Float64, start: Float64, *, zero: bool) -> Float32:
    """Levels `[tables, k]`, rising, of least weighed squared error.

    Args:
        x: `[tables, n]` in [-2, 2].
        weights: `[tables, n]`, 0 or more.
        start: `[tables, k]`, rising, in [-2, 2].
        zero: whether one of the levels is 0.
    """
    tables, count = x.shape
    order = np.argsort(x, axis=1, kind="stable")
    x, weights = np.take_along_axis(x, order, 1), np.take_along_axis(weights, order, 1)
    apart = np.asarray(_APART * np.arange(tables)[:, None], np.float64)
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    first = np.concatenate([[0.0], np.cumsum(weights * x)])
    ends = count * np.arange(tables)[:, None]
    keys = np.asarray(x + apart, np.float64).reshape(-1)
    sums = _Sums(keys, apart, ends, count, mass, first)
    # Of equal masses, at their middles.
    own_mass = mass[ends] + (mass[ends + count] - mass[ends]) * (
        (np.arange(start.shape[1]) + 0.5) / start.shape[1]
    )
    at = np.clip(np.searchsorted(mass, own_mass, side="right") - 1, ends, ends + count - 1)
    best, least = start, np.full(tables, np.inf)
    for levels in (start, x.reshape(-1)[at]):
        found, gained = _settled(np.asarray(levels, np.float64), sums, zero=zero)
        better = -gained < least
        best = np.where(better[:, None], found, best)
        least = np.where(better, -gained, least)
    return np.asarray(best, np.float32)


def _settled(levels: Float64, sums: _Sums, *, zero: bool) -> tuple[Float64, Float64]:
    """Levels at the means of what is nearest to them, and by how much they lower the error."""
    nil = np.abs(levels).argmin(axis=1)[:, None]
    gained = np.zeros(len(levels))
    for _ in range(_ROUNDS):
        if zero:
            np.put_along_axis(levels := levels.copy(), nil, 0.0, axis=1)
        own, first = sums.nearest_to(levels)
        means = np.where(own > 0, first / np.where(own > 0, own, 1), levels)
        if zero:
            np.put_along_axis(means, nil, 0.0, axis=1)
        gained = (2 * means * first - means**2 * own).sum(axis=1)
        moved = np.abs(means - levels).max(initial=0.0)
        levels = np.maximum.accumulate(means, axis=1)
        if moved < _SETTLED:
            break
    return levels, gained


def refitted_levels(
    codes: npt.NDArray[np.uint8],
    steps: Float64,
    wanted: Float64,
    gram: Float64,
    tables: Float32,
    own: npt.NDArray[np.int64],
) -> Float32:
    """Tables `[tables, k]` of least error at the layer's output for given codes.

    Args:
        codes: `[groups, out, in]`.
        steps: `[groups, out, in]`.
        wanted: `[groups, out, in]` the weight.
        gram: `[groups, in, in]`.
        tables: `[tables, k]` as they are.
        own: `[groups, out, 1]` which is that of an output.
    """
    count, k = tables.shape
    slots = (own * k + codes).reshape(-1)
    matrix, right = np.zeros((count, k, k)), np.zeros((count, k))
    for level in range(k):
        reached = np.where(codes == level, steps, 0.0) @ gram
        sums = np.bincount(slots, (reached * steps).reshape(-1), count * k)
        matrix[:, level] = sums.reshape(count, k)
        along = (reached * wanted).sum(axis=2)
        right[:, level] = np.bincount(own.reshape(-1), along.reshape(-1), count)
    old = tables.astype(np.float64)
    diagonal = np.einsum("tkk->tk", matrix).mean(axis=1)
    diagonal = np.where(diagonal > 0, diagonal, 1.0)[:, None]
    stiff = np.full((count, k), _DAMPING)
    right = right - (matrix @ old[:, :, None])[:, :, 0]
    stiff[old == 0] = _FIXED
    right[old == 0] = 0
    moved = solve(matrix + (stiff * diagonal)[:, :, None] * np.eye(k), right[:, :, None])
    return np.asarray(old + moved[:, :, 0], np.float32)
