"""As many threads for numpy's products as for onnxruntime, and one for its decompositions.

LAPACK's threads wait for each other at every step: on two cores that others use, `eigh` of 128 rows
takes 180 ms and not 1; on idle ones two are hardly faster. What is decomposed, inverted or solved
anywhere goes through the functions here.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = [
    "cholesky",
    "eigh",
    "eigvalsh",
    "inv",
    "numpy_threads",
    "pinv",
    "qr",
    "solve",
    "svd",
]

_Floats = npt.NDArray[np.floating]
_Float64 = npt.NDArray[np.float64]
_Real = TypeVar("_Real", bound=np.floating)


@contextlib.contextmanager
def numpy_threads(threads: int) -> Iterator[None]:
    """Let numpy's BLAS use so many threads inside the block; what it used before comes back after.

    Args:
        threads: 0 leaves the number as it is, which is all cores where nothing says otherwise.
    """
    if threads <= 0:
        yield
        return
    with _controller().limit(limits=threads, user_api="blas"):
        yield


@functools.cache
def _controller() -> "ThreadpoolController":
    """Of numpy's library, which is there already; to look for it takes longer than small matrices.

    Imported here: it takes time, and many commands need none of it.
    """
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415

    return ThreadpoolController()


def cholesky(matrix: _Floats) -> _Float64:
    """`numpy.linalg.cholesky` in one thread, of one matrix or a stack.

    Raises:
        LinAlgError: it is not positive definite.
    """
    with numpy_threads(1):
        return np.asarray(np.linalg.cholesky(matrix), np.float64)


def eigh(matrix: npt.NDArray[_Real]) -> tuple[npt.NDArray[_Real], npt.NDArray[_Real]]:
    """`numpy.linalg.eigh` in one thread, in the precision of the matrix."""
    with numpy_threads(1):
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def eigvalsh(matrix: _Floats) -> _Float64:
    """`numpy.linalg.eigvalsh` in one thread."""
    with numpy_threads(1):
        return np.asarray(np.linalg.eigvalsh(matrix), np.float64)


def inv(matrix: _Floats) -> _Float64:
    """`numpy.linalg.inv` in one thread.

    Raises:
        LinAlgError: it is singular.
    """
    with numpy_threads(1):
        return np.asarray(np.linalg.inv(matrix), np.float64)


def pinv(matrix: _Floats, *, rcond: float | None = None) -> _Float64:
    """`numpy.linalg.pinv` of symmetric matrices, in one thread."""
    with numpy_threads(1):
        return np.asarray(np.linalg.pinv(matrix, rcond, hermitian=True), np.float64)


def qr(matrix: npt.NDArray[_Real]) -> tuple[npt.NDArray[_Real], npt.NDArray[_Real]]:
    """`numpy.linalg.qr` in one thread, in the precision of the matrix."""
    with numpy_threads(1):
        basis, triangle = np.linalg.qr(matrix)
    return basis, triangle


def solve(matrix: _Floats, wanted: _Floats) -> _Float64:
    """`numpy.linalg.solve` in one thread.

    Raises:
        LinAlgError: the matrix is singular.
    """
    with numpy_threads(1):
        return np.asarray(np.linalg.solve(matrix, wanted), np.float64)


def svd(
    matrix: npt.NDArray[_Real],
) -> tuple[npt.NDArray[_Real], npt.NDArray[_Real], npt.NDArray[_Real]]:
    """`numpy.linalg.svd` without the vectors that multiply zeros, in one thread."""
    with numpy_threads(1):
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    return left, singular, right
