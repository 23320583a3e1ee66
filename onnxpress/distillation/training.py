"""Train parameters by Adam (arXiv:1412.6980) with a cosine schedule, and keep the best state.

The rate is relative to the root mean square of each parameter, as in Adafactor (arXiv:1804.04235),
so that one rate fits layers and models of any scale. What chooses the best state are samples that
no step has seen.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.distillation.batches import Batches
from onnxpress.distillation.losses import LOSS
from onnxpress.distillation.parameters import Parameter
from onnxpress.runtime import Session

__all__ = ["Check", "Schedule", "Trained", "loss_on", "train"]

Floats = npt.NDArray[np.float32]

_MEAN_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_WARM_UP = 0.05
"""Of all steps: Adam's second moments are of few gradients at first."""
_LEAST_SCALE = 0.01
"""Of a parameter's size that its rate is relative to: biases may start at 0."""
_CHECKS = 20
_PATIENCE = 8
"""Checks without a better state after which nothing more is hoped for."""
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
        self._scales = {
            name: max(float(np.sqrt(np.mean(np.square(p.start)))), _LEAST_SCALE)
            for name, p in parameters.items()
        }
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
            size = np.float32(rate * self._scales[name] * square / straight)
            self._values[name] -= size * mean / (np.sqrt(squares) + _EPSILON)


def train(
    session: Session,
    scoring: Session,
    gradients: Mapping[str, str],
    parameters: Mapping[str, Parameter],
    batches: tuple[Batches, Batches],
    schedule: Schedule,
    *,
    progress: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Take steps until they are done, the time is up, or nothing gets better.

    Args:
        session: of the loss and its gradients.
        scoring: of the loss alone.
        gradients: the output of each parameter's.
        parameters: what is trained.
        batches: to train with, and to choose by.
        schedule: how long and how fast.
        progress: told the loss, the best so far and the time left.
        stop: asked before each step whether to end with the best so far.
    """
    training, choosing = batches
    rng = np.random.default_rng(schedule.seed)
    values = {name: parameter.start.copy() for name, parameter in parameters.items()}
    optimizer = _Adam(parameters, values)
    first = loss_on(scoring, choosing, values)
    checks = [Check(0, math.nan, first)]
    best = {name: value.copy() for name, value in values.items()}
    since, halvings, recent = 0, 0, []
    started, step, ended = time.monotonic(), 0, "all steps were taken"
    every = max(1, min(schedule.steps // _CHECKS, 200))
    while step < schedule.steps:
        part = step / schedule.steps
        spent = time.monotonic() - started
        if schedule.seconds is not None:
            part = max(part, spent / schedule.seconds)
        if stop() or part >= 1:
            ended = "it was stopped" if part < 1 else "the time was up"
            break
        loss, found = _gradient(session, training.draw(rng), values, gradients)
        if not math.isfinite(loss):
            halvings += 1
            if halvings > _MOST_HALVINGS:
                ended = "the loss was no number at any rate"
                break
            schedule = replace(schedule, rate=schedule.rate / 2)
            for name, value in best.items():
                values[name][...] = value
            optimizer.restart()
            continue
        optimizer.step(found, schedule.rate * _at(part))
        step += 1
        recent.append(loss)
        if step % every and step < schedule.steps:
            continue
        chosen = loss_on(scoring, choosing, values)
        checks.append(Check(step, float(np.mean(recent)), chosen))
        recent = []
        since += 1
        if chosen < min(check.chosen for check in checks[:-1]):
            since = 0
            best = {name: value.copy() for name, value in values.items()}
        least = min(check.chosen for check in checks if math.isfinite(check.chosen))
        left = (time.monotonic() - started) / step * (schedule.steps - step)
        if schedule.seconds is not None:
            left = min(left, schedule.seconds - spent)
        progress(
            f"step {step} of {schedule.steps}: loss {chosen:.3g}, best {least:.3g}, at first "
            f"{first:.3g}; {left:.0f} s left"
        )
        if since >= _PATIENCE:
            ended = "nothing got better"
            break
    return Trained(best, tuple(checks), step, ended, halvings)


def _at(part: float) -> float:
    """The share of the rate after a part of the steps: up in a line, down along a cosine."""
    if part < _WARM_UP:
        return (part + 1e-3) / (_WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (part - _WARM_UP) / (1 - _WARM_UP)))


def _gradient(
    session: Session,
    feeds: list[dict[str, npt.NDArray[np.generic]]],
    values: Mapping[str, Floats],
    gradients: Mapping[str, str],
) -> tuple[float, dict[str, Floats]]:
    """The mean loss of some runs, and its gradients; NaN where one of them is no number."""
    total = 0.0
    sums: dict[str, Floats] = {}
    for feed in feeds:
        found = session.run({**feed, **values})
        total += float(found[LOSS]) / len(feeds)
        for name, output in gradients.items():
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
