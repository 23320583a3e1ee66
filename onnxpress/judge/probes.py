"""Runs besides the samples: stressed inputs, other sizes, and states carried from step to step.

A model that was fitted to the samples may work on them alone. So the original and the result are
also compared where inputs are disturbed, which needs no labels: a tenth of what is lost there
counts (10 dB). Where axes are dynamic, other lengths and batch sizes are run, which may lose
twice what the samples do (3 dB). Where an output is the state of the next step, both models carry
their own over many steps, and what they say then is compared.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.data import Samples
from onnxpress.errors import ModelError
from onnxpress.judge.cuts import beside, cut
from onnxpress.judge.fidelity import FidelitySum
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.measurement import ProbeFigure, pooled
from onnxpress.judge.metrics import Answers, Metric
from onnxpress.judge.slices import SliceReference, SliceSum, decibels
from onnxpress.judge.stress import stressed
from onnxpress.runtime import Feed, Session

__all__ = ["Probe", "probes_of"]

logger = logging.getLogger(__name__)

_STRESSED_ALLOWANCE_DB = 10.0
_SIZES_ALLOWANCE_DB = 3.0
_SIZES = frozenset(("shorter", "longer", "batch of two"))
_STRESSED = 24
_RESIZED = 12
"""Runs of other sizes: of three, one that is on the edge decided alone."""
_STEPS = 64


@dataclass(frozen=True)
class Probe:
    """Inputs, and what the original answers.

    Attributes:
        name: which inputs.
        feeds: of each run.
        answers: of the original, one a run.
        slices: by output that is compared.
        metrics: of outputs that are not cut into slices.
        class_axes: by output, where scores exclude each other.
        allowance_db: what may be lost here beyond the budget.
        states: input by the output that it takes from the run before; none: runs stand alone.
    """

    name: str
    feeds: tuple[Feed, ...]
    answers: tuple[Answers, ...]
    slices: Mapping[str, tuple[SliceReference, ...]]
    metrics: tuple[Metric, ...]
    class_axes: Mapping[str, int | None]
    allowance_db: float
    states: Mapping[str, str]

    def measure(
        self, session: Session, least: Mapping[str, float | None], max_drop: float
    ) -> ProbeFigure:
        """What a model loses here: the output that is nearest to, or furthest below, its least.

        Args:
            session: of the model.
            least: SQNR that each output has to keep on the samples, in dB.
            max_drop: points that a metric may lose on the samples. A share that is lost is so many
                decibels: 1% is 20 dB.
        """
        sums = {
            name: FidelitySum(SliceSum(cuts, self.class_axes[name]))
            for name, cuts in self.slices.items()
        }
        try:
            found = run_through(session.run, self.feeds, self.states)
        except ModelError as error:
            logger.info("%s: does not run: %s", self.name, error)
            return self._figure("", -math.inf, 0.0)
        for answer, wanted in zip(found, self.answers, strict=True):
            for name, total in sums.items():
                total.add(wanted[name], answer[name])
        figures = []
        for name, total in sums.items():
            wanted_db = least[name]
            if wanted_db is not None:
                figure = total.finish().sqnr_db
                wanted_db -= self.allowance_db
                figures.append((figure - wanted_db, name, figure, wanted_db, ""))
        wanted_db = decibels(100.0, max_drop) - self.allowance_db
        for metric in self.metrics:
            figure = decibels(1.0, self._lost(metric, found))
            # Nothing lost is not nearer to a bound that allows nothing.
            margin = math.inf if math.isinf(figure) else figure - wanted_db
            figures.append((margin, metric.outputs[0], figure, wanted_db, metric.name))
        if not figures:
            return self._figure("", math.inf, -math.inf)
        _, name, figure, wanted_db, metric_name = min(figures)
        return self._figure(name, figure, wanted_db, metric_name)

    def _lost(self, metric: Metric, found: Sequence[Answers]) -> float:
        """The share of a metric that is lost."""
        rows = np.concatenate(
            [
                metric.rows(answer, wanted, None)
                for answer, wanted in zip(found, self.answers, strict=True)
            ]
        )
        new, old = pooled(rows)
        return max(0.0, old - new)

    def _figure(
        self, output: str, sqnr_db: float, least_db: float, metric: str = ""
    ) -> ProbeFigure:
        carried = bool(self.states)
        return ProbeFigure(self.name, output, sqnr_db, least_db, len(self.feeds), carried, metric)


def run_through(
    run: Callable[[Feed], Answers], feeds: Sequence[Feed], states: Mapping[str, str]
) -> list[Answers]:
    """Answers to feeds one after the other, with the states of each given to the next.

    Raises:
        ModelError: the model does not run on one of them.
    """
    answers: list[Answers] = []
    for feed in feeds:
        carried = {name: answers[-1][output] for name, output in states.items() if answers}
        answers.append(run({**feed, **carried}))
    return answers


def probes_of(
    original: Session,
    samples: Samples,
    readings: Mapping[str, Reading],
    usual: Mapping[str, tuple[SliceReference, ...]],
    metrics: Sequence[Metric],
    *,
    made_up: bool = False,
    seed: int = 0,
) -> tuple[Probe, ...]:
    """All that these inputs and outputs allow; what the original cannot run is left out.

    Random inputs are not disturbed, for they are like no data already: metrics may lose on them
    what they may lose on stressed ones.

    Args:
        original: what is judged by.
        samples: that are disturbed.
        readings: of every output.
        usual: how outputs are cut into slices on the samples.
        metrics: of the other outputs.
        made_up: the samples are random inputs.
        seed: of what is random.
    """
    found: list[Probe] = []
    disturbed = [
        feed
        for name, feed in stressed(samples, original.inputs, seed=seed, number=_STRESSED)
        if name not in _SIZES
    ]
    resized = [
        feed for _, feed in stressed(samples, original.inputs, seed, 2 * _RESIZED, names=_SIZES)
    ]
    if made_up and metrics:
        kept = _answered(original, samples.feeds, len(samples))
        allowance = _STRESSED_ALLOWANCE_DB
        if kept:
            found.append(_probe("random inputs", kept, readings, {}, metrics, allowance, {}))
    for title, feeds, most, allowance in (
        ("stressed inputs", [] if made_up else disturbed, _STRESSED, _STRESSED_ALLOWANCE_DB),
        # Many models take some of these sizes alone.
        ("other sizes", resized, _RESIZED, _SIZES_ALLOWANCE_DB),
    ):
        kept = _answered(original, feeds, most)
        if kept:
            found.append(_probe(title, kept, readings, usual, metrics, allowance, {}))
    states = {r.state_input: n for n, r in readings.items() if r.state_input is not None}
    judged = {name: cuts for name, cuts in usual.items() if readings[name].kind != Kind.STATE}
    if states and (judged or metrics):
        # What drifts slowly shows after many steps.
        times = math.ceil(_STEPS / len(samples))
        rolled = (samples.feeds * times)[:_STEPS]
        try:
            answers = run_through(original.run, rolled, states)
        except ModelError as error:
            logger.info("states cannot be carried on: %s", error)
        else:
            kept = list(zip(rolled, answers, strict=True))
            title = f"states carried over {len(rolled)} steps"
            found.append(_probe(title, kept, readings, judged, metrics, 0.0, states))
    return tuple(found)


def _answered(original: Session, feeds: Sequence[Feed], most: int) -> list[tuple[Feed, Answers]]:
    """The first feeds that the original runs on with finite answers."""
    kept: list[tuple[Feed, Answers]] = []
    for feed in feeds:
        if len(kept) == most:
            break
        try:
            answer = original.run(feed)
        except ModelError:
            continue
        if all(a.dtype.kind != "f" or np.isfinite(a).all() for a in answer.values()):
            kept.append((feed, answer))
    return kept


def _probe(
    name: str,
    kept: Sequence[tuple[Feed, Answers]],
    readings: Mapping[str, Reading],
    usual: Mapping[str, tuple[SliceReference, ...]],
    metrics: Sequence[Metric],
    allowance_db: float,
    states: Mapping[str, str],
) -> Probe:
    needed = {*usual, *(output for metric in metrics for output in metric.outputs)}
    answers = tuple({n: array for n, array in answer.items() if n in needed} for _, answer in kept)
    slices = {
        output: beside(cut(readings[output], [answer[output] for answer in answers]), cuts)
        for output, cuts in usual.items()
    }
    axes = {output: readings[output].axis for output in slices}
    feeds = tuple(feed for feed, _ in kept)
    return Probe(name, feeds, answers, slices, tuple(metrics), axes, allowance_db, states)
