"""More samples from few: mixtures of two, λ·a + (1 − λ)·b (mixup, arXiv:1710.09412).

The teacher answers them as it answers the others: nothing has to be known about what they show.
"""

from collections.abc import Sequence

import numpy as np

from onnxpress.judge.roles import read_roles
from onnxpress.runtime import Feed

__all__ = ["mixed"]

_ENOUGH = 1024
"""Samples; of more none is made up."""
_MOST_TIMES = 3
"""As many as there are, at most."""


def mixed(feeds: Sequence[Feed], seed: int) -> tuple[Feed, ...]:
    """Mixtures of samples of one shape; none where there are enough, or inputs are no signals.

    Args:
        feeds: of the samples.
        seed: of what is mixed with what.
    """
    roles = read_roles(feeds)
    names = sorted(feeds[0])
    number = min(_MOST_TIMES * len(feeds), _ENOUGH - len(feeds))
    if number <= 0 or any(name not in roles.signals for name in names):
        return ()
    if any(feed[name].dtype.kind != "f" for feed in feeds for name in names):
        return ()
    rng = np.random.default_rng(seed)
    found = []
    for first, second in rng.integers(len(feeds), size=(number, 2)).tolist():
        one, other, share = feeds[first], feeds[second], rng.uniform(0, 1)
        if any(one[name].shape != other[name].shape for name in names):
            continue
        found.append(
            {n: (share * one[n] + (1 - share) * other[n]).astype(one[n].dtype) for n in names}
        )
    return tuple(found)
