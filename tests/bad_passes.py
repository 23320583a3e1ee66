"""Passes that break the contract, each in one way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Observations,
    Pass,
    PassError,
    Proposal,
    Quota,
    Skip,
    Stage,
    add_initializer,
    setting,
)


@dataclass(frozen=True)
class Rounds(Pass):
    """Keeps the contract: rounds weights to a few decimals, and says so."""

    name: ClassVar[str] = "rounds"
    stage: ClassVar[Stage] = Stage.QUANTIZATION
    decimals: int = setting(3, "Decimals that are kept of every weight.")

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """A candidate for every layer that may be changed."""
        return [
            Skip(layer.name, layer.unsafe)
            if layer.unsafe is not None
            else Proposal(layer.name, self.candidates(context))
            for layer in context.layers
        ]

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """The strongest first."""
        return (Candidate(predicted_error=1e-3, family="rounded", keeps_kernels=True),)

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Round what was decided."""
        for decision in decisions:
            layer = context.layer(decision.site)
            layer.write(layer.read().round(self.decimals))


@dataclass(frozen=True)
class InventsBytes(Rounds):
    """Promises what no file gets smaller by."""

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """Of 100 kB each."""
        return (replace(super().candidates(context)[0], saved_bytes=100_000),)


@dataclass(frozen=True)
class InventsMultiplyAdds(Rounds):
    """Promises a run that is no cheaper."""

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """Of 10,000 each."""
        return (replace(super().candidates(context)[0], saved_multiply_adds=1e4),)


@dataclass(frozen=True)
class WeakestFirst(Rounds):
    """Offers what saves least before what saves most."""

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """Two of one family."""
        found = super().candidates(context)[0]
        return (replace(found, zeroed_weights=1), replace(found, zeroed_weights=2))


@dataclass(frozen=True)
class Silent(Rounds):
    """Leaves layers out without a word."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """The first layer only."""
        return super().propose(context)[:1]


@dataclass(frozen=True)
class Curt(Rounds):
    """Gives no reason that could be read."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """No candidate at all."""
        return [Skip(layer.name, "unsupported") for layer in context.layers]


@dataclass(frozen=True)
class LossyLossless(Rounds):
    """Says that it changes no answer, and rounds to one decimal."""

    stage: ClassVar[Stage] = Stage.STORAGE
    decimals: int = setting(1, "Decimals that are kept of every weight.")


@dataclass(frozen=True)
class Optimistic(Rounds):
    """Predicts no error and rounds to whole numbers."""

    decimals: int = setting(0, "Decimals that are kept of every weight.")

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """Free of error, it says."""
        return (replace(super().candidates(context)[0], predicted_error=0.0),)


@dataclass(frozen=True)
class Remembers(Rounds):
    """Rewrites from what it happened to keep in its last call."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Another weight the second time."""
        for decision in decisions:
            layer = context.layer(decision.site)
            times = context.memory.recall(("times", decision.site), lambda: [0])
            times[0] += 1
            layer.write(layer.read() * (1 + 1e-4 * times[0]))


@dataclass(frozen=True)
class Draws(Rounds):
    """Proposes something else every time."""

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """With an error from a generator that nobody seeded."""
        error = float(np.random.default_rng().random())
        return (replace(super().candidates(context)[0], predicted_error=error),)


@dataclass(frozen=True)
class Overflows(Rounds):
    """Writes what is no number."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Infinity everywhere."""
        for decision in decisions:
            layer = context.layer(decision.site)
            layer.write(np.full_like(layer.read(), np.inf))


@dataclass(frozen=True)
class ZeroesInPropose(Rounds):
    """Ruins the weights it may only look at, through the layer."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Zeros before it says a word."""
        for layer in context.layers:
            layer.write(np.zeros_like(layer.read()))
        return super().propose(context)


