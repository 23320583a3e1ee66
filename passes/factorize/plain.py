"""Low rank of large weights by their numbers alone, with neither a copy nor their full SVD.

The truncated SVD of a stack W of matrices follows from the smaller of W·Wᵀ = UΛUᵀ and
WᵀW = VΛVᵀ, which is added up block by block: W ≈ U_r·(U_rᵀW) or (W·V_r)·V_rᵀ. Shares of the energy
below 10⁻⁷ are lost in it, far below what a truncation leaves out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.pieces import row_blocks

__all__ = ["Plain", "plain"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Plain:
    """The principal components of a weight, as `reconstruction.LowRank` has them with statistics.

    Attributes:
        matrices: `[out, in]` each, one below the other; they are not copied.
        scales: by which each is divided.
        energies: `[min(out, in)]` what each component carries.
    """

    matrices: tuple[Floats, ...]
    scales: tuple[float, ...]
    energies: Float64

    def error(self, rank: int) -> float:
        """The share of the energy that is left out at `rank`."""
        total = self.energies.sum()
        return float(self.energies[rank:].sum() / total) if total > 0 else 0.0

    def factors(self, rank: int) -> tuple[Floats, Floats]:
        """`(first [rank, in], second [out, rank])` in single precision."""
        _, vectors = np.linalg.eigh(_gram(self.matrices, self.scales))
        kept = vectors[:, ::-1][:, :rank]
        # The sign of a singular vector is arbitrary: fix it, so that files are reproducible.
        signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(rank)])
        kept = kept * np.where(signs == 0, 1.0, signs)
        narrow = kept.astype(np.float32)
        outputs, inputs = _sides(self.matrices)
        product = np.empty((rank, inputs) if outputs <= inputs else (outputs, rank), np.float32)
        at = 0
        for block in _blocks(self.matrices, self.scales):
            if outputs <= inputs:
                product[:, at : at + block.shape[1]] = narrow.T @ block
                at += block.shape[1]
            else:
                product[at : at + len(block)] = block @ narrow
                at += len(block)
        return (product, narrow) if outputs <= inputs else (narrow.T, product)

    def bias_shift(self, rank: int) -> Float64:
        """Nothing is known that a bias could take up."""
        del rank
        return np.zeros(_sides(self.matrices)[0])


def plain(matrices: Sequence[Floats], scales: Sequence[float]) -> Plain:
    """The components of matrices `[out, in]` one below the other, each divided by its scale."""
    energies = np.linalg.eigvalsh(_gram(matrices, scales))[::-1]
    return Plain(tuple(matrices), tuple(scales), np.maximum(energies, 0.0))


def _sides(matrices: Sequence[Floats]) -> tuple[int, int]:
    return sum(len(matrix) for matrix in matrices), matrices[0].shape[1]


def _gram(matrices: Sequence[Floats], scales: Sequence[float]) -> Float64:
    """W·Wᵀ or WᵀW, whichever is the smaller."""
    outputs, inputs = _sides(matrices)
    # Single precision in a block, double between blocks.
    total = np.zeros((min(outputs, inputs),) * 2)
    for block in _blocks(matrices, scales):
        total += block @ block.T if outputs <= inputs else block.T @ block
    return total


def _blocks(matrices: Sequence[Floats], scales: Sequence[float]) -> Iterator[Float32]:
    """Columns of the whole stack where it is wide, else its rows."""
    outputs, inputs = _sides(matrices)
    pairs = list(zip(matrices, scales, strict=True))
    if outputs <= inputs:
        for columns in row_blocks(np.broadcast_to(np.zeros(1), (inputs, outputs))):
            yield np.concatenate([m[:, columns].astype(np.float32) / s for m, s in pairs])
        return
    for matrix, scale in pairs:
        for rows in row_blocks(matrix):
            yield matrix[rows].astype(np.float32) / scale
