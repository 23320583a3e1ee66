"""optimize(): the whole way of a model.

file → simplify → statistics → candidates → plan → rewrite → validate → save → report
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress import model_file, registry
from onnxpress.attempts import Attempt, judged_attempt
from onnxpress.contract import Pass, Stage
from onnxpress.conversion import Conversion, convert_interface
from onnxpress.costs import recorded
from onnxpress.errors import NoSamplesError
from onnxpress.judge import Budget, Disagreement, Evaluator, most_different
from onnxpress.lossless_stage import require_selected
from onnxpress.memory import memory_budget
from onnxpress.needed_memory import needed_bytes
from onnxpress.original import (
    Original,
    Run,
    SampleSets,
    load_sets,
    opened,
    read,
    settled,
)
from onnxpress.oversized import without_room
from onnxpress.progress import Progress, Tell, followed, part, unheard
from onnxpress.providers import NO_PROVIDERS, ProviderOptions
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.request import DataArgument, Request, planned
from onnxpress.result import Result, made_by_us, stamp
from onnxpress.runtime import Clock, Session, compare_latency, numpy_threads
from onnxpress.runtime.profile import LEAST_RUNS, OperatorTime, by_operator
from onnxpress.search import Allowance, Goal, Journal, Objective, SearchOptions
from onnxpress.shared_statistics import SharedStatistics
from onnxpress.shedding import kept_small
from onnxpress.stage_result import StageResult
from onnxpress.statistics import activation_grids
from onnxpress.targets import load_target
from onnxpress.unmeasured import unchanged, without_runtime, without_samples
from onnxpress.untreated import nothing_to_compress, odd_numbers
from onnxpress.validation import Validation, in_half_arithmetic, on_providers

__all__ = ["optimize", "run"]

_AGAIN = 0.1
"""Of a limit, for a second choice; where the first one holds it is not used."""
_COMPARED = 2
"""Samples on which a change of the interface alone is compared with the model before it."""
_SEARCHING = 0.05, 0.98
"""Of a run, usually: before, the model is read and made simpler; behind, it runs elsewhere."""
_COMPARING_S = 0.5
_COMPARING_SHARE = 0.03
"""Of the time of the run, to look for samples that differ."""
_COMPARED_BYTES = 500_000_000


def optimize(
    model: str | os.PathLike[str] | ir.Model,
    *,
    calibration: DataArgument | None = None,
    evaluation: DataArgument | None = None,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    metric: str = "auto",
    task: str | None = None,
    outputs: Mapping[str, str] | None = None,
    confidence: float | None = None,
    goal: Goal = "balanced",
    target: str | Sequence[str] = "cpu",
    passes: Sequence[str | Pass] | None = None,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    fix_shapes: Sequence[str] = (),
    float16: str = "no",
    opset: int = 0,
    seed: int = 0,
    threads: int = 0,
    time_limit: float | None = None,
    providers: ProviderOptions = NO_PROVIDERS,
    clock: Clock = compare_latency,
    progress: Tell = unheard,
    keep: Sequence[str] = (),
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    overridable: bool | None = None,
    stop: Callable[[], bool] = lambda: False,
    max_memory: int | str | None = None,
) -> Result:
    """Make a model smaller and faster within a budget, and prove it.

    Args:
        model: a file or an onnx-ir model; neither is changed.
        calibration: samples the passes may look at; without, only what needs none is done.
        evaluation: held-out samples: a half, at most 256, for the search to choose by, the rest
            for the last judgement, which no choice has seen. Without, half of the calibration
            samples is held out, and without those random inputs show fidelity.
        max_drop: points of the task metric that may be lost.
        min_sqnr: dB that the worst output must keep.
        metric: see `Budget`, as `task`, `outputs` and `confidence`.
        task: what the outputs are for, where the model does not say it.
        outputs: the kind of an output, by name.
        confidence: that the loss stays within the budget, which the search then keeps away from.
        goal: `balanced` and `latency` never accept a slower model, `size` does.
        target: name of a target, or the path of its TOML file; of several, the model is good for
            all of them.
        passes: names or passes, instead of all; one that is named counts although it saves
            nothing.
        recipe: repeat these decisions; a pass without decisions is searched.
        fix_shapes: `NAME=1x3x224x224` for an input, `DIM=4` for a symbolic dimension; done first.
        float16: `storage` for weights in half that are float32 once the model is loaded,
            `keep-io` for half precision with the inputs and outputs as they are, `all` for half
            inputs and outputs too; `no` leaves float32. Takes the place of integers.
        opset: to convert to; 0: only where the target knows no newer one.
        seed: of the held-out split, of rows drawn for statistics, of random inputs.
        threads: of onnxruntime and numpy; 0: all cores.
        time_limit: seconds that all may take, about: the search takes the best it has when time
            is left for the last judgement alone. A search of several stages gives each a part.
        providers: where else the result is run before it is given back.
        clock: compares the latency of two models; in tests a table.
        progress: told how far the run is, in events (`onnxpress.Progress`), which say the stage,
            its steps, the estimated fraction of the whole, the time left, and the best model so
            far. What it raises, and Ctrl-C, ends the run as it is; nothing is written.
        keep: what no lossy pass touches: names of layers or nodes, patterns (`/head/*`), operator
            types (`Gather`).
        only: lossy passes touch nothing but these; `quantize:/head/*` for one pass.
        exclude: as `keep`, and `quantize:/head/*` keeps from one pass.
        overridable: whether callers may override weights that are inputs too; `None`: from IR
            version 4 on, as earlier ones demanded that all weights are inputs.
        stop: asked again and again from the beginning of the search on; once it says yes, the best
            model so far is judged and given back.
        max_memory: bytes, or with a unit as `4GB`; `None`: half of what is free. A model that
            takes more is never run as a whole: what changes no answer is done by its rules, a
            lossy pass that is named by the errors that it predicts. With samples it is run block
            by block, observed, and judged in the end; without, by the weights alone.

    Raises:
        OnnxpressError: the input cannot be used; its subclasses say which and what to do.
    """
    return run(
        Request(
            model,
            calibration,
            evaluation,
            Budget(max_drop, min_sqnr, metric, task, outputs or {}, confidence),
            goal,
            (target,) if isinstance(target, str) else tuple(target),
            passes,
            recipe,
            Conversion(tuple(fix_shapes), float16, opset),
            seed,
            threads,
            time_limit,
            providers,
            clock,
            followed(progress, time_limit),
            keep,
            only,
            exclude,
            overridable,
            stop,
            max_memory,
        )
    )


def run(request: Request) -> Result:
    """As `optimize`, for what stands in a request."""
    with numpy_threads(request.threads):
        found = _run(request)
        request.progress(Progress("done", fraction=1.0))
    return found


def _run(request: Request) -> Result:
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
    require_selected(plan.recipe, given.model, target)
    request.progress(Progress("simplifying"))
    original = opened(given, plan.recipe, request.threads)
    if original.session is None:
        return without_runtime(original, plan.recipe, started)
    try:
        sets = load_sets(request, original, plan.recipe)
    except NoSamplesError as error:
        if request.named and any(stage.pass_.stage.loses for stage in plan.recipe.stages):
            raise
        return without_samples(original, plan.recipe, started, str(error))
    evaluator = Evaluator(original.session, sets.selection, request.budget, model=original.model)
    ready = time.monotonic()
    judge = _judge(original, sets, request.budget, evaluator)
    judging_s = time.monotonic() - ready
    first, again = _deadlines(request.time_limit, started, judging_s)
    options = SearchOptions(
        request.objective if target.timed_here else Objective("size"),
        named=request.named,
        calibration=sets.calibration,
        threads=request.threads,
        deadline=first,
        stop=request.stop,
        clock=request.clock,
        progress=part(request.progress, *_SEARCHING),
        explaining=Allowance(started),
        journal=Journal(model_file.weight_bytes(original.model), request.objective),
    )
    told = plan.recipe.calibration
    statistics = SharedStatistics(
        sets.calibration, most=told.observed if told else None, threads=request.threads
    )
    work = Run(
        request, plan.recipe, original, target, sets.calibration, evaluator, options, statistics
    )
    best, validation = judged_attempt(work, judge, again)
    validation = _as_half(validation, best.model, judge, work)
    validation = on_providers(
        validation,
        best.model,
        original.model,
        judge,
        request.providers,
        threads=request.threads,
        progress=part(request.progress, _SEARCHING[1], 1.0),
    )
    feeds = sets.evaluation.feeds[:_COMPARED]
    final, notes = convert_interface(best.model, plan.recipe.conversion, feeds)
    reasons = (
        original.note,
        made_by_us(original.model),
        nothing_to_compress(original.model),
        odd_numbers(original.model),
        statistics.note,
    )
    said = [reason for reason in reasons if reason]
    if sets.calibration is not None:
        said += [note for note in sets.calibration.notes if note not in sets.evaluation.notes]
    if request.stop():
        said.append("the search was stopped: this is the best that was found until then [L019]")
    warnings = (*validation.warnings, *said, *notes, *plan.problems, *_faults(best.stages, request))
    validation = replace(validation, warnings=warnings)
    problems = list(validation.problems)
    if not validation.within_budget and not problems:
        broken = judge.broken(validation.measurement) or judge.described
        problems.append(f"the budget does not hold: {broken}")
    problems += _without_effect(best.stages, request)
    recipe = _decided(plan.recipe, best, sets, statistics)
    stamp(final, recipe, original.digest)
    grown = kept_small(final, original.model, original.nbytes, shed=not best.lossy)
    different, compared = _different(work, judge, best, started)
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
        tried=tuple(options.journal.tried),
        spent=judge.spent_anywhere(validation.measurement),
        disagreements=different,
        compared=compared,
        activations=activation_grids(final, statistics.tensors()),
        operators=_operators(work, judge, best, started) if target.timed_here else (),
    )


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
    seconds = max(_COMPARING_S, min(_COMPARING_SHARE * took, left))
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


def _strict(result: Result, request: Request) -> Result:
    """Of what was not measured: not met where a pass that was named changed nothing."""
    unmet = (*result.problems, *_without_effect(result.stages, request))
    return replace(result, problems=unmet, within_budget=not unmet)


def _as_half(found: Validation, model: ir.Model, judge: Evaluator, work: Run) -> Validation:
    """With what half arithmetic keeps, where half precision was asked for."""
    if work.recipe.conversion.float16 == "no":
        return found
    counts = work.target.float16 == "arithmetic"
    return in_half_arithmetic(found, model, judge, counts=counts, threads=work.request.threads)


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


def _without_effect(stages: Sequence[StageResult], request: Request) -> list[str]:
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
