"""What a loop generates held against what is right, which labels say: the error rate of tokens.

    rate = Σ edit distance(generated, label) / Σ length(label)      over all samples

It is a word error rate where a token is a word, a character error rate where it is a letter
(Levenshtein 1966; as NIST's `sclite` counts: substitutions, deletions and insertions, pooled). A
sentence ends with the first token that ends the loop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.data import Samples
from onnxpress.errors import DataError
from onnxpress.judge import Budget
from onnxpress.judge.bounds import bootstrap_bounds, share_upper
from onnxpress.judge.budget import DEFAULT_MAX_DROP
from onnxpress.judge.metrics import edit_distance
from onnxpress.pipelines.running import FORCED, Running
from onnxpress.runtime import Feed

__all__ = ["Integers", "Transcripts", "points_of", "transcripts_of"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Transcripts:
    """Samples with what should be generated of each.

    Attributes:
        feeds: inputs of the pipeline.
        right: tokens of each, without the end.
        end: tokens that end a sentence.
        original: wrong tokens of the original, `[n]`.
    """

    feeds: tuple[Feed, ...]
    right: tuple[tuple[int, ...], ...]
    end: tuple[int, ...]
    original: Integers

    @property
    def number(self) -> int:
        """Of tokens that should be generated."""
        return sum(map(len, self.right))

    def wrong(self, running: Running) -> Integers:
        """Tokens to replace, to put in or to take out of what is generated, `[n]`."""
        return _wrong(running, self.feeds, self.right, self.end)

    def rate(self, wrong: Integers) -> float:
        """Percent of the tokens that should be generated; may be over 100."""
        return 100 * float(wrong.sum()) / self.number

    def rise(self, wrong: Integers) -> float:
        """Points by which the rate is higher than the original's; below 0: lower."""
        return self.rate(wrong) - self.rate(self.original)

    def spent(self, running: Running, budget: Budget) -> float:
        """The share of the points that may be lost; infinite where none may."""
        rise, allowed = max(self.rise(self.wrong(running)), 0.0), points_of(budget)
        return rise / allowed if allowed else math.inf if rise else 0.0

    def one(self, budget: Budget) -> float:
        """The share of the points that may be lost which a single token is."""
        allowed = points_of(budget)
        return 100 / self.number / allowed if allowed else math.inf

    def most(self, wrong: Integers, confidence: float) -> float:
        """Upper bound of `rise`, at least 0, by samples drawn again in pairs (`judge.bounds`).

        Where few texts differ, those drawn again are too alike to show that fewer are wrong.
        """
        lengths = np.array([len(right) for right in self.right])
        more = wrong - self.original

        def points(chosen: npt.NDArray[np.int64]) -> float:
            return 100 * float(more[chosen].sum()) / max(int(lengths[chosen].sum()), 1)

        if not more.any():
            # A loss too rare to be seen in so many samples, each as long as the mean one.
            return 100 * share_upper(0, len(more), confidence)
        return max(bootstrap_bounds(points, len(more), confidence)[1], 0.0)


def transcripts_of(running: Running, samples: Samples) -> Transcripts | None:
    """Of labelled samples of a loop; `None`: there is nothing to hold what is generated against.

    Args:
        running: the original.
        samples: labels are tokens, `[n, length]`, in front of what ends them or of negative
            numbers, which fill rows up; or one token each, `[n]`.

    Raises:
        DataError: labels are no tokens, or of batches, whose texts they do not tell apart.
    """
    loop = running.wiring.pipeline.loop
    if loop is None or samples.labels is None:
        return None
    rows = samples.labels.reshape(len(samples), -1)
    right = tuple(_text(row.tolist(), loop.end) for row in rows)
    if not any(right):
        raise DataError(
            f"{samples.source}: __labels__ holds no token in front of the end "
            f"({', '.join(map(str, loop.end)) or 'none'}) or of a negative number in any of "
            f"{len(samples)} samples; expected what should be generated, [n, tokens], or leave "
            "them out [D006]"
        )
    feeds = tuple({n: x for n, x in feed.items() if n != FORCED} for feed in samples.feeds)
    return Transcripts(feeds, right, loop.end, _wrong(running, feeds, right, loop.end))


def points_of(budget: Budget) -> float:
    """Points by which the rate may rise."""
    return DEFAULT_MAX_DROP if budget.max_drop is None else budget.max_drop


def _wrong(
    running: Running,
    feeds: Sequence[Feed],
    right: Sequence[Sequence[int]],
    end: tuple[int, ...],
) -> Integers:
    found = []
    for feed, wanted in zip(feeds, right, strict=True):
        tokens = running.tokens(feed)
        if len(tokens) != 1:
            raise DataError(
                f"{running.wiring.pipeline.source}: a sample makes {len(tokens)} texts at once, "
                "and __labels__ is of one text a sample; give samples of one, or leave the "
                "labels out [D006]"
            )
        found.append(edit_distance(_text(tokens[0].tolist(), end), wanted))
    return np.array(found, np.int64)


def _text(tokens: Sequence[int], end: tuple[int, ...]) -> tuple[int, ...]:
    """What stands in front of the first end or filling."""
    stops = [place for place, token in enumerate(tokens) if token in end or token < 0]
    return tuple(tokens[: stops[0]] if stops else tokens)
