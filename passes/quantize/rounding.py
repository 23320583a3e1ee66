"""Rounding weights so that their errors cancel at the layer's output.

Columns are rounded in the order of falling E[x²], and what a column loses is made up for by
those not rounded yet, through the inverse Gram matrix (GPTQ, arXiv 2210.17323); then each
integer moves to where the output error is least while the others stay, column after column
(cyclic coordinate descent). Rows that end no better than nearest rounding keep the latter.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.passes.quantize.levels import LevelGrid
from onnxpress.reconstruction import damped_gram
from onnxpress.runtime import cholesky, inv

__all__ = ["Compensation", "Grid", "round_compensated"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]

_BLOCK = 32
"""Columns between products of matrices: within a block each column costs a pass over the block."""
_SWEEPS = 2
_SMALL = 64
_PART = 1_000_000
"""Weights that are rounded at a time, in whole outputs, which do not depend on each other: a dozen
copies of them are held meanwhile."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that weights may become: whole ones between two ends, times steps.

    Attributes:
        lowest: of the whole numbers, or of each weight `[groups, out, in]`.
        highest: likewise.
        steps: `[groups, out, in]`, not 0, of any sign; `None`: 1 everywhere.
    """

    lowest: float | Float32
    highest: float | Float32
    steps: Float32 | None = None

    def nearest(self, values: Floats, columns: slice = slice(None)) -> Floats:
        """Of some columns the numbers that are nearest to values."""
        low, high = _of(self.lowest, columns), _of(self.highest, columns)
        if self.steps is None:
            return np.asarray(np.clip(np.round(values), low, high))
        steps = self.steps[:, columns]
        return np.asarray(np.clip(np.round(values / steps), low, high) * steps)

    def moved(self, old: Floats, by: Floats, columns: slice) -> Floats:
        """Numbers of the grid, moved by as much as comes nearest."""
        if self.steps is not None:
            return self.nearest(old + by, columns)
        low, high = _of(self.lowest, columns), _of(self.highest, columns)
        return np.asarray(np.clip(old + np.round(by), low, high))

    def of_outputs(self, outputs: slice) -> "Grid":
        """That of some outputs of each group."""

        def part(ends: float | Float32) -> float | Float32:
            return ends[:, outputs] if isinstance(ends, np.ndarray) else ends

        steps = None if self.steps is None else self.steps[:, outputs]
        return Grid(part(self.lowest), part(self.highest), steps)

    def sorted(self, rows: npt.NDArray[np.int64]) -> "Grid":
        """With `[groups, in, out]`, the inputs in another order."""

        def moved(array: Float32) -> Float32:
            whole = array.swapaxes(1, 2).astype(np.float32)
            return np.asarray(np.take_along_axis(whole, rows, axis=1))

        low, high = (
            moved(ends) if isinstance(ends, np.ndarray) else ends
            for ends in (self.lowest, self.highest)
        )
        return Grid(low, high, None if self.steps is None else moved(self.steps))


def _of(ends: float | Float32, columns: slice) -> float | Float32:
    return ends[:, columns] if isinstance(ends, np.ndarray) else ends


@dataclass(frozen=True)
class Compensation:
    """What follows from a layer's inputs alone, for any of its outputs.

    Attributes:
        gram: `[groups, in, in]`.
        order: `[groups, in]` of the columns.
        upper: `[groups, in, in]` U with UᵀU = H⁻¹, in that order; `None`: H has no inverse.
        damped: `[groups, in, in]` H in that order; empty where it has no inverse.
    """

    gram: Float64
    order: npt.NDArray[np.int64]
    upper: Float32 | None
    damped: Float32

    @classmethod
    def of(cls, gram: Float64, shares: Float64 | None = None) -> "Compensation":
        """For inputs with the Gram matrix `[groups, in, in]`.

        Args:
            gram: of the inputs.
            shares: `[groups]` of its mean diagonal that it is damped by beside what is usual.
        """
        groups, columns = gram.shape[:2]
        diagonal = np.einsum("gii->gi", gram)
        size = np.maximum(diagonal.mean(axis=1), np.finfo(np.float64).tiny)
        scaled = gram / size[:, None, None]
        # Inputs that are all zero weigh alike.
        scaled[~diagonal.any(axis=1)] = np.eye(columns)
        damped = damped_gram(scaled)
        del scaled
        if shares is not None:
            np.einsum("gii->gi", damped)[...] += shares[:, None]
        order = np.argsort(-diagonal, axis=1, kind="stable")
        group = np.arange(groups)[:, None, None]
        sorted_gram = damped[group, order[:, :, None], order[:, None, :]]
        del damped
        without = cls(gram, order, None, np.zeros((0, 0, 0), np.float32))
        try:
            upper = _inverse_root(sorted_gram)
        except np.linalg.LinAlgError:
            return without
        if not np.isfinite(upper).all():
            return without
        return cls(gram, order, upper.astype(np.float32), sorted_gram.astype(np.float32))

    def rounded(
        self,
        weights: npt.NDArray[np.floating],
        scales: npt.NDArray[np.floating],
        highest: int,
        *,
        keep_zeros: bool = False,
    ) -> Float32:
        """As `round_compensated`."""
        groups, columns = self.gram.shape[:2]
        w = weights.reshape(groups, -1, columns)
        # Rows do not depend on each other, so each is rounded in units of its own step.
        steps = np.asarray(scales, np.float64).reshape(groups, -1, 1)
        found = np.empty(w.shape, np.float32)
        for part in _parts(w.shape):
            relative = w[:, part] / steps[:, part]
            found[:, part] = self._of_part(relative, Grid(-highest, highest), keep_zeros=keep_zeros)
        return found.reshape(weights.shape)

    def fitted(
        self, weights: Float64, grid: Grid | LevelGrid, *, keep_zeros: bool = False
    ) -> Float64:
        """`[out, in]` numbers of a grid whose error weighs least under the Gram matrix.

        Args:
            weights: `[out, in]`, the rows of the groups one below the other.
            grid: whose arrays are cut into groups.
            keep_zeros: weights that are 0 stay 0.
        """
        groups, columns = self.gram.shape[:2]
        w = weights.reshape(groups, -1, columns)
        found = np.empty(w.shape)
        for part in _parts(w.shape):
            own = grid.of_outputs(part)
            found[:, part] = self._of_part(w[:, part], own, keep_zeros=keep_zeros)
        return found.reshape(weights.shape)

    def _of_part(self, w: Floats, grid: Grid | LevelGrid, *, keep_zeros: bool) -> Floats:
        """Of `[groups, out, in]`, as many outputs as are held at a time."""
        nearest = grid.nearest(w)
        if self.upper is None:
            return nearest
        # Transposed, [groups, in, out]: a column of the weight is contiguous. The loops only say
        # which integer is next: float32 decides that as well, in half the time.
        rows = self.order[:, :, None]
        sorted_w = np.take_along_axis(w.swapaxes(1, 2).astype(np.float32), rows, axis=1)
        sorted_grid = grid.sorted(rows)
        # 0 or 1: a pruned weight has no other integer than 0.
        free = (sorted_w != 0).astype(np.float32) if keep_zeros else None
        found = _compensate(sorted_w, self.upper, sorted_grid, free)
        for _ in range(_SWEEPS):
            _descend(found, sorted_w, self.damped, sorted_grid, free)
        restored = np.empty_like(found)
        np.put_along_axis(restored, rows, found, axis=1)
        back = restored.swapaxes(1, 2)
        better = _row_errors(w - back, self.gram) < _row_errors(w - nearest, self.gram)
        return np.where(better[:, :, None], back, nearest)


def round_compensated(
    weights: npt.NDArray[np.floating],
    scales: npt.NDArray[np.floating],
    gram: Float64,
    highest: int,
    *,
    keep_zeros: bool = False,
) -> Float32:
    """Integers in [-highest, highest] whose scaled error weighs least under `gram`.

    Args:
        weights: `[out, in]`, the rows of the groups one below the other.
        scales: `[out]`, above 0.
        gram: `[groups, in, in]` E[xxᵀ] of the layer's inputs, centred where a bias takes up
            the mean.
        highest: the largest integer.
        keep_zeros: weights that are 0 stay 0, for a pruned layer.

    Returns:
        `[out, in]` whole numbers.
    """
    return Compensation.of(gram).rounded(weights, scales, highest, keep_zeros=keep_zeros)


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    """Outputs of `[groups, out, in]` that are rounded at a time."""
    groups, outputs, inputs = shape
    count = max(_PART // max(groups * inputs, 1), 1)
    return (slice(start, start + count) for start in range(0, outputs, count))


def _inverse_root(gram: Float64) -> Float64:
    """`[groups, in, in]` upper triangular U with UᵀU = H⁻¹, without forming the inverse.

    With the order of rows and columns turned round, the Cholesky factor of H is an upper
    triangular R with RRᵀ = H; U is its inverse.
    """
    root = cholesky(gram[:, ::-1, ::-1])[:, ::-1, ::-1]
    return _inverted(root)


def _inverted(upper: Float64) -> Float64:
    """The inverses of upper triangular matrices, by halves: a sixth of a general inverse's work."""
    size = upper.shape[1]
    if size <= _SMALL:
        return inv(upper)
    half = size // 2
    result = np.zeros_like(upper)
    first, last = _inverted(upper[:, :half, :half]), _inverted(upper[:, half:, half:])
    result[:, :half, :half], result[:, half:, half:] = first, last
    result[:, :half, half:] = -(first @ upper[:, :half, half:]) @ last
    return result


