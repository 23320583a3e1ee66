"""One stage: a pool proposes, candidates are timed and measured, what holds is given back."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Proposal, Quota, Skip
from onnxpress.errors import PassError
from onnxpress.judge import Evaluator, Measurement
from onnxpress.pool import Pool, PoolOffer
from onnxpress.runtime import Latency
from onnxpress.search.costliest import Cost, named_costs
from onnxpress.search.findings import Findings
from onnxpress.search.layer_timing import keep_faster
from onnxpress.search.measured import MeasuredTrials
from onnxpress.search.sensitivity import hopeless
from onnxpress.search.strategy import feasible, saved
from onnxpress.search.trial import SearchOptions, Trial
from onnxpress.search.worth import hardly_gains, noise_in_words, told_how
from onnxpress.untreated import why_no_layer

__all__ = ["PoolResult", "fit_stage", "search_stage"]

_KEPT_BYTES = 256_000_000
"""Of what passes remembered of a model, for the next search of it."""
_REACHED = 0.99
"""Of a quota: steps are whole percents of a layer."""

_MORE_LAUNCHES = (
    "every form starts more kernels, which would take longer on this target than the work that is "
    "saved [L030]"
)
_OTHER_KERNELS = "with other kernels the model would be larger or slower [L016]"

Left = tuple[str, Skip]
"""Which pass leaves a site alone, and why."""


@dataclass(frozen=True)
class PoolResult:
    """What a pool did and why.

    Attributes:
        pool: the passes that took part to the end.
        model: what they left; the same object as before when they changed nothing.
        decisions: what was done, by site.
        left: sites left alone, or treated less strongly than they could be, with reasons.
        note: why nothing changed, or what was given up; empty when all went as proposed.
        measurement: of the model that is left; `None` when nothing was measured.
        latency: of that model against the one before, where it was measured.
        tried: how many models were measured.
        failures: of passes that broke their contract and were left out.
        costliest: decisions that cost most fidelity, where there was time to measure it.
        sated: whether more of the budget would give no more.
    """

    pool: Pool
    model: ir.Model
    decisions: tuple[Decision, ...] = ()
    left: tuple[Left, ...] = ()
    note: str = ""
    measurement: Measurement | None = None
    latency: Latency | None = None
    tried: int = 0
    failures: tuple[PassError, ...] = ()
    costliest: tuple[Cost, ...] = ()
    sated: bool = False


def search_stage(
    pool: Pool,
    open_context: Callable[[Pool], Context],
    before: ir.Model,
    evaluator: Evaluator,
    options: SearchOptions,
    findings_of: Callable[[Pool], Findings] = lambda _: Findings(),
) -> PoolResult:
    """Propose, choose, build, measure, and give back what holds; without passes that fail.

    Args:
        pool: the passes.
        open_context: a context of `before` for a pool, with statistics where there are any.
        before: the model that the earlier stage left; not changed.
        evaluator: judges.
        options: what the search has to respect.
        findings_of: what earlier searches found out about `before` with a pool; it grows.
    """
    failures: list[PassError] = []
    current: Pool | None = pool
    while current is not None:
        try:
            findings = findings_of(current)
            context, offer = findings.context, findings.offer
            if context is None or offer is None:
                context = open_context(current)
                offer = current.offer(replace(context, out_of_time=options.out_of_time))
            if not offer.failures:
                trials = MeasuredTrials(current, context, evaluator, options, findings)
                found = _searched(trials, current, context, offer, evaluator, findings)
                model = before if found.model is context.model else found.model
                costs = named_costs(trials, current, context, found.decisions, evaluator.screening)
                small = context.memory.nbytes <= _KEPT_BYTES
                # What time made incomplete would be no more complete in a search behind it.
                if small:
                    findings.context, findings.offer = context, offer
                return replace(found, model=model, failures=tuple(failures), costliest=costs)
            new = list(offer.failures)
        except PassError as error:
            new = [error]
        failures += new
        rest = current.without(new)
        # A failure that no pass of the pool owns to would come again.
        current = None if rest == current else rest
    return PoolResult(pool, before, note="; ".join(map(str, failures)), failures=tuple(failures))


def fit_stage(
    pool: Pool,
    open_context: Callable[[Pool], Context],
    plain: Trial,
    evaluator: Evaluator,
    options: SearchOptions,
    findings: Findings,
) -> PoolResult:
    """What a search took, fitted again: the nearer of both.

    Args:
        pool: the passes.
        open_context: a context of the model before, with statistics.
        plain: what was taken.
        evaluator: judges.
        options: what the search has to respect.
        findings: of the pool, about the model before.

    Raises:
        PassError: a pass fails.
    """
    context = findings.context or open_context(pool)
    trials = MeasuredTrials(pool, context, evaluator, options, findings)
    best = trials.refined(plain)
    assert best.model is not None
    costs = named_costs(trials, pool, context, best.decisions, evaluator.screening)
    return PoolResult(
        pool, best.model, best.decisions, measurement=best.measurement, costliest=costs
    )


def _searched(
    trials: MeasuredTrials,
    pool: Pool,
    context: Context,
    offer: PoolOffer,
    evaluator: Evaluator,
    findings: Findings,
) -> PoolResult:
    options, proposals = trials.options, offer.proposals
    left = list(offer.left)
    kept = list(proposals)
    if not options.named:
        kept = _filtered(kept, lambda c: c.saves, left, "nothing would be saved [L023]")
    if options.kernel_preserving_only:
        kept = _filtered(kept, lambda c: c.keeps_kernels, [], "")
    kept = _filtered(kept, options.pays_its_launches, left, _MORE_LAUNCHES)
    unreachable = f"no choice of layers keeps within {evaluator.described} [L021]"
    if kept and not options.out_of_time() and hopeless(trials, kept):
        left += [_skip(p, "taken back: the budget would break [L008]") for p in kept]
        return PoolResult(
            pool, context.model, left=tuple(left), note=unreachable, tried=trials.tried
        )
    if not (options.kernel_preserving_only or options.objective.accepts_slower):
        kept, slower = keep_faster(pool, context, kept, options, findings.layers)
        left += slower
    nothing = PoolResult(pool, context.model, left=tuple(left))
    if not any(not c.carried for p in kept for c in p.candidates):
        return replace(nothing, note=_why_nothing(context, proposals, left), sated=True)
    quota = pool.quota(context)
    unit = "" if quota is None else quota.unit
    found = feasible(
        trials, kept, pool.stage, quota, lambda decisions: pool.saving(context, decisions, unit)
    )
    nothing = replace(nothing, tried=trials.tried, sated=found.sated)
    if not found.trials:
        reason = "taken back: the budget would break [L008]"
        if options.out_of_time():
            reason = (
                "the time was over before a choice was found that keeps within the budget [L010]"
            )
            unreachable = f"{reason}: give more with --time-limit"
        left += [_skip(p, reason) for p in kept]
        return replace(nothing, left=tuple(left), note=unreachable)
    chosen, note = _taken(trials, context, kept, found.trials)
    if chosen is None:
        note = f"undone: {note}"
        left += [(d.candidate.pass_name, Skip(d.site, note)) for d in found.trials[0].decisions]
        return replace(nothing, left=tuple(left), note=note)
    told = bool(quota) or told_how(pool, options.objective.goal)
    if not told and hardly_gains(context, chosen, evaluator, options):
        note = (
            "undone: it gains less than 1% of the bytes, and no time that the "
            "clock is sure of [L009]"
        )
        left += [(d.candidate.pass_name, Skip(d.site, note)) for d in chosen.decisions]
        return replace(nothing, left=tuple(left), note=note)
    # Refitting changes neither size nor speed, so only what was chosen is refitted.
    best = replace(trials.refined(chosen), latency=chosen.latency)
    assert best.model is not None
    note = note or found.note
    restored = _restored(
        kept, best.decisions, hurried=options.out_of_time(), same_kernels="[L016]" in note
    )
    return PoolResult(
        pool,
        best.model,
        best.decisions,
        (*left, *restored),
        note or _short_of(pool, context, quota, best.decisions),
        best.measurement,
        best.latency,
        trials.tried,
        sated=found.sated,
    )


def _taken(
    trials: MeasuredTrials, context: Context, proposals: Sequence[Proposal], found: Sequence[Trial]
) -> tuple[Trial | None, str]:
    """The trial that costs least by the objective, and what was not taken and why."""
    objective = trials.options.objective
    if objective.accepts_slower:
        best = max(
            found,
            key=lambda t: (
                *saved(t.decisions),
                _at_full_strength(context, proposals, t.decisions),
            ),
        )
        return best, ""
    costs: list[tuple[float, int]] = []
    clocked: list[Trial] = []
    slowest = ""
    for trial in found:
        timed = trial
        if trial.latency is None and not all(d.candidate.keeps_kernels for d in trial.decisions):
            timed = replace(trial, latency=trials.latency(trial))
        latency = timed.latency
        if latency is not None and latency.high < 1:
            slowest = f"other kernels ran at {latency.speedup:.2f} times the speed before [L016]"
            continue
        assert trial.model is not None
        relative = 1.0 if latency is None else 1 / latency.speedup
        costs.append((objective.cost(model_file.weight_bytes(trial.model), relative), len(clocked)))
        clocked.append(timed)
    if not costs:
        return None, slowest
    best = clocked[min(costs)[1]]
    if best.latency is None and len(found) > 1:
        why = slowest or "with other kernels it would be larger or slower [L016]"
        return best, f"only forms that keep the kernels were taken: {why}"
    return best, ""


def _at_full_strength(
    context: Context, proposals: Sequence[Proposal], decisions: Sequence[Decision]
) -> float:
    """The multiply-adds of layers that got their strongest candidate."""
    strongest = {proposal.site: proposal.candidates[0] for proposal in proposals}
    full = {
        d.site
        for d in decisions
        if d.candidate.parameters == strongest[d.site].parameters
        and d.candidate.pass_name == strongest[d.site].pass_name
    }
    return sum(context.multiply_adds(layer) for layer in context.layers if layer.name in full)


def _filtered(
    proposals: Sequence[Proposal],
    keep: Callable[[Candidate], bool],
    left: list[Left],
    reason: str,
) -> list[Proposal]:
    kept = []
    for proposal in proposals:
        candidates = tuple(c for c in proposal.candidates if keep(c))
        if candidates:
            kept.append(replace(proposal, candidates=candidates))
        elif reason:
            left.append(_skip(proposal, reason))
    return kept


def _skip(proposal: Proposal, reason: str) -> Left:
    return proposal.candidates[0].pass_name, Skip(proposal.site, reason)


def _short_of(
    pool: Pool, context: Context, quota: Quota | None, decisions: Sequence[Decision]
) -> str:
    """What to say where less was saved than the settings ask for; nothing where it was reached."""
    if quota is None:
        return ""
    reached = pool.saving(context, decisions, quota.unit)
    share = reached / quota.amount if quota.amount > 0 else 1.0
    if share >= _REACHED:
        return ""
    return (
        f"{share:.0%} of what was asked for: more would break the budget, or no "
        "layer allows it [L022]"
    )


def _restored(
    proposals: Sequence[Proposal],
    decisions: Sequence[Decision],
    *,
    hurried: bool,
    same_kernels: bool,
) -> list[Left]:
    """What the choice that holds the budget leaves out, and why.

    Args:
        proposals: what was offered.
        decisions: what was chosen.
        hurried: whether time was over.
        same_kernels: whether only forms were taken that keep the kernels.
    """
    chosen = {decision.site: decision.candidate for decision in decisions}
    left = []
    for proposal in proposals:
        strongest = proposal.candidates[0]
        if strongest.carried:
            continue
        if proposal.site not in chosen:
            if same_kernels and not any(c.keeps_kernels for c in proposal.candidates):
                left.append(_skip(proposal, _OTHER_KERNELS))
                continue
            noise = noise_in_words(strongest.predicted_error)
            reason = (
                f"the time was over before a choice with it was found that keeps within the "
                f"budget; it would add {noise} [L010]"
                if hurried
                else f"taken back: the budget held only without it; it would add {noise} [L008]"
            )
            left.append(_skip(proposal, reason))
        elif proposal.limit is not None:
            left.append(_skip(proposal, proposal.limit))
    return left


def _why_nothing(context: Context, proposals: Sequence[Proposal], left: Sequence[Left]) -> str:
    if not context.layers and not left:
        return why_no_layer(context.model)
    if not left and proposals:
        return "no form that keeps the kernels is offered [L016]"
    if not left:
        return "nothing was proposed [L023]"
    most = Counter(skip.reason for _, skip in left).most_common(2)
    return "; ".join(
        reason if len(left) == 1 else f"{reason} ({count} {'site' if count == 1 else 'sites'})"
        for reason, count in most
    )
