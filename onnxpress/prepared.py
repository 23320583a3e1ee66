"""What is ready before a search: the model opened, its samples, who chooses and who judges."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxpress import model_file
from onnxpress.contract import Stage
from onnxpress.conversion import with_float_weights
from onnxpress.data import Samples
from onnxpress.errors import NoSamplesError
from onnxpress.judge import Budget, Evaluator
from onnxpress.lossless_stage import require_opset, require_selected
from onnxpress.memory import memory_budget
from onnxpress.needed_memory import needed_bytes
from onnxpress.original import Original, Run, SampleSets, load_sets, opened, read, settled
from onnxpress.oversized import without_room
from onnxpress.progress import Progress, part
from onnxpress.request import Plan, Request, planned
from onnxpress.result import Result
from onnxpress.runtime import Session
from onnxpress.search import Allowance, Journal, Objective, SearchOptions
from onnxpress.shared_statistics import SharedStatistics
from onnxpress.stage_result import StageResult
from onnxpress.targets import load_target
from onnxpress.unmeasured import unchanged, without_runtime, without_samples

__all__ = ["SEARCHING", "Prepared", "prepared", "without_effect"]

SEARCHING = 0.05, 0.98
"""Of a run, usually: before, the model is read and made simpler; behind, it runs elsewhere."""
_FIRST_ANSWER, _GRACE_S = 2.0, 10.0
"""Times as long as until a search begins the quickest one takes, and how late that may end; else
nothing is searched."""
_JUDGING = 0.25
"""Of what is left of a limit, for the original on samples: the result takes as long."""
_LEAST_SAMPLES = 8
_AGAIN = 0.1
"""Of a limit, for a second choice; where the first one holds it is not used."""


@dataclass(frozen=True)
class Prepared:
    """What a search needs.

    Attributes:
        work: the plan, the original, and what every stage needs.
        plan: with what was left out of it.
        sets: samples by what they are for.
        judge: on samples that no choice sees; the evaluator of the search where there are too few.
        started: when the run began, by the monotonic clock.
        again: when a choice that is made again has to end, by the same.
        late: there is no time for anything that is searched.
        notes: what was left out for want of time, in sentences.
    """

    work: Run
    plan: Plan
    sets: SampleSets
    judge: Evaluator
    started: float
    again: float
    late: bool = False
    notes: tuple[str, ...] = ()


def prepared(request: Request) -> Prepared | Result:
    """All that comes before a search; a result where nothing is searched or measured as a whole.

    Raises:
        OnnxpressError: the input cannot be used.
    """
    started = time.monotonic()
    request.progress(Progress("reading", fraction=0.0))
    given = read(request)
    plan = planned(request, given.digest)
    given = settled(given, plan.recipe.overridable)
    target = load_target(plan.recipe.target)
    same = unchanged(given, plan.recipe, started)
    if same is not None:
        return _strict(same, request)
    most_bytes = memory_budget(request.max_memory)
    if needed_bytes(given.model) > most_bytes:
        return _strict(without_room(given, plan, request, most_bytes, started), request)
    given = replace(given, model=with_float_weights(given.model))
    require_selected(plan.recipe, given.model, target)
    request.progress(Progress("simplifying"))
    original = opened(given, plan.recipe, request.threads)
    if original.session is None:
        return without_runtime(original, plan.recipe, started)
    require_opset(plan.recipe, original.model, target)
    try:
        sets = load_sets(request, original, plan.recipe)
    except NoSamplesError as error:
        if request.named and any(stage.pass_.stage.loses for stage in plan.recipe.stages):
            raise
        return without_samples(original, plan.recipe, started, str(error))
    sets, notes = _affordable(sets, original.session, request.deadline(started))
    evaluator = Evaluator(original.session, sets.selection, request.budget, model=original.model)
    ready = time.monotonic()
    judge = _judge(original, sets, request.budget, evaluator)
    judging_s = time.monotonic() - ready
    first, again = _deadlines(request.time_limit, started, judging_s)
    objective, clocked = request.objective, target.timed_here
    options = SearchOptions(
        objective if clocked else Objective("size"),
        named=request.named,
        launch_multiply_adds=0
        if clocked or objective.accepts_slower
        else target.launch_multiply_adds,
        calibration=sets.calibration,
        threads=request.threads,
        deadline=first,
        stop=request.stop,
        clock=request.clock,
        progress=part(request.progress, *SEARCHING),
        explaining=Allowance(started),
        journal=Journal(model_file.weight_bytes(original.model), objective),
    )
    told = plan.recipe.calibration
    statistics = SharedStatistics(
        sets.calibration, most=told.observed if told else None, threads=request.threads
    )
    work = Run(
        request, plan.recipe, original, target, sets.calibration, evaluator, options, statistics
    )
    now = time.monotonic()
    searched = any(stage.decisions is None for stage in plan.recipe.stages)
    ends = now + _FIRST_ANSWER * (now - started)
    # Nobody is asked here whether to stop: until a search begins Ctrl-C ends all.
    late = searched and now > first and ends > request.deadline(started) + _GRACE_S
    return Prepared(work, plan, sets, judge, started, again, late, notes)


def _affordable(
    sets: SampleSets, session: Session, deadline: float
) -> tuple[SampleSets, tuple[str, ...]]:
    """As many samples to choose by and to judge on as the time allows; the first of them."""
    if math.isinf(deadline):
        return sets, ()
    started = time.monotonic()
    session.run(sets.evaluation.feeds[0])
    run_s = max(time.monotonic() - started, 1e-6)
    most = max(int(_JUDGING * max(deadline - started, 0.0) / run_s), _LEAST_SAMPLES)
    notes: tuple[str, ...] = ()
    if len(sets.evaluation) > most:
        notes = (f"judged on {most} of {len(sets.evaluation)} samples: time is short [W019]",)
    judged = _first(sets.evaluation, most)
    chosen = _first(sets.selection, most) if sets.apart else judged
    return replace(sets, selection=chosen, evaluation=judged), notes


def _first(samples: Samples, most: int) -> Samples:
    return samples if len(samples) <= most else samples.take(range(most))


def _deadlines(limit: float | None, started: float, judging_s: float) -> tuple[float, float]:
    """When a first choice has to end, and one that is made again as the first broke the budget.

    What is judged takes about as long as the original took on the same samples. A choice that is
    made again knows what the first one measured. The first has half of the time at least.
    """
    if limit is None:
        return math.inf, math.inf
    end = started + limit
    kept = 2 * judging_s + _AGAIN * limit
    return end - min(kept, limit / 2), end - min(judging_s, limit / 2)


def _judge(original: Original, sets: SampleSets, budget: Budget, evaluator: Evaluator) -> Evaluator:
    """Judges on samples that no choice has seen, with the outputs read as the search reads them."""
    if not sets.apart:
        return evaluator
    assert original.session is not None
    return Evaluator(
        original.session,
        sets.evaluation,
        budget,
        model=original.model,
        readings=evaluator.readings,
    )


def _strict(result: Result, request: Request) -> Result:
    """Of what was not measured: not met where a pass that was named changed nothing."""
    unmet = (*result.problems, *without_effect(result.stages, request))
    return replace(result, problems=unmet, within_budget=not unmet)


def without_effect(stages: Sequence[StageResult], request: Request) -> list[str]:
    """A pass that was asked for by name and changed nothing is a failure.

    Unless another pass of its stage offered more: then it did its part.
    """
    acted = {stage.pass_.stage for stage in stages if stage.decisions}
    return [
        f"{stage.pass_.name} was asked for and changed nothing: "
        f"{stage.note or 'no site fits'} [V006]"
        for stage in stages
        if request.named
        and not stage.decisions
        and (stage.pass_.stage.loses or stage.pass_.stage == Stage.RECOVERY)
        and (stage.failed or stage.pass_.stage not in acted)
    ]
