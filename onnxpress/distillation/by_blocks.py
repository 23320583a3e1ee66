"""Train a student block by block: each gives what the teacher's gives, on the student's own inputs.

Block reconstruction (BRECQ, arXiv:2102.05426): a block ends where one tensor is all that what
follows needs of trained layers, so residual connections stay inside; its loss is the squared
difference from the teacher's tensor of the same name over that one's variance. What blocks before
lost, a later one makes up for. Memory is that of one block's ends for all samples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress.blocks.extracting import Parts
from onnxpress.blocks.reading import constant_values, reads
from onnxpress.data import Samples
from onnxpress.distillation.batches import takes_several
from onnxpress.distillation.losses import Target, spread_of
from onnxpress.distillation.matching import Pair
from onnxpress.distillation.parameters import write_values
from onnxpress.distillation.problem import posed
from onnxpress.distillation.training import Schedule, train
from onnxpress.errors import ModelError
from onnxpress.graph import is_standard
from onnxpress.layers import WEIGHT_INPUTS
from onnxpress.progress import Tell, part, unheard
from onnxpress.runtime import Array, Feed, Session

__all__ = ["BlockResult", "borders", "reconstructed"]

_HELD_BYTES = 1_000_000_000
"""Of tensors at one border, of teacher and student together."""


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What became of a block.

    Attributes:
        end: the tensor that it gives.
        before: its loss on samples that choose, as it was.
        after: of the best state.
    """

    end: str
    before: float
    after: float


def borders(model: ir.Model) -> list[str]:
    """Names of tensors that end a block with a layer, in order; outputs are not among them."""
    graph = model.graph
    constants = constant_values(graph)
    fixed = {*constants, *graph.initializers.values()}
    waiting: dict[ir.Value, int] = {}
    behind: set[ir.Value] = set()
    found: list[str] = []
    last, has_layer = "", False
    for node in graph:
        if all(value in constants for value in node.outputs):
            continue
        if _is_layer(node, fixed):
            if has_layer and last:
                found.append(last)
                last, has_layer = "", False
            has_layer = True
            behind.update(node.outputs)
        elif any(value in behind for value in reads(node)):
            behind.update(node.outputs)
        for value in set(reads(node)) & waiting.keys():
            waiting[value] -= 1
            if not waiting[value]:
                del waiting[value]
        for value in node.outputs:
            readers = len({reader for reader, _ in value.uses()}) + value.is_graph_output()
            if value in behind and readers:
                waiting[value] = readers
        if len(waiting) == 1 and has_layer:
            (only,) = waiting
            last = "" if only.is_graph_output() else only.name or ""
    return found


def _is_layer(node: ir.Node, fixed: set[ir.Value]) -> bool:
    places = WEIGHT_INPUTS.get(node.op_type, ()) if is_standard(node) else ()
    return any(place < len(node.inputs) and node.inputs[place] in fixed for place in places)


def reconstructed(
    pair: Pair,
    sets: tuple[Samples, Samples],
    schedule: Schedule,
    *,
    threads: int,
    progress: Tell = unheard,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Pair, tuple[BlockResult, ...]]:
    """The pair with a student whose blocks were trained one after the other.

    Args:
        pair: teacher and student; not changed.
        sets: samples to train with, and to choose by.
        schedule: of each block; its seconds are those of all.
        threads: of onnxruntime.
        progress: told which block is trained, and how far that is.
        stop: asked before each step whether to end with what there is.
    """
    student = pair.student_model.clone()
    ours, theirs = Parts(student), Parts(pair.teacher_model)
    ends = [name for name in borders(student) if name in theirs.values]
    feeds = [*sets[0].feeds, *sets[1].feeds]
    found: list[BlockResult] = []
    walked = _Walked(feeds, threads)
    seconds = None if schedule.seconds is None else schedule.seconds / max(len(ends), 1)
    own = replace(schedule, seconds=seconds)
    for number, end in enumerate(ends, 1):
        if stop():
            break
        block = walked.part(ours, end)
        answers = walked.answers(theirs, block, end)
        if answers is None:
            # Another tensor by the same name, or more than memory is meant for.
            continue
        inputs = list(walked.inputs(block))
        share = part(progress, (number - 1) / len(ends), number / len(ends))
        say = _prefixed(share, f"block {number} of {len(ends)}")
        given = inputs, answers
        result = _trained(student, block, given, len(sets[0]), end, own, threads, say, stop)
        found += [] if result is None else [result]
        # The block as it is now.
        walked.advance(ours, end, answers)
    session = Session(student, threads=threads, name="the student")
    return replace(pair, student=session, student_model=student), tuple(found)


