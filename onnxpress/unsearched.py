"""What a pool does above the memory budget: without trials, or by the few that a search takes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxpress.contract import Context, Decision, Proposal, Skip, Stage
from onnxpress.correcting import Correction, corrected, refined
from onnxpress.errors import PassError
from onnxpress.memory import Memory
from onnxpress.pool import Pool, PoolOffer
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.search import Trial, strongest, told_how
from onnxpress.stage_result import StageResult
from onnxpress.statistics import Statistics
from onnxpress.targets import Target

__all__ = ["Search", "Searched", "carried_out", "size_in_words"]

_WORKING_BYTES = 8
"""Of an element while its layer is worked on, in double precision."""
_REMEMBERED_BYTES = 64_000_000
"""Of what passes have worked out already."""
_ABOUT = 0.9
"""Of the bytes that a site can save: forms of integers differ by their scales."""
_NO_AMOUNT = (
    "above --max-memory nothing is tried without samples to choose by: say how much, as with "
    "--ratio, or give samples [L020]"
)
_RESTORED = "taken back: the budget would break [L008]"
_REACHED = 0.99
"""Of a quota: steps are whole percents of a layer."""


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        trial: the choice that is taken, or `None`.
        note: what to say of it, or of none.
        tried: how many choices were measured.
    """

    trial: Trial | None
    note: str = ""
    tried: int = 0


Search = Callable[[Pool, Context, PoolOffer], Searched]


def carried_out(
    pool: Pool,
    model: ir.Model,
    target: Target,
    seed: int,
    most_bytes: int,
    decided: tuple[Decision, ...] | None,
    observe: Callable[[Pool, Context], Statistics | None],
    progress: Tell = unheard,
    search: Search | None = None,
    correction: Correction | None = None,
) -> list[StageResult]:
    """What the passes of a pool do to a model: what their settings ask for, or the nearest forms.

    Amounts that no setting names are searched, or left: how much is too much only runs can tell.

    Args:
        pool: the passes.
        model: not changed.
        target: what the provider accepts.
        seed: of rows that are drawn.
        most_bytes: of memory that may be taken; weights that take more to work on are left.
        decided: what a recipe says; `None`: to be chosen, by the errors that passes predict.
        observe: gives statistics of the model of a context; `None`: its weights are all that is
            known.
        progress: told what is being done.
        search: finds how much, where no setting says it; `None`: nothing is tried.
        correction: by what the rewritten model feeds each layer; `None`: there are no samples, or
            what a search finds is corrected by it.
    """
    if decided is not None and correction is not None:
        # A recipe is carried out to its end, whatever the time, or it would give another model.
        correction = replace(correction, over=lambda: False)
    carry_out = _Carrying(pool, correction, progress)
    try:
        context = pool.context(model, target, seed=seed)
        amount = pool.stage < Stage.SPARSITY and not told_how(pool)
        if decided is None and amount and search is None:
            return [StageResult(p, model, note=_NO_AMOUNT) for p in pool.passes]
        context, large = _workable(context, most_bytes)
        statistics = observe(pool, context)
        context = replace(
            context,
            statistics=statistics,
            base_statistics=statistics,
            untried=search is None,
        )
        progress(Progress(f"{pool.names}: what could be done, layer by layer"))
        if decided is not None:
            decisions, left = pool.permitted(context, decided)
            done = _Done(*carry_out(context, decisions), left)
        else:
            done = _chosen(pool, context, _without(pool.offer(context), large), search, carry_out)
    except PassError as error:
        return [StageResult(p, model, note=str(error), failed=True) for p in pool.passes]
    failed = {failure.pass_name: str(failure) for failure in done.failures}
    note = done.note or _short_of(pool, context, done.decisions)
    found = []
    for pass_ in pool.passes:
        own = tuple(d for d in done.decisions if d.candidate.pass_name in (pass_.name, ""))
        skips = tuple(skip for name, skip in done.left if name == pass_.name)
        found.append(
            StageResult(
                pass_,
                done.model or model,
                own,
                skips,
                failed.get(pass_.name) or (note if own else done.note or _why_nothing(skips)),
                failed=pass_.name in failed,
                tried=done.tried,
            )
        )
    return found


@dataclass(frozen=True)
class _Done:
    """What became of a pool.

    Attributes:
        model: that was rewritten; `None` where nothing was.
        decisions: that were carried out.
        left: sites that a pass leaves alone, with its name and reason.
        failures: of passes that broke their contract.
        note: what to say of the choice.
        tried: how many choices were measured.
    """

    model: ir.Model | None
    decisions: tuple[Decision, ...]
    left: tuple[tuple[str, Skip], ...]
    failures: tuple[PassError, ...] = ()
    note: str = ""
    tried: int = 0


def _workable(context: Context, most_bytes: int) -> tuple[Context, dict[str, Skip]]:
    """The context without weights that take too much memory to work on, and these."""
    large = {
        weight.name: Skip(weight.name, _too_large(weight.nbytes, most_bytes))
        for weight in context.weights
        if _WORKING_BYTES * _elements(weight.weight) > most_bytes
    }
    layers = tuple(layer for layer in context.layers if layer.name not in large)
    memory = Memory(_REMEMBERED_BYTES)
    return (replace(context, layers=layers, memory=memory) if layers else context), large


