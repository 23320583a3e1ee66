"""From a teacher, a student and samples to a better student, judged on samples no step has seen.

loss(student(x; w), teacher(x)) over unlabelled x, gradients by w on the graph itself, the best
state on samples held out of training, and the judge's last word on others.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from onnxpress import model_file
from onnxpress.blocks.sizes import with_types
from onnxpress.conversion.opset import raise_opset
from onnxpress.data import Samples, load_samples, require_runnable
from onnxpress.distillation.batches import Batches, laid_together, takes_several
from onnxpress.distillation.checking import Comparison, compare_gradients, require_agreement
from onnxpress.distillation.losses import LOSS, Target, add_loss, targets_of
from onnxpress.distillation.mixing import mixed
from onnxpress.distillation.parameters import Trainable, trainable, write_back
from onnxpress.distillation.training import Schedule, Trained, train
from onnxpress.errors import DataError, ModelError
from onnxpress.gradients import Derivative, differentiate, take_as_inputs
from onnxpress.graph import standard_opset
from onnxpress.judge import Budget, Evaluator, Measurement, interface_problems
from onnxpress.judge.measurement import drop_bounds
from onnxpress.runtime import EXACT, Array, Feed, Session
from onnxpress.validation import Validation, check_model

__all__ = ["Distilled", "derive", "distill"]

_OPSET, _LEAST_OPSET = 18, 13
_CHOOSING_SHARE, _JUDGING_SHARE = 0.2, 0.25
_CONFIDENCE = 0.95
"""That a metric fell, before a student counts as worse."""
_FEWEST = 8
_BATCH = 32
_BATCH_ELEMENTS = 1_500_000
"""Of inputs that are run at once."""
_ANSWERS_BYTES = 1_500_000_000


@dataclass(frozen=True)
class Distilled:
    """What `distill` gives back.

    Attributes:
        model: the trained student, or the student as it was where that is no worse.
        better: whether it was trained to something better.
        why_not: otherwise, in a sentence.
        before: the student against the teacher, on samples that judge.
        after: the model likewise, in every way.
        trained: the steps and what they did.
        targets: what the outputs were held to, in words.
        parameters: names of what was trained.
        left: why other weights were not, by name.
        missing: nodes without a gradient, and why.
        comparisons: gradients against finite differences.
        samples: to train with, to choose by, to judge on.
        batch: samples a step.
        seconds: all in all.
        warnings: what its user should know, in sentences.
    """

    model: ir.Model
    better: bool
    why_not: str
    before: Measurement
    after: Validation
    trained: Trained
    targets: tuple[str, ...]
    parameters: tuple[str, ...]
    left: Mapping[str, str]
    missing: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    samples: tuple[int, int, int]
    batch: int
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Pair:
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


def distill(
    teacher: str | Path,
    student: str | Path,
    *,
    calibration: str | Path | Mapping[str, Array] | Samples,
    evaluation: str | Path | Mapping[str, Array] | Samples | None = None,
    budget: Budget | None = None,
    steps: int = 1000,
    time_limit: float | None = None,
    learning_rate: float = 0.005,
    temperature: float = 2.0,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Distilled:
    """Train a student towards its teacher on unlabelled samples.

    Args:
        teacher: the model whose answers are right.
        student: a model file with the same inputs and outputs.
        calibration: samples to train with; a fifth of them chooses the best state.
        evaluation: samples to judge on; without, a quarter of the others.
        budget: what the judge is asked for.
        steps: at most.
        time_limit: seconds for training, or `None`.
        learning_rate: of the first steps, relative to the size of each weight.
        temperature: T of class scores.
        seed: of the split and of the order of the samples.
        threads: of onnxruntime; 0: all cores.
        progress: told in a few words what is being done.
        stop: asked before each step whether to end with the best so far.

    Raises:
        ModelError: the models do not match, or nothing of the student can be trained.
        DataError: the samples do not fit, or are too few.
        BudgetError: the budget cannot be judged with these samples.
    """
    started = time.monotonic()
    progress("reading")
    pair = _pair(teacher, student, threads)
    training, choosing, judging = _samples(pair, calibration, evaluation, seed)
    progress("asking the teacher")
    evaluator = Evaluator(pair.teacher, judging, budget or Budget(), model=pair.teacher_model)
    before = evaluator.measure(pair.student)
    made_up = mixed(training.feeds, seed)
    feeds = (*training.feeds, *made_up), choosing.feeds
    answers = [pair.teacher.run(feed) for part in feeds for feed in part]
    _require_room(answers)
    _require_same_shapes(pair, training, answers[0])
    targets = targets_of(evaluator.readings, answers[: len(training)])
    if not targets:
        raise ModelError(f"{teacher}: has no output of real numbers to be followed")
    progress("deriving gradients")
    copy, derived, scoring = derive(pair.student_model, targets, temperature)
    parameters = {name: copy.parameters[name] for name in derived.gradients}
    left = {**copy.left, **derived.untrained}
    if not parameters:
        reasons = sorted(set(left.values())) or ["no weight was found"]
        raise ModelError(f"{student}: nothing of it can be trained: {'; '.join(reasons)}")
    session = Session(derived.model, threads=threads, config=EXACT, name="the training graph")
    score = Session(scoring, threads=threads, config=EXACT, name="the training graph")
    together = takes_several((pair.teacher, pair.student), training.feeds)
    batches = _batches(feeds, answers, targets, together=together)
    comparisons: list[Comparison] = []
    if not copy.rounds:
        progress("comparing gradients with finite differences")
        part = [{**f, **a} for f, a in zip(batches[0].feeds, batches[0].answers, strict=True)]
        sample = laid_together(part[: min(8, batches[0].size)] if together else part[:1])
        comparisons = compare_gradients(session, derived.gradients, parameters, sample)
        require_agreement(comparisons)
    schedule = Schedule(steps, learning_rate, time_limit, seed)
    trained = train(
        session,
        score,
        derived.gradients,
        parameters,
        batches,
        schedule,
        progress=progress,
        stop=stop,
    )
    progress("judging")
    model = write_back(pair.student_model, parameters, trained.values)
    candidate = Session(model, threads=threads, name="the trained student")
    why_not = _why_not(evaluator, trained, before, candidate)
    judged = pair.student if why_not else candidate
    return Distilled(
        model=model_file.load(student) if why_not else model,
        better=not why_not,
        why_not=why_not,
        before=before,
        after=check_model(evaluator, pair.teacher, judged, threads=threads),
        trained=trained,
        targets=tuple(target.words for target in targets),
        parameters=tuple(parameters),
        left=left,
        missing=derived.missing,
        comparisons=tuple(comparisons),
        samples=(len(training), len(choosing), len(judging)),
        batch=batches[0].size,
        seconds=time.monotonic() - started,
        warnings=tuple(_warnings(copy, trained)),
    )


def _pair(teacher: str | Path, student: str | Path, threads: int) -> _Pair:
    """Both models, checked against each other.

    Raises:
        ModelError: they do not match, or one cannot be loaded.
    """
    teacher_model, student_model = (model_file.load(file) for file in (teacher, student))
    if student_model.functions:
        student_model = InlinePass()(student_model).model
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=1)(student_model)
    first = Session(Path(teacher), threads=threads, name=str(teacher))
    second = Session(Path(student), threads=threads, name=str(student))
    problems = interface_problems(first, second)
    if problems:
        raise ModelError(
            f"{student}: does not match its teacher {teacher}: {'; '.join(problems)}; expected the "
            "same inputs and outputs"
        )
    return _Pair(first, second, teacher_model, student_model)


def _samples(
    pair: _Pair, calibration: object, evaluation: object, seed: int
) -> tuple[Samples, Samples, Samples]:
    """To train with, to choose by, to judge on; none in two of them.

    Raises:
        DataError: they do not fit or are too few.
    """
    given = load_samples(calibration, pair.teacher.inputs)  # type: ignore[arg-type]
    if len(given) < _FEWEST:
        raise DataError(
            f"{given.source}: found {len(given)} sample(s); expected at least {_FEWEST} to train "
            "with and to choose by; some hundreds do much better"
        )
    for session in (pair.teacher, pair.student):
        require_runnable(session, given)
    if evaluation is None:
        given, judging = given.hold_out(_JUDGING_SHARE, seed)
    else:
        judging = load_samples(evaluation, pair.teacher.inputs)  # type: ignore[arg-type]
        require_runnable(pair.teacher, judging)
    training, choosing = given.parts((1 - _CHOOSING_SHARE, _CHOOSING_SHARE), seed)
    return training, choosing, judging


def _require_same_shapes(pair: _Pair, samples: Samples, answers: Mapping[str, Array]) -> None:
    """Refuse a student whose answers have other shapes, as other classes have.

    Raises:
        ModelError: they differ.
    """
    own = pair.student.run(samples.feeds[0])
    for name, array in answers.items():
        if own[name].shape != array.shape:
            raise ModelError(
                f"the student's output {name!r} is {list(own[name].shape)} for a sample to which "
                f"the teacher gives {list(array.shape)}; expected the same classes and sizes"
            )


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
            f"at most {_ANSWERS_BYTES / 1e9:.1f} GB; give about {fits} samples"
        )


def derive(
    student: ir.Model, targets: Sequence[Target], temperature: float
) -> tuple[Trainable, Derivative, ir.Model]:
    """The student in float, its loss with gradients, and its loss alone.

    Raises:
        ModelError: its opset is too old for gradients.
    """
    raised, reason = raise_opset(student, _OPSET)
    if reason is not None and standard_opset(student) < _LEAST_OPSET:
        raise ModelError(
            f"the student has opset {standard_opset(student)}; gradients need {_LEAST_OPSET}, and "
            f"{reason}; export it with a newer opset"
        )
    copy = trainable(raised)
    add_loss(copy.model, targets, temperature)
    scoring = with_types(copy.model)
    derived = differentiate(scoring.clone(), LOSS, copy.parameters)
    take_as_inputs(scoring, derived.gradients)
    return copy, derived, scoring


def _batches(
    parts: tuple[tuple[Feed, ...], tuple[Feed, ...]],
    answers: Sequence[Mapping[str, Array]],
    targets: Sequence[Target],
    *,
    together: bool,
) -> tuple[Batches, Batches]:
    """Samples to train with and to choose by, each with the teacher's answers."""
    given = [{t.input: answer[t.output] for t in targets} for answer in answers]
    training, choosing = parts
    elements = max(sum(array.size for array in feed.values()) for feed in training)
    size = max(1, min(_BATCH, _BATCH_ELEMENTS // max(elements, 1), len(training)))
    seen, held_out = given[: len(training)], given[len(training) :]
    return (
        Batches(training, tuple(seen), size, together),
        Batches(choosing, tuple(held_out), size, together),
    )


def _why_not(
    evaluator: Evaluator, trained: Trained, before: Measurement, candidate: Session
) -> str:
    """Why the trained student is not taken; empty where it is better."""
    if not trained.best < trained.before:
        return (
            f"no state was better than the student as it is (loss {trained.before:.4g} on "
            f"samples held out of training; {trained.ended})"
        )
    after = evaluator.measure(candidate)
    if _is_worse(before, after):
        return (
            "the judge finds the trained student worse on samples that no step has seen: "
            f"{_figures(after)}, before {_figures(before)}"
        )
    return ""


def _is_worse(before: Measurement, after: Measurement) -> bool:
    """Whether all figures say so that differ, or a metric does beyond chance on paired samples."""
    signs = [before.worst_sqnr_db - after.worst_sqnr_db]
    for was, now in zip(before.metrics, after.metrics, strict=True):
        signs.append(now.drop - was.drop)
        if was.rows.shape == now.rows.shape and was.rows.shape[1] == 3 and len(was.rows):
            paired = np.column_stack([now.rows[:, 0], was.rows[:, 0], was.rows[:, 2]])
            if drop_bounds(paired, _CONFIDENCE)[0] > 0:
                return True
    worse = any(sign > 0 or math.isnan(sign) for sign in signs)
    return worse and not any(sign < 0 for sign in signs)


def _figures(measurement: Measurement) -> str:
    parts = [f"{figure.name} {figure.value:.2f}%" for figure in measurement.metrics]
    return ", ".join([*parts, f"{measurement.worst_sqnr_db:.1f} dB"])


def _warnings(copy: Trainable, trained: Trained) -> list[str]:
    found = []
    if copy.rounds:
        found.append("gradients go straight through rounding: finite differences say nothing there")
    if trained.halvings:
        found.append(f"the loss was no number {trained.halvings} times: the rate was halved")
    return found
