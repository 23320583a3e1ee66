"""How the budget is divided among pools that act one after the other.

Pool i may spend a fraction uᵢ of what those before it left, so that until it has acted
sᵢ = 1 − Π_{j≤i}(1 − uⱼ) of the budget may be spent; the last one may spend all the rest. Where two
pools gain differently for the last bit of the budget, the one should give to the other (equal
marginal rates, as a Lagrangian has them). The rates are not known beforehand, as what a pool leaves
changes what those behind it gain, and refits give back what was spent: so divisions are looked at,
each carried out and weighed by the objective, in a pattern search (Hooke and Jeeves, 1961). A step
leaves a quarter of what a pool takes, or of what it leaves to others; one that gains is repeated,
and where already the first does not, a half is tried.

Steps that cannot gain are not taken: a pool that took all it offers has no use for more, and what
an idle pool may spend is left to those behind it anyway.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Look", "Split", "best_split", "even_split", "until_each"]

Split = tuple[float, ...]
"""Of each pool but the last, in order, the fraction of what is left that it may spend."""

_STEPS = 0.25, 0.5
"""Factors, the long one first: in most models the last pool needs little, which one look shows."""
_WORTH = 0.98
"""Of the cost: a step that gains less is not repeated, as the clock errs by as much."""


@dataclass(frozen=True, slots=True)
class Look:
    """What came of a division.

    Attributes:
        split: the division.
        cost: by the objective; infinite where the budget is broken.
        sated: of each pool, the last one among them, whether it took all that it offers.
        idle: of each pool, whether it changed nothing.
    """

    split: Split
    cost: float
    sated: tuple[bool, ...]
    idle: tuple[bool, ...]


def even_split(pools: int) -> Split:
    """Every pool may spend as much as any other.

    Args:
        pools: how many there are, the last one among them.
    """
    return tuple(1 / (pools - place) for place in range(pools - 1))


def until_each(split: Split) -> tuple[float, ...]:
    """Of the budget, what may be spent until each pool but the last has acted."""
    left = 1.0
    found = []
    for taken in split:
        left *= 1 - taken
        found.append(1 - left)
    return tuple(found)


def best_split(first: Look, look: Callable[[Split], Look | None], most: int) -> Look:
    """The division that costs least of those that a pattern search comes to.

    Pools near the end come first: what those before them leave stays as it was then, and little
    has to be found out anew.

    Args:
        first: where to begin.
        look: carries a division out; `None`: there is no time for more.
        most: how many divisions may be looked at.
    """
    known: dict[Split, Look | None] = {first.split: first}

    def seen(split: Split) -> Look | None:
        if split not in known and len(known) <= most:
            known[split] = look(split)
        return known.get(split)

    best, before = first, math.inf
    while best.cost < before:
        before = best.cost
        for place in reversed(range(len(first.split))):
            best = _climbed(best, place, seen)
    return best


def _climbed(best: Look, place: int, seen: Callable[[Split], Look | None]) -> Look:
    """As far as it gains, one pool is given more, or else less."""
    for more in (True, False):
        start = best
        steps = list(_STEPS)
        while steps and _may_gain(best, place, more=more):
            new = seen(_moved(best.split, place, steps[0], more=more))
            if new is not None and new.cost < _WORTH * best.cost:
                best, steps = new, steps[:1]
            else:
                steps.pop(0)
        if best is not start:
            break
    return best


def _may_gain(look: Look, place: int, *, more: bool) -> bool:
    if more:
        return not look.sated[place]
    return not look.idle[place] and not all(look.sated[place + 1 :])


def _moved(split: Split, place: int, step: float, *, more: bool) -> Split:
    taken = split[place]
    new = 1 - (1 - taken) * step if more else taken * step
    return (*split[:place], new, *split[place + 1 :])
