"""How many rounds the clock takes: no more than tell something."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from onnxpress.runtime import Array, Latency, Session, compare_latency

FEED: dict[str, Array] = {"x": np.zeros(1, np.float32)}
RUNS_BEFORE_THE_ROUNDS = 2
"""Of the reference: one to warm up, one to see how often a run is repeated."""


class _Watch:
    """Seconds that pass only while something runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Runs:
    """In place of a session: each run takes the next of some seconds, the last one for ever."""

    def __init__(self, watch: _Watch, seconds: Sequence[float]) -> None:
        self.watch, self.seconds, self.times = watch, list(seconds), 0

    def run(self, feed: object) -> dict[str, object]:
        """Let the time pass."""
        self.watch.now += self.seconds[min(self.times, len(self.seconds) - 1)]
        self.times += 1
        return {"y": feed}


def _compared(reference: Sequence[float], model: Sequence[float]) -> tuple[Latency, int]:
    """With runs that last longer than a round, so that each is one: how many rounds it took."""
    watch = _Watch()
    before, after = _Runs(watch, reference), _Runs(watch, model)
    found = compare_latency(
        cast("Session", before), cast("Session", after), FEED, budget_s=60.0, clock=watch
    )
    return found, before.times - RUNS_BEFORE_THE_ROUNDS


def test_rounds_that_agree_end_the_comparison_after_a_third_of_them() -> None:
    found, rounds = _compared([0.5], [0.25])
    assert (rounds, found.speedup) == (5, 2.0)


def test_rounds_that_differ_go_on_to_the_last() -> None:
    _, rounds = _compared([0.5, 0.5, *[0.4, 0.6] * 8], [0.25])
    assert rounds == 15


def test_rounds_that_differ_end_after_a_third_of_them_when_the_time_is_over() -> None:
    _, rounds = _compared([50.0, 50.0, *[40.0, 60.0] * 8], [25.0])
    assert rounds == 5
