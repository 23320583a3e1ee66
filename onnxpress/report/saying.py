"""How much is said on the console: one line, the usual, or all."""

from collections.abc import Sequence
from contextvars import ContextVar
from enum import StrEnum
from typing import TypeVar

__all__ = ["AMOUNT", "Amount", "some"]

T = TypeVar("T")


class Amount(StrEnum):
    """Of what is printed."""

    QUIET = "quiet"
    USUAL = "usual"
    VERBOSE = "verbose"


AMOUNT: ContextVar[Amount] = ContextVar("AMOUNT", default=Amount.USUAL)
"""What the user asked for."""


def some(items: Sequence[T], most: int) -> Sequence[T]:
    """The first of a list, or all where the user wants all."""
    return items if AMOUNT.get() is Amount.VERBOSE else items[:most]
