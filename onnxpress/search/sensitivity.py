"""What a candidate costs at the model's outputs; predictions know only a layer's own error."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from onnxpress.contract import Candidate, Decision, Proposal
from onnxpress.progress import Progress, part
from onnxpress.search.trial import Trials

__all__ = ["hopeless", "magnified", "weighed"]

_SENSITIVITY_SAMPLES = 4
"""Enough to put layers in order: their errors differ by orders of magnitude."""
_MAGNIFICATION_NUMBERS = 1024
"""Of an output: its noise is known to some percent from so many."""
_MAGNIFICATION_SAMPLES = 8, 32
"""At least and at most: numbers of one sample are alike."""
_RESOLUTION = 16
"""Layers that together take less than such a part of what all lose are not told apart."""
_PARTS = 4
"""A group is divided into: to find one layer takes as many runs as by halves, many at once less."""
_PART = 0.2
"""Of a search, usually."""
_TINY_ERROR = 1e-12
_TYPICAL_ERROR = 0.02
"""Large enough to be measured above rounding, small enough that errors still add up."""
_LEAST_CHANGES = 3
"""Single candidates of a family that are tried before a budget is called hopeless."""

_Group = list[tuple[int, Decision]]
"""Candidates alike, with their places among those of their sites; of each site at most one."""


def hopeless(trials: Trials, proposals: Sequence[Proposal]) -> bool:
    """Whether not even the smallest change of one site comes near the budget.

    Any choice holds at least one candidate. Where each of those that are predicted to err least
    clearly fails alone, no more is measured.
    """

    def error(decision: Decision) -> float:
        return decision.candidate.predicted_error

    # Of each site the least in each family: what one form does says nothing of another.
    least: dict[tuple[str, str], dict[str, Decision]] = {}
    for proposal in proposals:
        for candidate in proposal.candidates:
            family = least.setdefault((candidate.pass_name, candidate.family), {})
            new = Decision(proposal.site, candidate)
            if not candidate.carried:
                family[proposal.site] = min(family.get(proposal.site, new), new, key=error)
    tried = [
        decision
        for family in least.values()
        for decision in sorted(family.values(), key=error)[:_LEAST_CHANGES]
    ]
    # Only carried ones are left: no change is known to break it.
    return bool(tried) and all(trials.clearly_fails((one,)) for one in sorted(tried, key=error))


def magnified(trials: Trials, proposals: Sequence[Proposal]) -> list[Proposal]:
    """Predicted errors scaled to the model's outputs, by one measured candidate a site.

    What is known from another way to follow the plan is not measured again, as in `weighed`.
    """
    least, most = _MAGNIFICATION_SAMPLES
    samples = min(most, max(least, -(-_MAGNIFICATION_NUMBERS // max(trials.numbers, 1))))
    found = []
    tell = part(trials.options.progress, 0.0, _PART)
    for number, proposal in enumerate(proposals, 1):
        typical = min(
            proposal.candidates,
            key=lambda c: abs(np.log(max(c.predicted_error, _TINY_ERROR) / _TYPICAL_ERROR)),
        )
        key = proposal.site, typical.pass_name, "", 0
        scale = 1.0 if typical.carried else trials.magnifications.get(key)
        if scale is None:
            measured = trials.noise([Decision(proposal.site, typical)], samples)
            scale = measured / max(typical.predicted_error, _TINY_ERROR)
            # When time is up predictions stand for measurements.
            if not trials.options.out_of_time():
                trials.magnifications[key] = scale
        candidates = tuple(
            replace(c, predicted_error=c.predicted_error * scale) for c in proposal.candidates
        )
        found.append(replace(proposal, candidates=candidates))
        tell(Progress("sensitivity of sites", number, len(proposals)))
    return found


def weighed(
    trials: Trials, proposals: Sequence[Proposal], wanted: Callable[[Candidate], bool]
) -> list[Proposal]:
    """The proposals with errors measured at the model's outputs, group by group.

    All candidates of a family are measured together, then each quarter of them, and so on down to
    those that alone take a good part of what may be lost; a group that takes less is shared
    out by prediction. Most layers are harmless, so this takes far fewer runs than one for each.
    Candidates that are not `wanted` count as free of error, and so do carried ones, which are taken
    in any case: they are measured alone, and what groups lose is what they lose beyond.
    What is known from another way to follow the plan is not measured again: what follows a layer
    magnifies its error about as much where an early pass has changed the model.

    Args:
        trials: measure.
        proposals: in the order of the graph, so that a quarter is mostly one region.
        wanted: which to measure.
    """
    measured: dict[tuple[str, int], float] = {}
    groups: list[_Group] = []
    families = _families(proposals, wanted)
    for family, members in families.items():
        new: _Group = []
        for place, decision in members:
            magnification = trials.magnifications.get((decision.site, *family))
            if magnification is None:
                new.append((place, decision))
            else:
                measured[decision.site, place] = magnification * _least(decision)
        groups += [new] if new else []
    carried = tuple(Decision(p.site, p.candidates[0]) for p in proposals if p.candidates[0].carried)
    measured |= _divided(trials, groups, carried)
    for family, members in families.items():
        for place, decision in members:
            magnification = measured[decision.site, place] / _least(decision)
            trials.magnifications.setdefault((decision.site, *family), magnification)
    return [
        replace(
            proposal,
            candidates=tuple(
                replace(c, predicted_error=measured.get((proposal.site, place), 0.0))
                for place, c in enumerate(proposal.candidates)
            ),
        )
        for proposal in proposals
    ]


def _divided(
    trials: Trials, groups: Sequence[_Group], carried: Sequence[Decision]
) -> dict[tuple[str, int], float]:
    """Errors at the outputs, by sites and places.

    The worst group is divided next. Half of the time that is left goes into this at most, as a
    choice has to be found afterwards: what is not divided then is shared out as well.

    Args:
        trials: measure.
        groups: of candidates alike.
        carried: what is taken in any case.
    """
    until = trials.options.with_part_of_time(2)
    allowed = 10 ** (-trials.min_sqnr / 10)
    alone = trials.noise(carried, _SENSITIVITY_SAMPLES) if carried and groups else 0.0

    def error_of(group: _Group) -> float:
        decisions = (*(decision for _, decision in group), *carried)
        return max(trials.noise(decisions, _SENSITIVITY_SAMPLES) - alone, 0.0)

    found: dict[tuple[str, int], float] = {}
    tell = part(trials.options.progress, 0.0, _PART)
    number = sum(len(group) for group in groups)
    waiting: list[tuple[float, _Group, float]] = []
    for group in groups:
        error = error_of(group)
        # Where a metric decides, no more is known than that the whole fails.
        waiting.append((error, group, min(allowed, error) / _RESOLUTION))
    while waiting:
        worst = max(range(len(waiting)), key=lambda at: waiting[at][0])
        error, group, share = waiting.pop(worst)
        if len(group) == 1 or error <= share or until.out_of_time():
            predicted = [_least(decision) for _, decision in group]
            for (place, decision), own in zip(group, predicted, strict=True):
                found[decision.site, place] = error * own / sum(predicted)
            tell(Progress("sensitivity of candidates", len(found), number))
            continue
        size = -(-len(group) // _PARTS)
        parts = [group[start : start + size] for start in range(0, len(group), size)]
        waiting += [(error_of(quarter), quarter, share) for quarter in parts]
    return found


def _least(decision: Decision) -> float:
    """What is predicted of it, above zero."""
    return decision.candidate.predicted_error + _TINY_ERROR


def _families(
    proposals: Sequence[Proposal], wanted: Callable[[Candidate], bool]
) -> dict[tuple[str, str, int], _Group]:
    """By the pass, the family, and the place among those of the family."""
    found: dict[tuple[str, str, int], _Group] = {}
    for proposal in proposals:
        times: Counter[tuple[str, str]] = Counter()
        for place, candidate in enumerate(proposal.candidates):
            if wanted(candidate) and not candidate.carried:
                family = (candidate.pass_name, candidate.family)
                decision = Decision(proposal.site, candidate)
                found.setdefault((*family, times[family]), []).append((place, decision))
                times[family] += 1
    return found
