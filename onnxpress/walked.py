"""Search above the memory budget: few trials, each a walk block by block.

One number says how much a whole pool does, and `bisection` finds the most that keeps within the
budget on samples to choose by. Amounts (ranks, counts) go up by what each saves for the error that
its pass predicts; forms of integers by the largest predicted error that is taken. What a walk a
layer would show is not looked for: which layers bear more than their passes predict.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.blockwise import Blockwise, observed, recorded
from onnxpress.contract import Context, Observations, Proposal, Stage
from onnxpress.correcting import Correction, corrected, refined
from onnxpress.data import Samples, require_runnable
from onnxpress.enforcement import observed_by
from onnxpress.judge import Evaluator, Measurement
from onnxpress.original import SampleSets
from onnxpress.pool import Pool, PoolOffer, pools_of
from onnxpress.recipe import Recipe
from onnxpress.request import Request
from onnxpress.search import (
    Choice,
    Journal,
    SearchOptions,
    Trial,
    allocate,
    bisected,
    choose,
    hardly_gains,
    told_how,
)
from onnxpress.spill import spilled_apart
from onnxpress.statistics import Statistics
from onnxpress.unsearched import Search, Searched

__all__ = ["RunsByBlocks", "WalkedSearch", "judges", "open_pools"]

logger = logging.getLogger(__name__)

_MOST_TRIALS = 6
_MOST_RUNGS = 32
"""Of a ladder of choices: six trials tell no more of them apart."""
_NO_TIME = "left out: time was over before it began; give more with --time-limit [L010]"
_UNITS = ("saved_bytes", "saved_multiply_adds")


def open_pools(recipe: Recipe) -> list[Pool]:
    """Pools of a plan for which no setting says how much they do: a search does, or did."""
    stages = (Stage.STRUCTURE, Stage.LOW_RANK, Stage.QUANTIZATION)
    pools = pools_of([stage.pass_ for stage in recipe.stages])
    return [pool for pool in pools if pool.stage in stages and not told_how(pool)]


def judges(
    model: ir.Model, sets: SampleSets, means: Blockwise, request: Request, started: float
) -> "tuple[Evaluator, WalkedSearch | None]":
    """What judges in the end, and the search, where there are other samples to choose by.

    The original is run once for both.

    Args:
        model: the original.
        sets: samples by what they are for.
        means: how models are run.
        request: what was asked for.
        started: when, by the monotonic clock.

    Raises:
        DataError: the model does not run on the samples.
        OutputError: the disk is full.
    """
    judged, chosen = sets.evaluation, sets.selection
    feeds = (*judged.feeds, *(chosen.feeds if sets.apart else ()))
    answers = recorded("the original", model, Samples(feeds, None, judged.source), means)
    require_runnable(answers, judged)
    most, budget = means.held_bytes, request.budget
    judge = Evaluator(answers, judged, budget, model=model, most_bytes=most)
    if not sets.apart:
        return judge, None
    known = judge.readings
    evaluator = Evaluator(answers, chosen, budget, model=model, readings=known, most_bytes=most)
    options = SearchOptions(
        objective=request.objective,
        named=request.named,
        threads=request.threads,
        deadline=request.deadline(started),
        stop=request.stop,
        progress=request.progress,
        journal=Journal(model_file.weight_bytes(model), request.objective),
    )
    return judge, WalkedSearch(evaluator, means, options)


@dataclass(frozen=True)
class WalkedSearch:
    """How pools are searched.

    Attributes:
        evaluator: judges on samples to choose by.
        means: how models are run.
        options: of the search.
        correction: of what is found; `None`: there are no samples for it.
    """

    evaluator: Evaluator
    means: Blockwise
    options: SearchOptions
    correction: Correction | None = None

    def found(self, pool: Pool, context: Context, offer: PoolOffer) -> Searched:
        """The strongest choice that keeps within the budget.

        Raises:
            DataError: a model that was made does not run on the samples.
            OutputError: the disk is full.
            PassError: a pass fails.
        """
        ladder = _ladder(pool, self._worth_it(offer.proposals))
        if not ladder:
            return Searched(None)
        walks = _Walks(self, pool, context)
        trial = walks.strongest(ladder) if pool.stage == Stage.QUANTIZATION else None
        if trial is None and not (walks.tried and len(ladder) == 1):
            # A bisection takes the last rung for one that fails.
            trial = bisected(walks, ladder if walks.tried else [*ladder, ladder[-1]], [])
        tried, samples = walks.tried, len(self.evaluator.samples)
        how = f"{tried} walk{'s' * (tried > 1)} over {samples} samples to choose by"
        note = f"the most that kept within the budget in {how}"
        if trial is None:
            note = f"of {how} none kept within {self.evaluator.described}" if tried else _NO_TIME
        elif hardly_gains(context, trial, self.evaluator, self.options):
            trial, note = None, "undone: it gains less than 1% of the bytes [L009]"
        else:
            trial = walks.corrected(trial)
        return Searched(trial, note, tried)

    def _worth_it(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """The proposals, without what saves nothing unless passes were asked for by name."""
        if self.options.named:
            return list(proposals)
        kept = [
            replace(proposal, candidates=tuple(c for c in proposal.candidates if c.saves))
            for proposal in proposals
        ]
        return [proposal for proposal in kept if proposal.candidates]


@dataclass(frozen=True)
class RunsByBlocks:
    """What runs by blocks tell of a model.

    Attributes:
        sets: the samples; `None` where none are used.
        means: how models are run.
        search: finds how much passes do where no setting says it; `None`: nothing is tried.
        share: of the budget that may be spent by what is searched; 0: nothing is tried.
        notes: what to say of the runs, which grows.
        over: whether time is over, or the user has enough.
    """

    sets: SampleSets | None
    means: Blockwise
    search: WalkedSearch | None
    share: float = 1.0
    notes: list[str] = field(default_factory=list)
    over: Callable[[], bool] = lambda: False

    @property
    def correction(self) -> Correction | None:
        """By the calibration samples, where there are any."""
        if self.sets is None or self.sets.calibration is None:
            return None
        means = self.means
        return Correction(
            self.sets.calibration,
            partial(means.blocks, networks=2),
            means.held_bytes,
            means.threads,
            means.progress,
            self.over,
            self.notes,
        )

    def statistics(self, pool: Pool, context: Context) -> Statistics | None:
        """What the passes of a pool want to see; `None` where nothing can be."""
        if self.sets is None or self.sets.calibration is None:
            return None
        wanted = Observations.union(observed_by(pass_, context) for pass_ in pool.passes)
        if not (wanted.tensors or wanted.layers):
            return None
        found, notes = observed(context, wanted, self.sets.calibration, self.means)
        self.notes.extend(note for note in notes if note not in self.notes)
        return found

    def search_with(self, share: float) -> Search | None:
        """A search that may spend such a part of the share of the budget."""
        if self.search is None:
            return None
        options = replace(self.search.options, share=share * self.share)
        return replace(self.search, options=options, correction=self.correction).found


def _ladder(pool: Pool, proposals: Sequence[Proposal]) -> list[Choice]:
    """Choices that do more and more."""
    every = [c for proposal in proposals for c in proposal.candidates if not c.carried]
    if not every:
        return []
    if pool.stage == Stage.QUANTIZATION:
        tolerances = sorted({candidate.predicted_error for candidate in every})
        ladder = [choose(proposals, tolerance=tolerance) for tolerance in tolerances]
    else:
        units = [unit for unit in _UNITS if any(getattr(c, unit) > 0 for c in every)]
        ladder = allocate(proposals, units[0]) if units else []
    places = np.linspace(0, len(ladder) - 1, min(len(ladder), _MOST_RUNGS)).round()
    return [ladder[place] for place in places.astype(int).tolist()]


class _Walks:
    """Choices of a pool, built and run block by block; see `search.Measures`.

    Attributes:
        options: of the search, which ends after a few walks too.
        tried: how many choices were measured.
        expected_s: seconds that the last one took to be built and run, not corrected.
    """

    def __init__(self, search: WalkedSearch, pool: Pool, context: Context) -> None:
        self._search, self._pool, self._context = search, pool, context
        given = search.options
        self.tried, self.expected_s = 0, 0.0
        self._last: tuple[Choice, Measurement] | None = None
        self.options = replace(given, stop=lambda: given.stop() or self.tried >= _MOST_TRIALS)

    @property
    def allowed(self) -> float:
        """The budget's share, in the unit of predicted errors."""
        return float(10 ** (-self._search.evaluator.min_sqnr / 10)) * self.options.share

    def measure(self, decisions: Choice) -> Trial:
        """Build it, with its weights in files that go when it goes, and run it."""
        started = time.monotonic()
        trial = self._measured(decisions, self._pool.rewrite(self._apart(), decisions))
        self.expected_s = time.monotonic() - started
        return trial

    def corrected(self, trial: Trial) -> Trial:
        """The nearer of what was found and the same corrected as it is rewritten."""
        by, marked = self._search.correction, refined(self._pool, trial.decisions)
        known = self._context.statistics is not None
        if by is None or marked is None or not known or self._search.options.out_of_time():
            return trial
        model, decisions = corrected(self._pool, self._apart(), marked, by)
        found = self._measured(decisions, model)
        noise = self._search.evaluator.noise
        return found if noise(found.measurement) <= noise(trial.measurement) else trial

    def _apart(self) -> Context:
        return replace(self._context, model=spilled_apart(self._context.model))

    def _measured(self, decisions: Choice, model: ir.Model) -> Trial:
        self.tried += 1
        judge = self._search.evaluator
        what = f"{self._pool.names}, attempt {self.tried} with {len(decisions)} sites"
        answers = recorded(what, model, judge.samples, self._search.means)
        trial = Trial(decisions, judge.measure(answers), model)
        logger.debug("%s: spends %.3g of the budget", what, self.spent(trial))
        return trial

    def strongest(self, ladder: Sequence[Choice]) -> Trial | None:
        """The last rung, where it holds: of forms of integers it often does."""
        if self.options.out_of_time():
            return None
        trial = self.measure(ladder[-1])
        self._last = ladder[-1], trial.measurement
        return trial if self.holds(trial) else None

    def glanced(self, decisions: Choice) -> Trial:
        """As `measure`: a walk over few samples opens as many sessions."""
        return self.measure(decisions)

    def recalled(self, decisions: Choice) -> Trial | None:
        """Of the last rung what was measured first."""
        known = self._last is not None and self._last[0] is decisions
        return Trial(decisions, self._last[1]) if self._last is not None and known else None

    def completed(self, trial: Trial) -> Trial:
        """It is."""
        return trial

    def spent(self, trial: Trial) -> float:
        """Of the budget's share."""
        return self._search.evaluator.spent(trial.measurement) / self.options.share

    def holds(self, trial: Trial) -> bool:
        """Whether the budget's share holds."""
        return self._search.evaluator.holds(trial.measurement, self.options.share)
