"""Eigenvalues of large symmetric matrices, and the eigenvectors of the largest of them.

For less than half of all vectors the randomized range finder with power iterations takes less time
than a whole decomposition, most of it products of matrices (Halko, Martinsson, Tropp, SIAM Review
2011, arXiv 0909.4061, algorithm 4.4). Of drawn matrices, whose spectra are flattest, what is left
out is within 1% of the least there is.
"""

import numpy as np
import numpy.typing as npt

from onnxpress.runtime import eigh, eigvalsh, qr

__all__ = ["eigenvalues", "leading_vectors"]

Floats = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]

_SEED = 0
_POWERS = (1, 2, 2)
"""Of the matrix, between which the basis is made orthonormal. More at once would let a strong
direction drown the others in single precision, most of all while the vectors are random."""
_MORE, _AT_LEAST = 0.3, 1 / 32
"""Vectors beyond those that are wanted, as a share of them and at least of all."""
_FEW = 1 / 2
"""Of all vectors: more of them, and the whole decomposition is quicker."""


def eigenvalues(matrix: Float64) -> Float64:
    """Of a symmetric positive semidefinite `[n, n]`, falling, none below zero."""
    return np.asarray(np.maximum(eigvalsh(matrix)[::-1], 0.0), np.float64)


def leading_vectors(matrix: Floats, count: int) -> Floats:
    """`[n, count]` eigenvectors of the largest eigenvalues, in the precision of the matrix.

    Args:
        matrix: `[n, n]`, symmetric and positive semidefinite.
        count: of vectors.
    """
    size = count + max(int(_MORE * count), int(_AT_LEAST * len(matrix)))
    if size > _FEW * len(matrix):
        vectors = eigh(matrix)[1][:, ::-1][:, :count]
    else:
        vectors = _found_in_range(matrix, count, size)
    # The sign of an eigenvector is arbitrary: fix it, so that files are reproducible.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)])
    return np.asarray(vectors * np.where(signs == 0, 1.0, signs), matrix.dtype)


def _found_in_range(matrix: Floats, count: int, size: int) -> Floats:
    """By Rayleigh and Ritz in a basis of `size` vectors that powers of the matrix have turned."""
    drawn = np.random.default_rng(_SEED).standard_normal((len(matrix), size))
    basis: Floats = drawn.astype(matrix.dtype)
    # Powers of what is small or large would leave the range of single precision.
    scaled = matrix / max(float(np.trace(matrix)) / len(matrix), float(np.finfo(np.float32).tiny))
    for power in _POWERS:
        for _ in range(power):
            basis = scaled @ basis
        basis = qr(basis)[0]
    inner = basis.T @ (scaled @ basis)
    _, turned = eigh(np.asarray(inner, np.float64))
    return np.asarray(basis @ turned[:, ::-1][:, :count].astype(matrix.dtype))
