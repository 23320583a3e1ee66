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
from onnxpress.judge.fidelity import FidelitySum
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.measurement import ProbeFigure
from onnxpress.judge.slices import SliceReference, SliceSum
from onnxpress.judge.stress import stressed
from onnxpress.runtime import Array, Feed, Session

__all__ = ["STRESSED_ALLOWANCE_DB", "Probe", "probes_of"]

logger = logging.getLogger(__name__)

STRESSED_ALLOWANCE_DB = 10.0
_SIZES_ALLOWANCE_DB = 3.0
_SIZES = frozenset(("shorter", "longer", "batch of two"))
_STRESSED = 24
_STEPS = 64
_LEAST_STEPS = 8

Answers = Mapping[str, Array]


@dataclass(frozen=True)
class Probe:
    """Inputs, and what the original answers.

    Attributes:
        name: which inputs.
        feeds: of each run.
        answers: of the original, one a run.
        slices: by output that is compared.
        class_axes: by output, where scores exclude each other.
        allowance_db: what may be lost here beyond the budget.
        states: input by the output that it takes from the run before; none: runs stand alone.
    """

    name: str
    feeds: tuple[Feed, ...]
    answers: tuple[Answers, ...]
    slices: Mapping[str, SliceReference]
    class_axes: Mapping[str, int | None]
    allowance_db: float
    states: Mapping[str, str]

    def measure(self, session: Session, least: Mapping[str, float | None]) -> ProbeFigure:
        """What a model loses here: the output that is nearest to, or furthest below, its least.

        Args:
            session: of the model.
            least: SQNR that each output has to keep on the samples, in dB.
        """
        sums = {
            name: FidelitySum(SliceSum(reference, self.class_axes[name]))
            for name, reference in self.slices.items()
        }
        try:
            found = run_through(session.run, self.feeds, self.states)
        except ModelError as error:
            logger.info("%s: does not run: %s", self.name, error)
            name = next(iter(sums))
            return self._figure(name, -math.inf, 0.0)
        for answer, wanted in zip(found, self.answers, strict=True):
            for name, total in sums.items():
                total.add(wanted[name], answer[name])
        figures = []
        for name, total in sums.items():
            wanted_db = least[name]
            if wanted_db is not None:
                figure = total.finish().sqnr_db
                wanted_db -= self.allowance_db
                figures.append((figure - wanted_db, name, figure, wanted_db))
        if not figures:
            return self._figure("", math.inf, -math.inf)
        _, name, figure, wanted_db = min(figures)
        return self._figure(name, figure, wanted_db)

    def _figure(self, output: str, sqnr_db: float, least_db: float) -> ProbeFigure:
        carried = bool(self.states)
        return ProbeFigure(self.name, output, sqnr_db, least_db, len(self.feeds), carried)


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
    known: Mapping[str, SliceReference],
    seed: int = 0,
) -> tuple[Probe, ...]:
    """All that these inputs and outputs allow; what the original cannot run is left out.

    Args:
        original: what is judged by.
        samples: that inputs are made of.
        readings: of the outputs.
        known: slices on the samples: a few odd inputs may give answers that hardly vary.
        seed: of all that is random.
    """
    found: list[Probe] = []
    disturbed: list[Feed] = []
    resized: list[Feed] = []
    for name, feed in stressed(samples, original.inputs, seed=seed, number=_STRESSED):
        (resized if name in _SIZES else disturbed).append(feed)
    compared = {n: r for n, r in readings.items() if r.kind != Kind.INTEGERS and not r.varying}
    for title, feeds, allowance in (
        ("stressed inputs", disturbed, STRESSED_ALLOWANCE_DB),
        ("other sizes", resized, _SIZES_ALLOWANCE_DB),
    ):
        answered = _answered(original, feeds)
        if answered:
            found.append(_probe(title, answered, compared, known, allowance, {}))
    states = {r.state_input: n for n, r in readings.items() if r.state_input is not None}
    judged = {n: r for n, r in compared.items() if r.kind != Kind.STATE}
    rolled = samples.feeds[:_STEPS]
    if states and judged and len(rolled) >= _LEAST_STEPS:
        try:
            answers = run_through(original.run, rolled, states)
        except ModelError as error:
            logger.info("states cannot be carried on: %s", error)
        else:
            kept: list[tuple[Feed, Answers]] = list(zip(rolled, answers, strict=True))
            title = f"states carried over {len(rolled)} steps"
            found.append(_probe(title, kept, judged, known, 0.0, states))
    return tuple(found)


def _answered(original: Session, feeds: Sequence[Feed]) -> list[tuple[Feed, Answers]]:
    """The feeds that the original runs on with finite answers."""
    kept: list[tuple[Feed, Answers]] = []
    for feed in feeds:
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
    known: Mapping[str, SliceReference],
    allowance_db: float,
    states: Mapping[str, str],
) -> Probe:
    answers = tuple(answer for _, answer in kept)
    slices = {
        output: _slices(reading, [answer[output] for answer in answers], known[output])
        for output, reading in readings.items()
        if output in known
    }
    axes = {output: readings[output].axis for output in slices}
    feeds = tuple(feed for feed, _ in kept)
    return Probe(name, feeds, answers, slices, axes, allowance_db, states)


def _slices(reading: Reading, answers: Sequence[Array], known: SliceReference) -> SliceReference:
    """What is known from the samples, where the slices are the same there."""
    axis = known.axis
    if axis is None or all(
        answer.ndim > axis and answer.shape[axis] == len(known.variance) for answer in answers
    ):
        return known
    return SliceReference.of(reading, answers)
