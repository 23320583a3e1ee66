"""How far a run is: what is being done, how much of all is done, the time left, the best so far.

Those who do something tell a `Progress` with a stage and steps; `part` puts the steps of a stage
into its part of the whole; `followed` adds time and the best model, and hands it to the callback
of the user. The line of the console is such a callback and no more.

    fraction = start + (end − start) · done / total        (`part`, nested as calls are)
    left     = elapsed · (1 − fraction) / fraction          (`followed`)

How long the stages of a run take relative to each other differs from model to model, so that both
are estimates; the fraction never goes back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Best", "Progress", "Tell", "followed", "part", "unheard"]

_USUAL_STEPS = 8
"""Of a search that does not know how many it will take: half of its part is over after so many."""
_SURE_FRACTION, _SURE_S = 0.05, 1.0
"""Done before anything is said of what is left."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best model so far that held its part of the budget, by the goal of the run.

    Attributes:
        size_ratio: how many times as small as the original its weights are; above 1 is smaller.
        speed_ratio: how many times as fast as the model before the passes that are searched; below
            1 is slower; `None`: it was not timed yet.
        drop: of the worst task metric, in points, on the samples to choose by; `None` where there
            is no metric.
        worst_sqnr_db: of its outputs, in dB, on the same samples.
    """

    size_ratio: float
    speed_ratio: float | None
    drop: float | None
    worst_sqnr_db: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; what the callback `progress` of `onnxpress.optimize` and others is given.

    The callback is called in the thread of the run, between two steps, from some to thousands of
    times; what it raises ends the run, reaches the caller as it is, and nothing is written. To end
    with the best model so far instead, give `stop`.

    Attributes:
        stage: what is being done, in a few words: `quantize: statistics`.
        done: steps of the stage that are over; `None`: it has no steps.
        total: steps of the stage; `None`: it is not known how many there will be.
        fraction: of the whole run, 0 to 1, an estimate that never goes back; `None`: not known.
        elapsed_s: seconds since the run began.
        left_s: seconds left of the run, an estimate, of its time limit at most; `None`: not known.
        stage_left_s: seconds left of this stage, by its own steps; `None`: not known.
        best: the best model so far; `None`: none yet, or nothing is searched.
    """

    stage: str
    done: int | None = None
    total: int | None = None
    fraction: float | None = None
    elapsed_s: float = 0.0
    left_s: float | None = None
    stage_left_s: float | None = None
    best: Best | None = None

    def __str__(self) -> str:
        """What is being done, and which step."""
        if self.done is None:
            return self.stage
        steps = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        return f"{self.stage}: {steps}"

    @property
    def stage_fraction(self) -> float:
        """Of the stage, 0 to 1; of an open number of steps it comes nearer to 1, and never there.

        What is told inside the stage counts where it was put there by `part`.
        """
        if self.fraction is not None:
            return self.fraction
        if self.done is None:
            return 0.0
        if self.total is None:
            return self.done / (self.done + _USUAL_STEPS)
        return min(self.done / self.total, 1.0) if self.total > 0 else 1.0


Tell = Callable[[Progress], None]
"""Who is told how far a run is."""


def unheard(event: Progress) -> None:
    """Nobody is told."""


def part(tell: Tell, start: float, end: float) -> Tell:
    """Tell of what makes up a part of the whole.

    Args:
        tell: of the whole.
        start: where the part begins, 0 to 1.
        end: where it ends.
    """

    def told(event: Progress) -> None:
        tell(replace(event, fraction=start + (end - start) * event.stage_fraction))

    return told


def followed(tell: Tell, limit_s: float | None = None) -> Tell:
    """Tell of a run that begins now: with time, a fraction that never goes back, the best so far.

    Args:
        tell: the callback of the user.
        limit_s: seconds that the run may take.
    """
    return tell if tell is unheard else _Following(tell, limit_s)


class _Following:
    """What has to be remembered from one event to the next."""

    def __init__(self, tell: Tell, limit_s: float | None) -> None:
        self._tell, self._limit_s = tell, limit_s
        self._began = self._stage_began = time.monotonic()
        self._stage = ""
        self._first_done = 0
        self._fraction: float | None = None
        self._best: Best | None = None

    def __call__(self, event: Progress) -> None:
        now = time.monotonic()
        elapsed = now - self._began
        if event.stage != self._stage or (event.done or 0) < self._first_done:
            self._stage, self._stage_began = event.stage, now
            self._first_done = event.done or 0
        self._best = event.best or self._best
        if event.fraction is not None:
            by_time = elapsed / self._limit_s if self._limit_s else 0.0
            known = max(event.fraction, self._fraction or 0.0, by_time)
            self._fraction = min(known, 1.0)
        self._tell(
            replace(
                event,
                fraction=self._fraction,
                elapsed_s=elapsed,
                left_s=self._left(elapsed),
                stage_left_s=self._stage_left(event, now),
                best=self._best,
            )
        )

    def _left(self, elapsed: float) -> float | None:
        known = None if self._limit_s is None else max(self._limit_s - elapsed, 0.0)
        if self._fraction is None or self._fraction < _SURE_FRACTION or elapsed < _SURE_S:
            return known
        guessed = elapsed * (1 - self._fraction) / self._fraction
        return guessed if known is None else min(guessed, known)

    def _stage_left(self, event: Progress, now: float) -> float | None:
        if event.done is None or event.total is None or event.done <= self._first_done:
            return None
        each = (now - self._stage_began) / (event.done - self._first_done)
        return max(event.total - event.done, 0) * each
