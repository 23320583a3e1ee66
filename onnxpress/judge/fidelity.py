"""How close outputs stay: SQNR, cosine and largest error, summed over all samples.

SQNR in dB is 10·log10(Σ ref² / Σ (ref − x)²); infinite for equal outputs. Integer, boolean and
string outputs have a share of equal elements instead.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from onnxpress.runtime import Array

__all__ = ["FidelitySum", "OutputFidelity"]


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output over all samples.

    Attributes:
        sqnr_db: `inf` where nothing changed, `nan` for outputs that are not floats.
        cosine: of the two outputs seen as long vectors; `nan` as above.
        max_error: largest absolute difference; `nan` as above.
        equal_share: of elements that are exactly equal.
    """

    sqnr_db: float
    cosine: float
    max_error: float
    equal_share: float

    @property
    def is_float(self) -> bool:
        """Whether SQNR means something for this output."""
        return not math.isnan(self.sqnr_db)


@dataclass(slots=True)
class FidelitySum:
    """Running sums of one output."""

    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    energy: float = 0.0
    max_error: float = 0.0
    equal: int = 0
    elements: int = 0
    is_float: bool = field(default=True)

    def add(self, reference: Array, found: Array) -> None:
        """Add one sample; a different shape or a value that is not finite is all noise."""
        self.elements += reference.size
        if reference.shape != found.shape:
            self.noise = math.inf
            self.max_error = math.inf
            return
        self.equal += int(np.count_nonzero(reference == found))
        if reference.dtype.kind != "f":
            self.is_float = False
            return
        ref, new = (array.astype(np.float64).reshape(-1) for array in (reference, found))
        if not (np.isfinite(ref).all() and np.isfinite(new).all()):
            # Where the original itself is infinite or NaN, the same there is right.
            usual = np.isfinite(ref)
            same = (ref == new) | (np.isnan(ref) & np.isnan(new))
            if not same[~usual].all() or not np.isfinite(new[usual]).all():
                self.noise = math.inf
                self.max_error = math.inf
                return
            ref, new = ref[usual], new[usual]
        difference = ref - new
        # Not `@`: the threads of BLAS wait for each other where others compute too.
        self.signal += float(np.einsum("i,i", ref, ref))
        self.noise += float(np.einsum("i,i", difference, difference))
        self.dot += float(np.einsum("i,i", ref, new))
        self.energy += float(np.einsum("i,i", new, new))
        self.max_error = max(self.max_error, float(np.abs(difference).max(initial=0.0)))

    def finish(self) -> OutputFidelity:
        """The figures over all samples added."""
        equal = self.equal / self.elements if self.elements else 1.0
        if not self.is_float:
            return OutputFidelity(math.nan, math.nan, math.nan, equal)
        if self.noise == 0:
            return OutputFidelity(math.inf, 1.0, self.max_error, equal)
        sqnr = -math.inf
        if math.isfinite(self.noise) and self.signal > 0:
            sqnr = 10 * math.log10(self.signal / self.noise)
        norm = math.sqrt(self.signal * self.energy)
        return OutputFidelity(sqnr, self.dot / norm if norm else 0.0, self.max_error, equal)
