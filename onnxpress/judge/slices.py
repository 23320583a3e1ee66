"""Fidelity in slices: each slice of an output against its own variance, the worst group counts.

Where boxes in pixels and scores of 0 to 1 share a tensor, a figure over all of it sees only the
pixels. So an output is cut along an axis whose slices differ (a row of a detector's head, a
class, a channel, a column), and each slice s has the signal power v = E[(ref − mean)²] and the
noise power n = E[(ref − x)²]. Slices of one unit are pooled into groups; the figure of a group is
10·log10(Σv / Σn), and no slice of it may lie more than 10 dB below. An output's figure is that of
its worst group. What hardly varies is measured against what can still matter: a hundredth of
its constant, and half a percent where values are probabilities.

Class scores are compared as log-odds, log p − log(1 − p), so that a rare class counts as much as
a frequent one, also where the samples hold none of it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxpress.judge.kinds import Form, Kind, Reading
from onnxpress.runtime import Array

__all__ = ["SLICE_ALLOWANCE_DB", "Group", "SliceReference", "SliceSum", "in_unit"]

Floats = npt.NDArray[np.float64]

SLICE_ALLOWANCE_DB = 10.0
"""A tenth of the variance may be lost in one slice where its group keeps a hundredth (20 dB)."""
_LEAST_PROBABILITY = 1e-6
"""Below, log-odds tell nothing that a float32 Softmax computes reliably."""
_STEADY_SHARE = 1e-3
"""Of its mean: a slice that deviates less is a constant."""
_STEADY_ERROR = 0.1
"""Of its mean: the deviation that a constant is judged as if it had."""
_PROBABILITY_DEVIATION = 0.005
"""Changes of a probability below half a percent do not matter."""
_ROUNDING = 1e-11
"""Of the largest slice's variance: float32 sums hardly resolve less (3e-6 of the deviation)."""
_LEAST_COUNT = 16
"""Values of a slice below which its own variance is not known."""
_DISTINCT = 0.05
"""Of the spread of log-power: what an axis must explain for its slices to be told apart."""


