"""A teacher and a student that match, and samples for each purpose."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from onnxpress import model_file
from onnxpress.conversion import opened_file, settle_weights
from onnxpress.data import Samples, load_samples, require_runnable
from onnxpress.distillation.initializing import drawn_anew
from onnxpress.errors import DataError, ModelError
from onnxpress.judge import interface_problems
from onnxpress.runtime import Array, Session

__all__ = ["CHOOSING_SHARE", "Pair", "matched", "require_same_shapes", "sample_sets"]

CHOOSING_SHARE, _JUDGING_SHARE = 0.2, 0.25
_FEWEST = 8


@dataclass(frozen=True)
class Pair:
    """A teacher and a student that match.

    Attributes:
        teacher: a session.
        student: a session.
        teacher_model: the graph.
        student_model: the graph, functions inlined and constants as initializers.
    """

    teacher: Session
    student: Session
    teacher_model: ir.Model
    student_model: ir.Model


def matched(
    teacher: str | Path, student: str | Path, threads: int, anew: int | None = None
) -> Pair:
    """Both models, checked against each other.

    Args:
        teacher: a file.
        student: a file.
        threads: of onnxruntime.
        anew: the seed with which the student's weights are drawn; `None`: they are its own.

    Raises:
        ModelError: they do not match, or one cannot be loaded.
    """
    teacher_model, student_model = (model_file.load(file) for file in (teacher, student))
    student_model, _ = settle_weights(student_model, None)
    if student_model.functions:
        student_model = InlinePass()(student_model).model
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=1)(student_model)
    first = opened_file(Path(teacher), threads=threads)
    if anew is not None:
        student_model = drawn_anew(student_model, anew)
    place = Path(student) if anew is None else student_model
    second = Session(place, threads=threads, name=str(student))
    problems = interface_problems(first, second)
    if problems:
        raise ModelError(
            f"{student}: does not match its teacher {teacher}: {'; '.join(problems)}; expected the "
            "same inputs and outputs [M009]"
        )
    return Pair(first, second, teacher_model, student_model)


def sample_sets(
    pair: Pair, calibration: object, evaluation: object, seed: int
) -> tuple[Samples, Samples, Samples]:
    """To train with, to choose by, to judge on; none in two of them.

    Raises:
        DataError: they do not fit or are too few.
    """
    given = load_samples(calibration, pair.teacher.inputs)  # type: ignore[arg-type]
    if len(given) < _FEWEST:
        raise DataError(
            f"{given.source}: found {len(given)} sample(s); expected at least {_FEWEST} to train "
            "with and to choose by; some hundreds do much better [D011]"
        )
    for session in (pair.teacher, pair.student):
        require_runnable(session, given)
    if evaluation is None:
        given, judging = given.hold_out(_JUDGING_SHARE, seed)
    else:
        judging = load_samples(evaluation, pair.teacher.inputs)  # type: ignore[arg-type]
        require_runnable(pair.teacher, judging)
    training, choosing = given.parts((1 - CHOOSING_SHARE, CHOOSING_SHARE), seed)
    return training, choosing, judging


def require_same_shapes(pair: Pair, samples: Samples, answers: Mapping[str, Array]) -> None:
    """Refuse a student whose answers have other shapes, as other classes have.

    Raises:
        ModelError: they differ.
    """
    own = pair.student.run(samples.feeds[0])
    for name, array in answers.items():
        if own[name].shape != array.shape:
            raise ModelError(
                f"the student's output {name!r} is {list(own[name].shape)} for a sample to which "
                f"the teacher gives {list(array.shape)}; expected the same classes and sizes [M009]"
            )