def _chosen(
    pool: Pool,
    context: Context,
    offer: PoolOffer,
    search: Search | None,
    carry_out: "_Carrying",
) -> _Done:
    """What is searched, else the strongest of all that is offered."""
    if pool.stage == Stage.QUANTIZATION and pool.quota(context) is None:
        offer = _nearest(offer)
    if search is None:
        done = carry_out(context, carry_out.marked(context, strongest(pool, context, offer)))
        return _Done(*done, offer.left, offer.failures)
    found = search(pool, context, offer)
    if found.trial is None:
        restored = tuple(
            (proposal.candidates[0].pass_name, Skip(proposal.site, _RESTORED))
            for proposal in offer.proposals
        )
        left = (*offer.left, *restored)
        return _Done(None, (), left, offer.failures, found.note, found.tried)
    decisions, made = found.trial.decisions, found.trial.model
    return _Done(made, decisions, offer.left, offer.failures, found.note, found.tried)


@dataclass(frozen=True)
class _Carrying:
    """How decisions are carried out.

    Attributes:
        pool: the passes.
        correction: by what the rewritten model feeds each layer, where it can be; or `None`.
        progress: told what is being done.
    """

    pool: Pool
    correction: Correction | None
    progress: Tell

    def marked(self, context: Context, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
        """Decisions as they are to be carried out: marked where they can be corrected."""
        if self.correction is None or context.statistics is None:
            return decisions
        return refined(self.pool, decisions) or decisions

    def __call__(
        self, context: Context, decisions: tuple[Decision, ...]
    ) -> tuple[ir.Model | None, tuple[Decision, ...]]:
        """The model, `None` where nothing is decided, and the decisions as they were carried out.

        Args:
            context: of the model before.
            decisions: to carry out; corrected where they are marked and can be.
        """
        self.progress(Progress(f"{self.pool.names}: {len(decisions)} sites are rewritten"))
        if not decisions:
            return None, ()
        marked = any(decision.candidate.refined for decision in decisions)
        known = self.correction is not None and context.statistics is not None
        if not (marked and known and refined(self.pool, decisions)):
            return self.pool.rewrite(context, decisions), decisions
        assert self.correction is not None
        return corrected(self.pool, context, decisions, self.correction)


def _short_of(pool: Pool, context: Context, decisions: Sequence[Decision]) -> str:
    """What to say where less is saved than the settings ask for."""
    quota = pool.quota(context)
    if quota is None or not decisions:
        return ""
    share = pool.saving(context, decisions, quota.unit) / max(quota.amount, 1.0)
    if share >= _REACHED:
        return ""
    return f"{share:.0%} of what was asked for: no layer allows more [L022]"


def _why_nothing(left: Sequence[Skip]) -> str:
    most = Counter(skip.reason for skip in left).most_common(2)
    found = "; ".join(f"{reason} ({count})" for reason, count in most)
    return found or "nothing was proposed [L023]"


def _nearest(offer: PoolOffer) -> PoolOffer:
    """Of forms that save about as many bytes the one of the least error, as none is taken back.

    Operators between layers save nothing themselves: they go with layers whose kernels change.
    """

    def first(proposal: Proposal) -> Proposal:
        most = max(c.saved_bytes for c in proposal.candidates)
        # Of small weights every form may be larger than what it replaces.
        about = [c for c in proposal.candidates if c.saved_bytes >= min(_ABOUT * most, most)]
        taken = min(about, key=lambda c: c.predicted_error)
        others = [c for c in proposal.candidates if c is not taken]
        return replace(proposal, candidates=(taken, *others))

    found = [first(proposal) for proposal in offer.proposals]
    if all(p.candidates[0].keeps_kernels for p in found if p.candidates[0].saved_bytes > 0):
        found = [p for p in found if p.candidates[0].saved_bytes > 0]
    return replace(offer, proposals=tuple(found))


def _without(offer: PoolOffer, large: dict[str, Skip]) -> PoolOffer:
    """The offer without sites whose weights are too large to be worked on."""
    proposals, left = [], [item for item in offer.left if item[1].site not in large]
    for proposal in offer.proposals:
        names = {proposal.site, *(n for c in proposal.candidates for n in c.members)}
        if names & large.keys():
            skip = Skip(proposal.site, large[min(names & large.keys())].reason)
            left.append((proposal.candidates[0].pass_name, skip))
        else:
            proposals.append(proposal)
    known = {skip.site for _, skip in left}
    passes = {candidate.pass_name for p in offer.proposals for candidate in p.candidates}
    left += [(name, large[site]) for name in sorted(passes) for site in large if site not in known]
    return replace(offer, proposals=tuple(proposals), left=tuple(left))


def _elements(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.size


def _too_large(nbytes: int, most_bytes: int) -> str:
    return (
        f"its weight of {size_in_words(nbytes)} takes more memory to work on than the "
        f"{size_in_words(most_bytes)} that are allowed (--max-memory) [L011]"
    )


def size_in_words(nbytes: int) -> str:
    """Bytes, for people."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
