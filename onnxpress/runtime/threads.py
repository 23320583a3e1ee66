"""As many threads for numpy's linear algebra as for onnxruntime."""

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["eigh", "numpy_threads", "svd"]

_Floats = npt.NDArray[np.float64]


@contextlib.contextmanager
def numpy_threads(threads: int) -> Iterator[None]:
    """Let numpy's BLAS use so many threads inside the block; what it used before comes back after.

    Args:
        threads: 0 leaves the number as it is, which is all cores where nothing says otherwise.
    """
    if threads <= 0:
        yield
        return
    # Imported here: it looks for the libraries of the process, which takes time.
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    with threadpool_limits(limits=threads, user_api="blas"):
        yield


def eigh(matrix: _Floats) -> tuple[_Floats, _Floats]:
    """`numpy.linalg.eigh` in one thread.

    Two threads of LAPACK wait for each other at every step: on two cores that others use, 128 rows
    take 180 ms and not 1; on idle ones two are hardly faster.
    """
    with numpy_threads(1):
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def svd(matrix: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """`numpy.linalg.svd` without the vectors that multiply zeros, in one thread, as `eigh`."""
    with numpy_threads(1):
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    return left, singular, right
