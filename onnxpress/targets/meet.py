"""How two targets meet in a field: what holds for a model that is good for both."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from onnxpress.errors import UsageError
from onnxpress.targets.schema import Meet

__all__ = [
    "agreed",
    "both",
    "either",
    "exclusive",
    "first",
    "highest",
    "lowest",
    "multiple",
    "shared",
    "union",
    "weakest",
]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _of_values(function: Callable[[Any, Any], Any]) -> Meet:
    return lambda a, b, field: function(getattr(a, field), getattr(b, field))


lowest = _of_values(min)
highest = _of_values(max)
multiple = _of_values(math.lcm)
both = _of_values(operator.and_)
either = _of_values(operator.or_)
union = _of_values(lambda a, b: {**b, **a})
_within_both = _of_values(lambda a, b: tuple(item for item in a if item in b))


def first(a: object, b: object, field: str) -> object:
    """What the first says."""
    return getattr(a, field)


def agreed(otherwise: str) -> Meet:
    """What both say, `otherwise` where they say different things."""
    return _of_values(lambda a, b: a if a == b else otherwise)


def weakest(choices: Sequence[str]) -> Meet:
    """The one that comes first in `choices`."""
    return _of_values(lambda a, b: min(a, b, key=choices.index))


def shared(a: _Named, b: _Named, field: str) -> tuple[str, ...]:
    """What both list, in the order of the first.

    Raises:
        UsageError: nothing.
    """
    found: tuple[str, ...] = _within_both(a, b, field)
    if not found:
        raise exclusive(a, b, field, getattr(a, field), getattr(b, field))
    return found


def exclusive(
    a: _Named, b: _Named, field: str, left: Sequence[object], right: Sequence[object]
) -> UsageError:
    """Of two targets that exclude each other in a field."""
    found = [", ".join(str(item) for item in items) for items in (left, right)]
    return UsageError(
        f"targets {a.name!r} and {b.name!r} cannot share one model: {field} is {found[0]} "
        f"for the first and {found[1]} for the second; press one model each with "
        "--per-target [U011]"
    )
