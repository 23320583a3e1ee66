"""The Gram matrix of a layer, or its diagonal blocks where the whole would be too wide.

Blocks are worked with as if each were a group of its own with outputs of its own: how inputs of one
go together with those of another counts for nothing.
"""

import numpy as np
import numpy.typing as npt

from onnxpress.contract import LayerStatistics
from onnxpress.reconstruction import output_energy

__all__ = ["gram_of", "observed_power", "tiled", "untiled"]


def gram_of(
    moments: LayerStatistics, *, centred: bool
) -> tuple[npt.NDArray[np.float64] | None, int]:
    """What errors count by, and in how many tiles."""
    if moments.gram is None and moments.tiles is not None:
        return moments.centred_tiles if centred else moments.tiles, len(moments.tiles)
    return moments.centred_gram if centred else moments.gram, 1


def tiled(matrix: npt.NDArray[np.floating], tiles: int) -> npt.NDArray[np.floating]:
    """`[out, in]` as `[tiles * out, in / tiles]`, as if each tile were a group of its own."""
    if tiles == 1:
        return matrix
    inputs = matrix.shape[1] // tiles
    return matrix.reshape(-1, tiles, inputs).swapaxes(0, 1).reshape(-1, inputs)


def untiled(matrix: npt.NDArray[np.floating], tiles: int) -> npt.NDArray[np.floating]:
    """What `tiled` took apart."""
    if tiles == 1:
        return matrix
    inputs = matrix.shape[1] * tiles
    return matrix.reshape(tiles, -1, inputs // tiles).swapaxes(0, 1).reshape(-1, inputs)


def observed_power(matrix: npt.NDArray[np.floating], moments: LayerStatistics) -> float:
    """E‖Wx‖² of observed inputs."""
    gram, tiles = gram_of(moments, centred=False)
    if gram is None:
        return output_energy(matrix, None, moments.second_moment)
    return output_energy(tiled(matrix, tiles), gram)
