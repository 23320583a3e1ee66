"""Values of a target in words."""

from collections.abc import Collection

__all__ = ["all_of", "in_words", "one_of", "yes_or_no"]


def in_words(value: object) -> str:
    """Truth as yes or no, a collection as its items; sets are sorted."""
    if isinstance(value, bool):
        return yes_or_no(value)
    if isinstance(value, tuple | frozenset):
        items = sorted(value) if isinstance(value, frozenset) else value
        return ", ".join(str(item) for item in items) or "none"
    return str(value)


def yes_or_no(value: object) -> str:
    """`yes` or `no`."""
    return "yes" if value else "no"


def one_of(items: Collection[object]) -> str:
    """`a, b or c`."""
    return _joined(items, "or")


def all_of(items: Collection[object]) -> str:
    """`a, b and c`."""
    return _joined(items, "and")


def _joined(items: Collection[object], last: str) -> str:
    words = [str(item) for item in items]
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
