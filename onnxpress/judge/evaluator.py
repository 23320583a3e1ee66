"""Measure a model against the original on evaluation samples, and judge it by a budget.

Every output is judged by what it means (`reading`): by the metric of its kind, and in slices. The
budget is about the worst of them. Accuracy is the metric where the samples have labels; a user's
own function decides alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.data import Samples
from onnxpress.errors import BudgetError, UsageError
from onnxpress.judge.bounds import confidence_of_look, samples_to_decide, share_upper
from onnxpress.judge.budget import DEFAULT_MAX_DROP, DEFAULT_MIN_SQNR, Budget, least_sqnr
from onnxpress.judge.choosing import chosen_metrics, labelled_output
from onnxpress.judge.cuts import cut_all, narrowed
from onnxpress.judge.detections import decoded
from onnxpress.judge.faults import Limits, clearly_fails, faults
from onnxpress.judge.fidelity import FidelitySum
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.learned import learned_shares
from onnxpress.judge.measurement import Measurement, MetricFigure, ProbeFigure, WholeDrop, pooled
from onnxpress.judge.metrics import Answers, Label, Metric, WholeMetric, metrics_of, says_nothing
from onnxpress.judge.probes import Probe, probes_of
from onnxpress.judge.randomness import drawn_by
from onnxpress.judge.reading import read_outputs
from onnxpress.judge.rows import are_steps
from onnxpress.judge.slices import SliceSum
from onnxpress.runtime import Array, Feed, Session

__all__ = ["Evaluator", "Runner"]

Floats = npt.NDArray[np.float64]

_CONFIDENCE = 0.95
"""Of each bound that is reported, where none is asked for."""
_CACHE_BYTES = 1_500_000_000
_CLEAR_SHARE = 0.5
"""Of what may be spent: what keeps within so much on a few samples is thought to hold on all."""
_SCREENING_SAMPLES = 16
_SCREENING_SHARE = 8
_EXAMPLES = 16
_UNCACHED = 64
"""Samples that slices are known from, where the original's answers are too large to keep."""
_OWN_NOISE_DB = 3.0
"""Below what the original differs from itself: a model as near is as good."""


class Runner(Protocol):
    """What gives a model's outputs: a session, or a record of what another process ran."""

    def run(self, feed: Feed, /) -> Mapping[str, Array]:
        """The outputs of one sample, by name."""


