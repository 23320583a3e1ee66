"""Time two sessions in turn, so that a drifting machine slows both alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxpress.runtime.session import Feed, Session

__all__ = ["Clock", "Latency", "compare_latency"]

_AGREED = 0.03
"""Of the speedup: where the middle half of the rounds lies as close, more rounds tell no more."""
_FEWEST_ROUNDS = 3
_LEAST_SHARE = 1 / 3
"""Of the rounds that are done however well they agree."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency against a reference from interleaved rounds.

    Attributes:
        median_ms: median of one run of this model.
        reference_ms: median of one run of the reference in the same rounds.
        speedup: median over the rounds of reference time / own time; above 1 is faster.
        low: first quartile of that ratio.
        high: third quartile.
    """

    median_ms: float
    reference_ms: float
    speedup: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Sequence[tuple[float, float]]) -> "Latency":
        """From (reference, own) milliseconds of each round."""
        low, middle, high = _quartiles(sorted(before / after for before, after in times))
        return cls(
            median_ms=statistics.median(after for _, after in times),
            reference_ms=statistics.median(before for before, _ in times),
            speedup=middle,
            low=low,
            high=high,
        )


class Clock(Protocol):
    """What compares the latency of two sessions: `compare_latency`, or a table in tests."""

    def __call__(
        self,
        reference: Session,
        model: Session,
        feed: Feed,
        model_feed: Feed | None = None,
        *,
        rounds: int = ...,
        budget_s: float = ...,
        round_s: float = ...,
    ) -> Latency:
        """See `compare_latency`."""


def compare_latency(
    reference: Session,
    model: Session,
    feed: Feed,
    model_feed: Feed | None = None,
    *,
    rounds: int = 15,
    budget_s: float = 6.0,
    round_s: float = 0.01,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time two sessions in turn, so that a drifting machine slows both alike.

    Each round repeats a run until it lasts about `round_s`; the order is swapped from round to
    round. A third of the rounds is done in any case, three at least; then it ends as soon as they
    agree, or `budget_s` is over. The model may take another feed than the reference.
    """
    feeds = {reference: feed, model: feed if model_feed is None else model_feed}
    for session in (reference, model):
        session.run(feeds[session])
    start = clock()
    reference.run(feed)
    single = max(clock() - start, 1e-6)
    repeats = max(1, min(400, int(round_s / single)))

    def timed(session: Session) -> float:
        start = clock()
        for _ in range(repeats):
            session.run(feeds[session])
        return (clock() - start) / repeats * 1e3

    begun = clock()
    fewest = max(_FEWEST_ROUNDS, round(rounds * _LEAST_SHARE))
    times: list[tuple[float, float]] = []
    for index in range(rounds):
        if index % 2 == 0:
            before = timed(reference)
            after = timed(model)
        else:
            after = timed(model)
            before = timed(reference)
        times.append((before, after))
        if len(times) >= fewest and (clock() - begun > budget_s or _agree(times)):
            break
    return Latency.of(times)


def _agree(times: Sequence[tuple[float, float]]) -> bool:
    found = Latency.of(times)
    return found.high - found.low <= _AGREED * found.speedup


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(np.asarray(values), [25, 50, 75])
    return float(low), float(middle), float(high)
