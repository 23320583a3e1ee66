"""Measure a model against the original on evaluation samples, and judge it by a budget.

The task metric is accuracy where the samples have labels, else how often the best class is the
original's, where an output holds scores, else a user's own function. Where there is none of
these, SQNR of the worst output is what the budget is about. Intervals: paired bootstrap over
samples (Efron), 95%.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onnxpress.data import Samples, import_function
from onnxpress.errors import BudgetError, DataError, UsageError
from onnxpress.judge.fidelity import FidelitySum, OutputFidelity
from onnxpress.runtime import Array, Feed, Session

__all__ = ["Budget", "Evaluator", "Measurement", "Runner"]

DEFAULT_MAX_DROP = 1.0
DEFAULT_MIN_SQNR = 20.0
"""1% of the signal's power: for models whose outputs are no scores."""

_CACHE_BYTES = 1_500_000_000
_SCREENING_SAMPLES = 16
_SCREENING_SHARE = 8
_RESAMPLES = 1000
_CLEAR_DB = 3.0
Metric = Callable[[Mapping[str, Array], Mapping[str, Array], int | None], float]
"""(outputs, the original's outputs, label) of a sample → a score, higher is better, 1 is all."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be lost.

    Attributes:
        max_drop: points of the task metric in percent; `None`: 1, where there is a metric.
        min_sqnr: dB on the worst float output; `None`: 20, where there is no metric.
        metric: `auto`, `accuracy`, `agreement`, `none`, or `module:function`.
    """

    max_drop: float | None = None
    min_sqnr: float | None = None
    metric: str = "auto"

    def __post_init__(self) -> None:
        """Refuse budgets that mean nothing."""
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(f"max drop is {self.max_drop:g}; expected a percentage, 0 to 100")
        if self.min_sqnr is not None and math.isnan(self.min_sqnr):
            raise UsageError("min SQNR is not a number; expected decibels")


@dataclass(frozen=True)
class Measurement:
    """A model's figures on the evaluation samples.

    Attributes:
        outputs: fidelity by output name.
        metric: name of the task metric, or `None`.
        value: the metric of this model, in percent.
        reference: the metric of the original, in percent.
        drop: reference − value, in points.
        interval: 95% interval of the drop.
        samples: how many.
        source: where they came from.
    """

    outputs: Mapping[str, OutputFidelity]
    metric: str | None
    value: float
    reference: float
    drop: float
    interval: tuple[float, float]
    samples: int
    source: str

    @property
    def worst_sqnr_db(self) -> float:
        """The lowest SQNR of all float outputs; `inf` where there is none."""
        return min((o.sqnr_db for o in self.outputs.values() if o.is_float), default=math.inf)


class Runner(Protocol):
    """What gives a model's outputs: a session, or a record of what another process ran."""

    def run(self, feed: Feed, /) -> Mapping[str, Array]:
        """The outputs of one sample, by name."""


