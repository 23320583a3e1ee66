"""Copies among samples: a bound counts a sample once, and what passes looked at judges nothing."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from onnxpress.data.samples import Samples
from onnxpress.runtime import Feed

__all__ = ["contents", "feeds_digest", "noting_shared", "shared", "without_copies"]

_LEAST = 3
"""Samples that can be divided; of fewer all are kept, and it is said."""


def without_copies(samples: Samples) -> Samples:
    """The samples without those that are equal to an earlier one, label included.

    Only where something is measured in floats: there equal samples are one that was saved twice
    and not two draws, as rows of a few categories may be.
    """
    if not any(array.dtype.kind == "f" for array in samples.feeds[0].values()):
        return samples
    first: dict[tuple[str, bytes], int] = {}
    for index, content in enumerate(contents(samples)):
        label = b"" if samples.labels is None else np.asarray(samples.labels[index]).tobytes()
        first.setdefault((content, label), index)
    copies = len(samples) - len(first)
    if not copies:
        return samples
    one = len(first) >= _LEAST
    said = (
        f"{copies} of {len(samples)} samples of {samples.source} are copies of others: "
        + ("they count once" if one else "bounds are better than what is known")
        + " [A002]"
    )
    kept = samples.take(sorted(first.values())) if one else samples
    return replace(kept, notes=(*samples.notes, said))


def noting_shared(judged: Samples, looked_at: Samples) -> Samples:
    """What judges, with a note where it holds samples that passes look at, in floats."""
    if not any(array.dtype.kind == "f" for array in judged.feeds[0].values()):
        return judged
    said = shared(judged, looked_at)
    return replace(judged, notes=(*judged.notes, said)) if said else judged


def shared(judged: Samples, looked_at: Samples) -> str:
    """That samples which judge are among those that passes look at, in words; empty: none is."""
    known = set(contents(looked_at))
    number = sum(content in known for content in contents(judged))
    if not number:
        return ""
    return (
        f"{number} of {len(judged)} samples of {judged.source} are in {looked_at.source} too: what "
        "passes have looked at must not judge them; take them out of one of the two [A001]"
    )


def contents(samples: Samples) -> list[str]:
    """A digest of each sample, without its label."""
    return [feeds_digest([feed]) for feed in samples.feeds]


def feeds_digest(feeds: Iterable[Feed]) -> str:
    """SHA-256 of names, types, shapes and values."""
    state = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            state.update(f"{name}|{array.dtype}|{array.shape}".encode())
            # The bytes of strings are the places in memory where they happen to lie.
            strings = array.dtype.kind == "O"
            values = repr(array.tolist()).encode() if strings else array.tobytes()
            state.update(values)
    return state.hexdigest()
