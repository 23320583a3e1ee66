"""From a teacher, a student and samples to a better student, judged on samples no step has seen.

loss(student(x; w), teacher(x)) over unlabelled x, gradients by w on the graph itself, the best
state on samples held out of training, and the judge's last word on others.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.data import Data
from onnxpress.distillation.by_blocks import BlockResult, reconstructed
from onnxpress.distillation.checking import Comparison
from onnxpress.distillation.matching import Pair, matched, sample_sets
from onnxpress.distillation.parameters import write_back
from onnxpress.distillation.problem import Problem, pose
from onnxpress.distillation.training import Schedule, Trained, train
from onnxpress.judge import Budget, Evaluator, Measurement
from onnxpress.judge.measurement import drop_bounds
from onnxpress.progress import Progress, Tell, followed, part, unheard
from onnxpress.runtime import Session
from onnxpress.validation import Validation, check_model

__all__ = ["Distilled", "distill", "figures_of", "is_worse"]

_CONFIDENCE = 0.95
"""That a metric fell, before a student counts as worse."""


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
        blocks: what became of those that were trained alone first, in order.
        comparisons: gradients against finite differences.
        samples: to train with, to choose by, to judge on.
        made_up: mixtures of samples that were trained with besides.
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
    blocks: tuple[BlockResult, ...]
    comparisons: tuple[Comparison, ...]
    samples: tuple[int, int, int]
    made_up: int
    batch: int
    seconds: float
    warnings: tuple[str, ...]


def distill(
    teacher: str | Path,
    student: str | Path,
    *,
    calibration: Data,
    evaluation: Data | None = None,
    budget: Budget | None = None,
    steps: int = 1000,
    block_steps: int = 0,
    time_limit: float | None = None,
    learning_rate: float = 0.005,
    temperature: float = 2.0,
    seed: int = 0,
    threads: int = 0,
    initialize: bool = False,
    state: str | Path | None = None,
    progress: Tell = unheard,
    stop: Callable[[], bool] = lambda: False,
) -> Distilled:
    """Train a student towards its teacher on unlabelled samples.

    Args:
        teacher: the model whose answers are right.
        student: a model file with the same inputs and outputs.
        calibration: samples to train with; a fifth of them chooses the best state.
        evaluation: samples to judge on; without, a quarter of the others.
        budget: what the judge is asked for.
        steps: at most, of the whole.
        block_steps: for each block before, alone; 0: blocks are not trained.
        time_limit: seconds for training, or `None`; blocks have half of them.
        learning_rate: of the first steps, relative to the size of each weight.
        temperature: T of class scores.
        seed: of the split and of the order of the samples.
        threads: of onnxruntime; 0: all cores.
        initialize: draw the student's weights anew first.
        state: a file that is written now and then, and gone on from where it is there.
        progress: told how far it is, see `Progress`.
        stop: asked before each step whether to end with the best so far.

    Raises:
        ModelError: the models do not match, or nothing of the student can be trained.
        DataError: the samples do not fit, or are too few.
        OutputError: `state` is no state of this training, or cannot be written.
        BudgetError: the budget cannot be judged with these samples.
    """
    started = time.monotonic()
    progress = followed(progress)
    progress(Progress("reading", fraction=0.0))
    anew = seed if initialize else None
    pair = matched(teacher, student, threads, anew)
    sets = sample_sets(pair, calibration, evaluation, seed)
    progress(Progress("asking the teacher", fraction=0.02))
    evaluator = Evaluator(pair.teacher, sets[2], budget or Budget(), model=pair.teacher_model)
    before = evaluator.measure(pair.student)
    half = None if time_limit is None or not block_steps else time_limit / 2
    blocks: tuple[BlockResult, ...] = ()
    if block_steps:
        each = Schedule(block_steps, learning_rate, half, seed)
        pair, blocks = reconstructed(
            pair, sets[:2], each, threads=threads, progress=part(progress, 0.04, 0.08), stop=stop
        )
    progress(Progress("deriving gradients", fraction=0.04))
    problem = pose(
        pair, *sets[:2], evaluator.readings, temperature=temperature, seed=seed, threads=threads
    )
    progress(Progress("comparing gradients with finite differences", fraction=0.06))
    comparisons = problem.compared()
    schedule = Schedule(steps, learning_rate, half or time_limit, seed)
    kept = None if state is None else Path(state)
    told = part(progress, 0.08, 0.96)
    trained = train(problem, schedule, progress=told, stop=stop, state=kept)
    progress(Progress("judging", fraction=0.96))
    model = write_back(pair.student_model, problem.parameters, trained.values)
    candidate = Session(model, threads=threads, name="the trained student")
    why_not = _why_not(evaluator, trained, blocks, before, candidate)
    judged = pair.student if why_not else candidate
    return Distilled(
        model=_as_it_was(student, pair, anew) if why_not else model,
        better=not why_not,
        why_not=why_not,
        before=before,
        after=check_model(evaluator, pair.teacher, judged, threads=threads),
        trained=trained,
        targets=tuple(target.words for target in problem.targets),
        parameters=tuple(problem.parameters),
        left=problem.left,
        missing=problem.missing,
        blocks=blocks,
        comparisons=tuple(comparisons),
        samples=(len(sets[0]), len(sets[1]), len(sets[2])),
        made_up=problem.made_up,
        batch=problem.batches[0].size,
        seconds=time.monotonic() - started,
        warnings=tuple(_warnings(problem, trained)),
    )


def _as_it_was(student: str | Path, pair: Pair, anew: int | None) -> ir.Model:
    """The student before any step."""
    return model_file.load(student) if anew is None else pair.student_model


def _why_not(
    evaluator: Evaluator,
    trained: Trained,
    blocks: Sequence[BlockResult],
    before: Measurement,
    candidate: Session,
) -> str:
    """Why the trained student is not taken; empty where it is better."""
    gained = any(block.after < block.before for block in blocks)
    if not trained.best < trained.before and not gained:
        return (
            f"no state was better than the student as it is (loss {trained.before:.4g} on "
            f"samples held out of training; {trained.ended})"
        )
    after = evaluator.measure(candidate)
    if is_worse(before, after):
        return (
            "the judge finds the trained student worse on samples that no step has seen: "
            f"{figures_of(after)}, before {figures_of(before)}"
        )
    return ""


def is_worse(before: Measurement, after: Measurement) -> bool:
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


def figures_of(measurement: Measurement) -> str:
    """Metrics and the worst fidelity, in words."""
    parts = [f"{figure.name} {figure.value:.2f}%" for figure in measurement.metrics]
    return ", ".join([*parts, f"{measurement.worst_sqnr_db:.1f} dB"])


def _warnings(problem: Problem, trained: Trained) -> Iterator[str]:
    if problem.rounds:
        yield "gradients go straight through rounding: finite differences say nothing there"
    if trained.halvings:
        yield f"the loss was no number {trained.halvings} times: the rate was halved"
