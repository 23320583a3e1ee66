"""Which choices of a pool hold the budget, and which of them is taken.

Everything is tried first, if the clock finds it faster, and everything that keeps the kernels.
Where the strongest choice breaks the budget, the errors of the candidates are measured at the
model's outputs (`sensitivity`). Sites that offer forms are then ordered by a tolerance: each site
takes its strongest candidate within it, and `bisection` finds the highest tolerance that holds,
which restores the worst layers first; worst by two measures, the error, and the error for each
byte saved (small layers first). Sites that offer amounts (ranks, counts, sparsities) share out
what is saved (`allocation`). Of all that holds, what costs least by the objective is taken; a
choice that slows the model down never is, unless the goal is size.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxpress.contract import UNITS, Candidate, Decision, Proposal, Quota, Stage
from onnxpress.runtime import Latency
from onnxpress.search.allocation import allocate, allocate_to
from onnxpress.search.bisection import Spending, bisected
from onnxpress.search.sensitivity import magnified, weighed
from onnxpress.search.trial import Choice, Trial, Trials

__all__ = ["Found", "choose", "feasible"]

_TOLERANCES = 64
_NEARLY_ALL = 0.95
"""Of the bytes: then another order of giving layers up is not worth its measurements."""
_LEAST_GAIN = 0.02
"""In time, for a change of kernels to be worth its error."""
_ALIKE = 1.05
"""Costs nearer than this are the same to the clock."""

Order = Callable[[Candidate], float]
"""What a tolerance is compared with."""


@dataclass(frozen=True)
class Found:
    """What a strategy gives back.

    Attributes:
        trials: choices that hold the budget, at most one of each way to choose.
        note: what was given up and why, in words; empty when nothing was.
        sated: whether more of the budget would give no more.
    """

    trials: tuple[Trial, ...] = ()
    note: str = ""
    sated: bool = False


def feasible(
    trials: Trials,
    proposals: Sequence[Proposal],
    stage: Stage,
    quota: Quota | None = None,
    saving: Callable[[Sequence[Decision]], float] = lambda _: 0.0,
) -> Found:
    """Choices that hold the budget.

    Args:
        trials: build and measure.
        proposals: at least one with a candidate that is not carried.
        stage: of the pool: sites of the last lossy one offer forms, of the others amounts.
        quota: what must be saved in all, or `None`.
        saving: what decisions save together in the quota's unit.
    """
    if stage < Stage.QUANTIZATION or quota is not None:
        return _by_amount(trials, proposals, quota, saving)
    return _by_form(trials, proposals)


def _by_amount(
    trials: Trials,
    proposals: Sequence[Proposal],
    quota: Quota | None,
    saving: Callable[[Sequence[Decision]], float],
) -> Found:
    """Choices by what each saves for its error, all sites against each other."""
    if quota is None:
        strongest = trials.measure(choose(proposals))
        if trials.holds(strongest):
            return Found((strongest,), sated=True)
    measured = magnified(trials, proposals)
    found: list[Trial] = []
    seen: list[Spending] = []
    for unit in _units(proposals, quota):
        if quota is None:
            ladder = allocate(measured, unit)
        else:
            ladder = allocate_to(measured, quota, saving)
            if ladder:
                strongest = trials.refined(trials.measure(ladder[-1]))
                if trials.holds(strongest):
                    return Found((strongest,), sated=True)
        trial = bisected(trials, ladder, seen)
        found += [] if trial is None else [trial]
    return Found(tuple(trial for trial in found if trials.holds(trial)))


def _units(proposals: Sequence[Proposal], quota: Quota | None) -> list[str]:
    """What may be saved, or what is asked for.

    Microseconds stand for multiply-adds, where all that saves these was timed.
    """
    every = [c for proposal in proposals for c in proposal.candidates]
    wanted = UNITS if quota is None else (quota.unit,)
    found = [unit for unit in wanted if any(getattr(c, unit) > 0 for c in every)]
    timed = all(c.saved_microseconds > 0 for c in every if c.saved_multiply_adds > 0)
    if "saved_microseconds" in found and timed:
        found.remove("saved_multiply_adds")
    return found


@dataclass(frozen=True)
class _Whole:
    """A choice for all sites, by its draft.

    Attributes:
        decisions: the choice.
        latency: against the model before; `None` where the kernels stay.
        cost: by the objective.
        note: what to say where it is taken.
    """

    decisions: Choice
    latency: Latency | None = None
    cost: float = 0.0
    note: str = ""


def _by_form(trials: Trials, proposals: Sequence[Proposal]) -> Found:
    """Choices of forms: wholes first, then mixtures by tolerance."""
    everything = choose(proposals)
    if all(decision.candidate.carried for decision in everything):
        return Found()
    keeping = _keeping(proposals)
    preserving = choose(keeping)
    # Whatever saves most: other kernels may be worth more than bytes.
    changing = [
        whole
        for whole in (everything, *_other_families(proposals))
        if not all(decision.candidate.keeps_kernels for decision in whole)
    ]
    changes_kernels = bool(changing)
    note = ""
    wholes: list[_Whole] = []
    if changes_kernels and keeping and not trials.options.objective.accepts_slower:
        wholes, note = _faster(trials, changing, preserving)
        if not wholes:
            changes_kernels, proposals = False, keeping
    if not wholes:
        wholes = [_Whole(choose(proposals))]
    for _, group in itertools.groupby(wholes, lambda whole: whole.cost):
        alike = list(group)
        measured = [replace(trials.measure(w.decisions), latency=w.latency) for w in alike]
        within = [trial for trial in measured if trials.holds(trial)]
        if within:
            best = max(within, key=lambda trial: trial.measurement.worst_sqnr_db)
            return Found((best,), note or alike[0].note, sated=alike[0].cost == wholes[0].cost)
    found: list[Trial] = []
    preserving_holds = False
    if changes_kernels and keeping and preserving not in [whole.decisions for whole in wholes]:
        trial = trials.measure(preserving)
        preserving_holds = trials.holds(trial)
        found += [trial] if preserving_holds else []
    # Where all that keeps the kernels holds together, only the others need to be weighed.
    by_outputs = weighed(trials, proposals, lambda c: not (preserving_holds and c.keeps_kernels))
    found += _within_tolerance(trials, by_outputs)
    if changes_kernels and keeping and not preserving_holds:
        found += _within_tolerance(trials, _keeping(by_outputs))
    return Found(tuple(found), note)


def _faster(
    trials: Trials, wholes: Sequence[Choice], preserving: Choice
) -> tuple[list[_Whole], str]:
    """Those that run faster than the kernels of before, which `preserving` keeps.

    The clock comes first, on drafts: it takes a moment, and where no whole choice gains time
    neither would a mixture, which adds conversions between the forms. What costs least comes first;
    those that the clock hardly tells apart cost the same. `preserving` is among them where its
    bytes make up for its time.

    Returns:
        The choices, and why there is none.
    """
    objective = trials.options.objective
    faster: list[_Whole] = []
    best = 0.0
    for whole in wholes:
        found = trials.clocked(whole)
        best = max(best, found.latency.speedup)
        if found.latency.speedup > 1 + _LEAST_GAIN:
            cost = objective.cost(found.nbytes, 1 / found.latency.speedup)
            faster.append(_Whole(whole, found.latency, cost))
    note = (
        "only forms that keep the kernels were taken: with other kernels the model ran at "
        f"{best:.2f} times its speed before [L016]"
    )
    if not faster:
        return [], note
    cost = objective.cost(trials.nbytes(preserving), 1.0)
    least = min(whole.cost for whole in faster)
    faster = [replace(w, cost=least) if w.cost <= _ALIKE * least else w for w in faster]
    if cost < least:
        faster.append(_Whole(preserving, None, cost, f"{note}, which their bytes outweigh"))
    return sorted(faster, key=lambda whole: whole.cost), ""


def _within_tolerance(trials: Trials, proposals: Sequence[Proposal]) -> list[Trial]:
    """By the two orders, the strongest choice that holds."""
    found: list[Trial] = []
    seen: list[Spending] = []
    for order in (_by_error, _by_error_for_saving):
        tolerances = sorted({order(c) for p in proposals for c in p.candidates if not c.carried})
        if len(tolerances) > _TOLERANCES:
            picked = np.linspace(0, len(tolerances) - 1, _TOLERANCES).round().astype(int)
            tolerances = [tolerances[index] for index in picked]
        trial = bisected(trials, [choose(proposals, order, t) for t in tolerances], seen)
        if trial is None:
            continue
        found.append(trial)
        everything, _ = saved(choose(proposals))
        if saved(trial.decisions)[0] >= _NEARLY_ALL * everything:
            break
    return found


def _keeping(proposals: Iterable[Proposal]) -> list[Proposal]:
    """The proposals with those candidates that keep the kernels."""
    kept = []
    for proposal in proposals:
        candidates = tuple(c for c in proposal.candidates if c.keeps_kernels)
        if candidates:
            kept.append(replace(proposal, candidates=candidates))
    return kept


def _other_families(proposals: Sequence[Proposal]) -> list[Choice]:
    """Whole choices that prefer a family which changes kernels but is no site's strongest."""

    def family(candidate: Candidate) -> tuple[str, str]:
        return candidate.pass_name, candidate.family

    first = {family(proposal.candidates[0]) for proposal in proposals}
    others = {
        family(candidate)
        for proposal in proposals
        for candidate in proposal.candidates
        if not candidate.keeps_kernels
    } - first
    choices = []
    for wanted in sorted(others):
        preferred = [
            replace(
                proposal,
                candidates=tuple(
                    sorted(proposal.candidates, key=lambda c, w=wanted: family(c) != w)  # type: ignore[misc]
                ),
            )
            for proposal in proposals
        ]
        choices.append(choose(preferred))
    return choices


