"""Follow a plan with the budget divided among its pools in more than one way.

Each look is a whole chain, carried out, measured and timed; what pools found out about a model that
comes again is remembered, so that most looks cost less than the first (`search.splits` says which
divisions are looked at).
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from onnxpress import model_file
from onnxpress.original import Run
from onnxpress.pool import Pool
from onnxpress.progress import part
from onnxpress.search import Look, Split, best_split, even_split, until_each
from onnxpress.stage_result import StageResult
from onnxpress.stages import Variant, lossy_pools

__all__ = ["divided", "most_looks"]

_LOOKS = 4
"""Divisions besides the even one: each pool gets a step to either side, or two to one."""
_LOOK_BYTES = 4_000_000
"""Of weights; a larger model gets fewer looks, as each takes longer, and one at least. Seconds do
not decide where no limit is given, so that the same command gives the same bytes."""
_LOOKS_IN_TIME = 12
"""Where a limit is given, which ends them earlier."""


class Followed(Protocol):
    """A plan that was carried out."""

    @property
    def stages(self) -> tuple[StageResult, ...]:
        """What each pass did."""


Found = TypeVar("Found", bound=Followed)


def divided(
    run: Run,
    even: Variant,
    first: Found,
    took_s: float,
    follow: Callable[[Run, Variant], Found],
    cost: Callable[[Found], float],
) -> list[tuple[Variant, Found]]:
    """What came of the ways to divide the budget, the even one first.

    Args:
        run: the plan.
        even: all pools with equal parts.
        first: what came of it.
        took_s: how long that took.
        follow: carries another way out.
        cost: by the objective; infinite where the budget is broken.
    """
    found = [(even, first)]
    pools = lossy_pools(run, even)
    looks = _Looks({even_split(len(pools)): took_s})
    most = most_looks(run)

    def look(split: Split) -> Look | None:
        # What is taken is fitted again behind it, which takes about as long as the last pool alone.
        if run.options.out_of_time(looks.expected_s(split) + even.kept_s):
            return None
        started, number = time.monotonic(), len(found) - 1
        tell = part(run.options.progress, number / most, (number + 1) / most)
        until = dict(zip((pool.names for pool in pools), until_each(split), strict=False))
        variant = replace(even, splits=until)
        told = replace(run, options=replace(run.options, progress=tell))
        found.append((variant, follow(told, variant)))
        looks.took_s[split] = time.monotonic() - started
        return _look(split, found[-1][1], pools, cost)

    if len(pools) > 1:
        best_split(_look(even_split(len(pools)), first, pools, cost), look, most)
    return found


@dataclass
class _Looks:
    """How long looks took.

    Attributes:
        took_s: by division, in order; the first one found out what there is.
    """

    took_s: dict[Split, float]

    def expected_s(self, split: Split) -> float:
        """The longest of those that began where this one does, or of those that began before.

        A look finds out anew what comes from the first pool on whose part no earlier look had.
        """
        begun: dict[int, float] = {}
        for number, (other, took_s) in enumerate(self.took_s.items()):
            place = _shared(other, list(self.took_s)[:number])
            begun[place] = max(begun.get(place, 0.0), took_s)
        own = _shared(split, list(self.took_s))
        return begun[max(place for place in begun if place <= own)]


def _shared(split: Split, others: Sequence[Split]) -> int:
    """Of how many pools in the beginning any of the others has the same parts."""
    alike = (
        itertools.takewhile(lambda pair: pair[0] == pair[1], zip(split, other, strict=True))
        for other in others
    )
    return max((len(list(pairs)) for pairs in alike), default=0)


def most_looks(run: Run) -> int:
    """At how many divisions besides the even one a search may look."""
    if math.isfinite(run.options.deadline):
        return _LOOKS_IN_TIME
    nbytes = model_file.weight_bytes(run.original.model)
    return max(1, min(_LOOKS, _LOOKS * _LOOK_BYTES // max(nbytes, 1)))


def _look(
    split: Split, found: Found, pools: Sequence[Pool], cost: Callable[[Found], float]
) -> Look:
    of_pool = [[s for s in found.stages if s.pass_ in pool.passes] for pool in pools]
    return Look(
        split,
        cost(found),
        tuple(all(stage.sated for stage in own) for own in of_pool),
        tuple(not any(stage.decisions for stage in own) for own in of_pool),
    )
