"""The one way to propose, choose and rewrite: passes of one stage, offering into one pool.

Pipeline, search, `inspect`, the onnx-ir adapter and the contract checks all act through a pool.
What passes are called or where they come from decides nothing: for each site the pool holds the
candidates of all, and the search picks at most one. Order that matters is declared (`Pass.after`).
A pass that breaks its contract leaves the pool; the others go on.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
    TimingSubgraph,
)
from onnxpress.data import Samples
from onnxpress.enforcement import (
    changed_by,
    observed_by,
    offered,
    prepared_by,
    quota_of,
    rewritten,
    saving_of,
    timed_by,
)
from onnxpress.errors import PassError, UsageError
from onnxpress.memory import collected_rarely
from onnxpress.pinning import NO_PINS, Pins, kept_from, permitted_offer, pinned
from onnxpress.refinement import refitted
from onnxpress.statistics import Observations, Statistics, collect
from onnxpress.storage import round_to_storage
from onnxpress.targets import Target

__all__ = ["Observe", "Pool", "PoolOffer", "pools_of"]

logger = logging.getLogger(__name__)

Observe = Callable[[Context, Sequence[Pass]], Statistics | None]
"""Gives what passes want to see of the model of a context."""


@dataclass(frozen=True, slots=True)
class PoolOffer:
    """What the passes of a pool say of a model.

    Attributes:
        proposals: one for each site, with the candidates of all passes, the strongest first.
        left: sites that a pass leaves alone, with the pass and its reason.
        failures: of passes that broke their contract.
    """

    proposals: tuple[Proposal, ...]
    left: tuple[tuple[str, Skip], ...]
    failures: tuple[PassError, ...] = ()

    def left_by(self, pass_name: str) -> tuple[Skip, ...]:
        """What one pass leaves alone."""
        return tuple(skip for name, skip in self.left if name == pass_name)


@dataclass(frozen=True)
class Pool:
    """Passes that propose on the same model.

    Attributes:
        passes: of one stage, each of another name.
        pins: what the user keeps from them.
    """

    passes: tuple[Pass, ...]
    pins: Pins = NO_PINS

    @property
    def stage(self) -> Stage:
        """Of all its passes."""
        return self.passes[0].stage

    @property
    def names(self) -> str:
        """Of its passes, for people."""
        return ", ".join(pass_.name for pass_ in self.passes)

    @property
    def refines(self) -> bool:
        """Whether a pass asks for decisions to be carried out again on refined statistics."""
        return any(pass_.refines for pass_ in self.passes)

    def without(self, failures: Iterable[PassError]) -> "Pool | None":
        """The pool without passes that failed; `None` where none is left."""
        names = {failure.pass_name for failure in failures}
        kept = tuple(pass_ for pass_ in self.passes if pass_.name not in names)
        return replace(self, passes=kept) if kept else None

    def context(
        self,
        model: ir.Model,
        target: Target,
        samples: Samples | None = None,
        *,
        seed: int = 0,
        threads: int = 0,
        observe: Observe | None = None,
    ) -> Context:
        """A context of a clone of the model, prepared and observed as the passes ask for.

        Args:
            model: not changed.
            target: what the provider accepts.
            samples: to observe; `None`: nothing is observed.
            seed: of rows that are drawn.
            threads: of onnxruntime.
            observe: takes the place of a run of its own over the samples, where no pass prepares
                the model differently.

        Raises:
            PassError: a pass fails.
        """
        with collected_rarely():
            prepared = clone = model.clone()
        for pass_ in self.passes:
            prepared = prepared_by(pass_, prepared)
        if self.stage.loses:
            # What changes no answer is compared as it computes; from here on as it will be stored.
            round_to_storage(prepared)
        context = Context(prepared, target, seed=seed)
        if observe is not None and prepared is clone:
            statistics = observe(context, self.passes)
        else:
            statistics = self.observed(context, samples, threads=threads)
        return replace(context, statistics=statistics, base_statistics=statistics)

    def observed(
        self, context: Context, samples: Samples | None, *, threads: int = 0
    ) -> Statistics | None:
        """What the passes want to see, from one run over the samples."""
        if samples is None:
            return None
        wanted = Observations.union(observed_by(pass_, context) for pass_ in self.passes)
        if not (wanted.tensors or wanted.layers):
            return None
        return collect(
            context.model, context.layers, samples, wanted, seed=context.seed, threads=threads
        )

    def offer(self, context: Context) -> PoolOffer:
        """What all passes propose; a pass that fails offers nothing and is named."""
        found: list[tuple[str, Proposal]] = []
        left: list[tuple[str, Skip]] = []
        failures: list[PassError] = []
        for pass_ in self.passes:
            try:
                given = pinned(self.pins, pass_, context)
                offer = permitted_offer(self.pins, pass_, given, offered(pass_, given))
            except PassError as error:
                logger.warning("%s", error)
                failures.append(error)
                continue
            left += [(pass_.name, skip) for skip in offer.left]
            found += [(pass_.name, proposal) for proposal in offer.proposals]
        merged, overlapping = _merged(found)
        order = {weight.name: place for place, weight in enumerate(context.weights)}
        if len(self.passes) > 1:
            merged.sort(key=lambda p: min(order.get(name, len(order)) for name in _layers(p)))
        return PoolOffer(tuple(merged), (*left, *overlapping), tuple(failures))

    def permitted(
        self, context: Context, decisions: Sequence[Decision]
    ) -> tuple[tuple[Decision, ...], tuple[tuple[str, Skip], ...]]:
        """The decisions that change nothing the user keeps, and what is left alone instead.

        Raises:
            PassError: a pass fails.
        """
        kept: list[Decision] = []
        left: list[tuple[str, Skip]] = []
        for decision in decisions:
            pass_ = self._owner(decision.candidate)
            reason = kept_from(self.pins, pass_, context, decision)
            if reason is None:
                kept.append(decision)
            else:
                left.append((pass_.name, Skip(decision.site, reason)))
        return tuple(kept), tuple(left)

    def keeping(self, context: Context, decision: Decision) -> str:
        """The name of a layer which, kept by the user, would rule the decision out.

        Raises:
            PassError: the pass fails.
        """
        changed = changed_by(self._owner(decision.candidate), context, decision)
        layers = {weight.name for weight in context.weights}
        first = next((name for name in (decision.site, *changed) if name in layers), changed[0])
        return self.pins.origin(first)

    def quota(self, context: Context) -> Quota | None:
        """What the settings of a pass ask for; one pass at most may ask.

        Raises:
            UsageError: two passes of the pool ask for shares of their own.
        """
        found = [(p, quota) for p in self.passes if (quota := quota_of(p, context)) is not None]
        if len(found) > 1:
            names = " and ".join(pass_.name for pass_, _ in found)
            raise UsageError(f"{names} act together and each ask for a share of their own [U008]")
        return found[0][1] if found else None

    def saving(self, context: Context, decisions: Sequence[Decision], unit: str) -> float:
        """What decisions save together in a unit."""
        return sum(
            saving_of(pass_, context, own, unit) for pass_, own in self._by_pass(decisions) if own
        )

    def timing_subgraphs(
        self, context: Context, proposal: Proposal, candidate: Candidate
    ) -> list[TimingSubgraph] | None:
        """What the candidate's pass wants to be timed."""
        return timed_by(self._owner(candidate), context, proposal, candidate)

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> ir.Model:
        """A new model with the decisions carried out; `context.model` is not changed.

        Raises:
            PassError: a pass fails.
        """
        model = context.model
        with collected_rarely():
            for pass_, own in self._by_pass(decisions):
                if own:
                    given = pinned(self.pins, pass_, context)
                    model = rewritten(pass_, replace(given, model=model, layers=()), own)
        return model.clone() if model is context.model else model

    def rewrite_refined(
        self,
        context: Context,
        decisions: Sequence[Decision],
        samples: Samples | None,
        *,
        threads: int = 0,
        over: Callable[[], bool] = lambda: False,
    ) -> ir.Model:
        """As `rewrite`, and again level by level where the decisions say `refined`.

        Layer after layer in the order of the graph, those that do not feed each other together:
        the inputs that the rewritten model gives them are observed beside those of the model
        before, and the decisions carried out anew. (All layers at once would each make up for the
        same loss.) Both models are run once, block by block (`refinement`).

        Raises:
            UnfinishedError: `over` says that there is no time for all of it.
            OutputError: the disk is full.
            PassError: a pass fails.
        """
        refined = any(decision.candidate.refined for decision in decisions)
        if samples is None or context.statistics is None or not refined:
            return self.rewrite(context, decisions)
        names = {name for decision in decisions for name in decision.layers}
        chosen = [layer for layer in context.layers if layer.name in names]

        def carried_out(
            statistics: Statistics, *, observed: bool, idle: frozenset[str] = frozenset()
        ) -> ir.Model:
            given = replace(context, statistics=statistics, observed=observed, idle=idle)
            return self.rewrite(given, decisions)

        return refitted(context, chosen, samples, carried_out, threads=threads, over=over)

    def _owner(self, candidate: Candidate) -> Pass:
        for pass_ in self.passes:
            # Of a recipe written by hand candidates carry no name.
            if candidate.pass_name == pass_.name or len(self.passes) == 1:
                return pass_
        raise UsageError(f"no pass of {self.names} is called {candidate.pass_name!r}")

    def _by_pass(self, decisions: Sequence[Decision]) -> list[tuple[Pass, list[Decision]]]:
        return [
            (pass_, [d for d in decisions if self._owner(d.candidate) is pass_])
            for pass_ in self.passes
        ]


