"""Share a saving out over all sites at once, by what it costs each."""

from collections.abc import Callable, Sequence

from onnxpress.contract import Candidate, Context, Decision, Proposal, Quota
from onnxpress.pool import Pool, PoolOffer

__all__ = ["allocate", "allocate_to", "strongest"]


def allocate(proposals: Sequence[Proposal], unit: str) -> list[tuple[Decision, ...]]:
    """Choices of growing saving, each the least error for what it saves in all.

    Every site's candidates, with the site left alone, span a lower convex hull of error over
    saving; the steps of all sites, taken in the order of error for each unit saved, give the
    solutions of the Lagrangian Σ error − λ·Σ saving for falling 1/λ.

    Args:
        proposals: with errors that add up at the model's outputs.
        unit: the attribute of `Candidate` that is saved.
    """
    steps: list[tuple[float, int, int, Candidate]] = []
    for place, proposal in enumerate(proposals):
        error, saving = 0.0, 0.0
        options = [c for c in proposal.candidates if getattr(c, unit) > 0]
        rung = 0
        while options:
            slopes = [
                (
                    max(c.predicted_error - error, 0.0) / (getattr(c, unit) - saving),
                    -getattr(c, unit),
                )
                for c in options
            ]
            best = options[min(range(len(options)), key=slopes.__getitem__)]
            steps.append((min(slopes)[0], place, rung, best))
            error, saving, rung = best.predicted_error, getattr(best, unit), rung + 1
            options = [c for c in options if getattr(c, unit) > saving]
    steps.sort(key=lambda step: step[:3])
    chosen: dict[int, Candidate] = {}
    ladder: list[tuple[Decision, ...]] = []
    for _, place, _, candidate in steps:
        chosen[place] = candidate
        ladder.append(tuple(Decision(proposals[at].site, chosen[at]) for at in sorted(chosen)))
    return ladder


def allocate_to(
    proposals: Sequence[Proposal], quota: Quota, saving: Callable[[Sequence[Decision]], float]
) -> list[tuple[Decision, ...]]:
    """The solutions up to the choice that reaches the quota, which saves no more than it has to.

    Args:
        proposals: as for `allocate`.
        quota: what to reach.
        saving: what a choice saves in all (`Pass.saving`).
    """
    ladder: list[tuple[Decision, ...]] = []
    for rung in allocate(proposals, quota.unit):
        if saving(rung) < quota.amount:
            ladder.append(rung)
            continue
        before = {decision.site: decision for decision in ladder[-1]} if ladder else {}
        last = next(d.site for d in rung if before.get(d.site) != d)
        candidates = next(p.candidates for p in proposals if p.site == last)
        weaker = [
            tuple(Decision(last, candidate) if d.site == last else d for d in rung)
            for candidate in sorted(candidates, key=lambda c: getattr(c, quota.unit))
        ]
        # Of the last site no more than is needed.
        ladder.append(next(choice for choice in weaker if saving(choice) >= quota.amount))
        break
    return ladder


def strongest(pool: Pool, context: Context, offer: PoolOffer) -> tuple[Decision, ...]:
    """Of every site the strongest candidate, or what the quota asks for; without a budget."""
    quota = pool.quota(context)
    if quota is None:
        return tuple(Decision(item.site, item.candidates[0]) for item in offer.proposals)
    # Without an evaluation the predicted errors count as they are.
    unit = quota.unit
    ladder = allocate_to(offer.proposals, quota, lambda rung: pool.saving(context, rung, unit))
    return ladder[-1] if ladder else ()
