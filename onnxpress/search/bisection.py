"""The strongest choice of a ladder that keeps within the budget, in few measurements.

What a rung spends of the budget grows about as a power of its predicted errors' sum, spent ≈ c·eᵖ:
so the next rung to measure is the one at which the line through the nearest two known, in
logarithms, crosses the whole budget (regula falsi). Where that left more than a half three times,
the middle is next, so that it never takes more than four times what bisection does.

On the way a rung is measured on few samples where these are clear either way; what is given back
was measured on all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxpress.search.trial import Choice, Measures, Trial

__all__ = ["Spending", "bisected"]

_LEAST = 1e-12
"""Errors and shares of the budget below are as good as none."""
_PATIENCE = 3
"""Guesses in turn that may leave more than a half."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What a choice spent of the budget.

    Attributes:
        error: sum of what was predicted of its decisions.
        share: of the budget that may be spent; 1 is all of it.
        holds: whether it keeps within the budget, other sizes and stressed inputs included.
    """

    error: float
    share: float
    holds: bool


def bisected(trials: Measures, ladder: Sequence[Choice], seen: list[Spending]) -> Trial | None:
    """The strongest choice that holds, where the last is known not to.

    Args:
        trials: measure.
        ladder: choices that lose more and more.
        seen: choices of other ladders of the same sites, which say where to begin; it grows.
    """
    index, trial = _highest(trials, ladder, seen, trials.glanced)
    while trial is not None:
        if trial.model is not None and trials.options.out_of_time():
            return trial
        whole = trials.completed(trial)
        if trials.holds(whole):
            return whole
        index, trial = _highest(trials, ladder[: index + 1], seen, trials.measure)
    return None


def _highest(
    trials: Measures,
    ladder: Sequence[Choice],
    seen: list[Spending],
    measure: Callable[[Choice], Trial],
) -> tuple[int, Trial | None]:
    """The highest rung that holds, and its place; the last is known not to.

    When there is no time for another one, of those that were measured before; where these are too
    strong, one more is tried that should spend half of what it may.
    """
    errors = [sum(d.candidate.predicted_error for d in choice) for choice in ladder]
    bracket = _Bracket(np.maximum.accumulate([0.0, *errors])[1:].tolist(), trials.allowed)
    last = trials.recalled(ladder[-1]) if ladder else None
    if last is not None:
        bracket.learn(Spending(bracket.errors[-1], trials.spent(last), trials.holds(last)))
    for spending in seen:
        bracket.learn(spending)
    found: Trial | None = None
    place = -1
    while bracket.low < bracket.failing and not trials.options.out_of_time(trials.expected_s):
        index = bracket.next()
        trial = measure(ladder[index])
        spending = Spending(bracket.errors[index], trials.spent(trial), trials.holds(trial))
        if spending.holds:
            found, place = trial, index
        bracket.narrow(index, spending)
        seen.append(spending)
    if found is not None or bracket.low == bracket.failing:
        return place, found
    known = [(index, trials.recalled(choice)) for index, choice in enumerate(ladder[:-1])]
    for index, before in reversed(known):
        if before is not None and trials.holds(before):
            return index, before
        if before is not None:
            bracket.learn(Spending(bracket.errors[index], trials.spent(before), holds=False))
    if bracket.knows:
        index = bracket.next(room=2.0)
        trial = measure(ladder[index])
        if trials.holds(trial):
            return index, trial
    return -1, None


@dataclass
class _Bracket:
    """What is known of a ladder.

    Attributes:
        errors: predicted, of each rung.
        allowed: what the errors may sum up to, where they are right.
        low: the first rung that is not known to hold.
        failing: the first that is known to fail.
    """

    errors: Sequence[float]
    allowed: float
    low: int = 0
    failing: int = field(init=False)
    _held: tuple[float, float] | None = None
    _failed: tuple[float, float] | None = None
    _slow: int = 0

    def __post_init__(self) -> None:
        self.failing = len(self.errors) - 1

    @property
    def knows(self) -> bool:
        """Whether anything was measured."""
        return self._held is not None or self._failed is not None

    def next(self, room: float = 1.0) -> int:
        """The rung that is thought to be the last that holds, or the middle one.

        Args:
            room: how many times its errors should fit into what is allowed.
        """
        if self._slow == _PATIENCE:
            return (self.low + self.failing) // 2
        place = int(np.searchsorted(self.errors, self._target() / room, side="right")) - 1
        return min(max(place, self.low), self.failing - 1)

    def _target(self) -> float:
        """The error that is thought to spend all of the budget."""
        if self._held is not None and self._failed is not None:
            (one, spent), (other, more) = self._held, self._failed
            if other > one and more > spent:
                part = -math.log(spent) / (math.log(more) - math.log(spent))
                return float(one * (other / one) ** part)
        known = self._failed or self._held
        return self.allowed if known is None else known[0] / known[1]

    def narrow(self, index: int, spending: Spending) -> None:
        """A rung was measured."""
        width = self.failing - self.low
        self.learn(spending)
        if spending.holds:
            self.low = index + 1
        else:
            self.failing = index
        halved = self.failing - self.low <= width // 2
        self._slow = 0 if halved or self._slow == _PATIENCE else self._slow + 1

    def learn(self, spending: Spending) -> None:
        """What a choice spent, be it of this ladder or another."""
        error = max(spending.error, _LEAST)
        if spending.holds:
            self._held = error, min(max(spending.share, _LEAST), 1.0)
        else:
            # Something else may be what fails: another shape, or a bound.
            self._failed = error, max(spending.share, 1.0)
