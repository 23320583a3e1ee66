"""What a search took becomes a result: run elsewhere, by the interface asked for, explained."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress import model_file, registry
from onnxpress.attempts import Attempt
from onnxpress.contract import Stage
from onnxpress.conversion import convert_interface
from onnxpress.costs import recorded
from onnxpress.graph import standard_opset
from onnxpress.judge import Disagreement, Evaluator, most_different
from onnxpress.original import Run, SampleSets
from onnxpress.prepared import SEARCHING, Prepared, without_effect
from onnxpress.progress import Progress, part
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.request import Request
from onnxpress.result import Result, made_by_us, stamp
from onnxpress.runtime import Session
from onnxpress.runtime.profile import LEAST_RUNS, OperatorTime, by_operator
from onnxpress.shared_statistics import SharedStatistics
from onnxpress.shedding import kept_small
from onnxpress.stage_result import StageResult
from onnxpress.statistics import activation_grids
from onnxpress.untreated import nothing_to_compress, odd_numbers
from onnxpress.validation import Validation, in_half_arithmetic, on_providers

__all__ = ["finished", "with_requirements"]

_COMPARED = 2
"""Samples on which a change of the interface alone is compared with the model before it."""
_COMPARING_S = 0.5
_COMPARING_SHARE = 0.03
"""Of the time of the run, to look for samples that differ."""
_COMPARED_BYTES = 500_000_000


def finished(
    ready: Prepared, best: Attempt, validation: Validation, *, looked_into: bool = True
) -> Result:
    """The result of a search.

    Args:
        ready: what it was given.
        best: what it took.
        validation: of that, on samples that no choice has seen.
        looked_into: whether it is told on which samples old and new differ most, and which
            operators take the time.
    """
    work, judge, sets, started = ready.work, ready.judge, ready.sets, ready.started
    request, original, plan = work.request, work.original, ready.plan
    validation = _as_half(validation, best.model, judge, work)
    validation = on_providers(
        validation,
        best.model,
        original.model,
        judge,
        request.providers,
        threads=request.threads,
        progress=part(request.progress, SEARCHING[1], 1.0),
    )
    feeds = sets.evaluation.feeds[:_COMPARED]
    final, notes = convert_interface(best.model, plan.recipe.conversion, feeds)
    if final is best.model:
        # Another share of the budget may come to the same model, which is not to be stamped twice.
        final = final.clone()
    reasons = (
        original.note,
        made_by_us(original.model),
        nothing_to_compress(original.model),
        odd_numbers(original.model),
        work.statistics.note,
    )
    said = [*(reason for reason in reasons if reason), *ready.notes]
    if sets.calibration is not None:
        said += sets.calibration.assumed_beside(sets.evaluation)
    if request.stop():
        said.append("the search was stopped: this is the best that was found until then [L019]")
    warnings = (*validation.warnings, *said, *notes, *plan.problems, *_faults(best.stages, request))
    validation = replace(validation, warnings=warnings)
    problems = list(validation.problems)
    if not validation.within_budget and not problems:
        broken = judge.broken(validation.measurement) or judge.described
        problems.append(f"the budget does not hold: {broken}")
    problems += without_effect(best.stages, request)
    problems += _opset_missed(plan.recipe, final)
    recipe = _decided(plan.recipe, best, sets, work.statistics)
    stamp(final, recipe, original.digest)
    grown = kept_small(final, original.model, original.nbytes, shed=not best.lossy)
    different, compared = _different(work, judge, best, started) if looked_into else ((), 0)
    timed = looked_into and work.target.timed_here
    return Result(
        final,
        recipe,
        (*best.stages, *_by_name_only(best.model, request)),
        validation,
        within_budget=validation.within_budget and not problems,
        problems=tuple(problems),
        original_bytes=original.nbytes,
        source=original.source,
        seconds=time.monotonic() - started,
        warnings=() if grown is None else (grown,),
        tried=tuple(work.options.journal.tried),
        spent=judge.spent_anywhere(validation.measurement),
        disagreements=different,
        compared=compared,
        activations=activation_grids(best.named or final, work.statistics.tensors()),
        named=best.named,
        operators=_operators(work, judge, best, started) if timed else (),
    )


def _opset_missed(recipe: Recipe, model: ir.Model) -> list[str]:
    """That a model has another opset than was asked for: operators that were put in need it."""
    wanted, found = recipe.conversion.opset, standard_opset(model)
    if not wanted or wanted == found:
        return []
    said = (
        f"opset {wanted} was asked for, and the model has {found}: leave out what needs it, "
        "such as quantize, or ask for the opset that it has [C001]"
    )
    return [said]


def _different(
    work: Run, judge: Evaluator, best: Attempt, started: float
) -> tuple[tuple[Disagreement, ...], int]:
    """The samples on which old and new differ most, in little time; and of how many.

    Nothing where a model is so large that two sessions of it take too much memory.
    """
    seconds, pair_s = _comparing(work, best, started)
    original = work.original.session
    if original is None or pair_s > seconds or not best.lossy:
        return (), 0
    work.request.progress(Progress("looking for the samples that differ most", fraction=1.0))
    session = best.session or Session(best.model, threads=work.request.threads)
    return most_different(original, session, judge.samples, judge.readings, seconds=seconds)


def _comparing(work: Run, best: Attempt, started: float) -> tuple[float, float]:
    """Seconds in which old and new may be looked at once more, and what a run of both takes.

    None where the user waits no longer, or two sessions more take too much memory.
    """
    if work.request.stop() or model_file.weight_bytes(best.model) > _COMPARED_BYTES:
        return 0.0, math.inf
    took = time.monotonic() - started
    left = math.inf if work.request.time_limit is None else work.request.time_limit - took
    if left <= 0:
        return 0.0, math.inf
    seconds = max(min(_COMPARING_S, left), min(_COMPARING_SHARE * took, left))
    return seconds, (best.latency.reference_ms + best.latency.median_ms) / 1e3


def _operators(
    work: Run, judge: Evaluator, best: Attempt, started: float
) -> tuple[OperatorTime, ...]:
    """Where the time of a run goes in old and new, where enough runs of both take little.

    Not of what was only simplified: profiles of thousands of nodes take longer than that.
    """
    seconds, pair_s = _comparing(work, best, started)
    if LEAST_RUNS * pair_s > seconds or not best.lossy:
        return ()
    work.request.progress(Progress("timing operators", fraction=1.0))
    took = best.latency
    models = [work.original.model, best.model]
    milliseconds = [took.reference_ms, took.reference_ms / took.speedup]
    simplified = [s.model for s in best.stages if s.pass_.stage == Stage.LOSSLESS and s.decisions]
    if simplified:
        # Of it others are predicted: what passes look at.
        models.append(simplified[-1])
        milliseconds.append(took.reference_ms)
    old, new, *_ = recorded(
        models,
        judge.samples.feeds[0],
        milliseconds,
        threads=work.request.threads,
        budget_s=seconds,
    )
    return by_operator(old.times, new.times)


def with_requirements(result: Result) -> Result:
    """With what became of the constraints; one that is not met is a problem."""
    constraints = result.recipe.constraints
    if not constraints:
        return result
    latency = None if result.validation is None else result.validation.latency
    found = constraints.requirements(model_file.whole_size(result.model), latency)
    unmet = [
        f"{requirement.name}: {requirement.wanted} was asked for, and the model has "
        f"{requirement.found} [V009]"
        for requirement in found
        if not requirement.met
    ]
    return replace(
        result,
        requirements=found,
        problems=(*result.problems, *unmet),
        within_budget=result.within_budget and not unmet,
    )


def _as_half(found: Validation, model: ir.Model, judge: Evaluator, work: Run) -> Validation:
    """With what half arithmetic keeps, where half precision was asked for."""
    if work.recipe.conversion.float16 == "no":
        return found
    counts = work.target.float16 == "arithmetic"
    return in_half_arithmetic(found, model, judge, counts=counts, threads=work.request.threads)


def _by_name_only(model: ir.Model, request: Request) -> list[StageResult]:
    """Passes that take no part by default, with the reason, for the report."""
    if request.named or request.recipe is not None:
        return []
    passes, _ = registry.default_passes()
    return [StageResult(p, model, note=p.by_name_only) for p in passes if p.by_name_only]


def _faults(stages: Sequence[StageResult], request: Request) -> list[str]:
    """Passes that broke their contract; of lossy ones that were named it is said as a problem."""
    return [
        f"{stage.note}; it was left out [W014]"
        for stage in stages
        if stage.failed and not (request.named and stage.pass_.stage.loses)
    ]


def _decided(
    recipe: Recipe,
    best: Attempt,
    sets: SampleSets,
    statistics: SharedStatistics,
) -> Recipe:
    """The plan with all decisions made."""
    calibration = sets.calibration_source
    if calibration is not None and statistics.shortened:
        assert statistics.samples is not None
        calibration = replace(calibration, observed=len(statistics.samples))
    stages = tuple(RecipeStage(stage.pass_, stage.decisions) for stage in best.stages)
    preparation = sets.preparation or recipe.preparation
    return replace(recipe, stages=stages, calibration=calibration, preparation=preparation)
