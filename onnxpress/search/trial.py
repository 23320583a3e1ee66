"""Build a choice and measure it: what the strategy knows of models, files and clocks.

The strategy sees only the protocol `Trials`, so that it can be tested against a table.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Context, Decision
from onnxpress.data import Samples
from onnxpress.errors import ModelError, PassError
from onnxpress.judge import Evaluator, Measurement
from onnxpress.pool import Pool
from onnxpress.runtime import Clock, Latency, Session, compare_latency
from onnxpress.search.allowance import Allowance
from onnxpress.search.objective import Objective

__all__ = ["Clocked", "MeasuredTrials", "SearchOptions", "Trial", "Trials"]

logger = logging.getLogger(__name__)

_CLOCK_S = 2.0

Choice = tuple[Decision, ...]


@dataclass(frozen=True)
class SearchOptions:
    """What a search has to respect.

    Attributes:
        objective: what is weighed.
        share: of the budget that all stages up to this one may have spent, 0 to 1.
        named: asked for by name, so that candidates which save nothing count too.
        kernel_preserving_only: only candidates that leave the kernels alone.
        calibration: what the statistics were collected on, for passes that refine.
        threads: of onnxruntime.
        deadline: on the monotonic clock; the search stops there with the best it has.
        stop: whether it has to stop at once, with the best it has.
        clock: compares the latency of two sessions.
        progress: told what was tried.
        explaining: seconds for telling which decisions cost most; `None`: that is not asked.
    """

    objective: Objective = field(default_factory=Objective)
    share: float = 1.0
    named: bool = False
    kernel_preserving_only: bool = False
    calibration: Samples | None = None
    threads: int = 0
    deadline: float = float("inf")
    stop: Callable[[], bool] = field(default=lambda: False)
    clock: Clock = compare_latency
    progress: Callable[[str], None] = field(default=lambda _: None)
    explaining: Allowance | None = None

    def out_of_time(self) -> bool:
        """Whether the search has to take the best it has."""
        return self.stop() or time.monotonic() > self.deadline

    def with_part_of_time(self, parts: int) -> "SearchOptions":
        """The same with the first of so many equal parts of the time that is left."""
        now = time.monotonic()
        return replace(self, deadline=now + (self.deadline - now) / parts)


@dataclass(frozen=True)
class Trial:
    """A choice that was built and measured.

    Attributes:
        decisions: the choice.
        measurement: of what it makes.
        model: what it makes; `None` where only figures are known.
        refitted: with the better of both fits.
        latency: against the model before, where it was taken.
    """

    decisions: Choice
    measurement: Measurement
    model: ir.Model | None = None
    refitted: bool = False
    latency: Latency | None = None


@dataclass(frozen=True, slots=True)
class Clocked:
    """A choice by the clock, its weights of the right form but not of the best values.

    Attributes:
        nbytes: of all weights.
        latency: against the model before.
    """

    nbytes: int
    latency: Latency


class Trials(Protocol):
    """What a strategy asks of choices."""

    options: SearchOptions

    @property
    def tried(self) -> int:
        """How many choices were measured."""

    @property
    def min_sqnr(self) -> float:
        """In dB, what stands for the whole budget in `noise`."""

    def measure(self, decisions: Choice) -> Trial:
        """Build it and run it on the evaluation samples, on few where these show a failure."""

    def refined(self, trial: Trial) -> Trial:
        """The trial, or the same fitted on its own activations where that is nearer."""

    def holds(self, trial: Trial) -> bool:
        """Whether the budget's share holds."""

    def clearly_fails(self, decisions: Choice) -> bool:
        """Whether a few samples show already that the budget's share does not hold."""

    def noise(self, decisions: Sequence[Decision], samples: int) -> float:
        """What is lost of the output that loses most by its budget, on some samples.

        In the unit of `min_sqnr`: 10^(−`min_sqnr`/10) is the whole budget.
        """

    def nbytes(self, decisions: Choice) -> int:
        """Of all weights of the model that it makes."""

    def clocked(self, decisions: Choice) -> Clocked:
        """Against the model before, on a draft."""

    def latency(self, trial: Trial) -> Latency:
        """Of a trial against the model before."""


