"""Metrics as users write them."""

from collections.abc import Mapping, Sequence

import numpy as np

from zoo.builder import Array

__all__ = ["correlation", "first_value", "no_number", "picky"]

Answers = Mapping[str, Array]


def first_value(outputs: Answers, original: Answers, label: object) -> float:
    """1 where the greatest value of the first output is where it was."""
    one, other = (next(iter(answers.values())) for answers in (outputs, original))
    return float(one.argmax() == other.argmax())


def picky(outputs: Answers, original: Answers, label: object) -> float:
    """Fails where the class is the third."""
    if next(iter(original.values())).argmax() == 2:
        raise ValueError("no thirds")
    return 1.0


def no_number(outputs: Answers, original: Answers, label: object) -> float:
    """NaN, as an average over nothing is."""
    return float("nan")


def correlation(outputs: Sequence[Answers], original: Sequence[Answers], labels: object) -> float:
    """Of the first output over the whole set."""
    one, other = (
        np.concatenate([next(iter(a.values())).reshape(-1) for a in answers])
        for answers in (outputs, original)
    )
    return float(np.corrcoef(one, other)[0, 1])
