"""Train parameters by Adam (arXiv:1412.6980) with a cosine schedule, and keep the best state.

The rate is relative to the root mean square of each parameter, as in Adafactor (arXiv:1804.04235),
so that one rate fits layers and models of any scale. What chooses the best state are samples that
no step has seen.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.distillation.batches import Batches
from onnxpress.distillation.losses import LOSS
from onnxpress.distillation.parameters import Parameter
from onnxpress.distillation.problem import Problem
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.runtime import Session

__all__ = ["Check", "Schedule", "Trained", "loss_on", "train"]

Floats = npt.NDArray[np.float32]

_MEAN_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_WARM_UP = 0.05
"""Of all steps: Adam's second moments are of few gradients at first."""
_CHECKS = 20
_PATIENCE = 4
"""Checks without a better state after which the rate is too high."""
_MOST_HALVINGS = 5


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
    def before(self) -> float:
        """Loss before any step on the samples that choose."""
        return self.checks[0].chosen

    @property
    def best(self) -> float:
        """Loss of the best state on the same samples."""
        return min(check.chosen for check in self.checks if math.isfinite(check.chosen))


class _Adam:
    """First and second moments of the gradients, and the step that follows from them."""

    def __init__(self, parameters: Mapping[str, Parameter], values: dict[str, Floats]) -> None:
        self._values = values
        self._masks = {name: p.mask for name, p in parameters.items() if p.mask is not None}
        self._sizes = {name: parameter.size for name, parameter in parameters.items()}
        self.restart()

    def restart(self) -> None:
        """Forget all gradients."""
        self._means = {name: np.zeros_like(value) for name, value in self._values.items()}
        self._squares = {name: np.zeros_like(value) for name, value in self._values.items()}
        self._number = 0

    def step(self, gradients: Mapping[str, Floats], rate: float) -> None:
        """Change the values in place."""
        self._number += 1
        straight = 1 - _MEAN_DECAY**self._number
        square = math.sqrt(1 - _SQUARE_DECAY**self._number)
        for name, given in gradients.items():
            gradient = given * self._masks[name] if name in self._masks else given
            mean, squares = self._means[name], self._squares[name]
            mean *= _MEAN_DECAY
            mean += (1 - _MEAN_DECAY) * gradient
            squares *= _SQUARE_DECAY
            squares += (1 - _SQUARE_DECAY) * np.square(gradient)
            size = np.float32(rate * self._sizes[name] * square / straight)
            self._values[name] -= size * mean / (np.sqrt(squares) + _EPSILON)


def train(
    problem: Problem,
    schedule: Schedule,
    *,
    progress: Tell = unheard,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Take steps until they are done, the time is up, or nothing gets better.

    Where a loss is no number, or no state was better for some time, it goes back to the best state
    with half the rate.

    Args:
        problem: what is minimized over what.
        schedule: how long and how fast.
        progress: told the steps, and the loss at first, now and at best.
        stop: asked before each step whether to end with the best so far.
    """
    training, choosing = problem.batches
    rng = np.random.default_rng(schedule.seed)
    first = loss_on(problem.scoring, choosing, _starts(problem.parameters))
    run = _Run(problem.parameters, schedule, first)
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
    return Trained(run.best, tuple(run.checks), run.steps, ended, run.no_numbers)


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
        self._optimizer = _Adam(parameters, self.values)
        self._schedule, self._rate = schedule, schedule.rate
        self._since = self._halvings = 0
        self._recent: list[float] = []
        self._started = time.monotonic()

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
            return "it was stopped"
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