class MeasuredTrials:
    """Choices of a pool, built and run in onnxruntime.

    Attributes:
        options: of the search.
        quickest_s: seconds that the quickest choice took to be built and measured.
    """

    def __init__(
        self, pool: Pool, context: Context, evaluator: Evaluator, options: SearchOptions
    ) -> None:
        self.options = options
        self._pool, self._context, self._evaluator = pool, context, evaluator
        self._tried = 0
        self.quickest_s = float("inf")
        self._before: Session | None = None

    @property
    def tried(self) -> int:
        """How many choices were measured."""
        return self._tried

    @property
    def min_sqnr(self) -> float:
        """Of the budget, in dB."""
        return self._evaluator.min_sqnr

    def measure(self, decisions: Choice) -> Trial:
        """Build it and run it; see `Trials`."""
        options = self.options
        self._tried += 1
        started = time.monotonic()
        model = self._pool.rewrite_refined(
            self._context, decisions, options.calibration, threads=options.threads
        )
        session = self._session(model, decisions)
        measurement = self._evaluator.measure(session, share=options.share)
        self.quickest_s = min(self.quickest_s, time.monotonic() - started)
        options.progress(f"{self._pool.names}: {len(decisions)} sites, attempt {self._tried}")
        logger.debug(
            "%s: %d sites: drop %.2f, worst SQNR %.1f dB",
            self._pool.names,
            len(decisions),
            measurement.drop,
            measurement.worst_sqnr_db,
        )
        return Trial(decisions, measurement, model)

    def refined(self, trial: Trial) -> Trial:
        """The nearer of both fits; see `Trials`."""
        options = self.options
        known = options.calibration is not None and self._context.statistics is not None
        if trial.refitted or not self._pool.refines or not known or options.out_of_time():
            return trial
        again = tuple(
            replace(decision, candidate=replace(decision.candidate, refined=True))
            for decision in trial.decisions
        )
        found = self.measure(again)
        noise = self._evaluator.noise
        nearer = noise(found.measurement) <= noise(trial.measurement)
        return replace(found if nearer else trial, refitted=True)

    def holds(self, trial: Trial) -> bool:
        """Whether the budget's share holds."""
        return self._evaluator.holds(trial.measurement, self.options.share)

    def clearly_fails(self, decisions: Choice) -> bool:
        """On the screening samples; see `Trials`."""
        model = self._pool.rewrite(self._context, decisions)
        session = self._session(model, decisions)
        measured = self._evaluator.measure(session, self._evaluator.screening)
        return self._evaluator.clearly_fails(measured, self.options.share)

    def noise(self, decisions: Sequence[Decision], samples: int) -> float:
        """On the worst output; by prediction where time is up."""
        if self.options.out_of_time():
            return sum(decision.candidate.predicted_error for decision in decisions)
        model = self._pool.rewrite(self._context, decisions)
        measured = self._evaluator.measure(self._session(model, decisions), samples)
        return self._evaluator.noise(measured)

    def nbytes(self, decisions: Choice) -> int:
        """Of the weights of a draft."""
        return model_file.weight_bytes(self._draft(decisions))

    def clocked(self, decisions: Choice) -> Clocked:
        """On a draft, which takes a moment; see `Trials`."""
        model = self._draft(decisions)
        latency = self.options.clock(
            self._reference(),
            self._session(model, decisions),
            self._evaluator.samples.feeds[0],
            budget_s=_CLOCK_S,
        )
        return Clocked(model_file.weight_bytes(model), latency)

    def latency(self, trial: Trial) -> Latency:
        """Of a trial against the model before."""
        assert trial.model is not None
        return self.options.clock(
            self._reference(),
            self._session(trial.model, trial.decisions),
            self._evaluator.samples.feeds[0],
        )

    def _draft(self, decisions: Choice) -> ir.Model:
        return self._pool.rewrite(replace(self._context, draft=True), decisions)

    def _reference(self) -> Session:
        if self._before is None:
            self._before = Session(self._context.model, threads=self.options.threads)
        return self._before

    def _session(self, model: ir.Model, decisions: Sequence[Decision]) -> Session:
        """A session of what passes wrote; that it cannot be opened or run is their fault.

        Raises:
            PassError: onnxruntime refuses the model.
        """
        try:
            session = Session(model, threads=self.options.threads)
            session.run(self._evaluator.samples.feeds[0])
        except ModelError as error:
            what = f"rewrite left a model that does not run: {error}"
            raise PassError(self._culprit(decisions), what) from error
        return session

    def _culprit(self, decisions: Sequence[Decision]) -> str:
        """The pass whose decisions alone leave such a model."""
        for pass_ in self._pool.passes:
            own = [d for d in decisions if d.candidate.pass_name == pass_.name]
            if not own:
                continue
            try:
                alone = Session(self._pool.rewrite(self._context, own))
                alone.run(self._evaluator.samples.feeds[0])
            except (ModelError, PassError):
                return pass_.name
        return decisions[0].candidate.pass_name if decisions else self._pool.passes[0].name
