"""Take a network over all samples from boundary to boundary, each part of it run once.

At a boundary the tensors that what follows still needs are held for every sample; to know more of
the network, only the part behind the boundary is run. The way back from what is wanted ends where
something is held, and onnxruntime fuses nothing unless it is asked to, so that nothing depends on
where the boundary lies but the time it takes.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.blocks.extracting import Parts
from onnxpress.blocks.holding import HELD_BYTES, Held
from onnxpress.errors import ModelError
from onnxpress.graph import node_label
from onnxpress.runtime import Array, Feed, Session

__all__ = ["PartFeeds", "Walk", "first_nan", "has_nan"]

logger = logging.getLogger(__name__)


class PartFeeds:
    """What to run a part on: inputs of the model, and what is held at its boundary."""

    def __init__(self, names: Iterable[str], samples: Sequence[Feed], held: Held) -> None:
        """Look at samples and what is held of them; nothing is read yet."""
        self._names, self._samples, self._held = tuple(names), samples, held

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Feed]:
        return map(self.of, range(len(self)))

    def of(self, number: int) -> Feed:
        """Of a sample, by its number."""
        held, sample = self._held.names(), self._samples[number]
        return {
            # An input with a default need not be in a sample.
            name: self._held.get(name, number) if name in held else sample[name]
            for name in self._names
            if name in held or name in sample
        }


class Walk:
    """A network on its way over all samples.

    Attributes:
        held: at the boundary that was reached last.
    """

    def __init__(
        self,
        samples: Sequence[Feed],
        *,
        threads: int = 0,
        limit_bytes: int = HELD_BYTES,
        optimize: bool = False,
    ) -> None:
        """Stand before the first node.

        Args:
            samples: of the model's inputs.
            threads: of onnxruntime.
            limit_bytes: in memory at a boundary; what is more goes to temporary files.
            optimize: whether onnxruntime may fuse nodes between two boundaries.
        """
        self._samples, self._threads, self._optimize = samples, threads, optimize
        self.held = Held(limit_bytes)

    def part(self, parts: Parts, wanted: Iterable[str]) -> tuple[ir.Model, PartFeeds]:
        """From the boundary to what is wanted, and what to run it on.

        Args:
            parts: of the network as it is now; up to the boundary it computes what it did.
            wanted: names of tensors of its main graph.
        """
        held = self.held.names()
        model = parts.part(held, [parts.values[name] for name in wanted])
        for value in model.graph.inputs:
            if value.type is None and value.name in held:
                dtype = self.held.get(value.name, 0).dtype
                value.type = ir.TensorType(ir.DataType.from_numpy(dtype))
        names = [value.name or "" for value in model.graph.inputs]
        return model, PartFeeds(names, self._samples, self.held)

    def advance(self, parts: Parts, names: Iterable[str], later: Iterable[str]) -> str:
        """Go on to a boundary.

        Args:
            parts: as for `part`.
            names: of tensors that may be held there; what the network does not have is left out.
            later: of tensors behind the boundary that will be wanted.

        Returns:
            Where NaN begins on the way, in words; empty where nothing new that is held has any.

        Raises:
            ModelError: onnxruntime fails on the network.
            OutputError: the disk is full.
        """
        needed = self.needed(parts, names, later)
        new = sorted(needed - self.held.names())
        origin = ""
        if new:
            model, feeds = self.part(parts, new)
            session = Session(model, threads=self._threads, arena=False, optimize=self._optimize)
            broken = False
            for feed in feeds:
                for name, array in session.run(feed, new).items():
                    self.held.add(name, array)
                    broken = broken or has_nan(array)
            origin = first_nan(model, feeds, threads=self._threads) if broken else ""
        self.keep(needed)
        return origin

    def needed(self, parts: Parts, names: Iterable[str], later: Iterable[str]) -> frozenset[str]:
        """Which tensors have to be held to go on from a boundary, as for `advance`."""
        known = self.held.names()
        offered = [parts.values[name] for name in names if name in parts.values]
        can = {value.name or "" for value in offered if value.producer() and _is_tensor(value)}
        return parts.frontier(known | can, [parts.values[name] for name in later])

    def keep(self, needed: frozenset[str]) -> None:
        """Forget what is held beside."""
        for name in sorted(self.held.names() - needed):
            self.held.drop(name)


def _is_tensor(value: ir.Value) -> bool:
    """As far as the model says; a rewritten one may not say it of all its tensors."""
    return bool(value.name) and (value.type is None or isinstance(value.type, ir.TensorType))


def has_nan(array: Array) -> bool:
    """Whether there is one in it."""
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def first_nan(model: ir.Model, feeds: Iterable[Feed], *, threads: int = 0) -> str:
    """The node and the first sample with which it makes NaN of what has none, in words.

    Args:
        model: a part of a network; not changed.
        feeds: what to run it on.
        threads: of onnxruntime.

    Returns:
        Empty where NaN comes in from outside, or none is found.
    """
    copy = model.clone()
    present = {value.name for value in copy.graph.outputs}
    made = [value for node in copy.graph for value in node.outputs if _is_tensor(value)]
    if not made:
        return ""
    copy.graph.outputs.extend(value for value in made if value.name not in present)
    try:
        session = Session(copy, threads=threads, arena=False, optimize=False)
        for number, feed in enumerate(feeds, 1):
            if any(map(has_nan, feed.values())):
                continue
            found = session.run(feed, [value.name or "" for value in made])
            for value in made:
                node = value.producer()
                if node is not None and has_nan(found[value.name or ""]):
                    return f"{node_label(node)} with sample {number}"
    except ModelError as error:
        logger.info("where NaN comes from is not known: %s", error)
    return ""
