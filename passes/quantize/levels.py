"""The numbers that codes stand for, in units of a step, where they are not whole ones in a row.

Logarithmic: 0 and ±b⁻ᵏ (LogNet, arXiv 1603.01025), of any base b. Sums of two powers: 0 and ± the
whole numbers with one or two ones in binary, 1, 2, 3, 4, 5, 6, 8, 9, ... (after APoT, arXiv
1909.13144): a product with one is two shifts and a sum. Codebooks are fitted (`codebooks`). A table
`[tables, 2^bits]` rises; the first number has the largest magnitude, as the largest weight of a
block is put on it, whatever its sign.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "BASES",
    "Kind",
    "Layout",
    "LevelGrid",
    "log_levels",
    "nearest_index",
    "power_sum_levels",
    "uniform_levels",
]

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]

Kind = Literal["uniform", "codebook", "row_codebook", "log", "power_sums"]
"""How the numbers that codes stand for lie."""

Layout = Literal["packed", "blocked", "nbits"]
"""What reads codes."""

BASES = tuple(2 ** (eighths / 8) for eighths in range(1, 17))
"""Of logarithmic levels, that are tried: steps of 0.75 to 12 dB."""


def uniform_levels(bits: int) -> Float32:
    """`[1, 2^bits]` whole numbers."""
    middle = 2 ** (bits - 1)
    return np.asarray([np.arange(-middle, middle)], np.float32)


def log_levels(bits: int, base: float) -> Float32:
    """`[1, 2^bits]` 0 and ± powers of a base below the largest whole number of such codes.

    The smallest one is there with a minus only.
    """
    count = 2 ** (bits - 1)
    rising = count * float(base) ** -np.arange(count)[::-1]
    return np.concatenate([-rising[::-1], [0.0], rising[1:]])[None].astype(np.float32)


def power_sum_levels(bits: int) -> Float32:
    """`[1, 2^bits]` 0 and ± sums of at most two powers of two."""
    wanted, number, found = 2 ** (bits - 1), 0, list[int]()
    while len(found) < wanted:
        number += 1
        if number.bit_count() <= 2:
            found.append(number)
    # Without the largest with a plus, which is that of a block with a minus.
    levels = [-n for n in reversed(found)] + [0] + found[:-1]
    return np.asarray([levels], np.float32)


def nearest_index(
    values: Floats, tables: Float32, own: npt.NDArray[np.integer[Any]] | None = None
) -> npt.NDArray[np.int64]:
    """Which level of a table is nearest to each value.

    Args:
        values: of any shape.
        tables: `[tables, 2^bits]`, rising.
        own: which table is that of each value, of a shape that broadcasts; `None`: the first.
    """
    middles = (tables[:, 1:] + tables[:, :-1]) / 2
    if len(tables) == 1 or own is None:
        return np.searchsorted(middles[0], values)
    found = np.zeros(values.shape, np.int64)
    first = np.broadcast_to(own * middles.shape[1], values.shape)
    flat, half = middles.reshape(-1), tables.shape[1] // 2
    while half:
        beyond = values > flat[first + found + (half - 1)]
        found += half * beyond
        half //= 2
    return found


@dataclass(frozen=True, slots=True)
class LevelGrid:
    """The numbers that weights may become: those of tables, times steps; as `rounding.Grid`.

    Attributes:
        tables: `[tables, 2^bits]`, rising.
        own: `[groups, out, 1]` which table is that of an output.
        steps: `[groups, out, in]`, not 0, of any sign.
    """

    tables: Float32
    own: npt.NDArray[np.int64]
    steps: Float32

    def nearest(self, values: Floats, columns: slice = slice(None)) -> Floats:
        """Of some columns the numbers that are nearest to values."""
        steps = self.steps[:, columns]
        index = nearest_index(values / steps, self.tables, self.own)
        if len(self.tables) == 1:
            return np.asarray(self.tables[0][index] * steps)
        return np.asarray(self.tables[self.own, index] * steps)

    def moved(self, old: Floats, by: Floats, columns: slice) -> Floats:
        """Numbers of the grid, moved by as much as comes nearest."""
        return self.nearest(old + by, columns)

    def of_outputs(self, outputs: slice) -> "LevelGrid":
        """That of some outputs of each group."""
        return LevelGrid(self.tables, self.own[:, outputs], self.steps[:, outputs])

    def sorted(self, rows: npt.NDArray[np.int64]) -> "LevelGrid":
        """With `[groups, in, out]`, the inputs in another order."""
        steps = np.take_along_axis(self.steps.swapaxes(1, 2).astype(np.float32), rows, axis=1)
        return LevelGrid(self.tables, self.own.swapaxes(1, 2), np.asarray(steps))
