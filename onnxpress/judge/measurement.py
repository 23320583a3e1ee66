"""What a model lost, in figures, with the bounds that the samples carry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxpress.judge.bounds import (
    bootstrap_bounds,
    mean_bounds,
    paired_bounds,
    share_lower,
    share_upper,
)
from onnxpress.judge.fidelity import OutputFidelity
from onnxpress.judge.metrics import WholeMetric

__all__ = ["Measurement", "MetricFigure", "ProbeFigure", "drop_bounds", "pooled"]

Floats = npt.NDArray[np.float64]
_RESAMPLES = 1000
_WHOLE_RESAMPLES = 100
"""A user's function over the whole set may take a second."""


@dataclass(frozen=True)
class MetricFigure:
    """A metric's value for a model and for the original, in percent.

    Attributes:
        name: of the metric.
        outputs: that it looks at; none: all.
        value: of this model.
        reference: of the original.
        confidence: that each end of the interval holds.
        rows: [n, 3], this model, the original, weight; or [n, 5], also the class and the sample;
            empty for a metric of the whole set.
        whole: of a metric of the whole set: the drop by indices of samples.
        certain: nothing that was changed lies before what it looks at, and all samples are equal.
    """

    name: str
    outputs: tuple[str, ...]
    value: float
    reference: float
    confidence: float = 0.95
    rows: Floats = field(default_factory=lambda: np.zeros((0, 3)), repr=False)
    samples: int = 0
    whole: "WholeDrop | None" = field(default=None, repr=False)
    certain: bool = False

    @property
    def drop(self) -> float:
        """Reference − value, in points."""
        return self.reference - self.value

    @property
    def counted(self) -> int:
        """Samples that hold what it counts; all, of a metric of the whole set."""
        return self.samples if self.whole is not None else int((self.rows[:, 2] > 0).sum())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bounds of the drop in points, each of which holds with the confidence.

        Shares are bounded exactly (Clopper–Pearson; paired where the original errs too), bounded
        scores by betting, ratios by bootstrap (`bounds`).
        """
        if self.certain:
            return 0.0, 0.0
        if self.whole is not None:
            low, high = bootstrap_bounds(
                self.whole, self.samples, self.confidence, resamples=_WHOLE_RESAMPLES
            )
            unseen = share_upper(0, self.samples, self.confidence)
            high = max(high, self.drop / 100 + unseen)
            return 100 * low, 100 * high
        if self.rows.shape[1] == 5:
            low, high = class_drop_bounds(self.rows, self.samples, self.confidence)
        else:
            low, high = drop_bounds(self.rows, self.confidence)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class WholeDrop:
    """The drop of a metric of the whole set, on a choice of samples.

    Attributes:
        metric: which.
        found: this model's answers.
        reference: the original's.
        labels: or `None`.
    """

    metric: WholeMetric
    found: tuple[Mapping[str, npt.NDArray[np.generic]], ...]
    reference: tuple[Mapping[str, npt.NDArray[np.generic]], ...]
    labels: tuple[npt.NDArray[np.int64] | None, ...] | None

    def values(self, indices: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Of this model and of the original, 0 to 1."""
        found = [self.found[i] for i in indices]
        reference = [self.reference[i] for i in indices]
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return (
            self.metric.value(found, reference, labels),
            self.metric.value(reference, reference, labels),
        )

    def __call__(self, indices: npt.NDArray[np.int64]) -> float:
        new, old = self.values(indices)
        return old - new


def pooled(rows: Floats) -> tuple[float, float]:
    """Of this model and of the original, 0 to 1: sums over weights; the mean of those of classes.

    Args:
        rows: [n, 3] this model, the original, weight; more columns: the fourth is the class.
    """
    if rows.shape[1] == 3:
        new, old, weight = rows.sum(axis=0)
        return (float(new / weight), float(old / weight)) if weight > 0 else (1.0, 1.0)
    classes, places = np.unique(rows[:, 3], return_inverse=True)
    sums = np.zeros((len(classes), 3))
    np.add.at(sums, places, rows[:, :3])
    sums = sums[sums[:, 2] > 0]
    if not len(sums):
        return 1.0, 1.0
    return float(np.mean(sums[:, 0] / sums[:, 2])), float(np.mean(sums[:, 1] / sums[:, 2]))


