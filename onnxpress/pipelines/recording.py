"""What each part of a pipeline is really given, as samples for the part alone.

Of a loop the first step, one in the middle and the last are kept: the prompt as a whole, and
single tokens behind a short and a long past.
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


def forced(running: Running, samples: Samples) -> Samples:
    """The samples with the tokens that a loop is to follow; others as they are.

    The rest of a sample behind its prompt where there is one, else what the pipeline generates.

    Args:
        running: the original.
        samples: inputs of the pipeline.

    Raises:
        DataError: a sample ends with its prompt.
    """
    loop = running.wiring.pipeline.loop
    if loop is None:
        return samples
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
    each = _STEPS_KEPT if wiring.pipeline.part(part).loop is not None else 1
    number_of = min(len(samples), max(most // each, 1))
    places = np.linspace(0, len(samples) - 1, number_of).astype(int)
    for number, place in enumerate(dict.fromkeys(places.tolist())):
        calls: list[Call] = []

        def heard(call: Call, calls: list[Call] = calls) -> None:
            if call.part == part:
                calls.append(call)

        Running(wiring, sessions, heard).run(samples.feeds[place])
        chosen = _chosen(calls)
        feeds += [call.feed for call in chosen]
        groups += [number] * len(chosen)
    return Samples(
        tuple(feeds), None, f"{samples.source}, as part {part} is fed", np.asarray(groups, np.int64)
    )


def _chosen(calls: Sequence[Call]) -> list[Call]:
    """A step in the middle, by which the part is timed, the first and the last."""
    places = dict.fromkeys((len(calls) // 2, 0, len(calls) - 1))
    return [calls[place] for place in places if 0 <= place < len(calls)]
