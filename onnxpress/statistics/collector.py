"""Collect statistics in one streaming run of the model over the samples.

Intermediate tensors are made graph outputs of a copy. What a run returns is reduced at once;
when the tensors of one sample exceed the memory limit, they are fetched in several runs of
that sample, so memory grows with neither the samples nor the model's depth.

A rewritten model can be observed beside the one it came from: then the same rows are drawn from
both, and E[x·x̂ᵀ] says how far what a layer is fed has moved.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from onnxpress.layers import Layer
from onnxpress.runtime import Array, Feed
from onnxpress.statistics.exposing import Observer, input_key
from onnxpress.statistics.reduction import Reduction
from onnxpress.statistics.store import Statistics

__all__ = ["FEWEST_SAMPLES", "RUN_BYTES", "Observations", "chunks_of", "collect"]

logger = logging.getLogger(__name__)

FEWEST_SAMPLES = 8
"""That are observed although no time is left: ranges of fewer say nothing."""
RUN_BYTES = 192_000_000
"""Of tensors of one run that are held at a time, about."""
FEWEST_FETCHED = 16
"""Tensors of a run while nothing is known of their sizes."""


Take = Callable[[str, Array | None, Array | None], None]
"""Told a name, and a tensor of a model and of its reference."""


class Feeds(Protocol):
    """What to run a model on, a feed a sample; it is gone through once."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[Feed]:
        """In order."""


@dataclass(frozen=True, slots=True)
class Observations:
    """What a pass wants to see of a model.

    Attributes:
        tensors: names of tensors whose range and histogram are wanted.
        layers: names of layers whose input rows are wanted.
        gram: whether the layers' Gram matrices are wanted too.
    """

    tensors: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    gram: bool = False

    @classmethod
    def union(cls, wanted: "Iterable[Observations]") -> "Observations":
        """All that several passes want to see."""
        found = list(wanted)
        return cls(
            frozenset().union(*(one.tensors for one in found)),
            frozenset().union(*(one.layers for one in found)),
            gram=any(one.gram for one in found),
        )

    def covers(self, other: "Observations") -> bool:
        """Whether all that another one names is seen with this one."""
        return (
            self.tensors >= other.tensors
            and self.layers >= other.layers
            and (self.gram or not other.gram)
        )


def collect(
    model: ir.Model,
    layers: Sequence[Layer],
    samples: Feeds,
    wanted: Observations,
    *,
    reference: ir.Model | None = None,
    reference_samples: Feeds | None = None,
    seed: int = 0,
    threads: int = 0,
    optimize: bool = True,
    over: Callable[[], bool] = lambda: False,
    passing: frozenset[str] = frozenset(),
    take: Take = lambda *_: None,
) -> Statistics:
    """Run `model` over `samples` and reduce what `wanted` names.

    Args:
        model: not changed.
        layers: the layers (`layers.find_layers`) of the model, or of `reference`.
        samples: calibration samples.
        wanted: what cannot be observed (`exposing.observable`) is left out.
        reference: the model that `model` was rewritten from; layers whose input it has under
            the same name are compared row by row.
        reference_samples: what to run it on, where that is not what `model` is run on.
        seed: which rows of a layer are drawn.
        threads: of onnxruntime.
        optimize: whether onnxruntime may fuse nodes (`Observer`).
        over: asked after each sample from the eighth on: whether to end with what was seen.
        passing: names of tensors of the main graph that `take` is given, sample after sample.
        take: told a name, and the tensor in both models; `None` where one does not have it.
    """
    read = {layer.name: input_key(layer) for layer in layers if layer.name in wanted.layers}
    names = sorted({*wanted.tensors, *read.values(), *passing})
    observer = Observer(model, names, threads=threads, optimize=optimize)
    watched: dict[str, list[Layer]] = {}
    for layer in layers:
        if read.get(layer.name) in observer.names:
            watched.setdefault(read[layer.name], []).append(layer)
    seen = watched.keys() | (wanted.tensors & observer.names)
    other = None
    if reference is not None:
        beside = sorted(observer.names | passing)
        other = Observer(reference, beside, threads=threads, optimize=optimize)
    names = sorted(observer.names | (passing & other.names if other is not None else frozenset()))
    reduction = Reduction(
        wanted.tensors & observer.names,
        watched,
        len(samples),
        seed,
        gram=wanted.gram,
        in_halves=reference is not None,
    )
    chunks: list[list[str]] = []
    done = 0
    feeds = zip(samples, reference_samples or samples, strict=True)
    for done, (feed, other_feed) in enumerate(feeds, 1):
        sizes: dict[str, int] = {}
        for chunk in chunks or _growing_chunks(names, sizes):
            arrays = observer.run(feed, chunk)
            theirs = {} if other is None else other.run(other_feed, chunk)
            for name in chunk:
                given = arrays.get(name, [])
                sizes[name] = sum(array.nbytes for array in given)
                if name in seen:
                    reduction.hold(name, given, theirs.get(name), done)
                if name in passing:
                    take(name, *(found.get(name, [None])[0] for found in (arrays, theirs)))
        chunks = chunks or chunks_of(names, sizes, RUN_BYTES)
        if FEWEST_SAMPLES <= done < len(samples) and over():
            logger.warning("time is short: statistics are of %d of %d samples", done, len(samples))
            break
    return reduction.finish(done, observer.lost)


def _growing_chunks(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Chunks of a first sample: few tensors, then twice as many each time as far as memory goes.

    Args:
        names: in order.
        sizes: bytes of those that were fetched; it grows meanwhile.
    """
    start, count = 0, FEWEST_FETCHED
    while start < len(names):
        yield list(names[start : start + count])
        start += count
        mean = sum(sizes.values()) // max(len(sizes), 1)
        count = max(FEWEST_FETCHED, min(2 * count, RUN_BYTES // max(mean, 1)))


def chunks_of(names: Sequence[str], sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Names in groups of at most `limit` bytes, or of one tensor that is larger."""
    chunks: list[list[str]] = [[]]
    held = 0
    for name in names:
        if chunks[-1] and held + sizes[name] > limit:
            chunks.append([])
            held = 0
        chunks[-1].append(name)
        held += sizes[name]
    return chunks
