"""Run the stages of a plan, each on the model that the earlier one left."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Context, Decision, Pass, Skip, Stage
from onnxpress.conversion.opset import raise_opset
from onnxpress.enforcement import opset_needed_by
from onnxpress.errors import PassError, RecipeError, nearest
from onnxpress.lossless import difference_of, lossless_stage
from onnxpress.original import Run
from onnxpress.pool import Observe, Pool, pools_of
from onnxpress.result import StageResult
from onnxpress.runtime import Session
from onnxpress.search import (
    Findings,
    PoolResult,
    SearchOptions,
    Trial,
    fit_stage,
    search_stage,
)
from onnxpress.selectable import selectable_sites
from onnxpress.selection import NO_PINS, Pins
from onnxpress.statistics import Statistics

__all__ = ["SMALL_BYTES", "Variant", "run_stages"]

logger = logging.getLogger(__name__)

SMALL_BYTES = 32_000_000
"""Of weights: what was worked out of a larger model is not kept for a second search."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to follow a plan.

    Attributes:
        skipped: names of passes that are left out.
        kernel_preserving_only: only candidates that leave the kernels alone.
        lossless_only: nothing that spends of the budget.
        share: of the budget that may be spent in all.
        rough: what the last pool takes is not fitted again or explained: what comes out is as
            large and as fast.
        taken: by a rough search, which is left to be fitted again; without, it is searched.
    """

    skipped: frozenset[str] = frozenset()
    kernel_preserving_only: bool = False
    lossless_only: bool = False
    share: float = 1.0
    rough: bool = False
    taken: tuple[StageResult, ...] = ()


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


def run_stages(run: Run, variant: Variant) -> tuple[ir.Model, list[StageResult]]:
    """Every step of the plan, but the skipped passes, on the model the earlier one left."""
    current = run.original.model
    results: list[StageResult] = []
    steps = _steps(run, variant)
    lossy = [step for step in steps if step.loses and step.pool.names not in variant.skipped]
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
            note = "left out: with it, the later stages had less to gain from the budget"
            results.append(StageResult(step.pool.passes[0], current, note=note))
            continue
        note = _left_out(run, variant, step, spent, last=done == len(lossy))
        if note:
            found = [StageResult(pass_, current, note=note) for pass_ in step.pool.passes]
        elif step.pool.stage == Stage.LOSSLESS:
            found = []
            for pass_ in step.pool.passes:
                found.append(_lossless(run, pass_, current, again=not done))
                current = found[-1].model
        elif variant.taken and done < len(lossy):
            found = list(variant.taken[len(results) :][: len(step.pool.passes)])
        elif step.decisions is not None and not variant.kernel_preserving_only:
            pool = replace(step.pool, pins=pins) if step.loses else step.pool
            observers = _lossy_passes(steps[unchanged_since:])
            replayed = _replayed(run, pool, current, step.decisions, observers)
            found = _by_pass(step.pool, replayed, current)
        else:
            share = variant.share * (done / len(lossy) if step.loses else 1.0)
            pool = replace(step.pool, pins=pins) if step.loses else step.pool
            rough = variant.rough and step.loses and done == len(lossy)
            later = [other for other in lossy[done:] if other.decisions is None]
            options = replace(
                run.options,
                share=share,
                kernel_preserving_only=variant.kernel_preserving_only,
                refining=not rough,
                explaining=None if rough else run.options.explaining,
            )
            options = options.with_part_of_time(1 + len(later))
            observers = _lossy_passes(steps[unchanged_since:])
            own = variant.taken[len(results) :][: len(pool.passes)] if step.loses else ()
            act = _fitted if own else _searched
            found = act(run, pool, current, options, observers, own)
        results += found
        if step.loses and found[-1].model is not current:
            unchanged_since = place + 1
        current = found[-1].model
    return (current.clone() if current is run.original.model else current), results


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
        return "left out: on untouched samples what it did broke the budget"
    if run.options.stop():
        return "left out: the search was stopped"
    # What little time is left goes to the last one, which gains most.
    if not spent and not last and run.options.out_of_time():
        return "left out: time was over before it began; give more with --time-limit"
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


def _searched(
    run: Run,
    pool: Pool,
    model: ir.Model,
    options: SearchOptions,
    observers: Sequence[Pass],
    _: Sequence[StageResult] = (),
) -> list[StageResult]:
    """Choose among the candidates of a pool; `observers` may look at the same model."""
    run.request.progress(f"{pool.names}: statistics")

    found = search_stage(
        pool,
        lambda of: _observed(run, of, model, options, observers),
        model,
        run.evaluator,
        options,
        lambda of: _findings(run, of, model),
    )
    return _by_pass(pool, found, model)


def _observed(
    run: Run, pool: Pool, model: ir.Model, options: SearchOptions, observers: Sequence[Pass]
) -> Context:
    # Half of the time: what was seen has to be used too.
    over = options.with_part_of_time(2).out_of_time

    def observe(context: Context, passes: Sequence[Pass]) -> Statistics | None:
        return run.statistics.of(model, context, passes, observers, over)

    return _context(run, pool, model, observe)


def _findings(run: Run, pool: Pool, model: ir.Model) -> Findings:
    """What is known of a model that comes again, where it is small; what is not is forgotten."""
    kept = any(model is one for one in run.raised.values())
    if not kept or model_file.weight_bytes(model) > SMALL_BYTES:
        return Findings()
    return run.findings.setdefault((pool.names, id(model)), Findings())


def _fitted(
    run: Run,
    pool: Pool,
    model: ir.Model,
    options: SearchOptions,
    observers: Sequence[Pass],
    taken: Sequence[StageResult],
) -> list[StageResult]:
    """What a rough search of the same model took, fitted again unless a pass fails at that.

    Args:
        run: the plan.
        pool: of it.
        model: that the earlier stages left; not changed.
        options: of the search.
        observers: may look at the same model.
        taken: by each pass of the pool.
    """
    decisions = tuple(decision for stage in taken for decision in stage.decisions)
    if not decisions:
        return list(taken)
    run.request.progress(f"{pool.names}: fitting again")
    measurement = taken[-1].measurement
    assert measurement is not None
    acting = replace(pool, passes=tuple(stage.pass_ for stage in taken if not stage.failed))
    try:
        found = fit_stage(
            acting,
            lambda of: _observed(run, of, model, options, observers),
            Trial(decisions, measurement, taken[-1].model),
            run.evaluator,
            options,
            _findings(run, acting, model),
        )
    except PassError as error:
        note = f"{error}; what was taken is not fitted again"
        logger.warning("%s", note)
        return [replace(s, note=note) if s.pass_.name == error.pass_name else s for s in taken]
    return [
        replace(
            stage,
            model=found.model,
            decisions=tuple(
                d for d in found.decisions if d.candidate.pass_name in (stage.pass_.name, "")
            ),
            measurement=found.measurement,
            costliest=tuple(c for c in found.costliest if c.pass_name == stage.pass_.name),
        )
        for stage in taken
    ]


def _context(run: Run, pool: Pool, model: ir.Model, observe: Observe | None) -> Context:
    return pool.context(
        model,
        run.target,
        None if observe is None else run.statistics.samples,
        seed=run.recipe.seed,
        threads=run.request.threads,
        observe=observe,
    )


def _replayed(
    run: Run,
    pool: Pool,
    model: ir.Model,
    decisions: tuple[Decision, ...],
    observers: Sequence[Pass],
) -> PoolResult:
    """Carry out what a recipe says; without passes that fail."""

    def observe(context: Context, passes: Sequence[Pass]) -> Statistics | None:
        return run.statistics.of(model, context, passes, observers)

    failures: list[PassError] = []
    left: tuple[tuple[str, Skip], ...] = ()
    current: Pool | None = pool
    while current is not None and decisions:
        names = {pass_.name for pass_ in current.passes}
        own = tuple(d for d in decisions if d.candidate.pass_name in names)
        acting = {d.candidate.pass_name for d in own}
        wanted = any(p.rewrites_from_statistics and p.name in acting for p in current.passes)
        try:
            context = _context(run, current, model, observe if wanted else None)
            _require_sites(context, own, current)
            own, left = current.permitted(context, own)
            rewritten = current.rewrite_refined(
                context, own, run.calibration, threads=run.request.threads
            )
            return PoolResult(current, rewritten, own, left, failures=tuple(failures))
        except PassError as error:
            _require_parameters(error)
            failures.append(error)
            current = current.without([error])
    return PoolResult(pool, model, failures=tuple(failures))


def _require_parameters(failure: PassError) -> None:
    """Refuse a decision whose parameters its pass cannot read.

    Raises:
        RecipeError: one is missing or of another type or value.
    """
    cause: BaseException = failure
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, KeyError | TypeError | ValueError):
        raise RecipeError(
            f"the recipe's decision cannot be carried out: {failure}; if it was written or changed "
            "by hand, compare its parameters with those of a recipe that onnxpress wrote"
        ) from failure


def _require_sites(context: Context, decisions: Sequence[Decision], pool: Pool) -> None:
    """Refuse decisions about what the model does not have.

    Raises:
        RecipeError: a site is neither a layer, tensor or node nor offered by the pass.
    """
    graphs = (context.model.graph, *context.model.graph.subgraphs())
    known = {layer.name for layer in context.layers}
    for graph in graphs:
        known.update(graph.initializers)
        for node in graph:
            known.update((node.name or "", *(value.name or "" for value in node.outputs)))
    unknown = [d for d in decisions if d.site not in known or not known.issuperset(d.layers)]
    if not unknown:
        return
    offer = pool.offer(context)
    offered = {item.site for item in offer.proposals} | {skip.site for _, skip in offer.left}
    for decision in unknown:
        if decision.site not in offered:
            raise RecipeError(
                f"the recipe decides for {decision.candidate.pass_name} about {decision.site!r}, "
                f"which the model does not have{nearest(decision.site, sorted(known | offered))}; "
                "remove the decision, or use the recipe with the model it was made for"
            )


def _by_pass(pool: Pool, result: PoolResult, before: ir.Model) -> list[StageResult]:
    """What each pass of a pool did, those that failed included.

    Candidates say what each saves alone; where two cut the same layer, together they save less,
    and what was saved is shared out.
    """
    claimed = sum(decision.candidate.saved_bytes for decision in result.decisions)
    made = model_file.weight_bytes(before) - model_file.weight_bytes(result.model)
    share = max(made, 0) / claimed if claimed > max(made, 0) else 1.0
    decisions = [_scaled(decision, share) for decision in result.decisions]
    failed = {failure.pass_name: str(failure) for failure in result.failures}
    found = []
    for pass_ in pool.passes:
        own = tuple(d for d in decisions if d.candidate.pass_name in (pass_.name, ""))
        note = result.note
        if result.decisions and not own:
            note = "candidates of other passes were taken for its sites"
        found.append(
            StageResult(
                pass_,
                result.model,
                own,
                tuple(skip for name, skip in result.left if name == pass_.name),
                failed.get(pass_.name, note),
                result.measurement,
                result.latency,
                result.tried,
                failed=pass_.name in failed,
                costliest=tuple(c for c in result.costliest if c.pass_name == pass_.name),
            )
        )
    return found


def _scaled(decision: Decision, share: float) -> Decision:
    if share == 1.0 or decision.candidate.saved_bytes <= 0:
        return decision
    saved = int(decision.candidate.saved_bytes * share)
    return replace(decision, candidate=replace(decision.candidate, saved_bytes=saved))


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