def _prefixed(progress: Tell, block: str) -> Tell:
    return lambda told: progress(replace(told, stage=f"{block}: {told.stage}"))


def _trained(
    student: ir.Model,
    block: ir.Model,
    given: tuple[list[Feed], list[Array]],
    training: int,
    end: str,
    schedule: Schedule,
    threads: int,
    progress: Tell,
    stop: Callable[[], bool],
) -> BlockResult | None:
    """Train one block and write it into the student; `None` where nothing of it can be."""
    inputs, tensors = given
    target = Target(end, "distill_target", None, probabilities=False, weight=spread_of(tensors))
    session = Session(block, threads=threads, name="a block")
    together = takes_several((session,), inputs)
    answers = [{end: tensor} for tensor in tensors]
    parts = tuple(inputs[:training]), tuple(inputs[training:])
    try:
        problem = posed(block, [target], parts, answers, 1.0, threads, together=together)
    except ModelError:
        return None
    trained = train(problem, schedule, progress=progress, stop=stop)
    write_values(student, problem.parameters, trained.values)
    return BlockResult(end, trained.before, trained.best)


class _Walked:
    """Teacher and student on their way over all samples, from border to border."""

    def __init__(self, feeds: Sequence[Feed], threads: int) -> None:
        self._feeds, self._threads = feeds, threads
        self._at = ""
        self._ours: list[Array] = []
        self._theirs: list[Array] = []

    def part(self, parts: Parts, end: str) -> ir.Model:
        """From where they are to a border."""
        model = parts.part({self._at}, [parts.values[end]])
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.FLOAT)
        return model

    def inputs(self, part: ir.Model, *, theirs: bool = False) -> Iterator[Feed]:
        """What a part is run on, of each sample."""
        names = [value.name or "" for value in part.graph.inputs]
        held = self._theirs if theirs else self._ours
        for number, feed in enumerate(self._feeds):
            known: Mapping[str, Array] = {self._at: held[number], **feed} if held else feed
            yield {name: known[name] for name in names}

    def answers(self, parts: Parts, ours: ir.Model, end: str) -> list[Array] | None:
        """The teacher's tensors at a border.

        `None` where they take more memory than is meant, or the student's differ in shape: what has
        been pruned has another tensor by the same name.

        Args:
            parts: of the teacher.
            ours: the student's block.
            end: the border.
        """
        found = self._run(self.part(parts, end), end, theirs=True)
        session = Session(ours, threads=self._threads, name="a block")
        first = session.run(next(iter(self.inputs(ours))))[end]
        if first.shape != found[0].shape:
            return None
        size = sum(array.nbytes for array in found)
        floats = all(array.dtype == np.float32 for array in found)
        return found if floats and 2 * size <= _HELD_BYTES else None

    def advance(self, parts: Parts, end: str, answers: list[Array]) -> None:
        """Go on to a border."""
        self._ours = self._run(self.part(parts, end), end, theirs=False)
        self._at, self._theirs = end, answers

    def _run(self, part: ir.Model, end: str, *, theirs: bool) -> list[Array]:
        session = Session(part, threads=self._threads, name="a block")
        return [session.run(feed)[end] for feed in self.inputs(part, theirs=theirs)]
