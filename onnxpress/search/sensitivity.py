"""What a candidate costs at the model's outputs; predictions know only a layer's own error."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from onnxpress.contract import Candidate, Decision, Proposal
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
_TINY_ERROR = 1e-12
_TYPICAL_ERROR = 0.02
"""Large enough to be measured above rounding, small enough that errors still add up."""
_LEAST_CHANGES = 3
"""Single candidates of a family that are tried before a budget is called hopeless."""


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
    """Predicted errors scaled to the model's outputs, by one measured candidate a site."""
    least, most = _MAGNIFICATION_SAMPLES
    samples = min(most, max(least, -(-_MAGNIFICATION_NUMBERS // max(trials.numbers, 1))))
    found = []
    for number, proposal in enumerate(proposals, 1):
        typical = min(
            proposal.candidates,
            key=lambda c: abs(np.log(max(c.predicted_error, _TINY_ERROR) / _TYPICAL_ERROR)),
        )
        measured = typical.predicted_error
        if not typical.carried:
            measured = trials.noise([Decision(proposal.site, typical)], samples)
        scale = measured / max(typical.predicted_error, _TINY_ERROR)
        candidates = tuple(
            replace(c, predicted_error=c.predicted_error * scale) for c in proposal.candidates
        )
        found.append(replace(proposal, candidates=candidates))
        trials.options.progress(f"sensitivity of site {number} of {len(proposals)}")
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
    allowed = 10 ** (-trials.min_sqnr / 10)
    carried = tuple(Decision(p.site, p.candidates[0]) for p in proposals if p.candidates[0].carried)
    measured: dict[tuple[str, int], float] = {}
    known = trials.magnifications
    groups: list[list[tuple[int, Decision]]] = []
    families = _families(proposals, wanted)
    for family, members in families.items():
        groups.append([])
        for place, decision in members:
            magnification = known.get((decision.site, *family))
            if magnification is None:
                groups[-1].append((place, decision))
            else:
                measured[decision.site, place] = magnification * _least(decision)
    groups = [group for group in groups if group]
    alone = trials.noise(carried, _SENSITIVITY_SAMPLES) if carried and groups else 0.0

    def divide(group: Sequence[tuple[int, Decision]], share: float | None = None) -> None:
        decisions = [decision for _, decision in group]
        error = trials.noise((*decisions, *carried), _SENSITIVITY_SAMPLES) - alone
        error = max(error, 0.0)
        if share is None:
            # Where a metric decides, no more is known than that the whole fails.
            share = min(allowed, error) / _RESOLUTION
        if len(group) == 1 or error <= share:
            predicted = [_least(decision) for decision in decisions]
            for (place, decision), part in zip(group, predicted, strict=True):
                measured[decision.site, place] = error * part / sum(predicted)
            trials.options.progress(f"sensitivity of {len(measured)} candidates")
            return
        size = -(-len(group) // _PARTS)
        for start in range(0, len(group), size):
            divide(group[start : start + size], share)

    for group in groups:
        divide(group)
    for family, members in families.items():
        for place, decision in members:
            magnification = measured[decision.site, place] / _least(decision)
            known.setdefault((decision.site, *family), magnification)
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


def _least(decision: Decision) -> float:
    """What is predicted of it, above zero."""
    return decision.candidate.predicted_error + _TINY_ERROR


def _families(
    proposals: Sequence[Proposal], wanted: Callable[[Candidate], bool]
) -> dict[tuple[str, str, int], list[tuple[int, Decision]]]:
    """Candidates alike, with their places; of each site at most one in a list."""
    found: dict[tuple[str, str, int], list[tuple[int, Decision]]] = {}
    for proposal in proposals:
        times: Counter[tuple[str, str]] = Counter()
        for place, candidate in enumerate(proposal.candidates):
            if wanted(candidate) and not candidate.carried:
                family = (candidate.pass_name, candidate.family)
                decision = Decision(proposal.site, candidate)
                found.setdefault((*family, times[family]), []).append((place, decision))
                times[family] += 1
    return found