class Evaluator:
    """Runs models on the same samples as the original and compares."""

    def __init__(self, original: Session, samples: Samples, budget: Budget) -> None:
        """Run the original once; its outputs are kept while they fit into 1.5 GB.

        Raises:
            BudgetError: a metric was asked for that these samples or outputs do not allow.
        """
        self._original = original
        self.samples = samples
        self._cache: list[Mapping[str, Array]] = []
        first = original.run(samples.feeds[0])
        size = sum(array.nbytes for array in first.values()) * len(samples)
        if size <= _CACHE_BYTES:
            self._cache = [original.run(feed) for feed in samples]
        self.metric_name, self._metric, self.scores = self._choose_metric(budget, first)
        no_metric = self._metric is None
        if budget.max_drop is not None and no_metric:
            raise BudgetError(
                "--max-drop needs a task metric, but the samples have no labels and no output "
                "looks like class scores; give labels, --metric module:function, or --min-sqnr"
            )
        self.max_drop = DEFAULT_MAX_DROP if budget.max_drop is None else budget.max_drop
        self.min_sqnr = budget.min_sqnr
        if self.min_sqnr is None and no_metric:
            self.min_sqnr = DEFAULT_MIN_SQNR

    @property
    def described(self) -> str:
        """The budget in words."""
        parts = []
        if self._metric is not None:
            parts.append(f"{self.metric_name} drop at most {self.max_drop:g} points")
        if self.min_sqnr is not None:
            parts.append(f"SQNR at least {self.min_sqnr:g} dB")
        return ", ".join(parts)

    @property
    def screening(self) -> int:
        """How many samples show what is far from the budget, or a change of kernels alone."""
        return min(
            len(self.samples), max(_SCREENING_SAMPLES, len(self.samples) // _SCREENING_SHARE)
        )

    def measure(
        self, session: Runner, most: int | None = None, *, share: float | None = None
    ) -> Measurement:
        """Run `session` on all samples, or on the first `most`.

        With `share`, only on a few where these show that such a share of the budget is exceeded.
        """
        sums = {name: FidelitySum() for name in self._original.output_names}
        scores: list[float] = []
        reference_scores: list[float] = []
        feeds = self.samples.feeds[:most]
        for index, feed in enumerate(feeds):
            reference = self._cache[index] if self._cache else self._original.run(feed)
            found = session.run(feed)
            for name, fidelity in sums.items():
                fidelity.add(reference[name], found[name])
            if self._metric is not None:
                label = None if self.samples.labels is None else int(self.samples.labels[index])
                scores.append(self._metric(found, reference, label))
                reference_scores.append(self._metric(reference, reference, label))
            if share is not None and index + 1 == self.screening:
                found_so_far = self._measurement(sums, scores, reference_scores, index + 1)
                if self.clearly_fails(found_so_far, share):
                    return found_so_far
        return self._measurement(sums, scores, reference_scores, len(feeds))

    def _measurement(
        self,
        sums: Mapping[str, FidelitySum],
        scores: Sequence[float],
        reference_scores: Sequence[float],
        samples: int,
    ) -> Measurement:
        new, old = 100 * np.asarray(scores), 100 * np.asarray(reference_scores)
        known = len(new) > 0
        return Measurement(
            outputs={name: fidelity.finish() for name, fidelity in sums.items()},
            metric=self.metric_name,
            value=float(new.mean()) if known else math.nan,
            reference=float(old.mean()) if known else math.nan,
            drop=float((old - new).mean()) if known else 0.0,
            interval=_interval(old - new) if known else (math.nan, math.nan),
            samples=samples,
            source=self.samples.source,
        )

    def holds(self, measurement: Measurement, share: float = 1.0) -> bool:
        """Whether the budget holds when only `share` of it may be spent."""
        if self._metric is not None and measurement.drop > self.max_drop * share + 1e-9:
            return False
        if any(not math.isfinite(o.max_error) for o in measurement.outputs.values() if o.is_float):
            return False
        if self.min_sqnr is None:
            return True
        # A share of the noise power is so many decibels more.
        return measurement.worst_sqnr_db >= self.min_sqnr - 10 * math.log10(share)

    def clearly_fails(self, measurement: Measurement, share: float = 1.0) -> bool:
        """Whether a measurement on some samples already shows that the budget will not hold.

        Half the fidelity that is asked for, or a drop whose 95% interval lies beyond the budget.
        """
        if self._metric is not None and measurement.interval[0] > self.max_drop * share:
            return True
        return self.min_sqnr is not None and measurement.worst_sqnr_db < (
            self.min_sqnr - 10 * math.log10(share) - _CLEAR_DB
        )

    def _choose_metric(
        self, budget: Budget, first: Mapping[str, Array]
    ) -> tuple[str | None, Metric | None, str | None]:
        labels = self.samples.labels
        if ":" in budget.metric:
            return budget.metric, _user_metric(budget.metric), None
        if budget.metric not in ("auto", "accuracy", "agreement", "none"):
            raise UsageError(
                f"metric is {budget.metric!r}; expected auto, accuracy, agreement, none or "
                "module:function"
            )
        if budget.metric == "none":
            return None, None, None
        if budget.metric == "accuracy" and labels is None:
            raise BudgetError(
                f"metric accuracy needs labels, but {self.samples.source} has no __labels__"
            )
        if labels is not None and budget.metric != "agreement":
            scores = _labelled_output(first, labels)
            if scores is None:
                raise DataError(
                    f"{self.samples.source}: has labels up to {labels.max()}, but no output of "
                    "the model is [1, classes] with that many classes; remove __labels__, or "
                    "judge by --metric module:function"
                )
            return "accuracy", _accuracy(scores), scores
        scores = _score_output(first)
        if scores is None or self.samples.source == "random inputs":
            if budget.metric == "agreement":
                raise BudgetError(
                    "metric agreement needs an output of class scores on real samples"
                )
            return None, None, None
        return "top-1 agreement", _agreement(scores), scores


def _labelled_output(first: Mapping[str, Array], labels: npt.NDArray[np.int64]) -> str | None:
    for name, array in first.items():
        fits = array.dtype.kind == "f" and array.ndim == 2 and len(array) == 1
        if fits and array.shape[1] > int(labels.max()):
            return name
    return None


def _score_output(first: Mapping[str, Array]) -> str | None:
    """The output that holds class scores along its last axis: probabilities, or lone logits."""
    floats = {
        name: array
        for name, array in first.items()
        if array.dtype.kind == "f" and array.ndim >= 2 and array.shape[-1] >= 2 and array.size
    }
    for name, array in floats.items():
        sums = array.astype(np.float64).sum(axis=-1)
        if array.min() >= 0 and np.allclose(sums, 1.0, atol=1e-2):
            return name
    for name, array in floats.items():
        # Sigmoid scores of detectors; a mask has no classes along its last axis.
        if array.ndim == 3 and array.min() >= 0 and array.max() <= 1:
            return name
    number = sum(array.dtype.kind == "f" for array in first.values())
    for name, array in floats.items():
        if array.ndim == 2 and len(array) == 1 and number == 1:
            return name
    return None


def _accuracy(scores: str) -> Metric:
    def accuracy(
        outputs: Mapping[str, Array], reference: Mapping[str, Array], label: int | None
    ) -> float:
        return float(int(outputs[scores][0].argmax()) == label)

    return accuracy


def _agreement(scores: str) -> Metric:
    def agreement(
        outputs: Mapping[str, Array], reference: Mapping[str, Array], label: int | None
    ) -> float:
        found, wanted = outputs[scores], reference[scores]
        if found.shape != wanted.shape:
            return 0.0
        return float((found.argmax(axis=-1) == wanted.argmax(axis=-1)).mean())

    return agreement


def _user_metric(text: str) -> Metric:
    try:
        function: Metric = import_function(text)
    except Exception as error:
        # Importing the user's module runs its code.
        raise UsageError(
            f"metric {text}: cannot be imported: {error}; expected module:function, called with "
            "(outputs, original outputs, label) of a sample, giving a score of 0 to 1"
        ) from error

    def metric(
        outputs: Mapping[str, Array], reference: Mapping[str, Array], label: int | None
    ) -> float:
        try:
            return float(function(outputs, reference, label))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(f"metric {text}: fails on a sample: {reason}") from error

    return metric


def _interval(drops: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95% of the mean's bootstrap distribution; a fixed seed keeps reports reproducible."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(drops), (_RESAMPLES, len(drops)))
    low, high = np.percentile(drops[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
