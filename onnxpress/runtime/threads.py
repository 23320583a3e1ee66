"""As many threads for numpy's linear algebra as for onnxruntime."""

import contextlib
from collections.abc import Iterator

__all__ = ["numpy_threads"]


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
