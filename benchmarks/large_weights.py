"""Low rank of large weights beside their whole decomposition: what is left out, and seconds.

    python benchmarks/large_weights.py [MODEL ...]

A table for drawn matrices of a decoder's shapes and for the two largest matrices of each MODEL:
the share of the energy that the best of a rank leaves out, by how much more the factors leave out,
and the seconds of both (a whole singular value decomposition in double precision; eigenvalues and
factors of one rank).
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxpress.passes.factorize.large import large_low_rank
from onnxpress.runtime import numpy_threads

_DRAWN = ((2048, 2048), (2048, 5632))
_SHARES = (1 / 32, 1 / 8, 1 / 4, 1 / 2)
"""Of the smaller side, that are kept."""


def matrices(models: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and matrices."""
    for rows, columns in _DRAWN:
        rng = np.random.default_rng(0)
        yield f"drawn {rows}x{columns}", rng.standard_normal((rows, columns), np.float32)
    for path in models:
        tensors = [t for t in onnx.load(path).graph.initializer if len(t.dims) == 2]
        by_shape = {tuple(tensor.dims): tensor for tensor in tensors}
        for shape in sorted(by_shape, key=lambda dims: -dims[0] * dims[1])[:2]:
            array = numpy_helper.to_array(by_shape[shape])
            yield f"{path.parent.name} {shape[0]}x{shape[1]}", np.asarray(array, np.float32)


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    given = parser.parse_args()
    print("| matrix | rank | left out by the best | more | whole s | values s | factors s |")
    print(f"{'|---' * 7}|")
    for name, weight in matrices(given.models):
        start = time.perf_counter()
        with numpy_threads(1):
            singular = np.linalg.svd(weight.astype(np.float64), full_matrices=False)[1]
        whole_s, start = time.perf_counter() - start, time.perf_counter()
        found = large_low_rank([weight], [1.0], None)
        values_s = time.perf_counter() - start
        energies = singular**2
        for share in _SHARES:
            rank, start = int(share * len(energies)), time.perf_counter()
            first, second = found.factors(rank)
            factors_s = time.perf_counter() - start
            least = energies[rank:].sum()
            lost = np.square(weight - np.float64(1) * second @ first).sum()
            print(
                f"| {name} | {rank} | {least / energies.sum():.3f} | {lost / least - 1:.2%} "
                f"| {whole_s:.1f} | {values_s:.1f} | {factors_s:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    _main()
