"""One pool of a plan on the model before it: searched, fitted again, or as a recipe says."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Context, Decision, Pass, Skip, Stage
from onnxpress.distillation.teaching import Teacher
from onnxpress.errors import PassError, RecipeError, nearest
from onnxpress.graph import graphs_of
from onnxpress.original import Latest, Run
from onnxpress.pool import Observe, Pool
from onnxpress.progress import Progress, part
from onnxpress.search import (
    Findings,
    PoolResult,
    SearchOptions,
    Trial,
    fit_stage,
    search_stage,
    seen_of,
)
from onnxpress.shared_statistics import KEPT_BYTES
from onnxpress.stage_result import StageResult
from onnxpress.statistics import Statistics

__all__ = ["SMALL_BYTES", "context_of", "fitted", "replayed", "searched"]

logger = logging.getLogger(__name__)

_SEEN = 0.4
"""Of the search of a pool, usually: statistics and what is proposed."""
SMALL_BYTES = 32_000_000
"""Of weights: what was worked out of a larger model is not kept for a second search."""


def searched(
    run: Run,
    pool: Pool,
    model: ir.Model,
    options: SearchOptions,
    observers: Sequence[Pass],
    _: Sequence[StageResult] = (),
) -> list[StageResult]:
    """Choose among the candidates of a pool; `observers` may look at the same model.

    What comes of a small model is remembered. Where another part of the budget gives the same, it
    is the same object, so that the pools behind meet no other model.
    """
    given = pool.names, id(model)
    key = (*given, options.share, options.kernel_preserving_only, options.refining)
    if key in run.reached:
        return run.reached[key][1]
    found = _found(run, pool, model, options, observers)
    if options.out_of_time() or model_file.weight_bytes(model) > SMALL_BYTES:
        return found
    before = [known for other, (_, known) in run.reached.items() if other[: len(given)] == given]
    same = next((known for known in before if _same_choice(found, known)), None)
    if same is not None:
        found = [replace(stage, model=same[-1].model) for stage in found]
    run.reached[key] = model, found
    return found


def _same_choice(one: Sequence[StageResult], other: Sequence[StageResult]) -> bool:
    """Whether passes took the same, so that models are the same too."""
    chosen, also = ([seen_of(s.decisions) for s in found] for found in (one, other))
    return chosen == also


def _found(
    run: Run, pool: Pool, model: ir.Model, options: SearchOptions, observers: Sequence[Pass]
) -> list[StageResult]:
    options.progress(Progress(f"{pool.names}: statistics"))
    found = search_stage(
        pool,
        lambda of: _observed(run, of, model, options, observers),
        model,
        run.evaluator,
        replace(options, progress=part(options.progress, _SEEN, 1.0)),
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

    return context_of(run, pool, model, observe)


def _findings(run: Run, pool: Pool, model: ir.Model) -> Findings:
    """What is known of a small model that may come again: before any pool, or the last of a pool.

    A pool that loses nothing does not: what is known for the one before it is not given up for it.
    """
    new = Findings(magnifications=run.magnifications.setdefault(pool.names, {}))
    if not pool.stage.loses or model_file.weight_bytes(model) > SMALL_BYTES:
        return new
    if any(model is one for one in run.raised.values()):
        return run.findings.setdefault((pool.names, id(model)), new)
    latest = run.latest.get(pool.names)
    if latest is None or latest.model is not model:
        latest = Latest(model, new)
        for name in [name for name, one in run.latest.items() if _is_large(one.findings)]:
            del run.latest[name]
        run.latest[pool.names] = latest
    return latest.findings


def _is_large(findings: Findings) -> bool:
    """Whether what was observed of a model takes too much memory beside that of others."""
    statistics = None if findings.context is None else findings.context.statistics
    return statistics is not None and statistics.nbytes > KEPT_BYTES


def fitted(
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
    options.progress(Progress(f"{pool.names}: fitting again"))
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
        note = f"{error}; what was taken is not fitted again [W015]"
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


def context_of(
    run: Run,
    pool: Pool,
    model: ir.Model,
    observe: Observe | None,
    left_s: Callable[[], float] = lambda: math.inf,
) -> Context:
    """What the passes of a pool may look at.

    Args:
        run: the plan.
        pool: the passes.
        model: that the earlier stages left.
        observe: gives statistics; `None`: none are wanted.
        left_s: seconds for training; without a limit where a recipe says how long.
    """
    context = pool.context(
        model,
        run.target,
        None if observe is None else run.statistics.samples,
        seed=run.recipe.seed,
        threads=run.request.threads,
        observe=observe,
    )
    if pool.stage != Stage.RECOVERY or run.calibration is None or run.original.session is None:
        return context
    teacher = Teacher(
        run.original.model,
        run.original.session,
        run.calibration,
        run.evaluator.readings,
        run.recipe.seed,
        run.request.threads,
        left_s,
        run.request.stop,
        run.options.progress,
    )
    return replace(context, teacher=teacher)


def replayed(
    run: Run,
    pool: Pool,
    model: ir.Model,
    decisions: tuple[Decision, ...],
    observers: Sequence[Pass],
) -> list[StageResult]:
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
            context = context_of(run, current, model, observe if wanted else None)
            _require_sites(context, own, current)
            own, left = current.permitted(context, own)
            rewritten = current.rewrite_refined(
                context, own, run.calibration, threads=run.request.threads
            )
            found = PoolResult(current, rewritten, own, left, failures=tuple(failures))
            return _by_pass(pool, found, model)
        except PassError as error:
            _require_parameters(error)
            failures.append(error)
            current = current.without([error])
    return _by_pass(pool, PoolResult(pool, model, failures=tuple(failures)), model)


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
            "by hand, compare its parameters with those of a recipe that onnxpress wrote [R005]"
        ) from failure


def _require_sites(context: Context, decisions: Sequence[Decision], pool: Pool) -> None:
    """Refuse decisions about what the model does not have.

    Raises:
        RecipeError: a site is neither a layer, tensor or node nor offered by the pass.
    """
    graphs = graphs_of(context.model.graph)
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
                f"which the model does not have{nearest(decision.site, sorted(known | offered))} "
                "(remove the decision, or use the recipe with the model it was made for) [R001]"
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
            note = "candidates of other passes were taken for its sites [L006]"
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
                sated=result.sated,
            )
        )
    return found


def _scaled(decision: Decision, share: float) -> Decision:
    if share == 1.0 or decision.candidate.saved_bytes <= 0:
        return decision
    saved = int(decision.candidate.saved_bytes * share)
    return replace(decision, candidate=replace(decision.candidate, saved_bytes=saved))
