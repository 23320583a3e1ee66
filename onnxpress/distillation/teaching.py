"""Train a model that was made of its original towards it, within a run that compresses.

The original is the teacher, the samples that passes may look at train, and a fifth of them chooses
the best state. As many steps are taken as were settled before the first, whatever the clock says,
so that the same steps give the same bytes again.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from onnxpress.data import Samples
from onnxpress.distillation.losses import targets_of
from onnxpress.distillation.matching import CHOOSING_SHARE, Pair
from onnxpress.distillation.parameters import write_values
from onnxpress.distillation.problem import Problem, derive, pose
from onnxpress.distillation.training import Schedule, Trained, step_seconds, train
from onnxpress.errors import ModelError
from onnxpress.judge import Reading
from onnxpress.progress import Tell
from onnxpress.runtime import Session

__all__ = ["Learnable", "Teacher", "learnable", "steps_within", "teach"]

_FEW_SAMPLES = 2
_TIMED = 64
"""Samples that steps are timed on."""
_KEPT = 0.6
"""Of the time: what runs beside it may change, and steps that were settled are taken."""


@dataclass(frozen=True)
class Teacher:
    """What a stage that recovers may train with.

    Attributes:
        model: the original.
        session: of it.
        samples: that passes may look at.
        readings: of its outputs.
        seed: of the split, of mixtures, of the order of the samples.
        threads: of onnxruntime.
        left_s: seconds that are left; infinite without a limit.
        stop: whether the user wants no more.
        progress: told how far it is.
    """

    model: ir.Model
    session: Session
    samples: Samples
    readings: Mapping[str, Reading]
    seed: int
    threads: int
    left_s: Callable[[], float]
    stop: Callable[[], bool]
    progress: Tell


@dataclass(frozen=True, slots=True)
class Learnable:
    """What of a model can be trained.

    Attributes:
        names: of initializers, as the model stores them.
        left: why others cannot be, by name.
    """

    names: tuple[str, ...]
    left: Mapping[str, str]


def learnable(student: ir.Model, teacher: Teacher, temperature: float) -> Learnable:
    """The weights of a model that have a gradient of the loss, which is not changed.

    Raises:
        ModelError: its opset is too old, or no output can be followed.
    """
    answers = [teacher.session.run(feed) for feed in teacher.samples.feeds[:_FEW_SAMPLES]]
    targets = targets_of(teacher.readings, answers)
    if not targets:
        raise ModelError("the model has no output of real numbers to be followed [M009]")
    copy, derived, _ = derive(_lifted(student), targets, temperature)
    names = tuple(copy.parameters[name].stands_for for name in derived.gradients)
    left = {copy.parameters[n].stands_for: reason for n, reason in derived.untrained.items()}
    return Learnable(names, {**copy.left, **left})


def steps_within(
    student: ir.Model, teacher: Teacher, names: Collection[str], schedule: Schedule, t: float
) -> int:
    """How many of the steps fit into the time that is left.

    Args:
        student: the model.
        teacher: its original.
        names: what is trained.
        schedule: steps at most.
        t: temperature of class scores.
    """
    if math.isinf(teacher.left_s()):
        return schedule.steps
    few = teacher.samples.take(range(min(_TIMED, len(teacher.samples))))
    problem = _posed(student, replace(teacher, samples=few), names, t)
    fits = int(_KEPT * teacher.left_s() / max(step_seconds(problem), 1e-6))
    return min(schedule.steps, max(fits, 0))


def teach(
    student: ir.Model, teacher: Teacher, names: Collection[str], schedule: Schedule, t: float
) -> Trained:
    """Train weights of a model, in place, where a state was better on samples that choose.

    Args:
        student: the model; it is changed, unless the steps were interrupted.
        teacher: its original.
        names: of the initializers that are trained.
        schedule: steps and rate.
        t: temperature of class scores.

    Raises:
        ModelError: none of the weights can be trained, or the gradients are wrong.
        DataError: the teacher's answers do not fit into memory.
    """
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=1)(student)
    problem = _posed(student, teacher, names, t)
    problem.compared()

    def over() -> bool:
        return teacher.stop() or teacher.left_s() <= 0

    trained = train(problem, schedule, progress=teacher.progress, stop=over)
    if trained.best < trained.before and not trained.stopped:
        write_values(student, problem.parameters, trained.values)
    return trained


def _posed(student: ir.Model, teacher: Teacher, names: Collection[str], t: float) -> Problem:
    lifted = _lifted(student)
    session = Session(lifted, threads=teacher.threads, name="the compressed model")
    pair = Pair(teacher.session, session, teacher.model, lifted)
    shares = 1 - CHOOSING_SHARE, CHOOSING_SHARE
    training, choosing = teacher.samples.parts(shares, teacher.seed)
    return pose(
        pair,
        training,
        choosing,
        teacher.readings,
        temperature=t,
        seed=teacher.seed,
        threads=teacher.threads,
        only=names,
    )


def _lifted(student: ir.Model) -> ir.Model:
    clone = student.clone()
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=1)(clone)
    return clone
