"""Choose among a pass's candidates under the budget, by measurement.

Everything is tried first, if the clock finds it faster, and everything that leaves the kernels
alone. Where the strongest choice breaks the budget, the errors of the candidates are measured at
the model's outputs (predictions know a layer's own error, not how the network magnifies it), and
a tolerance orders all choices: each site takes its strongest candidate within it. Bisection finds
the highest tolerance that holds, which restores the worst layers first. Worst by two measures,
the error, and the error for each byte saved (small layers first). Where sites offer many
candidates (ranks, sparsities), the choice follows the lower hull of error over what is saved,
all sites at once (Lagrange multipliers). Of all that holds, what is smallest and fastest by the
clock is kept; a choice that slows the model down never is.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
    sites,
)
from onnxpress.data import Samples
from onnxpress.graph import bodies
from onnxpress.judge import DEFAULT_MIN_SQNR, Evaluator, Measurement
from onnxpress.layers import Layer
from onnxpress.runtime import Latency, Session, compare_latency
from onnxpress.search.allocation import allocate, allocate_to
from onnxpress.search.layer_timing import keep_faster
from onnxpress.statistics import Observations, collect

__all__ = ["StageResult", "apply", "apply_refined", "search_stage"]

logger = logging.getLogger(__name__)

_SENSITIVITY_SAMPLES = 4
"""Enough to put layers in order: their errors differ by orders of magnitude."""
_MAGNIFICATION_SAMPLES = 32
"""One candidate a site is measured, so more samples are affordable."""
_TOLERANCES = 64
_REACHED = 0.99
"""Of a quota: steps are whole percents of a layer."""
_TINY_ERROR = 1e-12
_RESOLUTION = 16
"""Layers that together take less than such a part of what all lose are not told apart."""
_NEARLY_ALL = 0.95
"""Of the bytes: then another order of giving layers up is not worth its measurements."""
_LEVELS = 16
"""Each costs a run over the calibration samples; deeper models take several levels at once."""
_LEAST_GAIN = 0.02
"""In time, for a change of kernels to be worth its error."""
_ALIKE = 1.05
"""Costs nearer than this are the same to the clock."""
_CLOCK_S = 2.0
_TYPICAL_ERROR = 0.02
"""Large enough to be measured above rounding, small enough that errors still add up."""

_REVISIONS = itertools.count(1)
"""Every refinement observes another model, so what follows from it is cached apart."""

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


def apply_refined(
    pass_: Pass,
    context: Context,
    decisions: Sequence[Decision],
    samples: Samples | None,
    *,
    threads: int = 0,
) -> ir.Model:
    """As `apply`, and again where the decisions say `refined`.

    Layer after layer in the order of the graph, those that do not feed each other together: the
    inputs that the rewritten model gives them are observed beside those of the model before, and
    the decisions carried out anew. (All layers at once would each make up for the same loss.)
    """
    model = apply(pass_, context, decisions)
    refined = any(decision.candidate.parameters.get("refined") for decision in decisions)
    if samples is None or context.statistics is None or not refined:
        return model
    names = {name for decision in decisions for name in sites(decision)}
    graph = context.model.graph
    levels = _levels(graph, [layer for layer in context.layers if layer.name in names])
    layers = dict(context.statistics.layers)
    for level in levels:
        found = collect(
            model,
            level,
            samples,
            Observations(layers=frozenset(layer.name for layer in level), gram=True),
            reference=context.model,
            seed=context.seed,
            threads=threads,
        )
        for name, moments in found.layers.items():
            moments.revision = next(_REVISIONS)
            layers[name] = moments
        statistics = replace(context.statistics, layers=layers)
        model = apply(pass_, replace(context, statistics=statistics), decisions)
    return model


def _levels(graph: ir.Graph, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers by how many of them come before on the longest way; at most `_LEVELS` lists."""
    depths: dict[ir.Value, int] = {}
    own = {use.node for layer in layers for use in layer.uses}
    found: dict[int, list[Layer]] = {}

    def deepest(values: Iterable[ir.Value | None]) -> int:
        return max((depths.get(value, 0) for value in values if value is not None), default=0)

    def descend(graph: ir.Graph) -> None:
        for node in graph:
            depth = deepest(node.inputs)
            for body in bodies(node):
                depths.update(dict.fromkeys(body.inputs, deepest(node.inputs)))
                descend(body)
                depth = max(depth, deepest(body.outputs))
            depths.update(dict.fromkeys(node.outputs, depth + (node in own)))

    descend(graph)
    for layer in layers:
        depth = min(depths.get(use.node.outputs[0], 0) for use in layer.uses)
        found.setdefault(depth, []).append(layer)
    ordered = [found[depth] for depth in sorted(found)]
    size = -(-len(ordered) // _LEVELS)
    starts = range(0, len(ordered), max(size, 1))
    return [[layer for level in ordered[at : at + size] for layer in level] for at in starts]


@dataclass
class _Trial:
    """A choice that was built and measured.

    Attributes:
        decisions: the choice.
        model: what it makes.
        measurement: of that.
        refitted: with the better of both fits.
        latency: against the model before, where the clock came first.
    """

    decisions: tuple[Decision, ...]
    model: ir.Model
    measurement: Measurement
    refitted: bool = False
    latency: Latency | None = None


@dataclass(frozen=True)
class _Whole:
    """A choice for all sites, by its draft.

    Attributes:
        decisions: the choice.
        latency: against the model before; `None` where the kernels stay.
        cost: bytes times time, or time alone, as the goal says.
        note: what to say where it is taken.
    """

    decisions: tuple[Decision, ...]
    latency: Latency | None = None
    cost: float = 0.0
    note: str = ""


class _Searcher:
    def __init__(
        self,
        pass_: Pass,
        context: Context,
        evaluator: Evaluator,
        share: float,
        threads: int,
        deadline: float,
        calibration: Samples | None,
        goal: str,
        progress: Callable[[str], None],
    ) -> None:
        self.goal, self.note = goal, ""
        self.pass_, self.context, self.evaluator = pass_, context, evaluator
        self.calibration = calibration
        self.share, self.threads, self.deadline = share, threads, deadline
        self.progress = progress
        self.tried = 0

    def measure(self, decisions: tuple[Decision, ...]) -> _Trial:
        self.tried += 1
        model = apply_refined(
            self.pass_, self.context, decisions, self.calibration, threads=self.threads
        )
        session = Session(model, threads=self.threads)
        measurement = self.evaluator.measure(session, share=self.share)
        self.progress(f"{self.pass_.name}: {len(decisions)} sites, attempt {self.tried}")
        logger.debug(
            "%s: %d sites: drop %.2f, worst SQNR %.1f dB",
            self.pass_.name,
            len(decisions),
            measurement.drop,
            measurement.worst_sqnr_db,
        )
        return _Trial(decisions, model, measurement)

    def refined(self, trial: _Trial) -> _Trial:
        """The trial, or the same fitted on its own activations where that is nearer."""
        if trial.refitted:
            return trial
        known = self.calibration is not None and self.context.statistics is not None
        if not self.pass_.refines or not known or time.monotonic() > self.deadline:
            return trial
        found = self.measure(
            tuple(
                replace(decision, candidate=_marked_refined(decision.candidate))
                for decision in trial.decisions
            )
        )
        nearer = found.measurement.worst_sqnr_db >= trial.measurement.worst_sqnr_db
        return replace(found if nearer else trial, refitted=True)

    def holds(self, trial: _Trial) -> bool:
        return self.evaluator.holds(trial.measurement, self.share)

    def feasible(self, proposals: Sequence[Proposal]) -> list[_Trial]:
        """Choices that hold the budget, at most one of each way to choose."""
        if self.pass_.stage < Stage.QUANTIZATION:
            return self._on_hull(proposals, self.pass_.quota(self.context))
        everything = choose(proposals, _by_error, float("inf"))
        if all(decision.candidate.carried for decision in everything):
            return []
        kernel_preserving = _filtered(proposals, lambda c: c.keeps_kernels, [], "")
        preserving = choose(kernel_preserving, _by_error, float("inf"))
        changes_kernels = not all(d.candidate.keeps_kernels for d in everything)
        wholes: list[_Whole] = []
        if changes_kernels and kernel_preserving and self.goal != "size":
            wholes = self._faster([everything, *_other_forms(proposals)], preserving)
            if not wholes:
                changes_kernels, proposals = False, kernel_preserving
        if not wholes:
            wholes = [_Whole(choose(proposals, _by_error, float("inf")))]
        for _, group in itertools.groupby(wholes, lambda whole: whole.cost):
            alike = list(group)
            trials = [replace(self.measure(w.decisions), latency=w.latency) for w in alike]
            feasible = [trial for trial in trials if self.holds(trial)]
            if feasible:
                self.note = self.note or alike[0].note
                return [max(feasible, key=lambda trial: trial.measurement.worst_sqnr_db)]
        found: list[_Trial | None] = []
        preserving_holds = False
        if (
            changes_kernels
            and kernel_preserving
            and preserving not in [whole.decisions for whole in wholes]
        ):
            trial = self.measure(preserving)
            preserving_holds = self.holds(trial)
            found += [trial] if preserving_holds else []
        # Where all kernel_preserving candidates hold together, only the others need to be weighed.
        weighed = self._weigh(proposals, lambda c: not (preserving_holds and c.keeps_kernels))
        found += self._within_tolerance(weighed)
        if changes_kernels and kernel_preserving and not preserving_holds:
            found += self._within_tolerance(_filtered(weighed, lambda c: c.keeps_kernels, [], ""))
        return [trial for trial in found if trial is not None]

    def _faster(
        self, wholes: Sequence[tuple[Decision, ...]], preserving: tuple[Decision, ...]
    ) -> list["_Whole"]:
        """Those that run faster than the kernels of before, which `preserving` keeps.

        The clock comes first, on drafts: it takes a moment, and where no whole choice gains time
        neither would a mixture, which adds conversions between the forms. What is smallest and
        fastest comes first; those that the clock hardly tells apart cost the same. `preserving` is
        among them where its bytes make up for its time.
        """
        before = Session(self.context.model, threads=self.threads)
        draft = replace(self.context, draft=True)
        feed = self.evaluator.samples.feeds[0]
        faster: list[_Whole] = []
        best = 0.0
        for whole in wholes:
            model = apply(self.pass_, draft, whole)
            after = Session(model, threads=self.threads)
            latency = compare_latency(before, after, feed, budget_s=_CLOCK_S)
            best = max(best, latency.speedup)
            if latency.speedup > 1 + _LEAST_GAIN:
                faster.append(_Whole(whole, latency, self._cost(model, latency.speedup)))
        note = (
            "only forms that leave the kernels alone were kept: integer or new kernels ran at "
            f"{best:.2f} times the speed before"
        )
        if not faster:
            self.note = note
            return []
        cost = self._cost(apply(self.pass_, draft, preserving), 1.0)
        least = min(whole.cost for whole in faster)
        faster = [replace(w, cost=least) if w.cost <= _ALIKE * least else w for w in faster]
        if cost < least:
            note += ", which is less than their bytes cost"
            faster.append(_Whole(preserving, None, cost, note))
        return sorted(faster, key=lambda whole: whole.cost)

    def _cost(self, model: ir.Model, speedup: float) -> float:
        """What a choice is weighed by, apart from what it loses."""
        return (model_file.weight_bytes(model) if self.goal == "balanced" else 1.0) / speedup

    def _on_hull(self, proposals: Sequence[Proposal], quota: Quota | None) -> list[_Trial]:
        """Choices by what each saves for its error, all sites against each other."""
        if quota is None:
            strongest = self.measure(choose(proposals, _by_error, float("inf")))
            if self.holds(strongest):
                return [strongest]
        weighed = self._magnified(proposals)
        found: list[_Trial] = []
        units = ["saved_bytes", "zeroed_weights", "saved_microseconds", "saved_multiply_adds"]
        for unit in units if quota is None else [quota.unit]:
            if not any(getattr(c, unit) > 0 for p in proposals for c in p.candidates):
                continue
            if quota is None:
                ladder = allocate(weighed, unit)
            else:
                ladder = allocate_to(weighed, quota, self._saving(quota))
            if quota is not None and ladder:
                strongest = self.refined(self.measure(ladder[-1]))
                if self.holds(strongest):
                    return [strongest]
            trial = self._bisect(ladder)
            found += [] if trial is None else [trial]
        return [trial for trial in found if self.holds(trial)]

    def _saving(self, quota: Quota) -> Callable[[Sequence[Decision]], float]:
        return lambda decisions: self.pass_.saving(self.context, decisions, quota.unit)

    def _magnified(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Predicted errors scaled to the model's outputs, by one measured candidate a site."""
        weighed = []
        for number, proposal in enumerate(proposals, 1):
            typical = min(
                proposal.candidates,
                key=lambda c: abs(np.log(max(c.predicted_error, 1e-12) / _TYPICAL_ERROR)),
            )
            measured = self._alone(proposal.site, typical, _MAGNIFICATION_SAMPLES)
            scale = measured / max(typical.predicted_error, 1e-12)
            candidates = tuple(
                replace(c, predicted_error=c.predicted_error * scale) for c in proposal.candidates
            )
            weighed.append(replace(proposal, candidates=candidates))
            self.progress(f"{self.pass_.name}: sensitivity of site {number} of {len(proposals)}")
        return weighed

    def _within_tolerance(self, proposals: Sequence[Proposal]) -> list[_Trial | None]:
        """By the two orders, the strongest choice that holds."""
        found = []
        for order in (_by_error, _by_error_for_saving):
            tolerances = sorted(
                {order(c) for p in proposals for c in p.candidates if not c.carried}
            )
            if len(tolerances) > _TOLERANCES:
                picked = np.linspace(0, len(tolerances) - 1, _TOLERANCES).round().astype(int)
                tolerances = [tolerances[index] for index in picked]
            trial = self._bisect([choose(proposals, order, t) for t in tolerances])
            found.append(trial)
            everything, _ = _saved([Decision(p.site, p.candidates[0]) for p in proposals])
            if trial is not None and _saved(trial.decisions)[0] >= _NEARLY_ALL * everything:
                break
        return found

    def _weigh(
        self,
        proposals: Sequence[Proposal],
        wanted: Callable[[Candidate], bool],
    ) -> list[Proposal]:
        """The proposals with errors measured at the model's outputs, by halving.

        All candidates of a form are measured together, then half of them, and so on down to
        those that alone take a good part of what may be lost; a group that takes less is shared
        out by prediction. Most layers are harmless, so this takes far fewer runs than
        one for each. Candidates that are not `wanted` count as free of error.

        Args:
            proposals: in the order of the graph, so that a half is mostly one region.
            wanted: which to measure.
        """
        min_sqnr = self.evaluator.min_sqnr
        allowed = 10 ** (-(DEFAULT_MIN_SQNR if min_sqnr is None else min_sqnr) / 10)
        carried = tuple(
            Decision(p.site, p.candidates[0]) for p in proposals if p.candidates[0].carried
        )
        measured: dict[int, float] = {}

        def halve(group: Sequence[Decision], share: float | None = None) -> None:
            error = self._together((*group, *carried))
            if share is None:
                # Where a metric is the budget, no more is known than that the whole fails.
                share = min(allowed, error) / _RESOLUTION
            if len(group) == 1 or error <= share:
                predicted = [d.candidate.predicted_error + _TINY_ERROR for d in group]
                for decision, part in zip(group, predicted, strict=True):
                    measured[id(decision.candidate)] = error * part / sum(predicted)
                self.progress(f"{self.pass_.name}: sensitivity of {len(measured)} candidates")
                return
            middle = len(group) // 2
            halve(group[:middle], share)
            halve(group[middle:], share)

        groups: dict[object, list[Decision]] = {}
        for proposal in proposals:
            for candidate in proposal.candidates:
                if wanted(candidate) and not candidate.carried:
                    form = candidate.parameters.get("form")
                    groups.setdefault(form, []).append(Decision(proposal.site, candidate))
        for group in groups.values():
            halve(group)
        return [
            replace(
                proposal,
                candidates=tuple(
                    replace(c, predicted_error=measured.get(id(c), 0.0))
                    for c in proposal.candidates
                ),
            )
            for proposal in proposals
        ]

    def _alone(self, site: str, candidate: Candidate, samples: int) -> float:
        """Error power over signal power on the worst output with one candidate alone."""
        if candidate.carried or time.monotonic() > self.deadline:
            return candidate.predicted_error
        return self._together((Decision(site, candidate),), samples)

    def _together(
        self, decisions: Sequence[Decision], samples: int = _SENSITIVITY_SAMPLES
    ) -> float:
        """Error power over signal power on the worst output with these decisions."""
        if time.monotonic() > self.deadline:
            return sum(decision.candidate.predicted_error for decision in decisions)
        model = apply(self.pass_, self.context, decisions)
        measured = self.evaluator.measure(Session(model, threads=self.threads), samples)
        return float(10 ** (-measured.worst_sqnr_db / 10))

    def _bisect(self, ladder: Sequence[tuple[Decision, ...]]) -> _Trial | None:
        """The strongest choice that holds, where the last is known not to."""
        found: _Trial | None = None
        low, failing = 0, len(ladder) - 1
        while low < failing and time.monotonic() < self.deadline:
            index = (low + failing) // 2
            trial = self.measure(ladder[index])
            if self.holds(trial):
                found, low = trial, index + 1
            else:
                failing = index
        return found


def _other_forms(proposals: Sequence[Proposal]) -> list[tuple[Decision, ...]]:
    """Whole choices that prefer a form which changes kernels but is no site's strongest."""
    first = {p.candidates[0].parameters.get("form") for p in proposals}
    others = {
        str(candidate.parameters["form"])
        for proposal in proposals
        for candidate in proposal.candidates
        if "form" in candidate.parameters and not candidate.keeps_kernels
    } - first
    choices = []
    for form in sorted(others):
        preferred = [
            replace(
                proposal,
                candidates=tuple(
                    sorted(proposal.candidates, key=lambda c: c.parameters.get("form") != form)
                ),
            )
            for proposal in proposals
        ]
        choices.append(choose(preferred, _by_error, float("inf")))
    return choices


def _marked_refined(candidate: Candidate) -> Candidate:
    return replace(candidate, parameters={**candidate.parameters, "refined": True})


def _by_error(candidate: Candidate) -> float:
    return candidate.predicted_error


def _by_error_for_saving(candidate: Candidate) -> float:
    return candidate.predicted_error / max(candidate.saved_bytes, candidate.zeroed_weights, 1)


def _saved(decisions: Sequence[Decision]) -> tuple[int, float]:
    """What a choice is worth: bytes and zeros, then multiply-adds and integer kernels."""
    candidates = [decision.candidate for decision in decisions]
    return (
        sum(c.saved_bytes + c.zeroed_weights for c in candidates),
        sum(c.saved_multiply_adds + (not c.keeps_kernels) for c in candidates),
    )


def _at_full_strength(
    context: Context, proposals: Sequence[Proposal], decisions: Sequence[Decision]
) -> float:
    """The multiply-adds of layers that got their strongest candidate."""
    strongest = {proposal.site: proposal.candidates[0].parameters for proposal in proposals}
    full = {d.site for d in decisions if d.candidate.parameters == strongest[d.site]}
    return sum(context.multiply_adds(layer) for layer in context.layers if layer.name in full)


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
    kernel_preserving_only: bool = False,
    calibration: Samples | None = None,
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
        kernel_preserving_only: only candidates that leave the kernels alone.
        calibration: what the statistics were collected on, for passes that refine.
        progress: told what was tried.
    """
    offered = pass_.propose(context)
    left = [item for item in offered if isinstance(item, Skip)]
    proposals = [item for item in offered if isinstance(item, Proposal)]
    if not named:
        proposals = _filtered(proposals, lambda c: c.saves, left, "nothing would be saved")
    if kernel_preserving_only:
        proposals = _filtered(proposals, lambda c: c.keeps_kernels, [], "")
    elif goal != "size":
        proposals, slower = keep_faster(pass_, context, proposals, apply, threads=threads)
        left += slower
    nothing = StageResult(pass_, context.model, (), tuple(left))
    if not any(not c.carried for p in proposals for c in p.candidates):
        return replace(nothing, note=_why_nothing(left))
    searcher = _Searcher(
        pass_, context, evaluator, share, threads, deadline, calibration, goal, progress
    )
    found = searcher.feasible(proposals)
    nothing = replace(nothing, tried=searcher.tried)
    if not found:
        reason = f"no choice of layers keeps within {evaluator.described}"
        left += [Skip(p.site, "restored: the budget would break") for p in proposals]
        return replace(nothing, left=tuple(left), note=reason)
    if goal == "size":
        best = max(
            found,
            key=lambda t: (
                *_saved(t.decisions),
                _at_full_strength(context, proposals, t.decisions),
            ),
        )
        note, latency = "", None
    else:
        chosen, latency, note = _fastest(context, found, evaluator, threads)
        if chosen is None:
            left += [Skip(d.site, f"undone: {note}") for d in found[0].decisions]
            return replace(nothing, left=tuple(left), note=f"undone: {note}")
        best = chosen
    # Refitting changes neither size nor speed, so only what was chosen is refitted.
    best = searcher.refined(best)
    left += _restored(proposals, best.decisions)
    note = note or searcher.note or _short_of(pass_, context, best.decisions)
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


def _fastest(
    context: Context, trials: Sequence[_Trial], evaluator: Evaluator, threads: int
) -> tuple[_Trial | None, Latency | None, str]:
    """The trial with the least bytes times latency that is no slower than the model before.

    Returns:
        The trial or `None`, its latency where it was measured, and what was not taken and why.
    """
    weighed: list[tuple[float, int, Latency | None]] = []
    slowest = ""
    before: Session | None = None
    for index, trial in enumerate(trials):
        latency, speedup = trial.latency, 1.0
        if latency is not None:
            speedup = latency.speedup
        elif not all(decision.candidate.keeps_kernels for decision in trial.decisions):
            before = before or Session(context.model, threads=threads)
            after = Session(trial.model, threads=threads)
            latency = compare_latency(before, after, evaluator.samples.feeds[0])
            speedup = latency.speedup
            if latency.high < 1:
                slowest = f"integer or new kernels ran at {speedup:.2f} times the speed before"
                continue
        weighed.append((model_file.weight_bytes(trial.model) / speedup, index, latency))
    if not weighed:
        return None, None, slowest
    _, index, latency = min(weighed, key=lambda item: item[:2])
    note = ""
    if latency is None and len(trials) > 1:
        note = "only forms that leave the kernels alone were kept: " + (
            slowest or "with integer kernels it would be larger or slower"
        )
    return trials[index], latency, note


def _short_of(pass_: Pass, context: Context, decisions: Sequence[Decision]) -> str:
    """What to say where less was saved than the settings ask for; nothing where it was reached."""
    quota = pass_.quota(context)
    if quota is None:
        return ""
    reached = pass_.saving(context, decisions, quota.unit)
    share = reached / quota.amount if quota.amount > 0 else 1.0
    if share >= _REACHED:
        return ""
    return f"{share:.0%} of what was asked for: more would break the budget, or no layer allows it"


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
