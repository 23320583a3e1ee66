"""What each part of a pipeline is really given, as samples for the part alone.

Of a loop the first step, one in the middle and the last are kept: the prompt as a whole, and
single tokens behind a short and a long past. Of a recording as many pieces as there is room for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxpress.data import Samples
from onnxpress.errors import DataError
from onnxpress.pipelines.fitting import Wiring
from onnxpress.pipelines.running import FORCED, Call, Running
from onnxpress.runtime import Feed, Session

__all__ = ["forced", "recorded"]

_STEPS_KEPT = 3
_PIECES_KEPT = 16
"""Of a recording at most, so that there are several of them."""


def forced(running: Running, samples: Samples) -> Samples:
    """The samples with the tokens that a loop is to follow; others as they are.

    Labels are of samples, and a loop or a stream answers at every step, so that they are left out.
    The rest of a sample behind its prompt where there is one, else what the pipeline generates.

    Args:
        running: the original.
        samples: inputs of the pipeline.

    Raises:
        DataError: a sample ends with its prompt.
    """
    loop = running.wiring.pipeline.loop
    if loop is None:
        last = running.wiring.pipeline.part(running.last)
        return samples if last.stream is None else replace(samples, labels=None)
    feeds: list[Feed] = []
    for number, feed in enumerate(samples.feeds):
        known = feed.get(loop.tokens)
        if loop.start is None and loop.prompt and known is not None:
            rest = known[:, loop.prompt : loop.prompt + loop.steps].astype(np.int64)
            if not rest.shape[1]:
                raise DataError(
                    f"{samples.source}: sample {number + 1} holds {known.shape[1]} tokens of "
                    f"{loop.tokens!r}, and all of them are its prompt ({loop.prompt}), so that "
                    "nothing follows; give longer samples, or a smaller `prompt` in [part.loop] "
                    "[D003]"
                )
            feeds.append({**feed, FORCED: rest})
            continue
        feeds.append({**feed, FORCED: running.tokens(feed)})
    return replace(samples, feeds=tuple(feeds), labels=None)


def recorded(
    wiring: Wiring, sessions: Mapping[str, Session], samples: Samples, part: str, most: int
) -> Samples:
    """The inputs of a part in all samples, those of one sample as a group.

    Args:
        wiring: of the pipeline.
        sessions: of all parts, those before compressed as they will be.
        samples: with the tokens to follow.
        part: its name.
        most: how many, about; of more, samples are left out evenly.
    """
    feeds: list[Feed] = []
    groups: list[int] = []
    described = wiring.pipeline.part(part)
    each = _STEPS_KEPT if described.loop is not None else 1
    if described.stream is not None:
        each = max(min(most // len(samples), _PIECES_KEPT), _STEPS_KEPT)
    number_of = min(len(samples), max(most // each, 1))
    places = np.linspace(0, len(samples) - 1, number_of).astype(int)
    for number, place in enumerate(dict.fromkeys(places.tolist())):
        calls: list[Call] = []

        def heard(call: Call, calls: list[Call] = calls) -> None:
            if call.part == part:
                calls.append(call)

        Running(wiring, sessions, heard).run(samples.feeds[place])
        chosen = _chosen(calls, each)
        feeds += [call.feed for call in chosen]
        groups += [number] * len(chosen)
    return Samples(
        tuple(feeds), None, f"{samples.source}, as part {part} is fed", np.asarray(groups, np.int64)
    )


def _chosen(calls: Sequence[Call], most: int) -> list[Call]:
    """A step in the middle, by which the part is timed, and some that lie evenly."""
    last = len(calls) - 1
    spread = np.linspace(0, last, max(most - 1, 2)).astype(int).tolist()
    places = dict.fromkeys((len(calls) // 2, *spread))
    return [calls[place] for place in places if 0 <= place < len(calls)]
