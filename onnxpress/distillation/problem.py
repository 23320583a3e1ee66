"""What is minimized over what: the loss of a student with its gradients, and batches of samples."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress.blocks.sizes import with_types
from onnxpress.conversion.opset import raise_opset
from onnxpress.data import Samples
from onnxpress.distillation.batches import Batches, laid_together, takes_several
from onnxpress.distillation.checking import Comparison, compare_gradients, require_agreement
from onnxpress.distillation.losses import LOSS, Target, add_loss, targets_of
from onnxpress.distillation.matching import Pair, require_same_shapes
from onnxpress.distillation.mixing import mixed
from onnxpress.distillation.parameters import Trainable, trainable
from onnxpress.distillation.plain import without_half
from onnxpress.distillation.rounded import Parameter
from onnxpress.errors import DataError, ModelError
from onnxpress.gradients import Derivative, differentiate, take_as_inputs
from onnxpress.graph import standard_opset
from onnxpress.judge import Reading
from onnxpress.runtime import EXACT, Array, Feed, Session

__all__ = ["Problem", "derive", "pose", "posed"]

_OPSET, _LEAST_OPSET = 18, 13
_BATCH = 32
_BATCH_ELEMENTS = 1_500_000
"""Of inputs that are run at once."""
_COMPARED = 8
"""Samples on which gradients are compared with differences."""
_ANSWERS_BYTES = 1_500_000_000


@dataclass(frozen=True)
class Problem:
    """All that steps need.

    Attributes:
        session: of the loss and its gradients.
        scoring: of the loss alone.
        gradients: the output of each parameter's.
        parameters: what is trained.
        batches: to train with, and to choose by.
        targets: what the outputs are held to.
        left: why other weights are not trained, by name.
        missing: nodes without a gradient, and why.
        rounds: whether the student rounds what depends on them.
        made_up: samples that are mixtures of others.
    """

    session: Session
    scoring: Session
    gradients: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    batches: tuple[Batches, Batches]
    targets: tuple[Target, ...]
    left: Mapping[str, str]
    missing: Mapping[str, str]
    rounds: bool
    made_up: int

    def compared(self) -> list[Comparison]:
        """Gradients against finite differences; none where values are rounded.

        Raises:
            ModelError: they disagree.
        """
        if self.rounds:
            return []
        training = self.batches[0]
        both = zip(training.feeds[:_COMPARED], training.answers[:_COMPARED], strict=True)
        feeds = [{**feed, **answers} for feed, answers in both]
        shapes = [{name: array.shape for name, array in feed.items()} for feed in feeds]
        alike = [feed for feed, own in zip(feeds, shapes, strict=True) if own == shapes[0]]
        sample = laid_together(alike[: training.size] if training.together else alike[:1])
        found = compare_gradients(
            self.session, self.scoring, self.gradients, self.parameters, sample
        )
        require_agreement(found)
        return found


def pose(
    pair: Pair,
    training: Samples,
    choosing: Samples,
    readings: Mapping[str, Reading],
    *,
    temperature: float,
    seed: int,
    threads: int,
    only: Collection[str] | None = None,
) -> Problem:
    """The loss of a student against the teacher's answers.

    Args:
        pair: teacher and student.
        training: samples to train with.
        choosing: samples to choose the best state by.
        readings: of the teacher's outputs.
        temperature: T of class scores.
        seed: of samples that are made up.
        threads: of onnxruntime.
        only: initializers of the student that are trained; `None`: all that can be.

    Raises:
        ModelError: no output can be followed, or nothing of the student can be trained.
        DataError: the teacher's answers do not fit into memory.
    """
    made_up = mixed(training.feeds, seed)
    feeds = (*training.feeds, *made_up), choosing.feeds
    answers = [pair.teacher.run(feed) for part in feeds for feed in part]
    _require_room(answers)
    require_same_shapes(pair, training, answers[0])
    targets = targets_of(readings, answers[: len(training)])
    if not targets:
        raise ModelError("the teacher has no output of real numbers to be followed [M009]")
    together = takes_several((pair.teacher, pair.student), training.feeds)
    problem = posed(
        pair.student_model,
        targets,
        feeds,
        answers,
        temperature,
        threads,
        together=together,
        only=only,
    )
    return replace(problem, made_up=len(made_up))


def posed(
    student: ir.Model,
    targets: Sequence[Target],
    feeds: tuple[tuple[Feed, ...], tuple[Feed, ...]],
    answers: Sequence[Mapping[str, Array]],
    temperature: float,
    threads: int,
    *,
    together: bool,
    only: Collection[str] | None = None,
) -> Problem:
    """As `pose`, of answers that are known.

    Args:
        student: a model, or a part of one.
        targets: what its outputs are held to.
        feeds: to train with, and to choose by.
        answers: to those of both, in order.
        temperature: T of class scores.
        threads: of onnxruntime.
        together: whether samples are laid together.
        only: initializers of the student that are trained; `None`: all that can be.

    Raises:
        ModelError: nothing of the student can be trained.
    """
    copy, derived, scoring = derive(student, targets, temperature, only)
    left = {**copy.left, **derived.untrained}
    if not derived.gradients:
        reasons = sorted(set(left.values())) or ["no weight was found"]
        raise ModelError(f"nothing of the student can be trained: {'; '.join(reasons)} [M009]")
    return Problem(
        Session(derived.model, threads=threads, config=EXACT, name="the training graph"),
        Session(scoring, threads=threads, config=EXACT, name="the training graph"),
        derived.gradients,
        {name: copy.parameters[name] for name in derived.gradients},
        _batches(feeds, answers, targets, together=together),
        tuple(targets),
        left,
        derived.missing,
        copy.rounds,
        made_up=0,
    )


def derive(
    student: ir.Model,
    targets: Sequence[Target],
    temperature: float,
    only: Collection[str] | None = None,
) -> tuple[Trainable, Derivative, ir.Model]:
    """The student in float, its loss with gradients, and its loss alone.

    Raises:
        ModelError: its opset is too old for gradients.
    """
    raised, reason = raise_opset(without_half(student), _OPSET)
    if reason is not None and standard_opset(student) < _LEAST_OPSET:
        raise ModelError(
            f"the student has opset {standard_opset(student)}; gradients need {_LEAST_OPSET}, and "
            f"{reason}; export it with a newer opset [M009]"
        )
    copy = _stored_as(trainable(raised), student)
    add_loss(copy.model, targets, temperature)
    scoring = with_types(copy.model)
    wanted = [n for n, p in copy.parameters.items() if only is None or p.stands_for in only]
    derived = differentiate(scoring.clone(), LOSS, wanted)
    take_as_inputs(scoring, derived.gradients)
    return copy, derived, scoring


def _stored_as(copy: Trainable, student: ir.Model) -> Trainable:
    """With the types in which the student has what is trained in float32."""
    known = student.graph.initializers
    found = {}
    for name, parameter in copy.parameters.items():
        value = known.get(parameter.stands_for)
        half = value is not None and value.dtype == ir.DataType.FLOAT16
        found[name] = replace(parameter, dtype=ir.DataType.FLOAT16) if half else parameter
    return replace(copy, parameters=found)


def _batches(
    parts: tuple[tuple[Feed, ...], tuple[Feed, ...]],
    answers: Sequence[Mapping[str, Array]],
    targets: Sequence[Target],
    *,
    together: bool,
) -> tuple[Batches, Batches]:
    """Samples to train with and to choose by, each with the teacher's answers."""
    given = [{t.input: _wide(answer[t.output]) for t in targets} for answer in answers]
    training, choosing = parts
    elements = max(sum(array.size for array in feed.values()) for feed in training)
    size = max(1, min(_BATCH, _BATCH_ELEMENTS // max(elements, 1), len(training)))
    seen, held_out = given[: len(training)], given[len(training) :]
    return (
        Batches(training, tuple(seen), size, together),
        Batches(choosing, tuple(held_out), size, together),
    )


def _wide(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _require_room(answers: Sequence[Mapping[str, Array]]) -> None:
    """Refuse more of the teacher's answers than memory is meant for.

    Raises:
        DataError: they are larger.
    """
    size = sum(array.nbytes for answer in answers for array in answer.values())
    if size > _ANSWERS_BYTES:
        fits = int(len(answers) * _ANSWERS_BYTES / size)
        raise DataError(
            f"the teacher's answers to {len(answers)} samples take {size / 1e9:.1f} GB; expected "
            f"at most {_ANSWERS_BYTES / 1e9:.1f} GB; give about {fits} samples [D017]"
        )