def _compensate(
    w: Float32, upper: Float32, grid: Grid | LevelGrid, free: Float32 | None
) -> Float32:
    """GPTQ's loop, with updates beyond a block of columns put together into one product."""
    left = w.copy()
    integers = np.empty_like(w)
    columns = w.shape[1]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = np.empty((w.shape[0], end - start, w.shape[2]), np.float32)
        for at in range(start, end):
            column = left[:, at : at + 1]
            rounded = grid.nearest(column, slice(at, at + 1))
            if free is not None:
                rounded *= free[:, at : at + 1]
            integers[:, at : at + 1] = rounded
            error = (column - rounded) / upper[:, at, at][:, None, None]
            left[:, at + 1 : end] -= upper[:, at, at + 1 : end, None] * error
            errors[:, at - start : at - start + 1] = error
        left[:, end:] -= upper[:, start:end, end:].swapaxes(1, 2) @ errors
    return integers


def _descend(
    integers: Float32,
    w: Float32,
    gram: Float32,
    grid: Grid | LevelGrid,
    free: Float32 | None,
) -> None:
    """One sweep of coordinate descent, in place."""
    gradient = gram @ (w - integers)
    columns = w.shape[1]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        moved = np.empty((w.shape[0], end - start, w.shape[2]), np.float32)
        for at in range(start, end):
            wanted = gradient[:, at : at + 1] / gram[:, at, at][:, None, None]
            old = integers[:, at : at + 1]
            new = grid.moved(old, wanted, slice(at, at + 1))
            if free is not None:
                new *= free[:, at : at + 1]
            step = new - old
            integers[:, at : at + 1] = new
            gradient[:, at:end] -= gram[:, at, at:end, None] * step
            moved[:, at - start : at - start + 1] = step
        gradient[:, end:] -= gram[:, end:, start:end] @ moved


def _row_errors(delta: Floats, gram: Float64) -> Float64:
    return np.asarray(np.einsum("goi,goi->go", delta @ gram, delta), np.float64)
