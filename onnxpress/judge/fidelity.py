"""How close outputs stay: SQNR in slices, cosine and largest error, summed over all samples.

SQNR in dB is 10·log10(signal / noise): of the worst group of slices where these are known
(`slices`), and of the whole output, 10·log10(Σ ref² / Σ (ref − x)²), beside it. Infinite for equal
outputs. Integer, boolean and string outputs have a share of equal elements instead.
"""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from onnxpress.judge.bounds import bootstrap_bounds
from onnxpress.judge.slices import SliceSum, decibels
from onnxpress.runtime import Array

__all__ = ["FidelitySum", "OutputFidelity"]

_TOGETHER_BYTES = 131_072
"""Of samples that are added together: calls cost more than small sums."""


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output over all samples.

    Attributes:
        sqnr_db: of the worst group of slices, or of the whole where slices are not known or show
            nothing; `inf` where nothing changed, `nan` for outputs that are not floats.
        cosine: of the two outputs seen as long vectors; `nan` as above.
        max_error: largest absolute difference; `nan` as above.
        equal_share: of elements that are exactly equal.
        whole_db: SQNR of the whole output.
        worst: which group of slices `sqnr_db` is of; empty where there is one.
        noise: [samples, groups], noise in each sample over the signal; `None` without slices.
        signal: [samples, groups], as much of the signal; `None`: taken for the same in all.
    """

    sqnr_db: float
    cosine: float
    max_error: float
    equal_share: float
    whole_db: float = math.nan
    worst: str = ""
    noise: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    signal: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def bound_db(self, confidence: float) -> float:
        """What the worst group keeps at least, by bootstrap over the samples (BCa).

        Of the noise alone, and of the ratio of both sums, as where few samples have much of the
        signal others may have less; the lower one, since each is too high for other data: that of
        a ratio where the noise is large with the signal.
        """
        noise = self.noise
        if noise is None or len(noise) < 2 or not np.isfinite(noise).all():
            return self.sqnr_db
        highest = 0.0
        signals = [np.ones_like(noise)] + ([] if self.signal is None else [self.signal])
        for signal in signals:
            for lost, whole in zip(noise.T, signal.T, strict=True):
                ratio = partial(_ratio_of, lost, whole)
                highest = max(highest, bootstrap_bounds(ratio, len(noise), confidence)[1])
        return min(self.sqnr_db, decibels(1.0, highest))

    @property
    def is_float(self) -> bool:
        """Whether SQNR means something for this output."""
        return not math.isnan(self.sqnr_db)


def _ratio_of(
    noise: npt.NDArray[np.float64],
    signal: npt.NDArray[np.float64],
    indices: npt.NDArray[np.int64],
) -> float:
    return float(noise[indices].mean() / max(signal[indices].mean(), np.finfo(np.float64).tiny))


@dataclass(slots=True)
class FidelitySum:
    """Running sums of one output.

    Attributes:
        slices: of the output; `None`: only the whole is looked at.
        varying: its shape depends on the data, so that another shape alone is no fault.
    """

    slices: SliceSum | None = None
    varying: bool = False
    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    energy: float = 0.0
    max_error: float = 0.0
    equal: int = 0
    elements: int = 0
    is_float: bool = field(default=True)
    _waiting: list[tuple[Array, Array]] = field(default_factory=list)

    def add(self, reference: Array, found: Array) -> None:
        """Add one sample; a different shape or a value that is not finite is all noise.

        Neither array may change before `finish`: small ones wait to be added together.
        """
        self.elements += reference.size
        if reference.shape != found.shape:
            if self.varying:
                self.is_float = self.is_float and reference.dtype.kind == "f"
                return
            self.noise = math.inf
            self.max_error = math.inf
            return
        if self._waiting and not _alike(self._waiting[0], (reference, found)):
            self._add_waiting()
        self._waiting.append((reference, found))
        if len(self._waiting) * (reference.nbytes + found.nbytes) > _TOGETHER_BYTES:
            self._add_waiting()

    def _add_waiting(self) -> None:
        """Of samples of one shape and type."""
        if not self._waiting:
            return
        reference, found = (np.stack(arrays) for arrays in zip(*self._waiting, strict=True))
        self._waiting = []
        self.equal += int(np.count_nonzero(reference == found))
        if reference.dtype.kind != "f":
            self.is_float = False
            return
        if self.slices is not None:
            self.slices.add_all(reference, found)
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
        self._add_waiting()
        equal = self.equal / self.elements if self.elements else 1.0
        if not self.is_float:
            nan = math.nan
            return OutputFidelity(nan, nan, nan, equal)
        whole = decibels(self.signal, self.noise)
        figure, worst = whole, ""
        if self.slices is not None and math.isfinite(self.noise) and self.noise > 0:
            figure, worst = self.slices.finish()
        if figure == math.inf:
            # Probabilities so near to 0 and 1 that log-odds tell no difference: the scores differ.
            figure, worst = whole, ""
        norm = math.sqrt(self.signal * self.energy)
        cosine = self.dot / norm if norm else float(self.noise == 0)
        if self.noise == 0:
            cosine = 1.0
        noise = None if self.slices is None else self.slices.relative_noise()
        signal = None if self.slices is None else self.slices.relative_signal()
        return OutputFidelity(figure, cosine, self.max_error, equal, whole, worst, noise, signal)


def _alike(one: tuple[Array, Array], other: tuple[Array, Array]) -> bool:
    return all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(one, other, strict=True))
