"""How long a model takes, and what passes could save of it, without running anything.

The time of a model is predicted from the table of latencies of this machine (`costs`), or estimated
from rates where the table says nothing. What a candidate saves follows from the time of the layers
that it changes: none where the same kernels run as before, the share of the multiply-adds that go,
and, where other kernels run as many of them, what integers are faster by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxpress.contract import Candidate, Context, Decision, Proposal
from onnxpress.costs import (
    Prediction,
    Sizes,
    load_table,
    model_digest,
    node_keys,
    predict,
    sizes_of,
    this_machine,
)
from onnxpress.layers import find_layers

__all__ = ["Saving", "Times", "predicted_times", "savings"]

_MEASURED = 0.95
"""Of the time, from rows of just such nodes: then it counts as measured."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What the candidate of a site that saves most time leaves out.

    Attributes:
        layers: that it changes.
        share: of their time; `None`: other kernels compute as much.
    """

    layers: tuple[str, ...]
    share: float | None


def savings(context: Context, proposals: Sequence[Proposal]) -> tuple[Saving, ...]:
    """Of each site, by what its candidates say of themselves."""
    return tuple(
        max((_saving(context, item.site, one) for one in item.candidates), key=_strength)
        for item in proposals
    )


def _strength(saving: Saving) -> float:
    # Integers at half: they are about twice as fast wherever they are.
    return 0.5 if saving.share is None else saving.share


def _saving(context: Context, site: str, candidate: Candidate) -> Saving:
    names = Decision(site, candidate).layers
    if candidate.keeps_kernels:
        return Saving(names, 0.0)
    if candidate.saved_multiply_adds <= 0:
        return Saving(names, None)
    work = sum(context.multiply_adds(one) for one in context.layers if one.name in names)
    return Saving(names, min(candidate.saved_multiply_adds / work, 1.0) if work else 0.0)


@dataclass(frozen=True)
class Times:
    """What a model takes, and its layers.

    Attributes:
        prediction: of the model.
        sizes: of its dimensions.
        threads: of onnxruntime.
        layers: milliseconds by layer.
        note: why a table was not used; empty where it was, or there is none.
        clocked: milliseconds that the model has just been measured to take, if so.
    """

    prediction: Prediction
    sizes: Sizes
    threads: int
    layers: Mapping[str, float]
    note: str = ""
    clocked: float | None = None

    @property
    def ms(self) -> float:
        """Of one run: as measured where the model itself was."""
        known = self.prediction.known if self.clocked is None else self.clocked
        return self.prediction.ms if known is None else known

    @property
    def basis(self) -> str:
        """In words, what the time rests on."""
        measured = self.clocked is not None or self.prediction.known is not None
        if measured or self.prediction.shares["measured"] >= _MEASURED:
            return "measured on this machine"
        return "estimate"

    @property
    def _scale(self) -> float:
        """From predicted milliseconds to those that the model is said to take."""
        return self.ms / self.prediction.ms if self.prediction.ms else 1.0

    def saved_ms(self, found: Sequence[Saving]) -> float:
        """What sites save together, in milliseconds of one run."""
        rates = self.prediction.rates
        other = 1 - min(rates.products / rates.integers, 1.0)
        return self._scale * sum(
            (other if one.share is None else one.share)
            * sum(self.layers.get(name, 0.0) for name in one.layers)
            for one in found
        )

    def layers_ms(self, names: Sequence[str]) -> float:
        """What layers take now, in milliseconds of one run."""
        return self._scale * sum(self.layers.get(name, 0.0) for name in set(names))

    def document(self, savings_ms: Sequence[float]) -> dict[str, Any]:
        """As JSON-ready data.

        Args:
            savings_ms: of the passes that take part by default; each leaves its share of what the
                one before it left.
        """
        left = self.ms
        for saved in savings_ms:
            left *= 1 - (min(saved / self.ms, 1.0) if self.ms else 0.0)
        return {
            "original_ms": self.ms,
            "predicted_ms": left,
            "basis": self.basis,
            "shares": dict(self.prediction.shares),
            "threads": self.threads,
            "sizes": dict(self.sizes.bound),
            "sizes_assumed": self.sizes.assumed and bool(self.sizes.bound),
        }


def predicted_times(
    model: ir.Model,
    *,
    threads: int = 0,
    given: Mapping[str, Sequence[int]] | None = None,
    clocked: float | None = None,
) -> Times:
    """Predict a model's latency; nothing is run, and no session of onnxruntime is opened.

    Args:
        model: simplified; not changed.
        threads: of onnxruntime; 0: all cores.
        given: shapes of inputs by name, as samples have them; `None`: sizes are assumed.
        clocked: milliseconds that the model has just been measured to take, if so.
    """
    machine = this_machine(threads)
    table = load_table(machine)
    sizes = sizes_of(model, given)
    keys = node_keys(model, sizes)
    prediction = predict(keys, table, like=model_digest(keys))
    layers = {
        layer.name: sum(prediction.nodes.get(use.node.name or "", 0.0) for use in layer.uses)
        for layer in find_layers(model)
    }
    return Times(prediction, sizes, machine.threads, layers, table.note, clocked)
