"""Which weights go: by a score, everywhere, in each row, or N of every M."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Pattern", "keep_highest", "keep_n_of_m"]

Float = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pattern:
    """N of every M weights may stay (2:4 is what sparse tensor cores take); `None`: any.

    Attributes:
        kept: N.
        group: M.
    """

    kept: int
    group: int

    @classmethod
    def parse(cls, text: str) -> "Pattern | None":
        """`2:4`, or `None` for anything else."""
        kept, colon, group = text.partition(":")
        if not (colon and kept.isdecimal() and group.isdecimal()):
            return None
        found = cls(int(kept), int(group))
        return found if 0 < found.kept < found.group else None


def keep_highest(scores: Float, removed: int, *, by_row: bool = False) -> Mask:
    """All but the `removed` lowest scores, or that many in each row of the last axis; exact."""
    flat = scores.reshape(-1, scores.shape[-1]) if by_row else scores.reshape(1, -1)
    mask = np.ones(flat.shape, bool)
    if removed > 0:
        lowest = np.argpartition(flat, removed - 1, axis=1)[:, :removed]
        np.put_along_axis(mask, lowest, values=False, axis=1)
    return mask.reshape(scores.shape)


def keep_n_of_m(scores: Float, pattern: Pattern, kernel: int) -> Mask:
    """The N highest of every M along the input channels, at each kernel position.

    Args:
        scores: `[..., in]`, where in is channels × `kernel` positions, channels first (ONNX's
            Conv weight); M divides the channels.
        pattern: N and M.
        kernel: positions of a convolution's kernel; 1 for matrices.
    """
    channels = scores.shape[-1] // kernel
    moved = scores.reshape(*scores.shape[:-1], channels, kernel).swapaxes(-1, -2)
    groups = moved.reshape(*moved.shape[:-1], channels // pattern.group, pattern.group)
    lowest = np.argsort(groups, axis=-1, kind="stable")[..., : pattern.group - pattern.kept]
    mask = np.ones(groups.shape, bool)
    np.put_along_axis(mask, lowest, values=False, axis=-1)
    back = mask.reshape(moved.shape).swapaxes(-1, -2)
    return np.asarray(back.reshape(scores.shape), bool)
