"""The quadratic form behind every pass: the error of a changed layer is tr(ΔW·H·ΔWᵀ).

H = E[xxᵀ] is the Gram matrix of the layer's inputs `[groups, in, in]`; the rows of W `[out, in]`
belong to the groups in order. Without statistics H is taken as the identity.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LowRank", "low_rank", "output_energy", "relative_error"]

Float64 = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating]


def output_energy(
    weights: Weights, gram: Float64 | None, second_moment: Float64 | None = None
) -> float:
    """E‖Wx‖² = tr(W·H·Wᵀ), summed over all outputs.

    Args:
        weights: `[out, in]`.
        gram: `[groups, in, in]`, or `None`.
        second_moment: `[groups, in]` E[x²], used as a diagonal H when there is no Gram matrix.
    """
    w = np.asarray(weights, np.float64)
    if gram is not None:
        grouped = w.reshape(len(gram), -1, w.shape[1])
        return float(np.einsum("goi,goi->", grouped @ gram, grouped))
    if second_moment is not None:
        grouped = w.reshape(len(second_moment), -1, w.shape[1])
        return float(np.einsum("goi,gi->", np.square(grouped), second_moment))
    return float(np.square(w).sum())


def relative_error(
    delta: Weights,
    weights: Weights,
    gram: Float64 | None,
    second_moment: Float64 | None = None,
) -> float:
    """Power of the output's change over the power of the output; 0 for an output of zeros."""
    energy = output_energy(weights, gram, second_moment)
    return output_energy(delta, gram, second_moment) / energy if energy > 0 else 0.0


@dataclass(frozen=True)
class LowRank:
    """The principal components of a layer's outputs.

    Attributes:
        basis: `[out, min(out, in)]` U, orthonormal columns in order of falling energy.
        energies: `[min(out, in)]` what each component carries.
        weights: `[out, in]` the layer's W.
        mean: `[in]` μ of the inputs, or `None`: without statistics, or without a bias to
            take the mean up.
    """

    basis: Float64
    energies: Float64
    weights: Float64
    mean: Float64 | None

    def error(self, rank: int) -> float:
        """Relative output error at `rank`: the share of the energy that is left out."""
        total = self.energies.sum()
        return float(self.energies[rank:].sum() / total) if total > 0 else 0.0

    def factors(self, rank: int) -> tuple[Float64, Float64]:
        """`(first [rank, in], second [out, rank])`, whose product replaces W."""
        kept = self.basis[:, :rank]
        return kept.T @ self.weights, kept

    def bias_shift(self, rank: int) -> Float64:
        """`[out]` (I − U_r·U_rᵀ)·W·μ, to be added to the bias; zeros without a mean."""
        if self.mean is None:
            return np.zeros(len(self.basis))
        kept = self.basis[:, :rank]
        mean_output = self.weights @ self.mean
        return mean_output - kept @ (kept.T @ mean_output)


def low_rank(weights: Weights, gram: Float64 | None, mean: Float64 | None) -> LowRank:
    """Principal components of the outputs, the best low rank for E‖Wx − W'x‖².

    W·H_c·Wᵀ = UΛUᵀ with the centred H_c = H − μμᵀ; no inverse is needed, so a singular H
    (fewer rows than inputs, dead inputs) is as good as any (DRONE, NeurIPS 2021; the same
    optimum as the whitened SVD of SVD-LLM, arXiv 2403.07378). Without H it is the plain
    truncated SVD of W.

    Args:
        weights: `[out, in]`.
        gram: `[in, in]` H or `None`.
        mean: `[in]` μ, or `None` to leave the outputs uncentred.
    """
    w = np.asarray(weights, np.float64)
    if gram is None:
        root, mean = np.eye(w.shape[1]), None
    else:
        centred = gram if mean is None else gram - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(centred)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
    # The left singular vectors of W·root are the eigenvectors of W·H_c·Wᵀ, at the cost of the
    # smaller side only: an output layer may have thousands of rows.
    basis, singular, _ = np.linalg.svd(w @ root, full_matrices=False)
    # The sign of a singular vector is arbitrary: fix it, so that files are reproducible.
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return LowRank(basis * np.where(signs == 0, 1.0, signs), singular**2, w, mean)