class Evaluator:
    """Runs models on the same samples as the original and compares.

    Attributes:
        samples: to judge on.
        readings: of every output, by name.
        least: SQNR in dB that each float output has to keep; `None`: a metric alone counts.
        max_drop: points that each metric may lose.
        min_sqnr: dB that stand for the budget where errors of layers are weighed.
        numbers: in the smallest float output for the first sample.
        looks: how often a choice was judged on these samples.
        alike: outputs that are decisions, and the same one of all samples.
        one_answer: whether the original answers all samples alike, or there is one alone.
        random: what the original itself draws at random, in words; empty where nothing.
        notes: what was assumed of the samples and what they cannot show, in sentences.
    """

    def __init__(
        self,
        original: Runner,
        samples: Samples,
        budget: Budget,
        *,
        model: ir.Model | None = None,
        readings: Mapping[str, Reading] | None = None,
        most_bytes: int = _CACHE_BYTES,
        steps: bool = False,
    ) -> None:
        """Run the original once; its outputs are kept while they fit into memory.

        Args:
            original: what is judged by. Only a session is run on other inputs than the samples.
            samples: to judge on.
            budget: what may be lost.
            model: the original's graph, which says what outputs mean; the session's where it was
                opened from one.
            readings: where they are known from other samples of the same model.
            most_bytes: of outputs that are kept.
            steps: rows of a sample are steps of it, which follow from each other: they count as
                one sample, and bounds are over samples.

        Raises:
            BudgetError: a metric was asked for that these samples or outputs do not allow.
            UsageError: an output or kind that does not exist or fit.
        """
        self._original = original
        self.samples = samples
        self.budget = budget
        self.looks = 1
        self._confidence = budget.confidence or _CONFIDENCE
        self._cache: list[Answers] = []
        first = original.run(samples.feeds[0])
        self.numbers = min((a.size for a in first.values() if a.dtype.kind == "f"), default=1)
        size = sum(array.nbytes for array in first.values())
        if size * len(samples) <= most_bytes:
            self._cache = [first, *(original.run(feed) for feed in samples.feeds[1:])]
        few = min(_UNCACHED, max(most_bytes // max(size, 1), 1))
        known = self._cache or [first, *(original.run(f) for f in samples.feeds[1:few])]
        labelled = labelled_output(budget, samples, first)
        session = original if isinstance(original, Session) else None
        if model is None and session is not None and isinstance(session.model, ir.Model):
            model = session.model
        if readings is None:
            readings = read_outputs(
                model,
                session,
                known[:_EXAMPLES],
                labelled=labelled,
                task=budget.task,
                kinds=budget.outputs,
            )
        self.readings = dict(readings)
        self._steps = steps or any(
            are_steps(original.run, samples.feeds[0], first[name], name)
            for name, reading in self.readings.items()
            if reading.kind in (Kind.CLASSIFICATION, Kind.MULTI_LABEL)
        )
        self._metrics = chosen_metrics(
            budget, self.readings, labelled, known[:_EXAMPLES], made_up=self.made_up
        )
        if budget.max_drop is not None and not self._metrics:
            raise BudgetError(
                "--max-drop needs a task metric, but the samples have no labels and no output "
                "is read as one that has a metric; give labels, --task, --metric "
                "module:function, or --min-sqnr [B001]"
            )
        self.max_drop = DEFAULT_MAX_DROP if budget.max_drop is None else budget.max_drop
        measured = {name for metric in self._metrics for name in metric.outputs}
        # A metric that sees one decision is no second look at scores.
        measured -= {
            name
            for name, reading in self.readings.items()
            if name != labelled and len(known) == len(samples) and says_nothing(reading, known)
        }
        self.least = {
            name: least_sqnr(reading, budget, measured=name in measured)
            for name, reading in self.readings.items()
        }
        self.min_sqnr = DEFAULT_MIN_SQNR if budget.min_sqnr is None else budget.min_sqnr
        self._slices = cut_all(self.readings, known)
        if model is not None and session is not None:
            few_feeds = samples.feeds[:_EXAMPLES]
            for name, share in learned_shares(model, self.readings.values(), few_feeds).items():
                self._slices[name] = narrowed(self._slices[name], share)
        self.random = self._own_noise(first, model)
        self._probes: tuple[Probe, ...] = ()
        fixed = budget.metric == "none" or ":" in budget.metric
        if session is not None and not (fixed or self.random):
            found = metrics_of(self.readings, labelled, known[:_EXAMPLES])
            # Other inputs have no labels.
            counted = [
                metric
                for metric in (found if self.made_up else self._metrics)
                if isinstance(metric, Metric)
                and metric.name != "accuracy"
                and not set(metric.outputs) & set(self._slices)
            ]
            self._probes = probes_of(
                session,
                samples,
                self.readings,
                self._slices,
                counted,
                made_up=self.made_up,
            )
        self.alike = tuple(
            name
            for name, reading in self.readings.items()
            if reading.form == "decisions" and not reading.given and says_nothing(reading, known)
        )
        self.one_answer = all(
            np.array_equal(known[0][name], answers[name], equal_nan=array.dtype.kind == "f")
            for answers in known[1:]
            for name, array in known[0].items()
        )
        self.notes = (*samples.notes, *self._unseen(known))
        rolled = any(probe.states for probe in self._probes)
        for name, reading in self.readings.items():
            if reading.kind == Kind.STATE and rolled and budget.min_sqnr is None:
                self.least[name] = None

    @property
    def made_up(self) -> bool:
        """Whether the samples are random inputs."""
        return self.samples.source.startswith("random inputs")

    @property
    def confidence(self) -> float:
        """Of each bound; higher after several looks at the same samples."""
        return confidence_of_look(self._confidence, self.looks)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Of the task metrics, in order."""
        return tuple(metric.name for metric in self._metrics)

    @property
    def described(self) -> str:
        """The budget in words."""
        parts = []
        if self._metrics:
            names = " and ".join(dict.fromkeys(self.metric_names))
            sure = (
                f" with {self.budget.confidence:.0%} confidence" if self.budget.confidence else ""
            )
            points = "point" if self.max_drop == 1 else "points"
            parts.append(f"{names} may drop by {self.max_drop:g} {points}{sure}")
        levels = sorted({least for least in self.least.values() if least is not None})
        if len(levels) == 1:
            parts.append(f"SQNR at least {levels[0]:.3g} dB")
        elif levels:
            each = ", ".join(f"{least:.3g} dB of {self._named(least)}" for least in levels)
            parts.append(f"SQNR at least {each}")
        return "; ".join(parts) + self._too_few() or "finite outputs"

    def _too_few(self) -> str:
        """That the samples cannot show what is asked for, however well a model does."""
        asked, number = self.budget.confidence, len(self.samples)
        least = share_upper(0, number, self.confidence)
        if asked is None or not self._metrics or 100 * least <= self.max_drop:
            return ""
        needed = samples_to_decide(0.0, self.max_drop, number, self.confidence)
        return (
            f" (with {number} samples a drop of {100 * least:.2g} points is not ruled out; about "
            f"{needed:,} to choose by and as many to judge on would do)"
        )

    def _named(self, least: float) -> str:
        names = [name for name, wanted in self.least.items() if wanted == least]
        return names[0] if len(names) == 1 else f"{len(names)} outputs"

    @property
    def limits(self) -> Limits:
        """What may be lost."""
        bounded = self.budget.confidence is not None
        return Limits(self.max_drop, self.least, bounded, self.confidence)

    @property
    def screening(self) -> int:
        """How many samples show what is far from the budget, or a change of kernels alone."""
        return min(
            len(self.samples), max(_SCREENING_SAMPLES, len(self.samples) // _SCREENING_SHARE)
        )

    def measure(
        self,
        session: Runner,
        most: int | None = None,
        *,
        share: float | None = None,
        glance: bool = False,
    ) -> Measurement:
        """Run `session` on all samples, or on the first `most`.

        With `share`, only on a few where these, or stressed inputs, show that such a share of the
        budget is exceeded; with `glance`, or that half of it is enough, for which no stressed
        input is run. On all samples, stressed inputs and carried states are run as well.
        """
        probing = most is None and isinstance(session, Session)
        probed: tuple[ProbeFigure, ...] = ()
        sums = {
            name: FidelitySum(self._slice_sum(name), reading.varying)
            for name, reading in self.readings.items()
        }
        rows: list[list[Floats]] = [[] for _ in self._metrics]
        whole: list[tuple[Answers, Answers]] = []
        keeps = any(isinstance(metric, WholeMetric) for metric in self._metrics)
        feeds = self.samples.feeds[:most]
        for index, feed in enumerate(feeds):
            reference = self._cache[index] if self._cache else self._original.run(feed)
            found = session.run(feed)
            for name, fidelity in sums.items():
                fidelity.add(reference[name], found[name])
            for metric, tables in zip(self._metrics, rows, strict=True):
                if isinstance(metric, Metric):
                    tables.append(self._rows(metric, found, reference, index))
            if keeps:
                whole.append((found, reference))
            if share is not None and index + 1 == self.screening < len(feeds):
                so_far = self._measurement(sums, rows, whole, index + 1)
                clear = glance and self.holds_clearly(so_far, share)
                if clear or self.clearly_fails(so_far, share):
                    return so_far
                probed = self._probed(session, carried=False) if probing else ()
                so_far = replace(so_far, probes=probed)
                if self.clearly_fails(so_far, share):
                    return so_far
        measured = replace(self._measurement(sums, rows, whole, len(feeds)), probes=probed)
        if not probing or (share is not None and self.broken(measured, share)):
            return measured
        probed = probed or self._probed(session, carried=False)
        return replace(measured, probes=(*probed, *self._probed(session, carried=True)))

    def _probed(self, session: Runner, *, carried: bool) -> tuple[ProbeFigure, ...]:
        """On inputs besides the samples; runs with `carried` states are many."""
        assert isinstance(session, Session)
        return tuple(
            probe.measure(session, self.least, self.max_drop)
            for probe in self._probes
            if bool(probe.states) is carried
        )

    def _slice_sum(self, name: str) -> SliceSum | None:
        cuts = self._slices.get(name)
        return None if cuts is None else SliceSum(cuts, self.readings[name].axis)

    def _rows(self, metric: Metric, found: Answers, reference: Answers, index: int) -> Floats:
        try:
            rows = metric.rows(found, reference, self._label(index))
        except UsageError as error:
            raise UsageError(f"{self.samples.source}, sample {index}: {error}") from error
        together = self._steps and rows.shape[1] == 3
        return rows.sum(axis=0, keepdims=True) if together else rows

    def _label(self, index: int) -> Label:
        labels = self.samples.labels
        return None if labels is None else np.atleast_1d(np.asarray(labels[index], np.int64))

    def _measurement(
        self,
        sums: Mapping[str, FidelitySum],
        rows: Sequence[Sequence[Floats]],
        whole: Sequence[tuple[Answers, Answers]],
        samples: int,
    ) -> Measurement:
        figures = []
        for metric, tables in zip(self._metrics, rows, strict=True):
            if isinstance(metric, WholeMetric):
                figures.append(self._whole_figure(metric, whole))
            else:
                figures.append(self._figure(metric, tables))
        outputs = {name: fidelity.finish() for name, fidelity in sums.items()}
        return Measurement(outputs, tuple(figures), samples, self.samples.source)

    def _figure(self, metric: Metric, tables: Sequence[Floats]) -> MetricFigure:
        table = np.concatenate(tables)
        number = len(table)
        if table.shape[1] == 4:
            number = len(tables)
            samples = np.repeat(np.arange(number), [len(rows) for rows in tables])
            table = np.column_stack([table, samples])
        value, reference = (100 * share for share in pooled(table))
        given = bool(metric.outputs) and all(self.readings[o].given for o in metric.outputs)
        return MetricFigure(
            metric.name,
            metric.outputs,
            value,
            reference,
            self.confidence,
            table,
            number,
            certain=given and bool(np.all(table[:, 0] == table[:, 1])),
        )

    def _whole_figure(
        self, metric: WholeMetric, whole: Sequence[tuple[Answers, Answers]]
    ) -> MetricFigure:
        labels = None
        if self.samples.labels is not None:
            labels = tuple(self._label(index) for index in range(len(whole)))
        drop = WholeDrop(
            metric, tuple(one for one, _ in whole), tuple(other for _, other in whole), labels
        )
        value, reference = drop.values(np.arange(len(whole)))
        return MetricFigure(
            metric.name,
            metric.outputs,
            100 * value,
            100 * reference,
            self.confidence,
            samples=len(whole),
            whole=drop,
        )

    def holds(self, measurement: Measurement, share: float = 1.0) -> bool:
        """Whether the budget holds when only `share` of it may be spent."""
        return not self.broken(measurement, share)

    def broken(self, measurement: Measurement, share: float = 1.0) -> str:
        """What breaks the budget, as a sentence; empty where it holds.

        Args:
            measurement: of the model.
            share: of the budget that may be spent.
        """
        return next(faults(self.limits, measurement, share), "")

    def certainly_broken(self, measurement: Measurement) -> str:
        """As `broken`, but a drop counts only where its lower bound lies beyond the budget."""
        sure = tuple(f for f in measurement.metrics if f.interval[0] > self.max_drop)
        return self.broken(replace(measurement, metrics=sure))

    def clearly_fails(self, measurement: Measurement, share: float = 1.0) -> bool:
        """Whether a measurement on some samples already shows that the budget will not hold."""
        return clearly_fails(self.limits, measurement, share)

    def holds_clearly(self, measurement: Measurement, share: float = 1.0) -> bool:
        """Whether a measurement on some samples lets the budget hold on all, by all likelihood."""
        samples = replace(measurement, probes=())
        return self.holds(samples, share * _CLEAR_SHARE) and self.holds(measurement, share)

    def noise(self, measurement: Measurement) -> float:
        """What a model loses, in the unit of the budget: 10^(−`min_sqnr`/10) is all of it.

        Of outputs by their worst group, each against what it has to keep; where no output is
        judged by SQNR, of metrics.
        """
        return self._noise_spent(measurement) * 10 ** (-self.min_sqnr / 10)

    def spent(self, measurement: Measurement) -> float:
        """The share of the budget that is spent, by outputs and by metrics; 1 is all of it."""
        return max(self._noise_spent(measurement), self._drop_spent(measurement))

    def spent_anywhere(self, measurement: Measurement) -> float:
        """As `spent`, on stressed inputs, other sizes and carried states too, where these ran."""
        probed = [10 ** ((one.least_db - one.sqnr_db) / 10) for one in measurement.probes]
        return max([self.spent(measurement), *probed])

    def _drop_spent(self, measurement: Measurement) -> float:
        """The share of the largest drop that the worst metric takes; 0 where none is measured."""
        worst = max((figure.drop for figure in measurement.metrics), default=0.0)
        if worst <= 0:
            return 0.0
        return worst / self.max_drop if self.max_drop else math.inf

    def _noise_spent(self, measurement: Measurement) -> float:
        spent = [
            10 ** ((least - measurement.outputs[name].sqnr_db) / 10)
            for name, least in self.least.items()
            if least is not None and measurement.outputs[name].is_float
        ]
        if not spent:
            spent = [f.drop / max(self.max_drop, 1e-3) for f in measurement.metrics]
        if not spent:
            spent = [10 ** ((self.min_sqnr - measurement.worst_sqnr_db) / 10)]
        return max([0.0, *spent])

    def _unseen(self, known: Sequence[Answers]) -> Iterator[str]:
        """What the samples cannot show."""
        for name in self._slices:
            if len(known) > 1 and all(np.array_equal(known[0][name], a[name]) for a in known[1:]):
                yield (
                    f"output {name} is constant over these samples, which cannot "
                    "show it works [W004]"
                )
        for name in () if self.made_up else self.alike:
            yield (
                f"output {name} is decided alike in all these samples, which cannot show what "
                "becomes of others; give samples of each [W004]"
            )
        found = [reading for reading in self.readings.values() if reading.kind == Kind.DETECTION]
        if found and not self.made_up and not any(len(decoded(found, a)) for a in known):
            yield "the original finds no object in these samples: F1 says nothing here [W004]"

    def _own_noise(self, first: Answers, model: ir.Model | None) -> str:
        """What the original itself draws at random; the budget then asks for no more than that."""
        again = self._original.run(self.samples.feeds[0])
        different = []
        for name in first:
            if np.array_equal(first[name], again[name], equal_nan=first[name].dtype.kind == "f"):
                continue
            total = FidelitySum(self._slice_sum(name), self.readings[name].varying)
            total.add(first[name], again[name])
            own = total.finish().sqnr_db
            # Threads sum in different orders, which is no randomness.
            if math.isnan(own) or own < 60:
                different.append(name)
                least = self.least[name]
                if least is not None:
                    self.least[name] = min(least, own - _OWN_NOISE_DB)
        if not different:
            return ""
        self._metrics = [m for m in self._metrics if not set(m.outputs) & set(different)]
        return (
            f"the original itself draws random numbers{drawn_by(model)}: output "
            f"{', '.join(different)} differs from run to run with the same inputs [W005]"
        )
