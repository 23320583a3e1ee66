"""What passes could do with a model, by what is known before it is run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from onnxpress.codes import split
from onnxpress.contract import Candidate, Context, Pass, Proposal
from onnxpress.gains import Saving, Times, savings
from onnxpress.pinning import NO_PINS, Pins
from onnxpress.pool import Pool
from onnxpress.targets import Target

__all__ = ["WITHOUT_DATA", "Potential", "potentials", "predicted_bytes", "timed_document"]

WITHOUT_DATA = "without calibration data"
"""What reasons of passes say where samples would change them."""


@dataclass(frozen=True, slots=True)
class Potential:
    """What a pass could do.

    Attributes:
        pass_name: which.
        by_name_only: why it takes part only when it is named; empty otherwise.
        sites: that it can treat as things are.
        forms: how many sites may have which form.
        saved_bytes: if every site took the form that saves most; a prediction from shapes.
        opened: sites that samples open, or open more forms of.
        opened_bytes: of the weights at these sites.
        reasons: why sites are left or have no stronger form, with how many, the most first.
        savings: of time, by sites.
        opened_sites: by name.
    """

    pass_name: str
    by_name_only: str = ""
    sites: int = 0
    forms: Mapping[str, int] = field(default_factory=dict)
    saved_bytes: int = 0
    opened: int = 0
    opened_bytes: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    savings: tuple[Saving, ...] = ()
    opened_sites: tuple[str, ...] = ()

    def document(self, times: Times | None = None) -> dict[str, Any]:
        """As JSON-ready data.

        Args:
            times: of the model; `None`: they are not known.
        """
        opened_ms = None if times is None else times.layers_ms(self.opened_sites)
        return {
            "pass": self.pass_name,
            "by_name_only": self.by_name_only,
            "sites": self.sites,
            "forms": dict(self.forms),
            "saved_bytes": self.saved_bytes,
            "saved_ms": None if times is None else times.saved_ms(self.savings),
            "opened_by_samples": {
                "sites": self.opened,
                "weight_bytes": self.opened_bytes,
                "layers_ms": opened_ms,
            },
            "reasons": [
                {"code": split(reason)[1] or None, "reason": split(reason)[0], "count": count}
                for reason, count in self.reasons
            ],
        }


def potentials(
    passes: Sequence[Pass],
    model: ir.Model,
    target: Target,
    *,
    shapes_only: bool = False,
    pins: Pins = NO_PINS,
) -> list[Potential]:
    """What each pass says of a model without samples; they share what is found out of it.

    Args:
        passes: that may lose something.
        model: simplified; not changed.
        target: that the model is for.
        shapes_only: the weights are too large to be read.
        pins: what the user keeps.
    """
    if not passes:
        return []
    context = Pool(tuple(passes)).context(model, target)
    context = replace(context, survey=True, shapes_only=shapes_only)
    return [_potential(pass_, context, pins) for pass_ in passes]


def predicted_bytes(nbytes: int, found: Sequence[Potential]) -> int:
    """Of the file, if all passes that take part by default did all that they could.

    Each leaves its share of what the one before it left.
    """
    left = float(nbytes)
    for potential in found:
        if not potential.by_name_only:
            left *= 1 - min(potential.saved_bytes / nbytes, 1.0)
    return round(left)


def timed_document(found: Sequence[Potential], times: Times | None) -> dict[str, Any] | None:
    """A model's time now, and if all passes that take part by default did all that they could."""
    if times is None:
        return None
    return times.document(
        [times.saved_ms(potential.savings) for potential in found if not potential.by_name_only]
    )


def _potential(pass_: Pass, context: Context, pins: Pins) -> Potential:
    offer = Pool((pass_,), pins).offer(context)
    reasons = Counter(skip.reason for _, skip in offer.left)
    reasons.update(item.limit for item in offer.proposals if item.limit is not None)
    reasons.update(str(failure) for failure in offer.failures)
    opened = [skip.site for _, skip in offer.left if WITHOUT_DATA in skip.reason]
    opened += [item.site for item in offer.proposals if WITHOUT_DATA in (item.limit or "")]
    sizes = {weight.name: weight.nbytes for weight in context.weights}
    forms = Counter(
        family for item in offer.proposals for family in {c.family for c in item.candidates}
    )
    return Potential(
        pass_.name,
        pass_.by_name_only,
        len(offer.proposals),
        dict(sorted(forms.items())),
        sum(_most(item).saved_bytes for item in offer.proposals),
        len(opened),
        sum(sizes.get(site, 0) for site in opened),
        tuple(reasons.most_common()),
        savings(context, offer.proposals),
        tuple(opened),
    )


def _most(proposal: Proposal) -> Candidate:
    return max(proposal.candidates, key=lambda candidate: candidate.saved_bytes)
