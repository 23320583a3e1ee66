"""Run the stages of a plan, each on the model that the earlier one left."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxpress.contract import Decision, Pass, Stage
from onnxpress.conversion.opset import raise_opset
from onnxpress.enforcement import opset_needed_by
from onnxpress.lossless_stage import difference_of, lossless_stage
from onnxpress.original import Run
from onnxpress.pinning import NO_PINS, Pins
from onnxpress.pool import Pool, pools_of
from onnxpress.pooled import fitted, replayed, searched
from onnxpress.progress import part
from onnxpress.recovering import recovered
from onnxpress.runtime import Session
from onnxpress.search import SearchOptions
from onnxpress.selectable import selectable_sites
from onnxpress.stage_result import StageResult

__all__ = [
    "BROKE",
    "LEFT_OUT",
    "NOT_NEEDED",
    "NO_TIME",
    "STOPPED",
    "Variant",
    "lossy_pools",
    "run_stages",
]

logger = logging.getLogger(__name__)

LEFT_OUT = "left out: with it, the later stages had less to gain from the budget [L018]"
NO_TIME = "left out: time was over before it began; give more with --time-limit [L010]"
BROKE = "left out: on untouched samples what it did broke the budget [L017]"
NOT_NEEDED = "left out: without it nothing is lost, and that is enough here [L028]"
STOPPED = "left out: the search was stopped [L019]"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to follow a plan.

    Attributes:
        skipped: names of passes that are left out.
        kernel_preserving_only: only candidates that leave the kernels alone.
        lossless_only: why nothing that spends of the budget is done; empty: it is.
        share: of the budget that may be spent in all.
        splits: of that share, how much may be spent until a pool has acted, by the names of its
            passes; of a pool that is not named, as much as it is far in the chain.
        rough: what the last pool takes is not fitted again or explained: what comes out is as
            large and as fast.
        taken: by a rough search, which is left to be fitted again; without, it is searched.
        alone: what the last pool that loses something did without those before it, which holds
            where these change nothing.
        kept_s: seconds that are kept for the last pool while there is a limit.
    """

    skipped: frozenset[str] = frozenset()
    kernel_preserving_only: bool = False
    lossless_only: str = ""
    share: float = 1.0
    splits: Mapping[str, float] = field(default_factory=dict)
    rough: bool = False
    taken: tuple[StageResult, ...] = ()
    alone: tuple[StageResult, ...] = ()
    kept_s: float = 0.0


@dataclass(frozen=True)
class _Step:
    """Passes that act together, and what a recipe decided for them.

    Attributes:
        pool: the passes.
        decisions: of all of them; `None`: to be searched.
    """

    pool: Pool
    decisions: tuple[Decision, ...] | None

    @property
    def loses(self) -> bool:
        """Whether they spend of the budget."""
        return self.pool.stage.loses


def lossy_pools(run: Run, variant: Variant) -> tuple[Pool, ...]:
    """The pools that spend of the budget, in the order in which they act."""
    return tuple(step.pool for step in _lossy(variant, _steps(run, variant)))


def _lossy(variant: Variant, steps: Sequence[_Step]) -> list[_Step]:
    """Those of the steps that spend of the budget, where they are not left out."""
    return [step for step in steps if step.loses and step.pool.names not in variant.skipped]


