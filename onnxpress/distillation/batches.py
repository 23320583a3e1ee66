"""Mini-batches of samples: laid together where the model takes several at once, else one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.errors import ModelError
from onnxpress.runtime import Array, Feed, Session

__all__ = ["Batches", "laid_together", "takes_several"]

_AGREES = 1e-3
"""Of the largest answer: what several samples at once may differ from each alone."""


def laid_together(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays one behind the other along the first axis."""
    if len(feeds) == 1:
        return dict(feeds[0])
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def takes_several(sessions: Sequence[Session], feeds: Sequence[Feed]) -> bool:
    """Whether models answer samples laid together as they answer each alone.

    Args:
        sessions: of the models.
        feeds: two of them are tried.
    """
    first = feeds[0]
    alike = [feed for feed in feeds if _shapes(feed) == _shapes(first)][:2]
    if len(alike) < 2 or any(array.ndim == 0 for array in first.values()):
        return False
    for session in sessions:
        try:
            alone = laid_together([session.run(feed) for feed in alike])
            together = session.run(laid_together(alike))
        except (ModelError, ValueError):
            return False
        if not all(_agrees(alone[name], together[name]) for name in alone):
            return False
    return True


def _shapes(feed: Feed) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, array.shape) for name, array in sorted(feed.items()))


def _agrees(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.ndim == 0:
        return False
    if one.dtype.kind != "f":
        return True
    size = max(float(np.abs(one).max(initial=0)), 1e-6)
    return bool(np.allclose(one.astype(np.float64), other, rtol=0, atol=_AGREES * size))


@dataclass(frozen=True)
class Batches:
    """Samples with the teacher's answers, drawn in batches.

    Attributes:
        feeds: of the samples.
        answers: of the teacher to each, by the names that the training graph takes them by.
        size: how many are drawn at once.
        together: whether they are laid together.
    """

    feeds: tuple[Feed, ...]
    answers: tuple[Mapping[str, Array], ...]
    size: int
    together: bool

    def draw(self, rng: np.random.Generator) -> list[dict[str, Array]]:
        """One batch: the feeds of the runs that it takes."""
        if not self.together:
            chosen = rng.choice(len(self.feeds), min(self.size, len(self.feeds)), replace=False)
            return [self._one(index) for index in chosen.tolist()]
        # Samples of one shape, as often as there are such.
        shape = _shapes(self.feeds[int(rng.integers(len(self.feeds)))])
        alike = [i for i, feed in enumerate(self.feeds) if _shapes(feed) == shape]
        chosen = rng.choice(alike, min(self.size, len(alike)), replace=False)
        return [laid_together([self._one(index) for index in chosen.tolist()])]

    def every(self) -> Iterator[tuple[int, dict[str, Array]]]:
        """All samples once, each run with the number of samples in it."""
        waiting: dict[object, list[int]] = {}
        for index, feed in enumerate(self.feeds):
            key = _shapes(feed) if self.together else index
            waiting.setdefault(key, []).append(index)
        for indices in waiting.values():
            for start in range(0, len(indices), self.size):
                part = indices[start : start + self.size]
                yield len(part), laid_together([self._one(index) for index in part])

    def _one(self, index: int) -> dict[str, Array]:
        return {**self.feeds[index], **self.answers[index]}
