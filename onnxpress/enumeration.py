"""A few of many, in words: `conv1, conv2 and 31 more`."""

from collections.abc import Iterable

__all__ = ["few"]


def few(items: Iterable[object], most: int = 1) -> str:
    """The first of them, and how many more there are; empty where there is none."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:most])
    return f"{shown} and {len(texts) - most:,} more" if len(texts) > most else shown
