"""Train parameters by Adam with a cosine schedule, and keep the best state.

The rate is relative to the root mean square of each parameter, as in Adafactor (arXiv:1804.04235),
so that one rate fits layers and models of any scale. What chooses the best state are samples that
no step has seen.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxpress.distillation.adam import Adam
from onnxpress.distillation.batches import Batches
from onnxpress.distillation.losses import LOSS
from onnxpress.distillation.problem import Problem
from onnxpress.distillation.rounded import Parameter
from onnxpress.distillation.state import State, StateFile, digest_of
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.runtime import Session

__all__ = ["Check", "Schedule", "Trained", "loss_on", "step_seconds", "train"]

Floats = npt.NDArray[np.float32]

_WARM_UP = 0.05
"""Of all steps: Adam's second moments are of few gradients at first."""
_CHECKS = 20
_PATIENCE = 4
"""Checks without a better state after which the rate is too high."""
_MOST_HALVINGS = 5
_TIMED = 2
"""Steps."""
_STOPPED = "it was stopped"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: at most.
        rate: of the first steps, relative to the size of each parameter.
        seconds: at most, or `None`.
        seed: of the order of the samples.
    """

    steps: int
    rate: float
    seconds: float | None
    seed: int


@dataclass(frozen=True, slots=True)
class Check:
    """What was found on the samples that choose.

    Attributes:
        step: after how many.
        training: mean loss of the steps since the last check; NaN before the first step.
        chosen: loss on the samples that choose.
    """

    step: int
    training: float
    chosen: float


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        values: of the best state, by parameter.
        checks: in order, the first before any step.
        steps: taken.
        ended: why it ended, in words.
        halvings: how often the rate was halved after a loss that was no number.
    """

    values: Mapping[str, Floats]
    checks: tuple[Check, ...]
    steps: int
    ended: str
    halvings: int

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self.ended == _STOPPED

    @property
    def before(self) -> float:
        """Loss before any step on the samples that choose."""
        return self.checks[0].chosen

    @property
    def best(self) -> float:
        """Loss of the best state on the same samples."""
        return min(check.chosen for check in self.checks if math.isfinite(check.chosen))


