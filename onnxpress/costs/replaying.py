"""A clock that remembers: what a search was told of two models is told again, for `--timing FILE`.

A search asks the clock which forms are faster, and the clock says something else each time. With
the answers kept, the same seed, model, samples and file give the same bytes. An answer belongs to a
pair of graphs by what their latency depends on (`model_digest`), not to their weights.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from onnxpress import model_file
from onnxpress.costs.keys import node_keys
from onnxpress.costs.predicting import model_digest
from onnxpress.costs.sizes import sizes_of
from onnxpress.costs.store import NOT_OURS
from onnxpress.costs.table import on_grid, this_machine
from onnxpress.errors import OutputError
from onnxpress.output_file import replace_file, rewriting
from onnxpress.runtime import Clock, Feed, Latency, Session, compare_latency

__all__ = ["RecordedClock", "for_judging"]

_FORMAT = "onnxpress timing 1"


@dataclass
class RecordedClock:
    """A `runtime.Clock` that measures only what it does not know.

    Attributes:
        known: by what was asked for, and pairs.
        clock: measures the rest.
        purpose: what is asked for, in front of a pair.
    """

    known: dict[str, Latency] = field(default_factory=dict)
    clock: Clock = compare_latency
    purpose: str = ""

    def judging(self) -> "RecordedClock":
        """The same for who judges: rounds that chose a model are not told to it."""
        return replace(self, purpose="judged ")

    @classmethod
    def of_file(cls, path: Path, clock: Clock = compare_latency) -> "RecordedClock":
        """With what a file holds; an empty one where there is no file.

        Raises:
            OutputError: what is there was not written by `to_json`.
        """
        try:
            return cls(_read(path), clock)
        except FileNotFoundError:
            return cls({}, clock)
        except (OSError, *NOT_OURS) as error:
            raise OutputError(
                f"--timing {path}: what is there is no table of times ({error}); give one that "
                "--timing wrote, or a new name [O004]"
            ) from error

    def __call__(
        self,
        reference: Session,
        model: Session,
        feed: Feed,
        model_feed: Feed | None = None,
        **limits: Any,  # noqa: ANN401 - rounds and seconds, as the clock's own
    ) -> Latency:
        """See `compare_latency`; figures lie on a grid that is coarser than its noise."""
        feeds = feed, feed if model_feed is None else model_feed
        key = self.purpose + " ".join(map(_digest, (reference, model), feeds))
        if key not in self.known:
            found = self.clock(reference, model, feed, model_feed, **limits)
            self.known[key] = Latency(*map(on_grid, asdict(found).values()))
        return self.known[key]

    def save(self, path: Path) -> None:
        """Write the answers into a file, together with those that others wrote since it was read.

        Of a pair that others measured too their answer stays, as what they wrote follows from it.

        Raises:
            OutputError: it cannot be written, or is something else now.
        """
        with rewriting(path):
            there = type(self).of_file(path)
            self.known.update(there.known)
            with replace_file(path) as temporary:
                temporary.write_text(self.to_json(), encoding="utf-8", newline="\n")

    def to_json(self) -> str:
        """All of it, and which machine wrote it; answers may be of others, and of other threads."""
        pairs = {key: asdict(self.known[key]) for key in sorted(self.known)}
        told = {"format": _FORMAT, "machine": asdict(this_machine()), "pairs": pairs}
        return json.dumps(told, indent=1) + "\n"


def for_judging(clock: Clock) -> Clock:
    """A clock whose rounds are others than those that chose."""
    return clock.judging() if isinstance(clock, RecordedClock) else clock


def _read(path: Path) -> dict[str, Latency]:
    """The answers in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else; likewise the others of `NOT_OURS`.
    """
    told = json.loads(path.read_text(encoding="utf-8"))
    if told["format"] != _FORMAT:
        raise ValueError(f"its format is {told['format']!r}")
    return {str(key): _latency(entry) for key, entry in told["pairs"].items()}


def _latency(entry: Mapping[str, float]) -> Latency:
    found = Latency(**{str(name): float(value) for name, value in entry.items()})
    if not all(0 < value < float("inf") for value in asdict(found).values()):
        raise ValueError("a time is no measurement")
    return found


_Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_digests: WeakKeyDictionary[Session, dict[_Shapes, str]] = WeakKeyDictionary()
"""Of open sessions, by the shapes of a feed: a search asks about the same ones again and again."""


def _digest(session: Session, feed: Feed) -> str:
    shapes = {name: array.shape for name, array in feed.items()}
    known = _digests.setdefault(session, {})
    key = tuple(sorted(shapes.items()))
    if key not in known:
        model = session.model
        graph = model_file.load(model) if isinstance(model, Path) else model
        known[key] = model_digest(node_keys(graph, sizes_of(graph, shapes)))
    return known[key]