def run_stages(run: Run, variant: Variant) -> tuple[ir.Model, list[StageResult]]:
    """Every step of the plan, but the skipped passes, on the model the earlier one left."""
    current = run.original.model
    results: list[StageResult] = []
    steps = _steps(run, variant)
    lossy = _lossy(variant, steps)
    done, spent, pins = 0, "", NO_PINS
    unchanged_since = 0
    for place, step in enumerate(steps):
        skipped = step.pool.names in variant.skipped
        if step.loses and not skipped:
            if not done:
                # Later the model differs from the original for other reasons too.
                current = _raised(run, current, lossy)
                spent = "" if step.decisions is not None else _spent(run, current, results)
                pins = _pins(run, current)
            done += 1
        if skipped:
            results.append(StageResult(step.pool.passes[0], current, note=LEFT_OUT))
            continue
        # What was taken stays, whatever the time is now.
        last = done == len(lossy)
        loses = step.loses or step.pool.stage == Stage.RECOVERY
        pool = replace(step.pool, pins=pins) if loses else step.pool
        note = "" if variant.taken else _left_out(run, variant, step, spent, last=last)
        if note:
            found = [StageResult(pass_, current, note=note) for pass_ in step.pool.passes]
        elif step.pool.stage == Stage.LOSSLESS:
            found = _all_lossless(run, step.pool, current, again=not done)
        elif step.pool.stage == Stage.RECOVERY:
            found = _recovered(run, variant, pool, current, step.decisions, results)
        elif variant.taken and done < len(lossy):
            found = list(variant.taken[len(results) :][: len(step.pool.passes)])
        elif variant.alone and step.loses and last and not unchanged_since:
            names = {pass_.name for pass_ in step.pool.passes}
            found = [stage for stage in variant.alone if stage.pass_.name in names]
        elif step.decisions is not None and not variant.kernel_preserving_only:
            observers = _lossy_passes(steps[unchanged_since:])
            found = replayed(run, pool, current, step.decisions, observers)
        else:
            options = _options(run, variant, step, done, steps)
            observers = _lossy_passes(steps[unchanged_since:])
            own = variant.taken[len(results) :][: len(pool.passes)] if step.loses else ()
            act = fitted if own else searched
            found = act(run, pool, current, options, observers, own)
        results += found
        if step.loses and found[-1].model is not current:
            unchanged_since = place + 1
        current = found[-1].model
    return (current.clone() if current is run.original.model else current), results


def _options(
    run: Run, variant: Variant, step: _Step, done: int, steps: Sequence[_Step]
) -> SearchOptions:
    """How a step is searched: with its part of the budget and of the time.

    Args:
        run: the plan.
        variant: the way to follow it.
        step: of it.
        done: how many that lose something came until this one, itself among them.
        steps: all.
    """
    lossy = _lossy(variant, steps)
    rough = variant.rough and step.loses and done == len(lossy)
    training = [one for one in steps if step.loses and one.pool.stage == Stage.RECOVERY]
    later = [one for one in (*lossy[done:], *training) if one.decisions is None]
    until = variant.splits.get(step.pool.names, done / len(lossy)) if step.loses else 1.0
    options = replace(
        run.options,
        # Equal parts come to the same in more than one way, but for the last bits.
        share=float(f"{variant.share * until:.12g}"),
        kernel_preserving_only=variant.kernel_preserving_only,
        refining=not rough,
        explaining=None if rough else run.options.explaining,
        progress=part(run.options.progress, (done - 1) / len(lossy), done / len(lossy))
        if step.loses
        else run.options.progress,
    )
    # What is kept serves the last of those that come later.
    parts = len(later) if later and variant.kept_s else 1 + len(later)
    return options.with_part_of_time(parts, variant.kept_s if later else 0.0)


def _recovered(
    run: Run,
    variant: Variant,
    pool: Pool,
    model: ir.Model,
    decisions: tuple[Decision, ...] | None,
    before: Sequence[StageResult],
) -> list[StageResult]:
    """What the stage that recovers makes of the way that is taken; of a rough one nothing."""
    note = ""
    if variant.rough or variant.lossless_only:
        note = LEFT_OUT
    elif decisions is None and run.options.stop():
        note = STOPPED
    elif decisions is None and run.options.out_of_time():
        note = NO_TIME
    if note:
        return [StageResult(pass_, model, note=note) for pass_ in pool.passes]
    return recovered(run, pool, model, decisions, before)


def _all_lossless(run: Run, pool: Pool, model: ir.Model, *, again: bool) -> list[StageResult]:
    """What the passes of a pool that change no answer make of a model, one after the other."""
    found: list[StageResult] = []
    for pass_ in pool.passes:
        found.append(_lossless(run, pass_, model, again=again))
        model = found[-1].model
    return found