def _merged(
    found: Sequence[tuple[str, Proposal]],
) -> tuple[list[Proposal], list[tuple[str, Skip]]]:
    """One proposal a site, and those that overlap with a site of another pass that saves more.

    Args:
        found: proposals with the names of their passes.
    """

    def saving(item: tuple[str, Proposal]) -> tuple[float, float, int, str]:
        best, layers = item[1].candidates[0], len(_layers(item[1]))
        return -best.saved_bytes, -best.saved_multiply_adds, layers, item[1].site

    several = len({name for name, _ in found}) > 1
    merged: dict[str, Proposal] = {}
    owners: dict[str, set[tuple[str, str]]] = {}
    left: list[tuple[str, Skip]] = []
    for name, proposal in sorted(found, key=saving) if several else found:
        layers = _layers(proposal)
        taken = {owner for layer in layers for owner in owners.get(layer, set())}
        others = sorted(site for site, other in taken if site != proposal.site and other != name)
        if others:
            reason = f"its layers belong to the site {others[0]!r} of another pass [L006]"
            left.append((name, Skip(proposal.site, reason)))
            continue
        known = merged.get(proposal.site)
        merged[proposal.site] = proposal if known is None else _joined(known, proposal)
        for layer in layers:
            owners.setdefault(layer, set()).add((proposal.site, name))
    return list(merged.values()), left