def in_unit(array: Array, form: Form, axis: int | None) -> Floats:
    """Scores as log-odds; other values as they are.

    Args:
        array: any shape.
        form: how scores are given.
        axis: of the classes, for forms that exclude each other.
    """
    x = array.astype(np.float64)
    if form == "values":
        return x
    if form == "logits":
        assert axis is not None
        x = x - x.max(axis=axis, keepdims=True)
        x = np.exp(x)
        x /= x.sum(axis=axis, keepdims=True)
    # `maximum` keeps NaN, which `clip` does too.
    p = np.minimum(np.maximum(x, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return np.log(p) - np.log1p(-p)


@dataclass(frozen=True, slots=True)
class Group:
    """Slices of one unit.

    Attributes:
        name: for people.
        members: indices of slices.
    """

    name: str
    members: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SliceReference:
    """What is known of an output's slices from the original's answers.

    Attributes:
        form: the unit they are compared in.
        axis: along which they lie; `None`: the output is one slice.
        variance: [slices], what noise is compared with.
        groups: that are pooled, at least one.
        counted: [slices], whether there are enough values to judge a slice alone.
    """

    form: Form
    axis: int | None
    variance: Floats
    groups: tuple[Group, ...]
    counted: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, reading: Reading, outputs: Sequence[Array]) -> "SliceReference":
        """From the original's answers, one an evaluation sample.

        Args:
            reading: how the output is read.
            outputs: floats of one rank; values that are not finite are left out.
        """
        form: Form = reading.form
        if reading.kind == Kind.DETECTION:
            # What suppression compares with thresholds are the scores themselves.
            form = "values"
        axis = reading.axis if reading.axis is not None else _distinct_axis(outputs)
        if axis is not None and len({array.shape[axis] for array in outputs}) > 1:
            axis = None
        if axis is not None and reading.axis is None:
            each = sum(array.size for array in outputs) // max(outputs[0].shape[axis], 1)
            axis = axis if each >= _LEAST_COUNT else None
        moments = _Moments()
        for array in outputs:
            moments.add(_rows(in_unit(array, form, reading.axis), axis))
        return cls(
            form,
            axis,
            moments.signal(_floor(reading)),
            _groups(reading, moments.variance),
            moments.count >= _LEAST_COUNT,
        )

    def rows(self, array: Array, class_axis: int | None) -> Floats:
        """The values of an output in its unit, [slices, values]."""
        return _rows(in_unit(array, self.form, class_axis), self.axis)


def _rows(array: Floats, axis: int | None) -> Floats:
    if axis is None:
        return array.reshape(1, -1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


@dataclass(slots=True)
class _Moments:
    """Running count, sum and sum of squares of each slice, about its first value."""

    origin: Floats | None = None
    count: Floats = field(default_factory=lambda: np.zeros(1))
    total: Floats = field(default_factory=lambda: np.zeros(1))
    square: Floats = field(default_factory=lambda: np.zeros(1))

    def add(self, rows: Floats) -> None:
        if rows.shape[1] == 0:
            return
        finite = np.isfinite(rows)
        values = np.where(finite, rows, 0.0)
        if self.origin is None:
            self.origin = values[:, :1].copy()
        shifted = np.where(finite, values - self.origin, 0.0)
        self.count = self.count + finite.sum(axis=1)
        self.total = self.total + shifted.sum(axis=1)
        self.square = self.square + np.einsum("ij,ij->i", shifted, shifted)

    @property
    def mean(self) -> Floats:
        origin = 0.0 if self.origin is None else self.origin[:, 0]
        return np.asarray(origin + self.total / np.maximum(self.count, 1))

    @property
    def variance(self) -> Floats:
        count = np.maximum(self.count, 1)
        return np.maximum(self.square / count - (self.total / count) ** 2, 0.0)

    def signal(self, floor: float) -> Floats:
        """What noise is compared with: the variance, or what stands for it where that is none."""
        variance, mean = self.variance, np.abs(self.mean)
        steady = variance <= (_STEADY_SHARE * mean) ** 2
        signal = np.where(steady, (_STEADY_ERROR * mean) ** 2, variance)
        return np.maximum(signal, max(floor, _ROUNDING * float(signal.max(initial=0.0))))


def _floor(reading: Reading) -> float:
    scores = reading.kind == Kind.DETECTION and reading.role in ("head", "scores")
    return _PROBABILITY_DEVIATION**2 if scores or reading.kind == Kind.SEGMENTATION else 0.0


def _distinct_axis(outputs: Sequence[Array]) -> int | None:
    """The axis whose slices differ most in power, of those that have the same size everywhere.

    The first axis is the batch. How much of the spread of log-power an axis explains is its
    adjusted share of variance (ω², Hays 1963), so that chance explains nothing.
    """
    first = outputs[0]
    best, found = _DISTINCT, None
    for axis in range(1, first.ndim):
        sizes = {array.shape[axis] if array.ndim == first.ndim else -1 for array in outputs}
        if len(sizes) > 1 or not first.shape[axis] > 1:
            continue
        rows = np.concatenate([_rows(array.astype(np.float64), axis) for array in outputs], axis=1)
        share = _explained(rows)
        if share > best:
            best, found = share, axis
    if found is None and first.ndim == 2 and first.shape[1] > 1:
        # Columns of a table have meanings of their own, however alike they look.
        found = 1
    return found


def _explained(rows: Floats) -> float:
    """ω² of log-power by rows, [rows, values]."""
    finite = np.where(np.isfinite(rows), rows, 0.0)
    scale = np.abs(finite).max(initial=0.0)
    if scale == 0 or rows.shape[1] < 2:
        return 0.0
    power = np.log(np.abs(finite) / scale + 1e-9)
    number, each = power.shape
    means = power.mean(axis=1, keepdims=True)
    within = float(((power - means) ** 2).sum()) / max(number * (each - 1), 1)
    total = float(((power - power.mean()) ** 2).sum())
    between = each * float(((means - power.mean()) ** 2).sum())
    return (between - (number - 1) * within) / (total + within) if total > 0 else 0.0


def _groups(reading: Reading, variance: Floats) -> tuple[Group, ...]:
    """Slices of one unit: by role in a detector's head, of scores all, else by decades of power."""
    every = np.arange(len(variance))
    if reading.kind == Kind.DETECTION and reading.role == "head":
        first = 4 + reading.objectness
        ends = (0, 4, first, first + reading.classes, len(every))
        names = ("boxes", "objectness", "class scores", "other rows")
        parts = zip(names, itertools.pairwise(ends), strict=True)
        return tuple(Group(name, every[a:b]) for name, (a, b) in parts if b > a)
    if reading.form != "values" or len(variance) == 1:
        return (Group("", every),)
    largest = max(float(variance.max()), np.finfo(np.float64).tiny)
    decades = np.floor(-np.log10(np.maximum(variance, _ROUNDING * largest) / largest) + 1e-9)
    found = [every[decades == decade] for decade in np.unique(decades)]
    if len(found) == 1:
        return (Group("", every),)
    return tuple(Group(_listed(members), members) for members in found)


def _listed(members: npt.NDArray[np.intp]) -> str:
    first = ", ".join(str(index) for index in members[:3])
    if len(members) == 1:
        return f"slice {first}"
    return f"slices {first}" + (f" and {len(members) - 3} more" if len(members) > 3 else "")


@dataclass(slots=True)
class SliceSum:
    """Running noise of an output's slices.

    Attributes:
        reference: what is known of the slices.
        class_axis: of the classes, where scores exclude each other.
    """

    reference: SliceReference
    class_axis: int | None
    noise: Floats = field(init=False)
    count: Floats = field(init=False)
    by_sample: list[Floats] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.noise = np.zeros(len(self.reference.variance))
        self.count = np.zeros(len(self.reference.variance))

    def add(self, reference: Array, found: Array) -> None:
        """Add one sample of equal shapes; where the original is not finite the same is right."""
        ref = self.reference.rows(reference, self.class_axis)
        new = self.reference.rows(found, self.class_axis)
        if len(ref) != len(self.noise):
            self.noise[:] = math.inf
            return
        with np.errstate(invalid="ignore"):
            difference = ref - new
        same = (ref == new) | (np.isnan(ref) & np.isnan(new))
        difference = np.where(same, 0.0, difference)
        noise = np.einsum("ij,ij->i", difference, difference)
        noise = np.where(np.isnan(noise), math.inf, noise)
        self.noise += noise
        self.count += ref.shape[1]
        groups = self.reference.groups
        pooled = [noise[group.members].sum() / max(ref.shape[1], 1) for group in groups]
        self.by_sample.append(np.array(pooled))

    def relative_noise(self) -> Floats:
        """[samples, groups], noise over signal of each sample."""
        signal = [self.reference.variance[g.members].sum() for g in self.reference.groups]
        floor = np.finfo(np.float64).tiny
        return np.asarray(np.array(self.by_sample) / np.maximum(np.array(signal), floor))

    def finish(self) -> tuple[float, str]:
        """The figure in dB, and the group it comes from; `inf` where nothing changed."""
        power = self.noise / np.maximum(self.count, 1)
        return worst_group(self.reference, power)


def worst_group(reference: SliceReference, noise: Floats) -> tuple[float, str]:
    """The worst group's figure in dB, and its name.

    Args:
        reference: of the slices.
        noise: [slices], mean power.
    """
    figures = []
    for group in reference.groups:
        signal, lost = reference.variance[group.members], noise[group.members]
        if not len(signal):
            continue
        pooled = decibels(float(signal.sum()), float(lost.sum()))
        figures.append((pooled, group.name))
        known = reference.counted[group.members]
        if len(signal) > 1 and known.any():
            with np.errstate(divide="ignore"):
                ratios = lost[known] / np.maximum(signal[known], np.finfo(np.float64).tiny)
            worst = int(ratios.argmax())
            index = group.members[known][worst]
            name = f"{group.name}, slice {index}" if group.name else f"slice {index}"
            figures.append((decibels(1.0, float(ratios[worst])) + SLICE_ALLOWANCE_DB, name))
    return min(figures, default=(math.inf, ""))


def decibels(signal: float, noise: float) -> float:
    """10·log10 of a ratio of powers; infinite where there is no noise."""
    if noise == 0:
        return math.inf
    if not math.isfinite(noise) or signal <= 0:
        return -math.inf
    return 10 * math.log10(signal / noise)
