"""A number of samples, with their labels where there are any."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.errors import DataError
from onnxpress.runtime import Feed

__all__ = ["LABELS", "Samples"]

LABELS = "__labels__"


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked samples of one model.

    Attributes:
        feeds: one mapping of input name to array per run.
        labels: class numbers, one per sample, or `None`.
        source: where they came from, for messages, recipes and reports.
    """

    feeds: tuple[Feed, ...]
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None
    source: str

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)

    def take(self, indices: Sequence[int], source: str | None = None) -> "Samples":
        """The samples at `indices`, in that order."""
        labels = None if self.labels is None else self.labels[list(indices)]
        return Samples(tuple(self.feeds[i] for i in indices), labels, source or self.source)

    def hold_out(self, share: float, seed: int) -> tuple["Samples", "Samples"]:
        """Split at random into (kept, held out).

        Raises:
            DataError: fewer than three samples.
        """
        if len(self) < 3:
            raise DataError(
                f"{self.source}: found {len(self)} sample(s), but a third is to be held out for "
                "the evaluation; give at least 3, or --evaluation data of their own"
            )
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        held = max(1, round(len(self) * share))
        return (
            self.take(sorted(order[held:])),
            self.take(sorted(order[:held]), f"{self.source} (a third held out)"),
        )
