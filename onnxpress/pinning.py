"""What a pass may not touch because the user keeps it: the only place where that is decided.

A decision is judged by all layers that it changes (`Pass.changes`): of those coupled, one that is
kept keeps all.
"""

from dataclasses import replace

from onnxpress.contract import Context, Decision, Pass, Proposal, Skip
from onnxpress.enforcement import Offer, changed_by
from onnxpress.selection import Pins

__all__ = ["KEPT", "kept_from", "permitted_offer", "pinned"]

KEPT = "kept as asked [L005]"


def pinned(pins: Pins, pass_: Pass, context: Context) -> Context:
    """The context as a pass sees it: with the layers that it must not change."""
    if not pins:
        return context
    names = (item.name for item in context.weights)
    return replace(context, kept=frozenset(n for n in names if pins.keep(pass_.name, n)))


def permitted_offer(pins: Pins, pass_: Pass, context: Context, offer: Offer) -> Offer:
    """The offer without candidates that would change what is kept, which are skips instead.

    Args:
        pins: what is kept.
        pass_: whose offer it is.
        context: as the pass sees it.
        offer: to be reduced.

    Raises:
        PassError: the pass fails.
    """
    if not pins:
        return offer
    proposals: list[Proposal] = []
    left = [
        Skip(skip.site, KEPT) if pins.keep(pass_.name, skip.site) else skip for skip in offer.left
    ]
    for proposal in offer.proposals:
        judged = [
            (candidate, kept_from(pins, pass_, context, Decision(proposal.site, candidate)))
            for candidate in proposal.candidates
        ]
        free = tuple(candidate for candidate, reason in judged if reason is None)
        refused = next((reason for _, reason in judged if reason is not None), None)
        if free:
            limit = proposal.limit or refused
            proposals.append(replace(proposal, candidates=free, limit=limit))
        else:
            left.append(Skip(proposal.site, refused or KEPT))
    return Offer(tuple(proposals), tuple(left))


def kept_from(pins: Pins, pass_: Pass, context: Context, decision: Decision) -> str | None:
    """Why a decision of a pass may not be taken, or `None`.

    Raises:
        PassError: the pass fails.
    """
    if not pins:
        return None
    for name in changed_by(pass_, context, decision):
        if pins.keep(pass_.name, name):
            return KEPT if name == decision.site else f"would change {name}, which is {KEPT}"
    return None