def _layers(proposal: Proposal) -> set[str]:
    return {name for c in proposal.candidates for name in (c.members or (proposal.site,))}


def _joined(first: Proposal, second: Proposal) -> Proposal:
    """The candidates of two passes for one site, what saves most first."""
    both = sorted(
        (*first.candidates, *second.candidates),
        key=lambda c: (-c.saved_bytes, -c.saved_multiply_adds, c.predicted_error),
    )
    return replace(first, candidates=tuple(both), limit=first.limit or second.limit)


def pools_of(passes: Sequence[Pass]) -> list[Pool]:
    """Passes in the order in which they act: by stage, and in a stage by what is declared.

    Passes of one stage are one pool, but for those that come `after` others of it, and for a
    second pass of the same name.

    Raises:
        UsageError: passes wait for each other.
    """
    pools = []
    ordered = sorted(passes, key=lambda pass_: pass_.stage)
    for _, group in itertools.groupby(ordered, key=lambda pass_: pass_.stage):
        waiting = list(group)
        while waiting:
            names = {pass_.name for pass_ in waiting}
            ready: dict[str, Pass] = {}
            for pass_ in waiting:
                if not names & (set(pass_.after) - {pass_.name}):
                    ready.setdefault(pass_.name, pass_)
            if not ready:
                raise UsageError(
                    f"the passes {', '.join(sorted(names))} declare that each comes "
                    "after another [U012]"
                )
            pools.append(Pool(tuple(ready[name] for name in sorted(ready))))
            waiting = [pass_ for pass_ in waiting if ready.get(pass_.name) is not pass_]
    return pools
