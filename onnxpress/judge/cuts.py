"""Along which axes an output is cut into slices, and what is known of these from the original.

A slice has the variance v = E[(ref − mean)²], or what stands for it where that is none: a
hundredth of its constant, and half a percent where values are probabilities.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from onnxpress.enumeration import few
from onnxpress.judge.kinds import Form, Kind, Reading
from onnxpress.judge.slices import Group, SliceReference, in_unit, rows_along
from onnxpress.runtime import Array

__all__ = ["beside", "cut", "cut_all", "narrowed"]

Floats = npt.NDArray[np.float64]

_STEADY_SHARE = 1e-3
"""Of its mean: a slice that deviates less is a constant."""
_STEADY_ERROR = 0.1
"""Of its mean: the deviation that a constant is judged as if it had."""
_PROBABILITY_DEVIATION = 0.005
"""Changes of a probability below half a percent do not matter."""
_ROUNDING = 1e-11
"""Of the largest slice's variance: float32 sums hardly resolve less (3e-6 of the deviation)."""
_FEATURES = 32
"""More slices are features of one layer, of which some died; fewer are quantities, each with a unit
of its own: a price in millions beside a share."""
_SMALLEST = 1e-40
"""Of the largest slice's variance, for a logarithm of nothing."""
_FINER = 128
"""Parts of the last place of the largest slice, on which what its sums cancel to still lies."""
_DECADES_OF_FEW = 3
"""Of power: what slices of few values differ by for other reasons than chance."""
_LEAST_COUNT = 8
"""Values of a slice below which its own variance is not known."""
_FEWEST = 4
"""Values of a slice from which it is told apart at all, by its power."""
_SIGNAL = 256
"""Values of a sample whose own variance is that of a signal."""
_LOOKED_AT = 4_000_000
"""Values by which axes are chosen."""
_DISTINCT = 0.05
"""Of the spread of log-power: what an axis must explain for its slices to be told apart."""


def cut(reading: Reading, outputs: Sequence[Array]) -> tuple[SliceReference, ...]:
    """The ways in which an output is cut into slices; each is judged.

    Args:
        reading: how the output is read.
        outputs: the original's answers, floats of one rank; values that are not finite are left
            out.
    """
    # What suppression compares with thresholds are the scores themselves.
    form: Form = "values" if reading.kind == Kind.DETECTION else reading.form
    distinct, alike = _axes(reading, form, outputs)
    axes: list[int | None] = [
        axis
        for axis in (*distinct, *alike)
        if len({array.shape[axis] if array.ndim > axis else -1 for array in outputs}) == 1
    ]
    found = []
    for axis in axes or [None]:
        moments = _Moments()
        for array in outputs:
            moments.add(rows_along(in_unit(array, form, reading.axis), axis))
        least = _least(moments.variance, outputs, form, axis)
        variance = moments.signal(np.maximum(_floor(reading), least))
        groups = _groups(reading, np.maximum(moments.variance, least))
        if axis in alike:
            # What rests in these samples, and looks like the others, is not known to be still.
            variance = np.maximum(variance, variance.mean())
            groups = (Group("", np.arange(len(variance))),)
        counted = moments.count >= _LEAST_COUNT
        if reading.axis is None and not counted.all():
            # Few values are small by chance, but not by orders of magnitude.
            groups = _groups(reading, moments.power, decades=_DECADES_OF_FEW)
            variance = np.where(counted, variance, np.maximum(variance, moments.power))
        one = SliceReference(form, axis, variance, groups, counted, _is_signal(reading, outputs))
        powers = [
            _powers(rows_along(in_unit(array, form, reading.axis), axis), moments.mean, groups)
            for array in outputs
        ]
        found.append(replace(one, by_sample=_by_sample(np.array(powers), one)))
    return tuple(found)


def _powers(rows: Floats, mean: Floats, groups: Sequence[Group]) -> list[float]:
    """Of each group in one sample, about the mean of all samples; of what is finite."""
    finite = np.isfinite(rows)
    squares = np.square(np.where(finite, rows - mean[:, None], 0.0)).sum(axis=1)
    each = squares / np.maximum(finite.sum(axis=1), 1)
    return [float(each[group.members].sum()) for group in groups]


def _by_sample(powers: Floats, reference: SliceReference) -> Floats:
    """[samples, groups], the power of each sample over that of all.

    What is compared with more than its variance, as it hardly varies, varies as little here.

    Args:
        powers: [samples, groups].
        reference: of the slices.
    """
    whole = np.array([reference.variance[group.members].sum() for group in reference.groups])
    whole = np.maximum(whole, np.finfo(np.float64).tiny)
    return np.asarray(1 + (powers - powers.mean(axis=0)) / whole)


def _is_signal(reading: Reading, outputs: Sequence[Array]) -> bool:
    """Whether samples may be of any loudness; a dark picture is no quiet one."""
    plain = reading.kind in (Kind.VALUES, Kind.SIGNAL) and reading.added is None
    return plain and all(2 <= array.ndim <= 3 and array.size >= _SIGNAL for array in outputs)


def cut_all(
    readings: Mapping[str, Reading], answers: Sequence[Mapping[str, Array]]
) -> dict[str, tuple[SliceReference, ...]]:
    """Of every float output whose shape does not depend on the data, by name.

    Args:
        readings: by output.
        answers: of the original, at least one.
    """
    return {
        name: cut(reading, [answer[name] for answer in answers])
        for name, reading in readings.items()
        if answers[0][name].dtype.kind == "f" and not reading.varying
    }


