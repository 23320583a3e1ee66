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

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxpress.judge.kinds import Form
from onnxpress.runtime import Array

__all__ = [
    "SLICE_ALLOWANCE_DB",
    "Group",
    "SliceReference",
    "SliceSum",
    "decibels",
    "in_unit",
    "rows_along",
    "softmax",
]

Floats = npt.NDArray[np.float64]

SLICE_ALLOWANCE_DB = 10.0
"""A tenth of the variance may be lost in one slice where its group keeps a hundredth (20 dB)."""
_QUIETEST = 1e-4
"""Of the loudest sample's power: quieter ones are taken for silence of so much (40 dB)."""
_FEWEST_SAMPLES = 4
"""Of a decade; fewer tell little."""
_LEAST_PROBABILITY = 1e-6
"""Below, log-odds tell nothing that a float32 Softmax computes reliably."""


def softmax(array: Array, axis: int) -> Floats:
    """Probabilities from logits, in 64 bits."""
    x = array.astype(np.float64)
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(x / x.sum(axis=axis, keepdims=True))


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
        x = softmax(x, axis)
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
        loudness: whether samples are signals, of which the quiet ones are judged by themselves.
        by_sample: [samples, groups], the power of each sample over that of all: their mean is 1.
    """

    form: Form
    axis: int | None
    variance: Floats
    groups: tuple[Group, ...]
    counted: npt.NDArray[np.bool_]
    loudness: bool = False
    by_sample: Floats | None = None


def rows_along(array: Floats, axis: int | None) -> Floats:
    """[slices, values] along an axis; one slice where there is none."""
    if axis is None:
        return array.reshape(1, -1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _behind_samples(axis: int | None) -> int | None:
    """Of a stack of samples, the axis that is `axis` of each."""
    return axis if axis is None or axis < 0 else axis + 1


def _rows_of_samples(arrays: Floats, axis: int | None) -> Floats:
    """[slices, samples, values] of a stack of samples."""
    place = _behind_samples(axis)
    moved = arrays[None] if place is None else np.moveaxis(arrays, place, 0)
    return moved.reshape(len(moved), len(arrays), math.prod(moved.shape[2:]))


@dataclass(slots=True)
class SliceSum:
    """Running noise of an output's slices.

    Attributes:
        cuts: what is known of the slices, for each way to cut.
        class_axis: of the classes, where scores exclude each other.
    """

    cuts: tuple[SliceReference, ...]
    class_axis: int | None
    noise: list[Floats] = field(init=False)
    count: list[int] = field(init=False)
    by_sample: list[Floats] = field(init=False, default_factory=list)
    loud: list[Floats] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.noise = [np.zeros(len(one.variance)) for one in self.cuts]
        self.count = [0] * len(self.cuts)

    def add(self, reference: Array, found: Array) -> None:
        """Add one sample of equal shapes; where the original is not finite the same is right."""
        self.add_all(reference[None], found[None])

    def add_all(self, reference: Array, found: Array) -> None:
        """Add samples `[samples, …]`, as `add` does one after the other."""
        form, axis = self.cuts[0].form, _behind_samples(self.class_axis)
        ref, new = (in_unit(array, form, axis) for array in (reference, found))
        with np.errstate(invalid="ignore"):
            difference = np.asarray(ref - new)
        difference[(ref == new) | (np.isnan(ref) & np.isnan(new))] = 0.0
        if self.cuts[0].loudness:
            signal, lost = (x.reshape(len(x), -1) for x in (ref, difference))
            with np.errstate(invalid="ignore"):
                self.loud += list(np.stack([signal.var(axis=1), (lost**2).mean(axis=1)], axis=1))
        pooled = []
        for place, one in enumerate(self.cuts):
            rows = _rows_of_samples(difference, one.axis)
            noise = np.einsum("ijk,ijk->ij", rows, rows)
            noise[np.isnan(noise)] = math.inf
            if len(rows) != len(one.variance):
                noise = np.full((len(one.variance), len(difference)), math.inf)
            self.noise[place] = self.noise[place] + noise.sum(axis=1)
            self.count[place] += len(difference) * rows.shape[2]
            each = max(rows.shape[2], 1)
            pooled += [noise[group.members].sum(axis=0) / each for group in one.groups]
        self.by_sample += list(np.array(pooled).T)

    def relative_noise(self) -> Floats:
        """[samples, groups], noise over signal of each sample."""
        signal = [one.variance[g.members].sum() for one in self.cuts for g in one.groups]
        floor = np.finfo(np.float64).tiny
        by_sample = np.array(self.by_sample).reshape(-1, len(signal))
        return np.asarray(by_sample / np.maximum(np.array(signal), floor))

    def relative_signal(self) -> Floats | None:
        """[samples, groups], signal of each sample over that of all; `None` for other samples."""
        signals = [one.by_sample for one in self.cuts if one.by_sample is not None]
        whole = len(signals) == len(self.cuts)
        whole = whole and all(len(signal) == len(self.by_sample) for signal in signals)
        return np.concatenate(signals, axis=1) if whole else None

    def finish(self) -> tuple[float, str]:
        """The figure in dB, and the group it comes from; `inf` where nothing changed."""
        figures = [
            worst_group(one, noise / max(count, 1), axis=len(self.cuts) > 1)
            for one, noise, count in zip(self.cuts, self.noise, self.count, strict=True)
        ]
        return min([*figures, *_by_loudness(np.array(self.loud).reshape(-1, 2))])


def _by_loudness(samples: Floats) -> list[tuple[float, str]]:
    """Figures of the samples of each decade of power, of four or more, as of slices of one group.

    Pooled over all, those of a hundredth of the loudest one's power could be lost altogether.

    Args:
        samples: [samples, 2], variance and noise of each.
    """
    loudest = float(np.nan_to_num(samples[:, 0]).max(initial=0.0))
    if loudest == 0 or not np.isfinite(samples).all():
        return []
    signal = np.maximum(samples[:, 0], _QUIETEST * loudest)
    decades = np.floor(-np.log10(signal / loudest) + 1e-9)
    found = []
    for decade in np.unique(decades[decades > 0]):
        own = decades == decade
        if own.sum() >= _FEWEST_SAMPLES:
            figure = decibels(float(signal[own].sum()), float(samples[own, 1].sum()))
            name = f"{own.sum()} samples {10 * decade:.0f} dB below the loudest"
            found.append((figure + SLICE_ALLOWANCE_DB, name))
    return found


def worst_group(
    reference: SliceReference, noise: Floats, *, axis: bool = False
) -> tuple[float, str]:
    """The worst group's figure in dB, and its name.

    Args:
        reference: of the slices.
        noise: [slices], mean power.
        axis: whether the name has to say along which axis they lie.
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
    figure, name = min(figures, default=(math.inf, ""))
    return figure, f"{name} of axis {reference.axis}" if name and axis else name


def decibels(signal: float, noise: float) -> float:
    """10·log10 of a ratio of powers; infinite where there is no noise."""
    if noise == 0:
        return math.inf
    if not math.isfinite(noise) or signal <= 0:
        return -math.inf
    return 10 * math.log10(signal / noise)
