"""What is done to a model that does not fit into memory as often as the search would hold it.

No session of the whole is opened. Rewrites that change no answer are carried out by their rules,
and onnxruntime is shown the graph without its weights; a lossy pass that is named does what its
settings ask for, or takes the nearest of the forms that save most (`unsearched`). Without samples
it goes by its weights alone. With samples the model is run block by block (`blockwise`): each layer
is observed while its block is open, what no setting says is searched in a few walks (`walked`), and
the original and the result are compared on samples that no choice has seen. Weights stay in their
file, are read one after the other, and what is made of them goes into temporary files (`spill`)
until it is written.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.blockwise import Blockwise, recorded
from onnxpress.brief_names import briefly_named
from onnxpress.contract import Stage
from onnxpress.conversion import fix_shapes, stored_again, with_float_weights
from onnxpress.errors import UsageError
from onnxpress.judge import Evaluator, judgement
from onnxpress.lossless import lossless
from onnxpress.lossless_stage import require_selected
from onnxpress.needed_memory import needed_bytes
from onnxpress.original import Original, custom_operators, load_sets_unrun
from onnxpress.pinning import NO_PINS, Pins
from onnxpress.pool import pools_of
from onnxpress.progress import Progress
from onnxpress.recipe import Recipe
from onnxpress.request import Plan, Request
from onnxpress.result import Result
from onnxpress.runtime import Latency, structural_refusal
from onnxpress.selectable import selectable_sites
from onnxpress.shedding import kept_small
from onnxpress.spill import spill
from onnxpress.stage_result import StageResult
from onnxpress.targets import load_target
from onnxpress.unmeasured import result_of, stamped
from onnxpress.unsearched import carried_out, size_in_words
from onnxpress.untreated import odd_numbers
from onnxpress.validation import Validation
from onnxpress.walked import RunsByBlocks, judges, open_pools

__all__ = ["without_room"]

_HOW_RUN = "run block by block and never as a whole, so that no latency was measured"
_UNTRAINED = "above the memory budget nothing is trained [T007]"
_NOT_NAMED = (
    "left out: without samples no choice can be tried on a model of this size; named, it goes by "
    "the errors that it predicts [L020]"
)
_LESS = (0.5, 0.0)
"""Shares of the budget, one after the other, where it does not hold on untouched samples."""
_REFUSED = "left out: on untouched samples what it did broke the budget [L017]"


def without_room(
    original: Original, plan: Plan, request: Request, most_bytes: int, started: float
) -> Result:
    """Carry out a plan on a model that is too large to be run as a whole.

    Args:
        original: without a session.
        plan: what to do.
        request: what was asked for.
        most_bytes: of memory that may be taken.
        started: when, by the monotonic clock.

    Raises:
        DataError: the samples do not fit the model, or it does not run on them.
        UsageError: what was asked for cannot be done without a run of the whole.
    """
    recipe = plan.recipe
    room = f"it would take about {size_in_words(needed_bytes(original.model))}, and "
    room += f"{size_in_words(most_bytes)} may be taken (--max-memory)"
    _require_no_run(recipe, request, room)
    # Weights of the original stay where they are; the clone shares what is made from now on.
    model = original.model.clone()
    if recipe.conversion.shapes:
        model = fix_shapes(model, recipe.conversion.shapes)
    spill(model)
    model = with_float_weights(model)
    require_selected(recipe, model, load_target(recipe.target))
    refusal = _refusal_of(original, model)
    means = Blockwise(most_bytes, request.threads, request.progress)
    unused = _why_unused(model, original, means)
    choosing = bool(open_pools(recipe))
    sets = None if unused else load_sets_unrun(request, model, recipe, choosing=choosing)
    judge, search = (None, None) if sets is None else judges(model, sets, means, request, started)
    end = request.deadline(started)
    samples = RunsByBlocks(
        sets, means, search, over=lambda: request.stop() or time.monotonic() > end
    )

    def followed(samples: RunsByBlocks) -> tuple[list[StageResult], ir.Model, Validation | None]:
        stages = _stages(model, original, plan, request, samples, refusal)
        final = (stages[-1].model if stages else model).clone()
        final = stored_again(final)
        if any(stage.lost for stage in stages):
            final = briefly_named(final, original.model)
        return stages, final, None if judge is None else _judged(judge, final, means)

    stages, final, validation = followed(samples)
    for share in _LESS:
        tried = any(stage.tried for stage in stages)
        if judge is None or validation is None or validation.within_budget or not tried:
            break
        chosen = f"what is written was chosen with {share:.0%} of the budget"
        rest = chosen if share else "what is written loses nothing"
        reason = judge.broken(validation.measurement)
        samples.notes.append(f"a first choice broke the budget ({reason}): {rest} [W007]")
        judge.looks += 1
        stages, final, validation = followed(replace(samples, share=share))
    if samples.sets is not None:
        recipe = replace(
            recipe,
            calibration=samples.sets.calibration_source,
            preparation=samples.sets.preparation or recipe.preparation,
        )
    done = stamped(original, final, recipe, stages)
    lossy = [stage for stage in stages if stage.lost]
    grown = kept_small(final, original.model, original.nbytes, shed=not lossy)
    how = _HOW_RUN if judge else "nothing was run and compared"
    warnings = [
        f"{how}: {room}; {_shown(final, refusal)} [W008]",
        *(_lost(stage) for stage in lossy if judge is None),
        *samples.notes,
        *(said for said in (original.note, odd_numbers(original.model), grown) if said),
        *plan.problems,
    ]
    given = request.calibration is not None or request.evaluation is not None
    if unused and given:
        warnings.append(f"the samples that were given were not used: {unused} [W016]")
    problems = _problems(request, stages, judge, validation) if lossy or judge else []
    result = result_of(original, final, done, stages, started, warnings)
    return replace(
        result,
        validation=validation,
        problems=tuple(problems),
        within_budget=not problems,
        named=stages[-1].model if lossy else None,
    )


def _stages(
    model: ir.Model,
    original: Original,
    plan: Plan,
    request: Request,
    samples: RunsByBlocks,
    refusal: Callable[[ir.Model], str | None],
) -> list[StageResult]:
    """What every pass of a plan did, in order."""
    recipe, target = plan.recipe, load_target(plan.recipe.target)
    stages: list[StageResult] = []
    pins: Pins | None = None
    decided = {stage.pass_.name: stage.decisions for stage in recipe.stages}
    to_search, done = _to_search(recipe), 0
    for pool in pools_of([stage.pass_ for stage in recipe.stages]):
        request.progress(Progress(pool.names))
        if pool.stage == Stage.LOSSLESS:
            for pass_ in pool.passes:
                stages.append(lossless(pass_, model, target, recipe.seed, refusal))
                model = stages[-1].model
            continue
        if pool.stage == Stage.RECOVERY:
            stages += [StageResult(pass_, model, note=_UNTRAINED) for pass_ in pool.passes]
            continue
        if pins is None:
            pins = Pins.of(recipe.selection, selectable_sites(model, original.model))
        given = [decided[pass_.name] for pass_ in pool.passes]
        known = None if None in given else tuple(d for own in given for d in own or ())
        searched = pool.names in to_search
        unknown = known is None and pool.stage.loses and not request.named
        if (searched and not samples.share) or (unknown and samples.search is None):
            note = _NOT_NAMED if samples.share else _REFUSED
            stages += [StageResult(pass_, model, note=note) for pass_ in pool.passes]
            continue
        done += searched
        search = samples.search_with(done / len(to_search)) if searched else None
        own = replace(pool, pins=pins if pool.stage.loses else NO_PINS)
        most = samples.means.most_bytes
        stages += carried_out(
            own,
            model,
            target,
            recipe.seed,
            most,
            known,
            samples.statistics,
            request.progress,
            search,
            samples.correction,
        )
        model = stages[-1].model
    return stages


def _to_search(recipe: Recipe) -> set[str]:
    """Names of pools that are open, and that no recipe has decided on."""
    undecided = {stage.pass_.name for stage in recipe.stages if stage.decisions is None}
    pools = open_pools(recipe)
    return {pool.names for pool in pools if undecided & {pass_.name for pass_ in pool.passes}}


def _why_unused(model: ir.Model, original: Original, means: Blockwise) -> str:
    """Why samples cannot be used; empty where they can."""
    if custom_operators(original.model):
        return "onnxruntime does not know a custom operator"
    return structural_refusal(model, name=original.source) or means.refusal(model)


def _judged(judge: Evaluator, model: ir.Model, means: Blockwise) -> Validation:
    """What a model that was run by blocks lost against the original."""
    measurement = judge.measure(recorded("the result", model, judge.samples, means))
    nan = math.nan
    return Validation(
        within_budget=judge.holds(measurement),
        budget=judge.described,
        measurement=measurement,
        modes={},
        latency=Latency(nan, nan, nan, nan, nan),
        integer_kernels={},
        warnings=judge.notes,
        readings=tuple(judge.readings.values()),
        judgement=judgement(judge, measurement),
        by_blocks=True,
    )


def _require_no_run(recipe: Recipe, request: Request, room: str) -> None:
    asked = {
        "--float16": recipe.conversion.float16 != "no",
        "--opset": bool(recipe.conversion.opset),
        "--ep": bool(request.providers.names),
    }
    for option, given in asked.items():
        if given:
            raise UsageError(
                f"{option} needs runs of the model, and {room}: leave it out, or allow more [U015]"
            )


def _refusal_of(original: Original, model: ir.Model) -> Callable[[ir.Model], str | None]:
    """Why onnxruntime does not load the graph of a rewritten model; the original's own is known."""
    known = structural_refusal(model, name=original.source)
    if known is not None or custom_operators(model):
        return lambda _: None
    return lambda rewritten: structural_refusal(rewritten, name="the rewritten model")


