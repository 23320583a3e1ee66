"""What is done to a model that does not fit into memory as often as the search would hold it.

No session of the whole is opened. Rewrites that change no answer are carried out by their rules;
a lossy pass that is named takes the strongest candidate of every site, or what its quota asks for,
by the errors of the weights alone; onnxruntime is shown the graph without its weights. Weights stay
in their file, are read one after the other, and what is made of them goes into temporary files
(`spill`) until it is written.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.contract import Context, Decision, Skip, Stage
from onnxpress.conversion import fix_shapes
from onnxpress.errors import PassError, UsageError
from onnxpress.layers import FLOAT_TYPES
from onnxpress.lossless import lossless, require_selected
from onnxpress.memory import Memory
from onnxpress.original import Original, custom_operators
from onnxpress.pool import Pool, PoolOffer, pools_of
from onnxpress.recipe import Recipe
from onnxpress.request import Plan, Request
from onnxpress.result import Result, StageResult
from onnxpress.runtime import structural_refusal
from onnxpress.search import strongest
from onnxpress.selectable import selectable_sites
from onnxpress.selection import NO_PINS, Pins
from onnxpress.shedding import kept_small
from onnxpress.spill import spill
from onnxpress.targets import Target, load_target
from onnxpress.unmeasured import result_of, stamped
from onnxpress.untreated import odd_numbers

__all__ = ["needed_bytes", "without_room"]

_COPIES = 4
"""Of all weights in single precision, at once: a session each of the original, the simplified model
and a candidate, whose kernels pack them anew, and what passes work out."""
_FLOAT_BYTES = 4
_WORKING_BYTES = 8
"""Of an element while its layer is worked on, in double precision."""
_REMEMBERED_BYTES = 64_000_000
"""Of what passes have worked out already."""
_REACHED = 0.99
"""Of a quota: steps are whole percents of a layer."""
_NOT_NAMED = (
    "left out: what it loses cannot be measured, as the model is not run; named, it goes by the "
    "errors of the weights alone"
)


def needed_bytes(model: ir.Model) -> int:
    """About how much memory it takes to optimize a model by running it."""
    total = 0
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in FLOAT_TYPES:
                total += max(_FLOAT_BYTES * tensor.size, tensor.nbytes)
            elif tensor is not None:
                total += tensor.nbytes
    return _COPIES * total


def without_room(
    original: Original, plan: Plan, request: Request, most_bytes: int, started: float
) -> Result:
    """Carry out a plan on a model that is too large to be run.

    Args:
        original: without a session.
        plan: what to do.
        request: what was asked for.
        most_bytes: of memory that may be taken.
        started: when, by the monotonic clock.

    Raises:
        UsageError: what was asked for cannot be done without a run.
    """
    recipe = plan.recipe
    room = f"it would take about {_size(needed_bytes(original.model))}, and {_size(most_bytes)} "
    room += "may be taken (--max-memory)"
    _require_no_run(recipe, request, room)
    target = load_target(recipe.target)
    # Weights of the original stay where they are; the clone shares what is made from now on.
    model = original.model.clone()
    if recipe.conversion.shapes:
        model = fix_shapes(model, recipe.conversion.shapes)
    spill(model)
    require_selected(recipe, model, target)
    refusal = _refusal_of(original, model)
    stages: list[StageResult] = []
    pins: Pins | None = None
    decided = {stage.pass_.name: stage.decisions for stage in recipe.stages}
    for pool in pools_of([stage.pass_ for stage in recipe.stages]):
        request.progress(f"{pool.names}: weight after weight")
        if pool.stage == Stage.LOSSLESS:
            for pass_ in pool.passes:
                stages.append(lossless(pass_, model, target, recipe.seed, refusal))
                model = stages[-1].model
            continue
        if pins is None:
            pins = Pins.of(recipe.selection, selectable_sites(model, original.model))
        given = [decided[pass_.name] for pass_ in pool.passes]
        known = None if None in given else tuple(d for own in given for d in own or ())
        if known is None and pool.stage.loses and not request.named:
            stages += [StageResult(pass_, model, note=_NOT_NAMED) for pass_ in pool.passes]
            continue
        own = replace(pool, pins=pins if pool.stage.loses else NO_PINS)
        stages += _carried_out(own, model, target, recipe.seed, most_bytes, known)
        model = stages[-1].model
    final = model.clone()
    done = stamped(original, final, recipe, stages)
    lossy = [stage for stage in stages if stage.pass_.stage.loses and stage.decisions]
    grown = kept_small(final, original.model, original.nbytes, shed=not lossy)
    warnings = [
        f"nothing was run and compared: {room}; {_shown(final, refusal)}",
        *(_lost(stage) for stage in lossy),
        *(said for said in (original.note, odd_numbers(original.model), grown) if said),
        *plan.problems,
    ]
    if lossy and (request.calibration is not None or request.evaluation is not None):
        warnings.append("the samples that were given were not used")
    problems = _problems(request, stages) if lossy else []
    result = result_of(original, final, done, stages, started, warnings)
    return replace(result, problems=tuple(problems), within_budget=not problems)


def _require_no_run(recipe: Recipe, request: Request, room: str) -> None:
    asked = {
        "--float16": recipe.conversion.float16 != "no",
        "--opset": bool(recipe.conversion.opset),
        "--ep": bool(request.providers.names),
    }
    for option, given in asked.items():
        if given:
            raise UsageError(
                f"{option} needs runs of the model, and {room}: leave it out, or allow more"
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


def _carried_out(
    pool: Pool,
    model: ir.Model,
    target: Target,
    seed: int,
    most_bytes: int,
    decided: tuple[Decision, ...] | None,
) -> list[StageResult]:
    """What the passes of a pool do to a model, by the numbers of its weights alone."""
    try:
        context = pool.context(model, target, seed=seed)
        memory = Memory(_REMEMBERED_BYTES)
        large = {
            weight.name: Skip(weight.name, _too_large(weight.nbytes, most_bytes))
            for weight in context.weights
            if _WORKING_BYTES * _elements(weight.weight) > most_bytes
        }
        layers = tuple(layer for layer in context.layers if layer.name not in large)
        context = replace(context, layers=layers, memory=memory) if layers else context
        if decided is not None:
            decisions, left = pool.permitted(context, decided)
            failures: Sequence[PassError] = ()
        else:
            offer = _without(pool.offer(context), large)
            decisions, left = strongest(pool, context, offer), offer.left
            failures = offer.failures
        rewritten = pool.rewrite(context, decisions) if decisions else model
    except PassError as error:
        return [StageResult(p, model, note=str(error), failed=True) for p in pool.passes]
    failed = {failure.pass_name: str(failure) for failure in failures}
    short = _short_of(pool, context, decisions)
    found = []
    for pass_ in pool.passes:
        own = tuple(d for d in decisions if d.candidate.pass_name in (pass_.name, ""))
        skips = tuple(skip for name, skip in left if name == pass_.name)
        found.append(
            StageResult(
                pass_,
                rewritten,
                own,
                skips,
                failed.get(pass_.name) or (short if own else _why_nothing(skips)),
                failed=pass_.name in failed,
            )
        )
    return found


def _short_of(pool: Pool, context: Context, decisions: Sequence[Decision]) -> str:
    """What to say where less is saved than the settings ask for."""
    quota = pool.quota(context)
    if quota is None or not decisions:
        return ""
    share = pool.saving(context, decisions, quota.unit) / max(quota.amount, 1.0)
    return "" if share >= _REACHED else f"{share:.0%} of what was asked for: no layer allows more"


def _why_nothing(left: Sequence[Skip]) -> str:
    most = Counter(skip.reason for skip in left).most_common(2)
    return "; ".join(f"{reason} ({count})" for reason, count in most) or "nothing was proposed"


def _without(offer: PoolOffer, large: dict[str, Skip]) -> PoolOffer:
    """The offer without sites whose weights are too large to be worked on."""
    proposals, left = [], [item for item in offer.left if item[1].site not in large]
    for proposal in offer.proposals:
        names = {proposal.site, *(n for c in proposal.candidates for n in c.members)}
        if names & large.keys():
            skip = Skip(proposal.site, large[min(names & large.keys())].reason)
            left.append((proposal.candidates[0].pass_name, skip))
        else:
            proposals.append(proposal)
    known = {skip.site for _, skip in left}
    passes = {candidate.pass_name for p in offer.proposals for candidate in p.candidates}
    left += [(name, large[site]) for name in sorted(passes) for site in large if site not in known]
    return replace(offer, proposals=tuple(proposals), left=tuple(left))


def _elements(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.size


def _too_large(nbytes: int, most_bytes: int) -> str:
    return (
        f"its weight of {_size(nbytes)} takes more memory to work on than the {_size(most_bytes)} "
        "that are allowed (--max-memory)"
    )


def _lost(stage: StageResult) -> str:
    """What a lossy pass cost, by the weights."""
    worst = max(stage.decisions, key=lambda decision: decision.candidate.predicted_error)
    return (
        f"what {stage.pass_.name} costs at the outputs is not known: of the weights alone it "
        f"changes at most {worst.candidate.predicted_error:.2g} of the power ({worst.site})"
    )


def _problems(request: Request, stages: Sequence[StageResult]) -> list[str]:
    """What was asked for and cannot be promised."""
    budget, found = request.budget, [stage.note for stage in stages if stage.failed]
    if budget.max_drop is not None or budget.min_sqnr is not None or budget.confidence is not None:
        found.append("the budget that was asked for cannot be judged, as the model was not run")
    return found


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
