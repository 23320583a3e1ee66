"""Indices as text that people can read in a recipe: `0-2,5`."""

from collections.abc import Sequence

from onnxpress.errors import RecipeError

__all__ = ["indices_of", "text_of"]


def text_of(indices: Sequence[int]) -> str:
    """`[0, 1, 2, 5]` as `0-2,5`; growing."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def indices_of(text: str) -> list[int]:
    """The inverse of `text_of`.

    Raises:
        RecipeError: it is no such text.
    """
    found: list[int] = []
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            found += range(int(low), int(high or low) + 1)
    except ValueError as error:
        raise RecipeError(
            f"the plan removes {text!r}; expected numbers and ranges such as 0-2,5 [R004]"
        ) from error
    return found