def _by_error(candidate: Candidate) -> float:
    return candidate.predicted_error


def _by_error_for_saving(candidate: Candidate) -> float:
    return candidate.predicted_error / max(candidate.saved_bytes, candidate.zeroed_weights, 1)


def saved(decisions: Sequence[Decision]) -> tuple[int, float]:
    """What a choice is worth: bytes and zeros, then multiply-adds and other kernels."""
    candidates = [decision.candidate for decision in decisions]
    return (
        sum(c.saved_bytes + c.zeroed_weights for c in candidates),
        sum(c.saved_multiply_adds + (not c.keeps_kernels) for c in candidates),
    )


def choose(
    proposals: Sequence[Proposal], order: Order = _by_error, tolerance: float = float("inf")
) -> Choice:
    """For each site its strongest candidate within the tolerance.

    Carried ones are always taken where a neighbour changes kernels, and else have none to serve.
    """
    decisions: list[Decision] = []
    for proposal in proposals:
        for candidate in proposal.candidates:
            if candidate.carried or order(candidate) <= tolerance:
                decisions.append(Decision(proposal.site, candidate))
                break
    if all(d.candidate.carried or d.candidate.keeps_kernels for d in decisions):
        decisions = [d for d in decisions if not d.candidate.carried]
    return tuple(decisions)
