"""Share a saving out over all sites at once, by what it costs each."""

from collections.abc import Sequence

from onnxpress.plan import Candidate, Decision, Proposal

__all__ = ["hull"]


def hull(
    proposals: Sequence[Proposal], unit: str, amount: float | None = None
) -> list[tuple[Decision, ...]]:
    """Choices of growing saving, each the least error for what it saves in all.

    Every site's candidates, with the site left alone, span a lower hull of error over saving;
    the steps of all hulls, taken in the order of error for each unit saved, give the solutions
    of the Lagrangian Σ error − λ·Σ saving for falling 1/λ.

    Args:
        proposals: with errors that add up at the model's outputs.
        unit: the attribute of `Candidate` that is saved.
        amount: stop at the step that reaches it; `None`: all steps.
    """
    steps: list[tuple[float, int, int, Candidate, float]] = []
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
            steps.append((min(slopes)[0], place, rung, best, getattr(best, unit) - saving))
            error, saving, rung = best.predicted_error, getattr(best, unit), rung + 1
            options = [c for c in options if getattr(c, unit) > saving]
    steps.sort(key=lambda step: step[:3])
    chosen: dict[int, Candidate] = {}
    ladder: list[tuple[Decision, ...]] = []
    reached = 0.0
    for _, place, _, candidate, gained in steps:
        reached += gained
        chosen[place] = candidate
        if amount is not None and reached >= amount:
            # Of the last site no more than is needed.
            spare = getattr(candidate, unit) - (reached - amount)
            enough = [c for c in proposals[place].candidates if getattr(c, unit) >= spare]
            chosen[place] = min(enough, key=lambda c: (getattr(c, unit), c.predicted_error))
        ladder.append(tuple(Decision(proposals[at].site, chosen[at]) for at in sorted(chosen)))
        if amount is not None and reached >= amount:
            break
    return ladder