def _lossless(run: Run, pass_: Pass, model: ir.Model, *, again: bool) -> StageResult:
    """What a pass makes of a model, which is the same object when it is made `again`.

    So what was observed of it once holds whenever the plan is followed anew.
    """
    key = id(pass_), id(model)
    if not again or key not in run.lossless:
        found = lossless_stage(run, pass_, model)
        if again:
            # Two open sessions of a large model take too much memory.
            run.lossless[key] = replace(found, session=None)
        return found
    return run.lossless[key]


def _lossy_passes(steps: Sequence[_Step]) -> list[Pass]:
    return [pass_ for step in steps if step.loses for pass_ in step.pool.passes]


def _left_out(run: Run, variant: Variant, step: _Step, spent: str, *, last: bool) -> str:
    """Why nothing is searched in a step that would lose something; empty where it is."""
    if not step.loses or step.decisions is not None:
        return ""
    if variant.lossless_only:
        return variant.lossless_only
    if run.options.stop():
        return STOPPED
    # What little time is left goes to the last one, which gains most.
    if not spent and not last and run.options.out_of_time():
        return NO_TIME
    return spent


def _steps(run: Run, variant: Variant) -> list[_Step]:
    """The plan, pool by pool; skipped passes are steps of their own, and so are decided ones."""
    waiting = list(run.recipe.stages)
    steps: list[_Step] = []
    for pool in pools_of([stage.pass_ for stage in waiting]):
        decided: list[tuple[Pass, tuple[Decision, ...]]] = []
        still_open: list[Pass] = []
        for pass_ in pool.passes:
            place = next(n for n, stage in enumerate(waiting) if stage.pass_ is pass_)
            stage = waiting.pop(place)
            if pass_.name in variant.skipped:
                steps.append(_Step(Pool((pass_,)), None))
            elif stage.decisions is None:
                still_open.append(pass_)
            else:
                decided.append((pass_, stage.decisions))
        if decided:
            # What a recipe says comes first; the open ones are searched on what is left.
            every = tuple(decision for _, own in decided for decision in own)
            steps.append(_Step(Pool(tuple(pass_ for pass_, _ in decided)), every))
        if still_open:
            steps.append(_Step(Pool(tuple(still_open)), None))
    return steps


def _pins(run: Run, model: ir.Model) -> Pins:
    """What is selected, found in the simplified model by the names of both; all its layers.

    Raises:
        UsageError: what a selector matches in the original is gone after simplification.
    """
    return Pins.of(run.recipe.selection, selectable_sites(model, run.original.model))


def _spent(run: Run, model: ir.Model, results: Sequence[StageResult]) -> str:
    """Why nothing is searched: the budget does not hold before anything was lost."""
    known = [stage.session for stage in results if stage.model is model and stage.session]
    session = known[-1] if known else Session(model, threads=run.request.threads)
    measured = run.evaluator.measure(session, run.evaluator.screening)
    if not run.evaluator.clearly_fails(measured):
        return ""
    return (
        "the simplified model, which computes the same but for rounding, does not keep within "
        f"{run.evaluator.described}"
    )


def _raised(run: Run, model: ir.Model, lossy: Sequence[_Step]) -> ir.Model:
    """The model at the opset the passes need, where that is possible and changes nothing."""
    opset = max(opset_needed_by(pass_) for step in lossy for pass_ in step.pool.passes)
    key = opset, id(model)
    if key not in run.raised:
        run.raised[key] = _at_opset(run, model, opset)
    return run.raised[key]


def _at_opset(run: Run, model: ir.Model, opset: int) -> ir.Model:
    raised, reason = raise_opset(model, opset)
    if reason is not None:
        logger.info("%s", reason)
    if raised is model:
        return model
    difference = difference_of(run, raised)
    if difference is not None:
        logger.warning("a higher opset changed what the model computes: %s", difference)
        return model
    return raised