def _shown(model: ir.Model, refusal: Callable[[ir.Model], str | None]) -> str:
    """What the result rests on."""
    exact = "rewrites that change no answer are exact by their rules"
    found = refusal(model)
    if found is not None:
        return f"{exact}; onnxruntime does not load the result: {found}"
    return f"{exact}, and onnxruntime loads the graph of the result without its weights"


def _lost(stage: StageResult) -> str:
    """What a lossy pass cost, by the weights."""
    worst = max(stage.decisions, key=lambda decision: decision.candidate.predicted_error)
    return (
        f"what {stage.pass_.name} costs at the outputs is not known: of the weights alone it "
        f"changes at most {worst.candidate.predicted_error:.2g} of the power ({worst.site})"
    )


def _problems(
    request: Request,
    stages: Sequence[StageResult],
    judge: Evaluator | None,
    validation: Validation | None,
) -> list[str]:
    """What was asked for and does not hold, or cannot be promised."""
    budget, found = request.budget, [stage.note for stage in stages if stage.failed]
    if judge is not None and validation is not None:
        broken = judge.broken(validation.measurement)
        return [*found, f"the budget does not hold: {broken}"] if broken else found
    if budget.max_drop is not None or budget.min_sqnr is not None or budget.confidence is not None:
        found.append(
            "the budget that was asked for cannot be judged, as the model was not run [V007]"
        )
    return found
