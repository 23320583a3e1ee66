"""Which of many parts lose most, found by halving: errors of parts add up where they are small.

A model with one group of parts changed shows the group's share of the error. The group with the
largest share is divided until it is one part, so that few runs find a few parts of hundreds.
"""

import heapq
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from onnxpress.runtime import Array, Feed, Session

__all__ = ["Answers", "Shares", "answers", "decibels", "left_out", "lost"]

_PROBED, _WORST = 3, 8
_ROUNDS = 6
_LEAST, _MOST = 0.25, 0.8
"""Of what was allowed before."""
_MOST_PROBES = 128
_SINGLY = 100
"""Parts that are few enough to be looked at one by one."""
_PARTS = 8
"""That more are divided into at first; then by two."""
_WHOLE = 1e9
"""The share of what gives no number."""

Part = TypeVar("Part")
Answers = Sequence[Mapping[str, Array]]


class Shares(Generic[Part]):
    """Groups of parts and the share of the outputs' power that each loses."""

    def __init__(
        self,
        parts: Sequence[Part],
        share: Callable[[Collection[Part]], float],
        cost: Callable[[Part], float] = lambda _: 1.0,
    ) -> None:
        """Begin with all parts in one group.

        Args:
            parts: in an order where neighbours have to do with each other.
            share: what is lost with these changed and no others.
            cost: of leaving one as it is: what loses most for its cost is left first.
        """
        self._share, self._cost = share, cost
        self._probes = 0
        self._largest: dict[Part, float] = {}
        self._groups: list[tuple[float, int, float, list[Part]]] = [
            (-_WHOLE, 0, _WHOLE, list(parts))
        ]

    def largest(self, allowed: float) -> dict[Part, float]:
        """Parts without which the others together lose no more, each with what it loses alone.

        Where runs have been enough, whole groups; each call begins where the last one ended.
        """
        while self._groups and math.fsum(share for _, _, share, _ in self._groups) > allowed:
            _, _, share, group = heapq.heappop(self._groups)
            if len(group) == 1 or self._probes >= _MOST_PROBES:
                self._largest.update(dict.fromkeys(group, share))
                continue
            size = -(-len(group) // self._parts(len(group)))
            for start in range(0, len(group), size):
                self._probe(group[start : start + size])
        return dict(self._largest)

    def _parts(self, size: int) -> int:
        """How many to divide a group into."""
        if self._probes:
            return 2
        return size if size <= _SINGLY else _PARTS

    def _probe(self, group: list[Part]) -> None:
        self._probes += 1
        share = min(self._share(group), _WHOLE)
        if share:
            # A group is worth no less than its best part, which may be its cheapest.
            cost = min(map(self._cost, group))
            heapq.heappush(self._groups, (-share / cost, self._probes, share, group))


def left_out(
    parts: Sequence[Part],
    changed: Callable[[Collection[Part], Sequence[Feed]], Answers],
    without: Callable[[Collection[Part], Sequence[Feed]], Answers],
    wanted: Answers,
    feeds: Sequence[Feed],
    aim_db: float,
    cost: Callable[[Part], float] = lambda _: 1.0,
) -> tuple[dict[Part, float], float]:
    """Parts that are left as they are, so that the change of the others keeps an aim.

    The aim is kept on the eighth of the samples that loses most, as others lose more than these:
    where two classes are nearly alike a softmax turns. Shares are measured on a few of them.

    Args:
        parts: see `Shares`.
        changed: what a model with these parts changed, and no others, answers.
        without: and with all parts changed but these.
        wanted: what the unchanged model answers.
        feeds: samples; without any nothing is left out.
        aim_db: decibels of the worst float output, pooled.
        cost: of leaving a part out.

    Returns:
        The parts, each with what it loses alone, and what the others lose.
    """
    aim = 10 ** (-aim_db / 10)
    left: dict[Part, float] = {}
    if not feeds or not parts:
        return left, 0.0
    found = without((), feeds)
    whole, order = _of_worst(wanted, found)
    if whole <= aim:
        return left, whole
    known = [wanted[index] for index in order[:_PROBED]]
    few = [feeds[index] for index in order[:_PROBED]]
    seen = lost(known, [found[index] for index in order[:_PROBED]])
    allowed = aim if math.isinf(whole) else aim * seen / whole
    shares = Shares(parts, lambda some: lost(known, changed(some, few)), cost)
    for _ in range(_ROUNDS):
        left = shares.largest(allowed)
        whole, _ = _of_worst(wanted, without(left, feeds))
        if whole <= aim:
            break
        # The rest loses more together than one by one.
        allowed *= min(max(aim / whole, _LEAST), _MOST)
    return left, whole


def _of_worst(wanted: Answers, found: Answers) -> tuple[float, list[int]]:
    """What the samples lose that lose most, pooled, and all samples, the worst first."""
    each = [lost([one], [other]) for one, other in zip(wanted, found, strict=True)]
    order = sorted(range(len(each)), key=lambda index: -each[index])
    worst = order[: max(_PROBED, len(order) // _WORST)]
    return lost([wanted[index] for index in worst], [found[index] for index in worst]), order


def answers(session: Session, feeds: Sequence[Feed]) -> Answers:
    """Of all feeds."""
    return [session.run(feed) for feed in feeds]


def lost(wanted: Answers, found: Answers) -> float:
    """The share of its power that the worst float output loses, pooled; infinite for no number."""
    worst = 0.0
    for name, first in wanted[0].items() if wanted else ():
        if not np.issubdtype(first.dtype, np.floating):
            continue
        noise = power = 0.0
        for one, other in zip(wanted, found, strict=False):
            if one[name].shape != other[name].shape:
                return math.inf
            reference = np.asarray(one[name], np.float64)
            known = np.isfinite(reference)
            error = np.asarray(other[name], np.float64)[known] - reference[known]
            noise += float(np.sum(np.square(error)))
            power += float(np.sum(np.square(reference[known])))
        if not math.isfinite(noise):
            return math.inf
        worst = max(worst, noise / power if power else float(noise > 0))
    return worst


def decibels(share: float) -> float:
    """Of the power against a share of it that is lost."""
    return -10 * math.log10(share) if share else math.inf
