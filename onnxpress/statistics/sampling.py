"""How far a Gram matrix is from that of all samples there could be, as halves of them tell.

With H₁ and H₂ of every other sample, of n₁ and n₂ rows, E‖H − H*‖² = n₁n₂/n² · E‖H₁ − H₂‖²
(Frobenius norm). Rows of one sample are alike, so that counting rows would say too little. Where
both halves are not kept, ‖D‖² is the mean of ‖Dr‖² over random signs r (Hutchinson 1990): a few
products for each half in place of a second matrix. From it follows how strongly a matrix is to be
damped (`reconstruction.shrinkage`).
"""

import numpy as np
import numpy.typing as npt

from onnxpress.statistics.store import LayerStatistics

__all__ = ["Sketch", "noise_between"]

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_PROBES = 32
"""Of random signs: ‖D‖² is known within a quarter at worst, more than damping can tell."""


class Sketch:
    """Products of the Gram matrix of one half with random signs; the rest is of the other one."""

    def __init__(self, groups: int, inputs: int) -> None:
        """Nothing is added up yet."""
        drawn = np.random.default_rng(inputs).integers(0, 2, (groups, inputs, _PROBES))
        self._signs = (2 * drawn - 1).astype(np.float32)
        self._rows = 0
        self._sum = np.zeros((groups, inputs))
        self._products = np.zeros(self._signs.shape)

    def add(self, rows: Float32) -> None:
        """Add rows `[rows, groups, in]` of the half."""
        own = rows.transpose(1, 0, 2)
        self._rows += own.shape[1]
        self._sum += own.sum(axis=1, dtype=np.float64)
        self._products += own.transpose(0, 2, 1) @ (own @ self._signs)

    def noise(self, rows: int, mean: Float64, gram: Float64) -> tuple[Float64, Float64] | None:
        """`[groups]` E‖H − H*‖² of raw and of centred inputs; `None`: of one half alone.

        Args:
            rows: of both halves.
            mean: `[groups, in]` of both.
            gram: `[groups, in, in]` likewise.
        """
        n, m = self._rows, rows - self._rows
        if not (n and m):
            return None
        means = self._sum / n, (rows * mean - self._sum) / m
        apart = self._products / n - (rows * (gram @ self._signs) - self._products) / m
        shifts = [
            one[:, :, None] * np.einsum("gi,gik->gk", one, self._signs)[:, None, :] for one in means
        ]
        share = n * m / rows**2 / _PROBES
        raw, centred = (
            share * np.einsum("gik,gik->g", one, one)
            for one in (apart, apart - (shifts[0] - shifts[1]))
        )
        return raw, centred


def noise_between(
    first: LayerStatistics, second: LayerStatistics
) -> tuple[Float64, Float64] | None:
    """As `Sketch.noise`, of two halves that are known; of tiles where there is no whole matrix."""
    share = first.rows * second.rows / (first.rows + second.rows) ** 2
    found = []
    for name, tiles in (("gram", "tiles"), ("centred_gram", "centred_tiles")):
        of = name if first.gram is not None else tiles
        one, other = getattr(first, of), getattr(second, of)
        if one is None or other is None:
            return None
        apart = one - other
        found.append(share * np.einsum("gij,gij->g", apart, apart))
    return found[0], found[1]
