"""Choose among a pass's candidates under the budget, by measurement.

A tolerance orders all choices: each site takes its strongest candidate within it. Everything is
tried first; when the measured model breaks the budget, bisection finds the highest tolerance
that holds, which restores the worst layers first. Worst by two measures, the predicted error,
and the predicted error for each byte saved (small layers first); what saves more is kept.
A choice that slows the model down is replaced by one that leaves the kernels alone, or dropped.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxpress.plan import Candidate, Context, Decision, Pass, Proposal, Skip
from onnxpress.runtime import Latency, Session, compare_latency
from onnxpress.validation import Evaluator, Measurement

__all__ = ["StageResult", "apply", "search_stage"]

logger = logging.getLogger(__name__)

Order = Callable[[Candidate], float]
"""What a tolerance is compared with."""


@dataclass(frozen=True)
class StageResult:
    """What a stage did and why.

    Attributes:
        pass_: which.
        model: what it left; the same object as before when it changed nothing.
        decisions: what it did, by site.
        left: sites it left alone, or treated less strongly than it could, with reasons.
        note: why it changed nothing, or what was given up; empty when all went as proposed.
        measurement: of the model it left; `None` when nothing was measured.
        latency: of the model it left against the one before, where that was measured.
        tried: how many models were measured.
    """

    pass_: Pass
    model: ir.Model
    decisions: tuple[Decision, ...]
    left: tuple[Skip, ...]
    note: str = ""
    measurement: Measurement | None = None
    latency: Latency | None = None
    tried: int = 0


def apply(pass_: Pass, context: Context, decisions: Sequence[Decision]) -> ir.Model:
    """A new model with the decisions carried out; `context.model` is not changed."""
    model = context.model.clone()
    pass_.rewrite(replace(context, model=model, layers=()), decisions)
    return model


@dataclass
class _Trial:
    """A choice that was built and measured."""

    decisions: tuple[Decision, ...]
    model: ir.Model
    measurement: Measurement


class _Searcher:
    def __init__(
        self,
        pass_: Pass,
        context: Context,
        evaluator: Evaluator,
        share: float,
        threads: int,
        deadline: float,
        progress: Callable[[str], None],
    ) -> None:
        self.pass_, self.context, self.evaluator = pass_, context, evaluator
        self.share, self.threads, self.deadline = share, threads, deadline
        self.progress = progress
        self.tried = 0

    def measure(self, decisions: tuple[Decision, ...]) -> _Trial:
        self.tried += 1
        model = apply(self.pass_, self.context, decisions)
        measurement = self.evaluator.measure(Session(model, threads=self.threads))
        self.progress(f"{self.pass_.name}: {len(decisions)} sites, attempt {self.tried}")
        logger.debug(
            "%s: %d sites: drop %.2f, worst SQNR %.1f dB",
            self.pass_.name,
            len(decisions),
            measurement.drop,
            measurement.worst_sqnr_db,
        )
        return _Trial(decisions, model, measurement)

    def holds(self, trial: _Trial) -> bool:
        return self.evaluator.holds(trial.measurement, self.share)

    def best(self, proposals: Sequence[Proposal]) -> _Trial | None:
        """What saves most of the choices that hold, or `None`."""
        everything = choose(proposals, _by_error, float("inf"))
        if all(decision.candidate.carried for decision in everything):
            return None
        trial = self.measure(everything)
        if self.holds(trial):
            return trial
        found = [self._bisect(proposals, order) for order in (_by_error, _by_error_for_saving)]
        holding = [trial for trial in found if trial is not None]
        return max(holding, key=lambda trial: _saved(trial.decisions), default=None)

    def _bisect(self, proposals: Sequence[Proposal], order: Order) -> _Trial | None:
        """The highest tolerance below the one that breaks the budget."""
        tolerances = sorted({order(c) for p in proposals for c in p.candidates if not c.carried})
        found: _Trial | None = None
        low, failing = 0, len(tolerances) - 1
        while low < failing and time.monotonic() < self.deadline:
            index = (low + failing) // 2
            trial = self.measure(choose(proposals, order, tolerances[index]))
            if self.holds(trial):
                found, low = trial, index + 1
            else:
                failing = index
        return found


def _by_error(candidate: Candidate) -> float:
    return candidate.predicted_error


def _by_error_for_saving(candidate: Candidate) -> float:
    return candidate.predicted_error / max(candidate.saved_bytes, candidate.zeroed_weights, 1)


def _saved(decisions: Sequence[Decision]) -> tuple[int, float]:
    """What a choice is worth: bytes and zeros, then multiply-adds and integer kernels."""
    candidates = [decision.candidate for decision in decisions]
    return (
        sum(c.saved_bytes + c.zeroed_weights for c in candidates),
        sum(c.saved_multiply_adds + (not c.neutral) for c in candidates),
    )


def choose(proposals: Sequence[Proposal], order: Order, tolerance: float) -> tuple[Decision, ...]:
    """For each site its strongest candidate within the tolerance; carried ones always."""
    decisions = []
    for proposal in proposals:
        for candidate in proposal.candidates:
            if candidate.carried or order(candidate) <= tolerance:
                decisions.append(Decision(proposal.site, candidate))
                break
    return tuple(decisions)


def search_stage(
    pass_: Pass,
    context: Context,
    evaluator: Evaluator,
    *,
    share: float,
    goal: str,
    named: bool,
    threads: int = 0,
    deadline: float = float("inf"),
    neutral_only: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> StageResult:
    """Propose, choose, build, measure, and give back what holds.

    Args:
        pass_: the technique.
        context: the model the earlier stage left, with statistics where there are any.
        evaluator: judges.
        share: of the budget that all stages up to this one may have spent.
        goal: `size` accepts a slower model; `latency` and `balanced` do not.
        named: asked for by name, so that candidates which save nothing count too.
        threads: of onnxruntime.
        deadline: on the monotonic clock; the search stops there with the best it has.
        neutral_only: only candidates that leave the kernels alone.
        progress: told what was tried.
    """
    offered = pass_.propose(context)
    left = [item for item in offered if isinstance(item, Skip)]
    proposals = [item for item in offered if isinstance(item, Proposal)]
    if not named:
        proposals = _filtered(proposals, lambda c: c.saves, left, "nothing would be saved")
    if neutral_only:
        proposals = _filtered(proposals, lambda c: c.neutral, [], "")
    nothing = StageResult(pass_, context.model, (), tuple(left))
    if not any(not c.carried for p in proposals for c in p.candidates):
        return replace(nothing, note=_why_nothing(left))
    searcher = _Searcher(pass_, context, evaluator, share, threads, deadline, progress)
    best = searcher.best(proposals)
    if best is None:
        reason = f"no choice of layers keeps within {evaluator.described}"
        left += [Skip(p.site, "restored: the budget would break") for p in proposals]
        return replace(nothing, left=tuple(left), note=reason, tried=searcher.tried)
    note, latency = "", None
    if goal != "size" and not all(d.candidate.neutral for d in best.decisions):
        latency = _latency(context, best.model, evaluator, threads)
        if latency.high < 1:
            reason = f"integer or new kernels ran at {latency.speedup:.2f} times the speed before"
            neutral = _filtered(proposals, lambda c: c.neutral, [], "")
            slower = best
            best = searcher.best(neutral) if neutral else None
            if best is None:
                left += [Skip(d.site, f"undone: {reason}") for d in slower.decisions]
                return replace(
                    nothing, left=tuple(left), note=f"undone: {reason}", tried=searcher.tried
                )
            note = f"{reason}: only forms that leave the kernels alone were kept"
            latency = None
    left += _restored(proposals, best.decisions)
    return StageResult(
        pass_,
        best.model,
        best.decisions,
        tuple(left),
        note,
        best.measurement,
        latency,
        searcher.tried,
    )


def _filtered(
    proposals: Sequence[Proposal],
    keep: Callable[[Candidate], bool],
    left: list[Skip],
    reason: str,
) -> list[Proposal]:
    kept = []
    for proposal in proposals:
        candidates = tuple(c for c in proposal.candidates if keep(c))
        if candidates:
            kept.append(replace(proposal, candidates=candidates))
        elif reason:
            left.append(Skip(proposal.site, reason))
    return kept


def _latency(context: Context, model: ir.Model, evaluator: Evaluator, threads: int) -> Latency:
    return compare_latency(
        Session(context.model, threads=threads),
        Session(model, threads=threads),
        evaluator.samples.feeds[0],
    )


def _restored(proposals: Sequence[Proposal], decisions: Sequence[Decision]) -> list[Skip]:
    chosen = {decision.site: decision.candidate for decision in decisions}
    left = []
    for proposal in proposals:
        strongest = proposal.candidates[0]
        if strongest.carried:
            continue
        if proposal.site not in chosen:
            error = strongest.predicted_error
            left.append(Skip(proposal.site, f"restored: would add {error:.1%} of output noise"))
        elif proposal.limit is not None:
            left.append(Skip(proposal.site, f"no integer kernel: {proposal.limit}"))
    return left


def _why_nothing(left: Sequence[Skip]) -> str:
    if not left:
        return "the model has no layer with a constant weight"
    reasons: dict[str, int] = {}
    for skip in left:
        reasons[skip.reason] = reasons.get(skip.reason, 0) + 1
    most = sorted(reasons.items(), key=lambda item: -item[1])
    return "; ".join(f"{reason} ({count})" for reason, count in most[:2])