def train(
    problem: Problem,
    schedule: Schedule,
    *,
    progress: Tell = unheard,
    stop: Callable[[], bool] = lambda: False,
    state: Path | None = None,
) -> Trained:
    """Take steps until they are done, the time is up, or nothing gets better.

    Where a loss is no number, or no state was better for some time, it goes back to the best state
    with half the rate.

    Args:
        problem: what is minimized over what.
        schedule: how long and how fast.
        progress: told the steps, and the loss at first, now and at best.
        stop: asked before each step whether to end with the best so far.
        state: a file that is written now and then, and gone on from where it is there.

    Raises:
        OutputError: the file is no state of this training, or cannot be written.
    """
    training, choosing = problem.batches
    rng = np.random.default_rng(schedule.seed)
    first = loss_on(problem.scoring, choosing, _starts(problem.parameters))
    run = _Run(problem.parameters, schedule, first)
    settled = (schedule.steps, schedule.rate, schedule.seed)
    kept = None if state is None else StateFile(state, digest_of(problem, settled, first))
    known = None if kept is None else kept.read()
    if known is not None:
        run.restore(known, rng)
    every = max(1, min(schedule.steps // _CHECKS, 200))
    while not (ended := run.ended(stop)):
        loss, found = _gradient(problem, training.draw(rng), run.values)
        if not math.isfinite(loss):
            run.step_back(no_number=True)
            continue
        run.step(loss, found)
        if run.steps % every == 0 or run.steps == schedule.steps:
            run.check(loss_on(problem.scoring, choosing, run.values))
            progress(run.told())
        if kept is not None and kept.is_due:
            kept.write(run.state(rng))
    if kept is not None:
        kept.write(run.state(rng))
    return Trained(run.best, tuple(run.checks), run.steps, ended, run.no_numbers)


def step_seconds(problem: Problem) -> float:
    """Of the clock for one step; the first one, which takes longer, is taken before."""
    values, rng = _starts(problem.parameters), np.random.default_rng(0)
    _gradient(problem, problem.batches[0].draw(rng), values)
    started = time.monotonic()
    for _ in range(_TIMED):
        _gradient(problem, problem.batches[0].draw(rng), values)
    return (time.monotonic() - started) / _TIMED


class _Run:
    """The state of a training.

    Attributes:
        values: as they are.
        best: as they were where the samples that choose were answered best.
        checks: in order.
        steps: taken.
        no_numbers: how often a loss was none.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], schedule: Schedule, first: float
    ) -> None:
        self.values = {name: value.copy() for name, value in _starts(parameters).items()}
        self.best = _starts(parameters)
        self.checks = [Check(0, math.nan, first)]
        self.steps = self.no_numbers = 0
        self._least = first
        self._optimizer = Adam(parameters, self.values)
        self._schedule, self._rate = schedule, schedule.rate
        self._since = self._halvings = 0
        self._recent: list[float] = []
        self._started = time.monotonic()

    def state(self, rng: np.random.Generator) -> State:
        """All that the next steps depend on."""
        optimizer = self._optimizer
        arrays = {
            "values": self.values,
            "best": self.best,
            "means": optimizer.means,
            "squares": optimizer.squares,
        }
        numbers = {
            "steps": self.steps,
            "no_numbers": self.no_numbers,
            "least": self._least,
            "rate": self._rate,
            "since": self._since,
            "halvings": self._halvings,
            "recent": self._recent,
            "number": optimizer.number,
            "seconds": time.monotonic() - self._started,
            "checks": [(one.step, one.training, one.chosen) for one in self.checks],
            "random": rng.bit_generator.state,
        }
        return State(arrays, numbers)

    def restore(self, state: State, rng: np.random.Generator) -> None:
        """Go on from a state."""
        arrays, numbers = state.arrays, dict[str, Any](state.numbers)
        optimizer = self._optimizer
        self.best = dict(arrays["best"])
        for name, value in self.values.items():
            value[...] = arrays["values"][name]
            optimizer.means[name][...] = arrays["means"][name]
            optimizer.squares[name][...] = arrays["squares"][name]
        optimizer.number = numbers["number"]
        self.steps, self.no_numbers = numbers["steps"], numbers["no_numbers"]
        self._least, self._rate = numbers["least"], numbers["rate"]
        self._since, self._halvings = numbers["since"], numbers["halvings"]
        self._recent = list(numbers["recent"])
        self._started = time.monotonic() - numbers["seconds"]
        self.checks = [Check(*one) for one in numbers["checks"]]
        rng.bit_generator.state = numbers["random"]

    @property
    def _part(self) -> float:
        """Of the steps or of the time, 0 to 1."""
        steps, seconds = self._schedule.steps, self._schedule.seconds
        spent = 0.0 if seconds is None else (time.monotonic() - self._started) / seconds
        return max(self.steps / steps, spent)

    def ended(self, stop: Callable[[], bool]) -> str:
        """Why no step is to follow, in words; empty where one is."""
        if self.steps >= self._schedule.steps:
            return "all steps were taken"
        if stop():
            return _STOPPED
        if self._part >= 1:
            return "the time was up"
        if self._halvings > _MOST_HALVINGS:
            no_number = self.no_numbers > _MOST_HALVINGS // 2
            return "the loss was no number at any rate" if no_number else "nothing got better"
        return ""

    def step(self, loss: float, gradients: Mapping[str, Floats]) -> None:
        """Follow the gradients."""
        self._optimizer.step(gradients, self._rate * _at(self._part))
        self.steps += 1
        self._recent.append(loss)

    def check(self, chosen: float) -> None:
        """Take note of the loss on the samples that choose."""
        self.checks.append(Check(self.steps, float(np.mean(self._recent)), chosen))
        self._recent = []
        self._since += 1
        if chosen < self._least:
            self._since, self._least = 0, chosen
            self.best = {name: value.copy() for name, value in self.values.items()}
        elif self._since >= _PATIENCE:
            self.step_back(no_number=False)

    def step_back(self, *, no_number: bool) -> None:
        """To the best state, with half the rate."""
        self.no_numbers += int(no_number)
        self._halvings += 1
        self._since = 0
        self._rate /= 2
        for name, value in self.best.items():
            self.values[name][...] = value
        self._optimizer.restart()

    def told(self) -> Progress:
        """The loss, at first and now, how many steps, and how much of the steps or the time."""
        stage = (
            f"training (loss {self.checks[0].chosen:.3g} at first, {self.checks[-1].chosen:.3g} "
            f"now, {self._least:.3g} at best)"
        )
        return Progress(stage, self.steps, self._schedule.steps, min(self._part, 1.0))


def _starts(parameters: Mapping[str, Parameter]) -> dict[str, Floats]:
    return {name: parameter.start for name, parameter in parameters.items()}


def _at(part: float) -> float:
    """The share of the rate after a part of the steps: up in a line, down along a cosine."""
    if part < _WARM_UP:
        return (part + 1e-3) / (_WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (part - _WARM_UP) / (1 - _WARM_UP)))


def _gradient(
    problem: Problem, feeds: list[dict[str, npt.NDArray[np.generic]]], values: Mapping[str, Floats]
) -> tuple[float, dict[str, Floats]]:
    """The mean loss of some runs, and its gradients; NaN where one of them is no number."""
    total = 0.0
    sums: dict[str, Floats] = {}
    for feed in feeds:
        found = problem.session.run({**feed, **values})
        total += float(found[LOSS]) / len(feeds)
        for name, output in problem.gradients.items():
            part = found[output].astype(np.float32, copy=False) / np.float32(len(feeds))
            sums[name] = sums[name] + part if name in sums else part
    if not all(np.isfinite(gradient).all() for gradient in sums.values()):
        return math.nan, sums
    return total, sums


def loss_on(scoring: Session, batches: Batches, values: Mapping[str, Floats]) -> float:
    """The mean loss over all samples."""
    total, number = 0.0, 0
    for samples, feed in batches.every():
        total += samples * float(scoring.run({**feed, **values})[LOSS])
        number += samples
    return total / number
