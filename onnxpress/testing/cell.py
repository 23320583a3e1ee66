"""A pass and a sample model, with what several checks need of them, worked out once."""

from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Context, Decision, Pass, Proposal
from onnxpress.data import Samples, random_samples
from onnxpress.memory import Memory
from onnxpress.pool import Pool, PoolOffer
from onnxpress.runtime import Session
from onnxpress.targets import load_target
from onnxpress.testing.models import SAMPLE_MODELS

__all__ = ["Cell"]

_ROWS = 400
"""More than any sample layer has inputs: predictions hold for other samples too."""


@dataclass(frozen=True)
class Cell:
    """One pass on one sample model.

    Attributes:
        pass_: with its settings.
        model_name: of `SAMPLE_MODELS`.
    """

    pass_: Pass
    model_name: str

    @cached_property
    def model(self) -> ir.Model:
        """The sample model; nobody changes it."""
        return SAMPLE_MODELS[self.model_name]()

    @cached_property
    def content(self) -> bytes:
        """Its bytes."""
        return model_file.to_bytes(self.model)

    @cached_property
    def session(self) -> Session:
        """It in onnxruntime."""
        return Session(self.model)

    @cached_property
    def samples(self) -> Samples:
        """What statistics are collected on."""
        return random_samples(self.session, _ROWS, seed=1)

    @cached_property
    def pool(self) -> Pool:
        """The pass alone."""
        return Pool((self.pass_,))

    def fresh_context(self, *, observed: bool = True) -> Context:
        """A context that remembers nothing."""
        known = self.context if observed else self.bare
        return replace(known, memory=Memory())

    @cached_property
    def context(self) -> Context:
        """With statistics, where the pass asks for any."""
        return self.pool.context(self.model, load_target("cpu"), self.samples)

    @cached_property
    def bare(self) -> Context:
        """Without statistics."""
        return self.pool.context(self.model, load_target("cpu"))

    @cached_property
    def offer(self) -> PoolOffer:
        """With statistics."""
        return self.pool.offer(self.context)

    @cached_property
    def bare_offer(self) -> PoolOffer:
        """Without statistics."""
        return self.pool.offer(self.bare)

    @property
    def situations(self) -> list[tuple[Context, PoolOffer]]:
        """With and without statistics."""
        return [(self.context, self.offer), (self.bare, self.bare_offer)]

    def plans(self, proposals: tuple[Proposal, ...]) -> list[tuple[Decision, ...]]:
        """For every site its strongest candidate, its second, and so on; at least the last."""
        depth = max((len(item.candidates) for item in proposals), default=0)
        places = sorted({0, depth // 2, depth - 1}) if depth else []
        return [
            tuple(
                Decision(item.site, item.candidates[min(place, len(item.candidates) - 1)])
                for item in proposals
            )
            for place in places
        ]

    @cached_property
    def rewritten(self) -> list[tuple[Context, tuple[Decision, ...], ir.Model]]:
        """Every plan carried out: its context, its decisions, its model."""
        return [
            (context, plan, self.pool.rewrite(context, plan))
            for context, offer in self.situations
            for plan in self.plans(offer.proposals)
        ]

    def __str__(self) -> str:
        return f"{self.pass_.name}-{self.model_name}"
