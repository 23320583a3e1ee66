"""Copies among samples: a bound counts a sample once, and what passes looked at judges nothing."""

import hashlib
from dataclasses import replace

import numpy as np

from onnxpress.data.samples import Samples
from onnxpress.runtime import Feed

__all__ = ["noting_shared", "without_copies"]

_LEAST = 3
"""Samples that can be divided; of fewer all are kept, and it is said."""


def without_copies(samples: Samples) -> Samples:
    """The samples without those that are equal to an earlier one, label included.

    Only where something is measured in floats: there equal samples are one that was saved twice
    and not two draws, as rows of a few categories may be.
    """
    if not any(array.dtype.kind == "f" for array in samples.feeds[0].values()):
        return samples
    first: dict[tuple[bytes, bytes], int] = {}
    for index, feed in enumerate(samples.feeds):
        label = b"" if samples.labels is None else np.asarray(samples.labels[index]).tobytes()
        first.setdefault((_content(feed), label), index)
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
    """What judges, with a note where it holds samples that passes look at."""
    known = {_content(feed) for feed in looked_at.feeds}
    shared = sum(_content(feed) in known for feed in judged.feeds)
    if not shared or not any(array.dtype.kind == "f" for array in judged.feeds[0].values()):
        return judged
    said = (
        f"{shared} of {len(judged)} samples of {judged.source} are in {looked_at.source} too: what "
        "passes have looked at must not judge them; take them out of one of the two [A001]"
    )
    return replace(judged, notes=(*judged.notes, said))


def _content(feed: Feed) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(feed):
        array = feed[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return digest.digest()
