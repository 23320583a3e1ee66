"""Whether the rows of one sample are samples of a batch, or steps that follow from each other.

A bound counts what is independent. Eight pictures of a fixed batch are; a hundred frames of one
recording, which a network without a batch axis takes, are not. The network itself tells: the rows
of a batch are answered in whatever order they stand.
"""

from collections.abc import Callable, Mapping

import numpy as np

from onnxpress.runtime import Array

__all__ = ["are_steps"]

_MOVED = 1e-2
"""Of the range of an answer. Scales of a whole batch, as of dynamic integers, move it less."""


def are_steps(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    feed: Mapping[str, Array],
    answer: Array,
    output: str,
) -> bool:
    """Whether rows of an answer look at more than their own row of the inputs.

    Args:
        run: the original.
        feed: of one sample.
        answer: to it, [rows, ...] of the output.
        output: its name.
    """
    rows = len(answer) if answer.ndim else 1
    if rows < 2:
        return False
    # Where no input has as many rows, an answer's rows were made by the network.
    if not any(array.ndim and len(array) == rows for array in feed.values()):
        return True
    turned = {
        name: array[::-1].copy() if array.ndim and len(array) == rows else array
        for name, array in feed.items()
    }
    other = run(turned)[output]
    if other.shape != answer.shape:
        return True
    before, after = (x.astype(np.float64) for x in (answer, other[::-1]))
    return bool(np.abs(before - after).max() > _MOVED * (np.ptp(before) or 1.0))
