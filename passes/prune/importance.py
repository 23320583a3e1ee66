"""Which units to remove: those whose loss the readers of the others can make up for best.

A reader y = Wx of the units' features sees a change tr((W − W')·H·(W − W')ᵀ). When the features
b of a unit go and the rest is solved for anew, the loss is tr(W_b·[H⁻¹]_bb⁻¹·W_bᵀ) and what stays
becomes W − W_b·[H⁻¹]_bb⁻¹·[H⁻¹]_b: (block form of the optimal brain surgeon, Hassibi and Stork,
1993). Removing greedily by that loss and updating H⁻¹ as columns go gives an order and the least
squares error at every length. Only G = WᵀW is needed of W, so the cost does not grow with its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.reconstruction import damped_gram
from onnxpress.runtime import inv, solve

__all__ = ["Reading", "magnitude_order", "removal_order", "solve_kept"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_STEPS = 48
"""Scores are renewed after each step; a step takes several units of wide groups."""
_MOST_GONE = 0.2
"""Of the rows and columns that are carried along."""


@dataclass(frozen=True)
class Reading:
    """A layer that reads the units.

    Attributes:
        weights: `[groups, out, in]`.
        gram: `[groups, in, in]` of its inputs, centred where a bias takes up the mean.
        rows: how many the Gram matrix is made of.
        features: for every unit the inputs that are its own, the same in each group.
    """

    weights: Float64
    gram: Float64
    rows: int
    features: tuple[Indices, ...]


def removal_order(readings: Sequence[Reading]) -> tuple[list[int], list[float]]:
    """All units but the last in the order in which they may best be removed.

    Returns:
        The units, and for each number of removed units (from 0) the error power of the readers'
        outputs over the power of their outputs, added up over the readers.
    """
    count = len(readings[0].features)
    alive = np.ones(count, bool)
    states = [_State(reading) for reading in readings]
    order: list[int] = []
    errors = [0.0]
    step = max(1, count // _STEPS)
    while alive.sum() > 1:
        candidates = np.flatnonzero(alive)
        scores = sum((state.scores(candidates) for state in states), np.zeros(len(candidates)))
        best = np.argsort(scores, kind="stable")[: min(step, len(candidates) - 1)]
        for place in best:
            errors.append(errors[-1] + float(scores[place]))
        gone = candidates[best]
        order += gone.tolist()
        alive[gone] = False
        for state in states:
            state.remove(gone)
    return order, errors


class _State:
    """H⁻¹ and G of one reader, of the features that are left and of some that are gone."""

    def __init__(self, reading: Reading) -> None:
        w = reading.weights
        power = np.einsum("goi,gij,goj->", w, reading.gram, w, optimize=True)
        self._inverse = inv(damped_gram(reading.gram, reading.rows))
        # Output power in the unit: what remains of it is a share.
        self._product = (1.0 / power if power > 0 else 0.0) * (w.swapaxes(1, 2) @ w)
        self._features = dict(enumerate(reading.features))
        self._gone = np.zeros(self._inverse.shape[1], bool)

    def scores(self, units: Indices) -> Float64:
        sizes = {len(self._features[unit]) for unit in units.tolist()}
        if len(sizes) == 1:
            return self._batch([self._features[unit] for unit in units.tolist()])
        return np.array([self._batch([self._features[unit]])[0] for unit in units.tolist()])

    def _batch(self, features: Sequence[Indices]) -> Float64:
        places = np.stack(features)
        if places.shape[1] == 0:
            return np.zeros(len(features))
        rows, columns = places[:, :, None], places[:, None, :]
        total = np.zeros(len(features))
        for inverse, product in zip(self._inverse, self._product, strict=True):
            solved = solve(inverse[rows, columns], product[rows, columns])
            total += np.einsum("uii->u", solved)
        return np.maximum(total, 0.0)

    def remove(self, units: Indices) -> None:
        """In place, for copies of what is left would take longer than the sums."""
        b = np.concatenate([self._features.pop(unit) for unit in units.tolist()])
        self._gone[b] = True
        for group in range(len(self._inverse)):
            inverse, product = self._inverse[group], self._product[group]
            # W' = W − W_b·R with R = [H⁻¹]_bb⁻¹·[H⁻¹]_b:, of which only what is left counts.
            r = solve(inverse[np.ix_(b, b)], inverse[b])
            half = product[:, b] - 0.5 * r.T @ product[np.ix_(b, b)]
            change = half @ r
            inverse -= inverse[:, b] @ r
            product -= change
            product -= change.T
        if self._gone.mean() > _MOST_GONE:
            self._close_up()

    def _close_up(self) -> None:
        """Take out the rows and columns that are gone."""
        left = np.flatnonzero(~self._gone)
        self._inverse = self._inverse[:, left[:, None], left]
        self._product = self._product[:, left[:, None], left]
        places = np.full(len(self._gone), -1)
        places[left] = np.arange(len(left))
        self._features = {unit: places[own] for unit, own in self._features.items()}
        self._gone = np.zeros(len(left), bool)


def magnitude_order(norms: Float64) -> list[int]:
    """All units but the largest, the smallest first."""
    return [int(unit) for unit in np.argsort(norms, kind="stable")[:-1]]


def solve_kept(weights: Float64, gram: Float64, kept: Indices, rows: int) -> Float64:
    """W' = W·H[:, S]·H_SS⁻¹, the least squares answer of the inputs that stay.

    Args:
        weights: `[groups, out, in]`.
        gram: `[groups, in, in]` of all inputs, before the removal.
        kept: the inputs S that stay, the same in each group.
        rows: how many the Gram matrix is made of.

    Returns:
        `[groups, out, kept]`.
    """
    damped = damped_gram(gram, rows)
    part = damped[:, kept[:, None], kept[None, :]]
    # H_SS is damped, so that it can be solved; what is removed is seen undamped.
    added = part - gram[:, kept[:, None], kept[None, :]]
    wanted = weights @ gram[:, :, kept] + weights[:, :, kept] @ added
    return solve(part, wanted.swapaxes(1, 2)).swapaxes(1, 2)