def beside(
    here: Sequence[SliceReference], usual: Sequence[SliceReference]
) -> tuple[SliceReference, ...]:
    """Slices with the variance that they have on other inputs, where they vary more there.

    What hardly varies on a few inputs need not be as exact as that.
    """
    found = []
    for one in here:
        same = [u for u in usual if u.axis == one.axis and len(u.variance) == len(one.variance)]
        variance = np.maximum.reduce([one.variance, *(u.variance for u in same)])
        groups = same[0].groups if same else one.groups
        found.append(replace(one, variance=variance, groups=groups))
    return tuple(found)


def narrowed(cuts: Sequence[SliceReference], share: float) -> tuple[SliceReference, ...]:
    """Slices of whose variance only a share is the network's."""
    return tuple(replace(one, variance=one.variance * share) for one in cuts)


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

    @property
    def power(self) -> Floats:
        """Mean square, which stands for the variance where that is not known."""
        return self.variance + self.mean**2

    def signal(self, floor: Floats) -> Floats:
        """What noise is compared with: the variance, or what stands for it where that is none."""
        variance, mean = self.variance, np.abs(self.mean)
        steady = variance <= (_STEADY_SHARE * mean) ** 2
        signal = np.where(steady, (_STEADY_ERROR * mean) ** 2, variance)
        # Two constants have no variance to be compared with but each other's.
        return np.maximum(signal, np.where(signal > 0, floor, _ROUNDING * signal.max(initial=0.0)))


def _least(variance: Floats, outputs: Sequence[Array], form: Form, axis: int | None) -> Floats:
    """Below which a slice's variance is rounding beside the largest, [slices].

    A quantity may be as small as it likes; what large terms cancel to lies on their grid.
    """
    least = np.full(len(variance), _ROUNDING * variance.max(initial=0.0))
    if form != "values" or len(variance) > _FEATURES:
        return least
    step = np.spacing(np.float32(np.sqrt(variance.max(initial=0.0)))) / _FINER
    small = np.flatnonzero((variance < least) & (variance > 0))
    for array in outputs if len(small) and step > 0 else ():
        parts = rows_along(array.astype(np.float64), axis)[small] / step
        small = small[(np.isfinite(parts) & (parts != np.rint(parts))).any(axis=1) == 0]
        if not len(small):
            break
    quantities = np.ones(len(variance), bool)
    quantities[small] = False
    quantities[variance == 0] = False
    return np.where(quantities, 0.0, least)


def _floor(reading: Reading) -> float:
    scores = reading.kind == Kind.DETECTION and reading.role in ("head", "scores")
    return _PROBABILITY_DEVIATION**2 if scores or reading.kind == Kind.SEGMENTATION else 0.0


def _axes(reading: Reading, form: Form, outputs: Sequence[Array]) -> tuple[list[int], list[int]]:
    """Along which an output is cut: axes whose slices differ, and others that are all alike.

    By what it means, else the axis that differs most in power. The first axis is the batch. How
    much of the spread of log-power an axis explains is its adjusted share of variance (ω², Hays
    1963), so that chance explains nothing. Axes along which all looks alike are cut, too: one
    feature of many that is lost is a small part of the whole. Others are not, for they may be
    borders and padding, which hardly vary; but pictures have channels.
    """
    first = outputs[0]
    if reading.axis is not None and (form != "values" or reading.kind == Kind.DETECTION):
        return [reading.axis], []
    arrays = [array.astype(np.float64) for array in _first_few(outputs)]
    shares = {}
    for axis in range(1, first.ndim):
        same = all(a.ndim == first.ndim and a.shape[axis] == first.shape[axis] for a in outputs)
        each = sum(array.size for array in outputs) // max(first.shape[axis], 1)
        if same and first.shape[axis] > 1 and each >= _FEWEST:
            shares[axis] = _explained(np.concatenate([rows_along(a, axis) for a in arrays], axis=1))
    distinct = [] if reading.axis is None else [reading.axis]
    most = max(shares, key=lambda axis: shares[axis], default=None)
    if most is not None and not distinct and shares[most] > _DISTINCT:
        distinct = [most]
    if first.ndim == 4 and 1 in shares and 1 not in distinct and shares[1] > _DISTINCT:
        distinct.append(1)
    alike = [axis for axis in shares if axis not in distinct and shares[axis] <= _DISTINCT]
    return distinct, alike


def _first_few(outputs: Sequence[Array]) -> Sequence[Array]:
    """As many as tell how power is spread, and fit into memory in 64 bits."""
    sizes = np.cumsum([array.size for array in outputs])
    return outputs[: max(1, int(np.searchsorted(sizes, _LOOKED_AT)))]


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


def _groups(reading: Reading, variance: Floats, decades: int = 1) -> tuple[Group, ...]:
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
    below = -np.log10(np.maximum(variance / largest, _SMALLEST))
    steps = np.floor(below / decades + 1e-9)
    found = [every[steps == step] for step in np.unique(steps)]
    if len(found) == 1:
        return (Group("", every),)
    return tuple(Group(_listed(members), members) for members in found)


def _listed(members: npt.NDArray[np.intp]) -> str:
    return f"slice{'s' if len(members) > 1 else ''} {few(members, 3)}"
