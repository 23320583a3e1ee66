"""Follow a plan in more than one way, take what the objective weighs least, and judge that.

An early pass may spend budget that the last one would use better, so the whole chain is weighed
against the last pass alone; what each stage gained in time may be lost again by all together.
The last pass gains most, so that it comes first: the chain is followed where as much time is left
as that took, which is kept for the end of the chain. Where the early passes change nothing, the
chain ends as the last pass alone did.
Fitting the last pass's layers again changes neither size nor speed and takes longer than all else,
so only the way that is taken is fitted. (Earlier passes are: the nearer they stay, the more is left
for those behind.)

What chooses does not judge: the choice is judged on samples that it has not seen. Where it breaks
the budget there, it is made again with so much less of the budget as it spent too much, or as what
chose saw too little of, twice; then by the last pass alone, in forms that keep the kernels
(rounded weights: neither ranges of activations nor what seemed idle on the samples), and then
nothing is lost. Each look at the untouched samples makes the bounds of the next one wider
(Bonferroni).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.brief_names import briefly_named
from onnxpress.contract import Context, Stage
from onnxpress.conversion import convert_form, samples_to_choose_by
from onnxpress.conversion.half_range import Magnitudes
from onnxpress.costs import for_judging
from onnxpress.dividing import divided
from onnxpress.enforcement import quota_of
from onnxpress.judge import Evaluator, Measurement
from onnxpress.original import Run
from onnxpress.pooled import SMALL_BYTES
from onnxpress.progress import Progress, part
from onnxpress.runtime import Latency, Session
from onnxpress.stage_result import StageResult
from onnxpress.stages import (
    BROKE,
    LEFT_OUT,
    NO_TIME,
    NOT_NEEDED,
    STOPPED,
    Variant,
    run_stages,
)
from onnxpress.statistics.magnitudes import observe_magnitudes
from onnxpress.storage import storage_of
from onnxpress.validation import Validation, check_model

__all__ = [
    "CUT",
    "Attempt",
    "attempt_of",
    "best_attempt",
    "explained",
    "fitted_again",
    "followed_ways",
    "judged",
    "judged_attempt",
    "part_of_run",
    "seen_share",
    "too_slow",
]

CUT = "the search was cut by the time limit: more of it may find more; see --time-limit [L029]"
_AGAIN, _GRACE_S = 0.25, 10.0
"""Of the time of a first choice, for another one, which knows what that measured; and how late that
may end: else nothing is lost."""
_CLOCK_S, _HURRIED_S = 6.0, 1.0
"""For the clock, and where time is over."""
_COMPARED = 2
"""Samples on which a change of form alone is compared with the model before it."""
_OBSERVED = 64
"""Samples that ranges for half precision are seen on."""
_LOOKS = 4
"""At the untouched samples, by choices that lose something."""
_LEAST_SHARE = 0.05
_CHOSEN, _ALONE, _EVEN, _ROUGH = 0.95, 0.15, 0.5, 0.9
"""Of the time of a run, usually: until it is judged; of that, the last pass alone, the chain with
equal parts of the budget, and all that searches; the rest fits again."""
_WORTH = 0.9
"""Of the last pass's cost: where the early ones with equal parts of the budget gain less, they gain
little by other parts, and each look takes as long as a chain. With a time limit it is looked."""
_BEYOND = 4.0
"""Times the budget, 6 dB: what some hundred samples bring back."""
_MARGIN = 0.8
"""Of what would just be enough: the next samples differ again."""


@dataclass(frozen=True)
class Attempt:
    """A plan carried out.

    Attributes:
        model: what it left.
        stages: what each pass did.
        within: whether the budget holds on the samples that the search chooses by.
        measurement: on these.
        latency: against the original.
        notes: on conversions, in sentences.
        session: of the model where that is small: two of a large one take too much memory.
        splits: how the budget was divided among pools, where not evenly.
        named: the model with the names that passes gave; `None`: `model` has them.
    """

    model: ir.Model
    stages: tuple[StageResult, ...]
    within: bool
    measurement: Measurement
    latency: Latency
    notes: tuple[str, ...] = ()
    session: Session | None = None
    splits: Mapping[str, float] = field(default_factory=dict)
    named: ir.Model | None = None

    @property
    def lossy(self) -> bool:
        """Whether anything was done that spends of the budget."""
        return any(stage.lost for stage in self.stages)


def judged_attempt(
    run: Run,
    judge: Evaluator,
    again: float = math.inf,
    choose: Callable[[Run, float, Mapping[str, float] | None], Attempt] | None = None,
) -> tuple[Attempt, Validation]:
    """The best attempt that holds on untouched samples, and what was found there.

    Args:
        run: the plan.
        judge: on those samples; the run's own evaluator where there are too few to keep some back.
        again: deadline of a choice that is made again, on the monotonic clock. When it is over,
            what was measured for the first one serves, where that does not take long.
        choose: an attempt with a share of the budget, divided among pools as told; `None`: the
            best.
    """
    choose = choose or best_attempt
    searched = any(stage.decisions is None for stage in run.recipe.stages)
    apart = judge is not run.evaluator
    said: list[str] = []
    started = time.monotonic()
    share, attempt = 1.0, choose(part_of_run(run, 0.0, _CHOSEN), 1.0, None)
    took_s = time.monotonic() - started
    if searched and run.options.out_of_time() and not run.options.stop():
        said.append(CUT)
    while True:
        validation = judged(run, judge, attempt)
        if validation.within_budget or not (searched and apart and attempt.lossy):
            break
        reason = judge.broken(validation.measurement)
        if not reason:
            # Another interface, not a loss: less of the budget would not mend it.
            break
        spent = judge.spent(validation.measurement)
        seen = seen_share(attempt.measurement, validation.measurement)
        share *= min(0.5, _MARGIN / max(spent, _MARGIN), seen)
        run = replace(run, options=replace(run.options, deadline=again))
        judge.looks += 1
        late = time.monotonic() + _AGAIN * took_s > again + _GRACE_S
        if judge.looks > _LOOKS or run.options.stop() or late:
            rest, attempt = "what is written loses nothing", best_attempt(run, 0, why=BROKE)
        elif judge.looks == _LOOKS or share < _LEAST_SHARE:
            judge.looks, share = _LOOKS, max(share, _LEAST_SHARE)
            rest = f"what is written spent {share:.0%} of the budget, on rounded weights alone"
            last = Variant(_early(run), kernel_preserving_only=True, share=share)
            attempt = attempt_of(run, last)
        else:
            rest = f"what is written was chosen with {share:.0%} of the budget"
            attempt = choose(run, share, attempt.splits)
        said.append(f"a first choice broke the budget ({reason}): {rest} [W007]")
    if not apart:
        number = len(judge.samples)
        if not judge.made_up:
            said.append(
                f"chosen and judged on the same {number} samples: give 4 or more to "
                "keep some apart [W006]"
            )
    warnings = (*validation.warnings, *attempt.notes, *said)
    return attempt, replace(validation, warnings=warnings)


def seen_share(chosen: Measurement, judged: Measurement) -> float:
    """The share of the lost power that what chose saw, where untouched inputs keep too little.

    Stressed inputs and other sizes are few, and differ: what must keep 17 dB and kept 15 where 24
    were seen is chosen by 26.
    """
    seen = {(probe.name, probe.output): probe.sqnr_db for probe in chosen.probes}
    gaps = [
        seen.get((probe.name, probe.output), probe.sqnr_db) - probe.sqnr_db
        for probe in judged.probes
        if probe.sqnr_db < probe.least_db
    ]
    gap = max([0.0, *(gap for gap in gaps if math.isfinite(gap))])
    return float(10 ** (-gap / 10))


def judged(run: Run, judge: Evaluator, attempt: Attempt) -> Validation:
    """What untouched samples say of an attempt; where a speed was asked for, it is timed anew."""
    session = run.original.session
    assert session is not None
    run.options.progress(Progress("judging on untouched samples", fraction=_CHOSEN))
    return check_model(
        judge,
        session,
        attempt.session or attempt.model,
        threads=run.request.threads,
        # What chose by the clock is not judged by the same rounds.
        latency=None if run.recipe.constraints.timed else attempt.latency,
        clock=for_judging(run.request.clock),
        timed_on_target=run.target.timed_here,
    )


def best_attempt(
    run: Run,
    share: float = 1.0,
    splits: Mapping[str, float] | None = None,
    *,
    why: str = NOT_NEEDED,
) -> Attempt:
    """The best of all ways to follow the plan, with a share of the budget.

    Args:
        run: the plan.
        share: of the budget; with 0 nothing is lost.
        splits: how it is divided among pools; `None`: that is searched.
        why: nothing is to be lost, where that is so.
    """
    if share == 0:
        return attempt_of(run, Variant(lossless_only=why))
    objective = run.options.objective

    def cost(attempt: Attempt) -> float:
        size = float(model_file.weight_bytes(attempt.model))
        return objective.cost(size, 1 / attempt.latency.speedup)

    def order(found: tuple[Variant, Attempt]) -> tuple[bool, float]:
        # A broken budget is worse than anything.
        return not found[1].within, cost(found[1])

    tries = followed_ways(
        part_of_run(run, 0.0, _ROUGH), share, splits, lambda a: cost(a) if a.within else math.inf
    )
    run = part_of_run(run, _ROUGH, 1.0)
    variant, best = min(tries, key=order)
    if too_slow(run, best):
        run.options.progress(Progress("slower than the original: only forms that keep the kernels"))
        return attempt_of(run, Variant(kernel_preserving_only=True, share=share))
    if variant.rough:
        best = fitted_again(run, variant, best)
    if _trains(run):
        best = min(best, _further(run, variant, best), key=lambda one: order((variant, one)))
    return explained(run, best, tries[0][1]) if variant.skipped else best


def _further(run: Run, variant: Variant, best: Attempt) -> Attempt:
    """What the passes make with more than the budget, if training brings it back within.

    The attempt itself where there is no time, or no search that could spend more.
    """
    open_ = [s.pass_ for s in run.recipe.stages if s.pass_.stage.loses and s.decisions is None]
    context = Context(run.original.model, run.target)
    # What a setting asks for is done whatever the budget says.
    searched = [pass_ for pass_ in open_ if quota_of(pass_, context) is None]
    if not searched or run.options.out_of_time():
        return best
    run.options.progress(Progress("beyond the budget, as training may bring it back"))
    return attempt_of(run, replace(variant, share=variant.share * _BEYOND, rough=False))


def _trains(run: Run) -> bool:
    """Whether a pass that recovers is to be tried."""
    return any(
        stage.pass_.stage == Stage.RECOVERY and stage.decisions is None
        for stage in run.recipe.stages
    )


def too_slow(run: Run, attempt: Attempt) -> bool:
    """Whether other kernels made a model slower, which the goal does not accept, by a search."""
    half = run.recipe.conversion.float16 != "no"
    searched = any(stage.decisions is None for stage in run.recipe.stages)
    slower = not run.options.objective.accepts_slower and attempt.latency.high < 1
    return slower and searched and not half and _changes_kernels(attempt.stages)


def followed_ways(
    run: Run,
    share: float,
    splits: Mapping[str, float] | None,
    cost: Callable[[Attempt], float],
    *,
    rough: bool = False,
) -> list[tuple[Variant, Attempt]]:
    """The ways to follow the plan, and what came of them; first one with all passes.

    Args:
        run: the plan.
        share: of the budget.
        splits: how it is divided among pools, evenly where it does not say; `None`: that is
            searched.
        cost: of an attempt, by which it is searched; infinite where the budget is broken.
        rough: also where there is but one way, it is not fitted again.
    """
    early = _early(run)
    if not early:
        only = Variant(share=share, rough=rough)
        return [(only, attempt_of(run, only))]
    # Only one of two ways is fitted again, which is settled later.
    started = time.monotonic()
    last = Variant(early, share=share, rough=True)
    alone = attempt_of(part_of_run(run, 0.0, _ALONE), last)
    took = time.monotonic() - started
    if run.options.out_of_time() or run.options.left_s <= took:
        return [(last, alone)]
    whole = Variant(share=share, splits=splits or {}, rough=True, alone=alone.stages, kept_s=took)
    end = _EVEN if splits is None else 1.0
    started = time.monotonic()
    chain = attempt_of(part_of_run(run, _ALONE, end), whole)
    even = [(whole, chain), (last, alone)]
    if splits is not None:
        return even
    if math.isinf(run.options.deadline) and _WORTH * cost(alone) < cost(chain) < math.inf:
        return even
    took = time.monotonic() - started
    ways = divided(part_of_run(run, end, 1.0), whole, chain, took, attempt_of, cost)
    return [*ways, (last, alone)]


def part_of_run(run: Run, start: float, end: float) -> Run:
    """The same, as a part of the whole for who is told."""
    tell = part(run.options.progress, start, end)
    return replace(run, options=replace(run.options, progress=tell))


def explained(run: Run, best: Attempt, whole: Attempt) -> Attempt:
    """An attempt without early passes, with why each of them was left out, where that was not it.

    Args:
        run: the plan.
        best: that is taken.
        whole: of all passes, or `best` where there was no time for more.
    """
    early = _early(run)
    other = {s.pass_.name: s for s in whole.stages if not s.decisions}
    note = STOPPED if run.options.stop() else NO_TIME
    stages = []
    for stage in best.stages:
        idle = other.get(stage.pass_.name)
        if stage.pass_.name not in early or idle is None:
            stages.append(stage)
        elif idle.note == LEFT_OUT:
            stages.append(replace(stage, note=note))
        else:
            stages.append(replace(idle, model=stage.model))
    return replace(best, stages=tuple(stages))


def fitted_again(run: Run, variant: Variant, best: Attempt) -> Attempt:
    """A rough attempt with its layers fitted again, where that is nearer and there is time."""
    if run.options.out_of_time() or not _refines(best.stages):
        return best
    again = replace(variant, rough=False, taken=best.stages)
    found = attempt_of(run, again, best.latency)
    noise = run.evaluator.noise
    nearer = noise(found.measurement) <= noise(best.measurement)
    return found if nearer and (found.within or not best.within) else best


def attempt_of(run: Run, variant: Variant, timed: Latency | None = None) -> Attempt:
    """Run the stages, measure and time what comes out, where its time is not known."""
    model, stages = run_stages(run, variant)
    evaluator = run.evaluator
    half = run.recipe.conversion.float16 != "no" or storage_of(model.graph) is not None
    given = evaluator.samples.feeds
    feeds = samples_to_choose_by(model, given) if half else given[:_COMPARED]
    current, notes = convert_form(
        model, run.target, run.recipe.conversion, feeds, lambda halved: _magnitudes(run, halved)
    )
    run.options.progress(Progress("measuring", fraction=1.0))
    # Behind the last pass that loses something nothing changes an answer.
    alike = variant.rough and current is model
    known = [stage.measurement for stage in stages if alike or stage.model is current]
    whole = [m for m in known if m is not None and m.samples == len(evaluator.samples)]
    open_ = [stage.session for stage in stages if stage.model is current and stage.session]
    session = open_[-1] if open_ else Session(current, threads=run.request.threads)
    measurement = whole[-1] if whole else evaluator.measure(session)
    original = run.original.session
    assert original is not None
    budget_s = _HURRIED_S if run.options.out_of_time() else _CLOCK_S
    latency = timed or run.request.clock(original, session, feeds[0], budget_s=budget_s)
    lossy = any(stage.lost for stage in stages)
    written = briefly_named(current, run.original.model) if lossy else current
    # What is judged is what is written.
    small = model_file.weight_bytes(current) < SMALL_BYTES and written is current
    return Attempt(
        written,
        tuple(replace(stage, session=None) for stage in stages),
        evaluator.holds(measurement),
        measurement,
        latency,
        tuple(notes),
        session if small else None,
        variant.splits,
        None if written is current else current,
    )


def _magnitudes(run: Run, model: ir.Model) -> Magnitudes:
    """How far tensors reach on all samples that may be looked at."""
    run.options.progress(Progress("ranges for half precision"))
    sets = [run.evaluator.samples]
    if run.calibration is not None:
        sets.insert(0, run.calibration)
    return observe_magnitudes(
        model,
        sets,
        most=_OBSERVED,
        made_up=run.evaluator.made_up and run.calibration is None,
        threads=run.request.threads,
    )


def _refines(stages: Sequence[StageResult]) -> bool:
    """Whether the last pool took anything that it would fit again, or that could be trained."""
    if any(stage.pass_.stage == Stage.RECOVERY for stage in stages):
        return any(s.decisions and s.pass_.stage.loses for s in stages)
    last = max(stage.pass_.stage for stage in stages if stage.pass_.stage.loses)
    return any(s.decisions and s.pass_.refines for s in stages if s.pass_.stage == last)


def _early(run: Run) -> frozenset[str]:
    """All lossy passes before the last stage, where they may be left out.

    They may spend what the last one needs. What is named, or decided by a recipe, is carried out.
    """
    searched = all(stage.decisions is None for stage in run.recipe.stages)
    lossy = [stage.pass_ for stage in run.recipe.stages if stage.pass_.stage.loses]
    if run.request.named or not searched or not lossy:
        return frozenset()
    last = max(pass_.stage for pass_ in lossy)
    return frozenset(pass_.name for pass_ in lossy if pass_.stage != last)


def _changes_kernels(stages: Sequence[StageResult]) -> bool:
    return any(not d.candidate.keeps_kernels for stage in stages for d in stage.decisions)
