"""What a pass may not touch because the user keeps it: the only place where that is decided.

A decision is judged by all layers that it changes (`Pass.changes`): of those coupled, one that is
kept keeps all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnxpress.contract import Context, Decision, Pass, Proposal, Skip
from onnxpress.enforcement import Offer, changed_by
from onnxpress.errors import UsageError
from onnxpress.selectable import Selectable, origin_of
from onnxpress.selection import Selection, Selector

__all__ = ["KEPT", "NO_PINS", "Pins", "kept_from", "permitted_offer", "pinned"]

KEPT = "kept as asked [L005]"


@dataclass(frozen=True)
class Pins:
    """A selection, resolved for a model: by pass (empty: for all), the sites it stands for.

    Attributes:
        kept: that are left as they are.
        only: the sites that may be changed, for passes that are restricted.
        layers: names of all layers of the model. Passes put others in their place whose names
            begin with theirs; what was said of a layer holds for these.
        sites: all that has a name by which a user may speak of it.
    """

    kept: Mapping[str, frozenset[str]] = field(default_factory=dict)
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    layers: frozenset[str] = frozenset()
    sites: tuple[Selectable, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kept or self.only)

    @classmethod
    def of(cls, selection: Selection, sites: Sequence[Selectable], part: str = "") -> "Pins":
        """Resolve a selection for the simplified model.

        Args:
            selection: what the user wrote.
            sites: of that model.
            part: what stood before each selector, `PART:`, for messages.

        Raises:
            UsageError: a selector matches nothing that is left in it.
        """
        for selector in selection.selectors:
            if not selector.matches(sites):
                raise UsageError(
                    f"what {part + selector.text!r} matches is no layer or node of its own any "
                    "more once the model is simplified; name what it became part of (onnxpress "
                    "inspect lists the layers) [U001]"
                )
        return cls(
            _resolved(selection.kept, sites),
            _resolved(selection.only, sites),
            frozenset(site.name for site in sites if site.is_layer),
            tuple(sites),
        )

    def keep(self, pass_name: str, name: str) -> bool:
        """Whether a pass must leave a layer or node alone.

        Args:
            pass_name: which pass.
            name: of the layer or node, in the model or in what earlier passes made of it.
        """
        origin = self.origin(name)
        if any(origin in self.kept.get(key, ()) for key in ("", pass_name)):
            return True
        allowed = [self.only[key] for key in ("", pass_name) if key in self.only]
        return bool(allowed) and not any(origin in names for names in allowed)

    def origin(self, name: str) -> str:
        """The layer that a layer was made of, by its name."""
        return origin_of(name, self.layers)


NO_PINS = Pins()


def _resolved(
    selectors: Iterable[Selector], sites: Sequence[Selectable]
) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for selector in selectors:
        known = found.get(selector.pass_name, frozenset())
        found[selector.pass_name] = known | selector.matches(sites)
    return found


def pinned(pins: Pins, pass_: Pass, context: Context) -> Context:
    """The context as a pass sees it: with what users call layers, and those it must not change."""
    if pins.sites:
        context = replace(context, selectable=pins.sites)
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
