"""A number of samples, with their labels and groups where there are any."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxpress.errors import DataError
from onnxpress.runtime import Feed

__all__ = ["GROUPS", "LABELS", "Samples"]

LABELS = "__labels__"
"""Beside the inputs: an integer class for each sample, or for each row of it."""
GROUPS = "__groups__"
"""Beside the inputs: an integer or text for each sample; samples of one group stay together."""

Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked samples of one model.

    Attributes:
        feeds: one mapping of input name to array per run.
        labels: class numbers, one per sample `[n]` or one per row of each sample `[n, rows]`,
            or `None`.
        source: where they came from, for messages, recipes and reports.
        groups: numbers, `[n]`, the same for samples that must stay together when samples are
            split (of one patient, speaker or page); `None`: all are on their own.
        notes: what was assumed when they were read, in sentences for the user.
        places: where each stood in what was read; empty: they are all of it, in its order.
        rates: values a second of inputs that are fed recordings, by name.
        preparation: what prepares other files in the same way (`preparation`), where files were
            prepared; else empty.
        texts: the line that each was made of, where they were lines of text; else empty.
    """

    feeds: tuple[Feed, ...]
    labels: Integers | None
    source: str
    groups: Integers | None = field(default=None)
    notes: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    rates: Mapping[str, int] = field(default_factory=dict)
    preparation: Mapping[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)

    def take(self, indices: Sequence[int], source: str | None = None) -> "Samples":
        """The samples at `indices`, in that order."""
        chosen = list(indices)
        labels = None if self.labels is None else self.labels[chosen]
        groups = None if self.groups is None else self.groups[chosen]
        feeds = tuple(self.feeds[i] for i in chosen)
        places = tuple(self.place(i) for i in chosen)
        return replace(
            self,
            feeds=feeds,
            labels=labels,
            source=source or self.source,
            groups=groups,
            places=places,
            texts=tuple(self.texts[i] for i in chosen) if self.texts else (),
        )

    def place(self, index: int) -> int:
        """Where a sample stood in what was read."""
        return self.places[index] if self.places else index

    def assumed_beside(self, others: "Samples") -> list[str]:
        """The notes that do not stand among those of other samples too, but for where they lie."""
        known = {*others.notes, *(n.removeprefix(f"{others.source}: ") for n in others.notes)}
        own = f"{self.source}: "
        return [n for n in self.notes if not known & {n, n.removeprefix(own)}]

    def hold_out(self, share: float, seed: int) -> tuple["Samples", "Samples"]:
        """Split at random into (kept, held out), by whole groups.

        Raises:
            DataError: fewer than three samples, or all of one group.
        """
        if len(self) < 3:
            raise DataError(
                f"{self.source}: found {len(self)} sample(s), but a part is to be held out for "
                "the evaluation; give at least 3, or --evaluation data of their own [D011]"
            )
        held, kept = self.parts((share, 1 - share), seed)
        return kept, held.take(range(len(held)), f"{self.source} (held out)")

    def parts(self, shares: Sequence[float], seed: int) -> list["Samples"]:
        """Split at random into parts that have no group in common, at least one in each.

        Where groups are large, the sizes are as near to the shares as the order drawn allows.

        Args:
            shares: of each part; they are relative to their sum.
            seed: decides the split.

        Raises:
            DataError: fewer samples or groups than parts.
        """
        units = self._units()
        if len(units) < len(shares):
            kind = "sample(s)" if self.groups is None else f"group(s) in {GROUPS}"
            raise DataError(
                f"{self.source}: found {len(units)} {kind}, but they are to be split into "
                f"{len(shares)} parts; give at least {len(shares)}, or data of its own for each "
                "purpose [D011]"
            )
        drawn = [units[i] for i in np.random.default_rng(seed).permutation(len(units)).tolist()]
        sizes = np.cumsum([len(unit) for unit in drawn])
        ends = len(self) * np.cumsum(shares) / sum(shares)
        cuts = [0]
        for place, end in enumerate(ends[:-1].tolist(), 1):
            nearest = int(np.abs(sizes - end).argmin()) + 1
            left_for_others = len(drawn) - (len(shares) - place)
            cuts.append(min(max(nearest, cuts[-1] + 1), left_for_others))
        cuts.append(len(drawn))
        return [
            self.take(sorted(index for unit in drawn[start:end] for index in unit))
            for start, end in itertools.pairwise(cuts)
        ]

    def _units(self) -> list[list[int]]:
        """Indices that stay together, in the order of their first samples."""
        if self.groups is None:
            return [[index] for index in range(len(self))]
        units: dict[int, list[int]] = {}
        for index, group in enumerate(self.groups.tolist()):
            units.setdefault(group, []).append(index)
        return list(units.values())