def class_drop_bounds(rows: Floats, samples: int, confidence: float) -> tuple[float, float]:
    """Bounds of the drop of a mean over classes, by bootstrap over samples (BCa).

    A sample that loses all is what resampling does not see where there is none such. So the upper
    bound is no less than that of the mean loss of a sample, all classes together, by betting.

    Args:
        rows: [n, 5], this model, the original, weight, class, sample.
        samples: how many.
        confidence: of each.
    """
    by_sample = [rows[rows[:, 4] == index] for index in range(samples)]

    def drop(indices: npt.NDArray[np.int64]) -> float:
        new, old = pooled(np.concatenate([by_sample[index] for index in indices]))
        return old - new

    sums = np.array([table[:, :3].sum(axis=0) for table in by_sample])
    lost = (sums[:, 1] - sums[:, 0]) / np.maximum(sums[:, 2], 1)
    _, rare = mean_bounds(lost, confidence, least=min(0.0, float(lost.min())), most=1.0)
    low, high = bootstrap_bounds(drop, samples, confidence, resamples=_WHOLE_RESAMPLES)
    return low, max(high, rare)


def drop_bounds(rows: Floats, confidence: float) -> tuple[float, float]:
    """Bounds of Σ(original − model) / Σ weight, each with the confidence.

    Args:
        rows: [n, 3], this model, the original, weight.
        confidence: of each.

    Returns:
        Both; 0 and 1 where nothing has a weight: all may have been lost.
    """
    rows = rows[rows[:, 2] > 0]
    number = len(rows)
    if number == 0:
        return 0.0, 1.0
    new, old, weight = rows.T
    lost = old - new
    if np.all(weight == 1):
        binary = np.isin(new, (0.0, 1.0)).all() and np.isin(old, (0.0, 1.0)).all()
        if binary and np.all(old == 1):
            failures = int(lost.sum())
            return share_lower(failures, number, confidence), share_upper(
                failures, number, confidence
            )
        if binary:
            worse, better = int((lost > 0).sum()), int((lost < 0).sum())
            return paired_bounds(worse, better, number, confidence)
        low = 0.0 if np.all(old == 1) else -1.0
        if lost.min() >= low and lost.max() <= 1:
            return mean_bounds(lost, confidence, least=low, most=1.0)
    nothing = share_upper(0, number, confidence)
    if not lost.any():
        return 0.0, nothing

    def ratio(indices: npt.NDArray[np.int64]) -> float:
        total = weight[indices].sum()
        return float(lost[indices].sum() / total) if total else 0.0

    low, high = bootstrap_bounds(ratio, number, confidence, resamples=_RESAMPLES)
    # Resampling does not see what happens to no sample here.
    return low, max(high, float(lost.sum() / weight.sum()) + nothing)


@dataclass(frozen=True, slots=True)
class ProbeFigure:
    """What was lost on inputs besides the samples.

    Attributes:
        name: which inputs.
        output: that lost most by its budget.
        sqnr_db: of that output's worst group of slices.
        least_db: what it has to keep there.
        number: of runs.
        carried: whether each run took the states of the one before.
        metric: what was lost of, where the output is not cut into slices; then 20 dB are 1%.
    """

    name: str
    output: str
    sqnr_db: float
    least_db: float
    number: int
    carried: bool = False
    metric: str = ""


@dataclass(frozen=True)
class Measurement:
    """A model's figures on the evaluation samples.

    Attributes:
        outputs: fidelity by output name.
        metrics: task metrics.
        samples: how many.
        source: where they came from.
        probes: on stressed inputs, other sizes, and with states carried on.
    """

    outputs: Mapping[str, OutputFidelity]
    metrics: tuple[MetricFigure, ...]
    samples: int
    source: str
    probes: tuple[ProbeFigure, ...] = ()

    @property
    def worst_sqnr_db(self) -> float:
        """The lowest SQNR of all float outputs; `inf` where there is none."""
        return min((o.sqnr_db for o in self.outputs.values() if o.is_float), default=math.inf)

    @property
    def worst_whole_db(self) -> float:
        """As `worst_sqnr_db`, of outputs as wholes."""
        return min((o.whole_db for o in self.outputs.values() if o.is_float), default=math.inf)

    @property
    def metric(self) -> str | None:
        """The name of the metric that lost most; `None` where there is none."""
        return None if self.worst_metric is None else self.worst_metric.name

    @property
    def drop(self) -> float:
        """Points that the metric lost that lost most; 0 where there is none."""
        return 0.0 if self.worst_metric is None else self.worst_metric.drop

    @property
    def worst_metric(self) -> MetricFigure | None:
        """The metric that lost most; `None` where there is none."""
        return max(self.metrics, key=lambda figure: figure.drop, default=None)
