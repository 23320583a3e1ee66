"""Low rank of large weights, with neither a copy of them nor all of their components.

Of a stack W `[out, in]` of matrices whose inputs have H = E[xxᵀ] = R·Rᵀ (the identity where
nothing is known), they follow from the smaller of two symmetric matrices, added up by blocks:

    W·H·Wᵀ = UΛUᵀ,        W ≈ U_r·(U_rᵀ·W)
    Rᵀ·WᵀW·R = ZΛZᵀ,      W ≈ (W·R·Z_r)·(Z_rᵀ·R⁻¹)

Both are the optimum of `reconstruction.low_rank`. Squaring loses shares of the energy below 10⁻⁷
(10⁻¹⁴ with statistics), far below what a truncation leaves out. All eigenvalues are worked out, so
that a rank means what it says, and vectors for the rank that is taken (`eigen`).

All of it has one thread: products of several differ in their last bits, and LAPACK's threads, which
wait for each other, took 7 times as long on a busy machine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.passes.factorize.eigen import eigenvalues, leading_vectors
from onnxpress.pieces import row_blocks
from onnxpress.runtime import cholesky, numpy_threads, solve

__all__ = ["Inputs", "Large", "large_low_rank"]

Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Precision = np.dtype[np.float32] | np.dtype[np.float64]

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_BLOCK = 1 << 22
"""Elements of a block: of fewer the products are as quick, and adding them up is not."""
_RIDGE = 1e-12
"""Of the mean of H's diagonal: inputs that are always zero have a root too."""


@dataclass(frozen=True)
class Inputs:
    """What is known of the inputs.

    Attributes:
        gram: gives `[in, in]` H, or H − μμᵀ; called when it is needed, as it is large.
        mean: `[in]` μ, where a bias takes it up.
    """

    gram: Callable[[], Float64]
    mean: Float64 | None


@dataclass(frozen=True)
class Large:
    """The principal components of large weights, as `reconstruction.LowRank` has those of small.

    Attributes:
        matrices: `[out, in]` each, one below the other; they are not copied.
        scales: by which each is divided.
        inputs: what is known of them, or `None`.
        energies: `[min(out, in)]` what each component carries.
    """

    matrices: tuple[Floats, ...]
    scales: tuple[float, ...]
    inputs: Inputs | None
    energies: Float64

    def error(self, rank: int) -> float:
        """The share of the energy that is left out at `rank`."""
        total = self.energies.sum()
        return float(self.energies[rank:].sum() / total) if total > 0 else 0.0

    @numpy_threads(1)
    def factors(self, rank: int) -> tuple[Floats, Floats]:
        """`(first [rank, in], second [out, rank])` in single precision."""
        root = _root(self.matrices, self.inputs)
        squared = _squared(self.matrices, self.scales, self.inputs, root)
        known = squared.astype(np.float32) if self.inputs is None else squared
        kept = leading_vectors(known, rank)
        outputs, inputs = _sides(self.matrices)
        if outputs <= inputs:
            second = kept.astype(np.float32)
            first = np.empty((rank, inputs), np.float32)
            for columns, block in _column_blocks(self.matrices, self.scales, _SINGLE):
                first[:, columns] = second.T @ block
            return first, second
        turned = kept if root is None else root @ kept
        inverse = kept.T if root is None else solve(root.T, kept).T
        second = np.empty((outputs, rank), np.float32)
        narrow = turned.astype(np.float32)
        for rows, block in _row_blocks(self.matrices, self.scales, _SINGLE):
            second[rows] = block @ narrow
        return inverse.astype(np.float32), second

    @numpy_threads(1)
    def bias_shift(self, first: Floats, second: Floats) -> Float64:
        """`[out]` (W − second·first)·μ, to be added to the bias; zeros without a mean."""
        if self.inputs is None or self.inputs.mean is None:
            return np.zeros(len(second))
        mean = self.inputs.mean
        blocks = _row_blocks(self.matrices, self.scales, _DOUBLE)
        before = np.concatenate([block @ mean for _, block in blocks])
        return np.asarray(before - second @ (first @ mean), np.float64)


@numpy_threads(1)
def large_low_rank(
    matrices: Sequence[Floats], scales: Sequence[float], inputs: Inputs | None
) -> Large:
    """The components of matrices `[out, in]` one below the other, each divided by its scale."""
    squared = _squared(matrices, scales, inputs, _root(matrices, inputs))
    return Large(tuple(matrices), tuple(scales), inputs, eigenvalues(squared))


def _sides(matrices: Sequence[Floats]) -> tuple[int, int]:
    return sum(len(matrix) for matrix in matrices), matrices[0].shape[1]


def _root(matrices: Sequence[Floats], inputs: Inputs | None) -> Float64 | None:
    """R with H = R·Rᵀ, where it is needed."""
    outputs, width = _sides(matrices)
    if inputs is None or outputs <= width:
        return None
    gram = inputs.gram()
    gram[np.diag_indices(width)] += max(_RIDGE * np.trace(gram) / width, np.finfo(float).tiny)
    return cholesky(gram)


def _squared(
    matrices: Sequence[Floats],
    scales: Sequence[float],
    inputs: Inputs | None,
    root: Float64 | None,
) -> Float64:
    """W·H·Wᵀ or Rᵀ·WᵀW·R, whichever is the smaller; without statistics in single precision."""
    outputs, width = _sides(matrices)
    if inputs is not None and outputs <= width:
        pairs = zip(matrices, scales, strict=True)
        stack = np.concatenate([np.asarray(m, np.float64) / s for m, s in pairs])
        return np.asarray((stack @ inputs.gram()) @ stack.T)
    # Products in the precision of a block, sums of blocks in double.
    total = np.zeros((min(outputs, width),) * 2)
    dtype = _SINGLE if inputs is None else _DOUBLE
    if outputs <= width:
        for _, block in _column_blocks(matrices, scales, dtype):
            total += block @ block.T
    else:
        for _, block in _row_blocks(matrices, scales, dtype):
            total += block.T @ block
    return total if root is None else np.asarray(root.T @ total @ root)


def _column_blocks(
    matrices: Sequence[Floats],
    scales: Sequence[float],
    dtype: np.dtype[np.float32] | np.dtype[np.float64],
) -> Iterator[tuple[slice, Floats]]:
    """Columns of the whole stack, and their place."""
    outputs, inputs = _sides(matrices)
    pairs = list(zip(matrices, scales, strict=True))
    for columns in row_blocks(np.broadcast_to(np.zeros(1), (inputs, outputs)), _BLOCK):
        parts: list[Floats] = [np.asarray(m[:, columns], dtype) for m, _ in pairs]
        yield columns, np.concatenate([p / s for p, (_, s) in zip(parts, pairs, strict=True)])


def _row_blocks(
    matrices: Sequence[Floats],
    scales: Sequence[float],
    dtype: np.dtype[np.float32] | np.dtype[np.float64],
) -> Iterator[tuple[slice, Floats]]:
    """Rows of the whole stack, and their place."""
    start = 0
    for matrix, scale in zip(matrices, scales, strict=True):
        for rows in row_blocks(matrix, _BLOCK):
            block: Floats = np.asarray(matrix[rows], dtype)
            yield slice(start + rows.start, start + rows.stop), block / scale
        start += len(matrix)