@dataclass(frozen=True)
class WritesInPlace(Rounds):
    """Ruins the weights it may only look at, in their memory."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """The array of the second layer."""
        weight = context.layers[-1].weight.const_value
        assert weight is not None
        weight.numpy()[:] = 0
        return super().propose(context)


@dataclass(frozen=True)
class RewritesInPlace(Rounds):
    """Rewrites the memory that the clone shares with the model it came from."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Zeros where the original's weights are."""
        for decision in decisions:
            weight = context.layer(decision.site).weight.const_value
            assert weight is not None
            weight.numpy()[:] = 0


@dataclass(frozen=True)
class RewritesTheBase(Rounds):
    """Rewrites the model it was proposed on instead of its clone."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """A node less."""
        context.base.graph[0].name = "renamed"


@dataclass(frozen=True)
class Raises(Rounds):
    """Fails on one layer."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """A KeyError for the second."""
        known = {"w1": 1}
        return [
            Proposal(layer.name, (Candidate(predicted_error=known[layer.name]),))
            for layer in context.layers
        ]


@dataclass(frozen=True)
class RaisesInRewrite(Rounds):
    """Fails when the second layer is to be changed."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """A ZeroDivisionError for w2."""
        for decision in decisions:
            1 / (decision.site != "w2")


@dataclass(frozen=True)
class LeavesGarbage(Rounds):
    """Leaves a model that onnxruntime refuses."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """An operator that does not exist."""
        context.model.graph[0].op_type = "NoSuchOperator"


@dataclass(frozen=True)
class ChangesOutputs(Rounds):
    """Renames what the model gives."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Another name for the first output."""
        context.model.graph.outputs[0].name = "renamed"


@dataclass(frozen=True)
class Nonsense(Rounds):
    """Predicts an error that is no number."""

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """NaN."""
        return (Candidate(predicted_error=float("nan")),)


@dataclass(frozen=True)
class Observes(Rounds):
    """Asks to see its layers, so that statistics are collected."""

    def observes(self, context: Context) -> Observations:
        """All layers."""
        return Observations(layers=frozenset(layer.name for layer in context.layers), gram=True)


@dataclass(frozen=True)
class ChangesStatistics(Observes):
    """Writes into what was observed, which other passes read too."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Zeros as means."""
        moments = context.moments(context.layers[0])
        assert moments is not None
        moments.mean[:] = 0
        return super().propose(context)


@dataclass(frozen=True)
class RaisesInPrepare(Rounds):
    """Fails before anything was looked at."""

    def prepare(self, model: ir.Model) -> ir.Model:
        """A RuntimeError."""
        raise RuntimeError("no model for me")


@dataclass(frozen=True)
class RaisesInQuota(Rounds):
    """Fails where it should say how much it wants."""

    def quota(self, context: Context) -> Quota | None:
        """A KeyError."""
        raise KeyError("share")


@dataclass(frozen=True)
class CountsNothing(Rounds):
    """Asks for a share of what no candidate has."""

    def quota(self, context: Context) -> Quota | None:
        """In apples."""
        return Quota("apples", 1)


@dataclass(frozen=True)
class BlamesAnother(Rounds):
    """Says that it was another pass."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """With an error of ours."""
        raise PassError("other", "boom", "w1")


@dataclass(frozen=True)
class FailsAtRun(Rounds):
    """Leaves a model that loads and fails when it is run."""

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Five rows, whatever the batch."""
        graph = context.model.graph
        shape = add_initializer(context.names, graph, "five", np.asarray([5, -1], np.int64))
        first = graph[0]
        source = first.inputs[0]
        assert source is not None
        node = ir.Node("", "Reshape", [source, shape], name="to_five")
        node.outputs[0].name = context.names.free("in_fives")
        node.outputs[0].type = source.type
        graph.insert_before(first, [node])
        first.replace_input_with(0, node.outputs[0])


@dataclass(frozen=True)
class ChangesShapes(Rounds):
    """Changes what the model says of a tensor's shape."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Of the first output."""
        context.model.graph[0].outputs[0].shape = ir.Shape([7, 7])
        return super().propose(context)


@dataclass(frozen=True)
class ChangesMetadata(Rounds):
    """Writes into the metadata of the model it may only look at."""

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Its name."""
        context.model.metadata_props["was"] = "here"
        return super().propose(context)
