"""Run a changed model only from where it differs: what comes before is held for a few samples.

Where errors at the outputs are measured site by site, each changed model computes up to its site
what the model before does. That is cut into blocks where little crosses (`blocks`), what crosses is
computed once for the samples that are used, and of a changed model the part behind is run. What it
computes alike is told from its nodes, and not from the sites: from the inputs on, a node is alike
that has the same names, attributes and constants and reads only what is alike.

onnxruntime fuses less where tensors are handed over, so that the last bits may differ.
"""

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress.blocks import Held, PartFeeds, Parts, cut
from onnxpress.graph import RANDOM_OPERATORS, bodies
from onnxpress.model_file import weight_bytes
from onnxpress.runtime import Array, Feed, Session

__all__ = ["Prefix", "Resumed", "computed_alike"]

_BLOCKS = 16
"""By the bytes of their weights: on average half of one is run beside what is asked for."""
_HELD_BYTES = 256_000_000
"""Of all that is held, as wide as the first sample has it, the narrowest first; what others have
wider goes to files."""
_WIDEST_BYTES = 4_000_000
"""Of one sample, at one place."""


class Resumed:
    """The part of a changed model behind what is held."""

    def __init__(self, session: Session, feeds: PartFeeds, samples: Sequence[Feed]) -> None:
        """Take an open session of the part.

        Args:
            session: of the part.
            feeds: what it is run on, by the numbers of samples.
            samples: of the whole model.
        """
        self._session, self._feeds = session, feeds
        self._numbers = {id(sample): number for number, sample in enumerate(samples)}

    def run(self, feed: Feed, /) -> dict[str, Array]:
        """The outputs of the whole model for one of the samples.

        Raises:
            ModelError: onnxruntime fails on it.
        """
        return self._session.run(self._feeds.of(self._numbers[id(feed)]))


class Prefix:
    """A model before it is changed, held at some places for the first samples."""

    def __init__(self, model: ir.Model, samples: Sequence[Feed], *, threads: int = 0) -> None:
        """Look where it may be held; nothing is run yet.

        Args:
            model: not changed, here or later.
            samples: of its inputs.
            threads: of onnxruntime.
        """
        self._model, self._samples, self._threads = model, samples, threads
        blocks = cut(model, weight_bytes(model) // _BLOCKS, widest_bytes=_WIDEST_BYTES).blocks
        self._places = frozenset(name for block in blocks for name in block.inputs)
        self._held, self._count = Held(_HELD_BYTES), 0

    def resumed(self, changed: ir.Model, count: int) -> Resumed | None:
        """The rest of a changed model, or `None` where nothing is held of what it computes alike.

        Args:
            changed: with the same inputs and outputs; not changed.
            count: of samples that it is run on, from the first on.

        Raises:
            ModelError: onnxruntime does not load or run one of both.
        """
        known = computed_alike(self._model, changed) & self._places if self._places else None
        if not known:
            return None
        self._hold(min(count, len(self._samples)))
        held = self._held.names()
        part = Parts(changed).part(known & held, list(changed.graph.outputs))
        given = [value for value in part.graph.inputs if value.name in held]
        if not given:
            return None
        for value in given:
            arrays = [self._held.get(value.name or "", at) for at in range(self._count)]
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.from_numpy(arrays[0].dtype))
            shapes = {array.shape for array in arrays}
            value.shape = ir.Shape(arrays[0].shape) if len(shapes) == 1 else None
        samples = self._samples[: self._count]
        names = [value.name or "" for value in part.graph.inputs]
        session = Session(part, threads=self._threads)
        return Resumed(session, PartFeeds(names, samples, self._held), samples)

    def _hold(self, count: int) -> None:
        """Run the model over so many samples, where that was not done."""
        if self._count >= count:
            return
        self._held.close()
        parts = Parts(self._model)
        names = sorted(self._places & parts.values.keys())
        part = parts.part((), [parts.values[name] for name in names])
        session = Session(part, threads=self._threads, arena=False)
        inputs = [value.name or "" for value in part.graph.inputs]
        feeds = PartFeeds(inputs, self._samples[:count], self._held)
        first = session.run(feeds.of(0))
        left, kept = _HELD_BYTES // count, []
        for name in sorted(names, key=lambda name: (first[name].nbytes, name)):
            left -= first[name].nbytes
            kept += [name] if left >= 0 else []
        # onnxruntime takes no names for all of them.
        for feed in feeds if kept else ():
            for name, array in session.run(feed, kept).items():
                self._held.add(name, array)
        self._count = count


def computed_alike(before: ir.Model, after: ir.Model) -> frozenset[str]:
    """Names of tensors of the main graph that both models compute in the same way.

    Nodes that draw random numbers, have bodies or call functions count as different.

    Args:
        before: a model, its nodes in topological order.
        after: another one, made of it; likewise.
    """
    alike = {v.name for v in before.graph.inputs} & {v.name for v in after.graph.inputs}
    for name, value in after.graph.initializers.items():
        twin = before.graph.initializers.get(name)
        if twin is not None and twin.const_value is value.const_value:
            alike.add(name)
        else:
            # An input may have a default, and that another value.
            alike.discard(name)
    made = {node.outputs[0].name: node for node in before.graph if node.outputs}
    functions = before.functions.keys() | after.functions.keys()
    for node in after.graph:
        twin_node = made.get(node.outputs[0].name) if node.outputs else None
        if (
            twin_node is not None
            and node.op_type not in RANDOM_OPERATORS
            and node.op_identifier() not in functions
            and all(value is None or value.name in alike for value in node.inputs)
            and _same(twin_node, node)
        ):
            alike.update(value.name for value in node.outputs)
    return frozenset(name for name in alike if name)


def _same(one: ir.Node, other: ir.Node) -> bool:
    """Whether two nodes differ in nothing but what stands behind the names they read."""
    if one.op_identifier() != other.op_identifier() or bodies(one) or bodies(other):
        return False
    reads, makes = (
        [[None if value is None else value.name for value in values] for values in pair]
        for pair in ((one.inputs, other.inputs), (one.outputs, other.outputs))
    )
    if reads[0] != reads[1] or makes[0] != makes[1]:
        return False
    return one.attributes.keys() == other.attributes.keys() and all(
        attribute is other.attributes[name]
        or ir.to_proto(attribute) == ir.to_proto(other.attributes[name])
        for name, attribute in one.attributes.items()
    )
