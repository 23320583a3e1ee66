"""Choices of a pool, built and run in onnxruntime.

What is found out about a choice is remembered by what a rewrite sees of it, without the model
(`findings`): ladders of several units share rungs, and so do searches for several budgets.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Context, Decision
from onnxpress.errors import ModelError, PassError
from onnxpress.judge import Evaluator, Measurement
from onnxpress.pool import Pool
from onnxpress.progress import Progress, part
from onnxpress.refinement import UnfinishedError
from onnxpress.runtime import Latency, Session
from onnxpress.search.findings import Findings, seen_of
from onnxpress.search.prefix import Prefix, Resumed
from onnxpress.search.trial import Choice, Clocked, SearchOptions, Trial

__all__ = ["MeasuredTrials"]

logger = logging.getLogger(__name__)

_CLOCK_S = 2.0
_TRYING = 0.2
"""Of a search, where models are tried from; before, sensitivities are measured."""


class MeasuredTrials:
    """Choices of a pool, built and run in onnxruntime.

    Attributes:
        options: of the search.
        quickest_s: seconds that the quickest choice took to be built and measured.
        expected_s: that the last one took, without fitting anything again.
        magnifications: of errors at the outputs, as far as they are known; it grows.
    """

    def __init__(
        self,
        pool: Pool,
        context: Context,
        evaluator: Evaluator,
        options: SearchOptions,
        findings: Findings,
    ) -> None:
        self.options = options
        self._pool, self._context, self._evaluator = pool, context, evaluator
        self._findings = findings
        self.magnifications = findings.magnifications
        self._tried = 0
        self.quickest_s = float("inf")
        self.expected_s = 0.0
        self._before: Session | None = None
        self._prefix: Prefix | None = None
        self._resumes = True
        self._tell = part(options.progress, _TRYING, 1.0)

    @property
    def tried(self) -> int:
        """How many choices were measured."""
        return self._tried

    @property
    def min_sqnr(self) -> float:
        """Of the budget, in dB."""
        return self._evaluator.min_sqnr

    @property
    def numbers(self) -> int:
        """Of one sample, in the smallest float output."""
        return self._evaluator.numbers

    @property
    def allowed(self) -> float:
        """The budget's share, in the unit of `noise`."""
        return float(10 ** (-self.min_sqnr / 10)) * self.options.share

    def measure(self, decisions: Choice) -> Trial:
        """Build it and run it; see `Trials`."""
        return self._measured(decisions)

    def glanced(self, decisions: Choice) -> Trial:
        """Build it and run it, on few samples where these are clear; see `Trials`."""
        known = self._known(decisions, glance=True)
        return self._measured(decisions, glance=True) if known is None else Trial(decisions, known)

    def recalled(self, decisions: Choice) -> Trial | None:
        """What was measured of it before, without its model."""
        known = self._findings.measurements.get(seen_of(decisions))
        return None if known is None else Trial(decisions, known)

    def completed(self, trial: Trial) -> Trial:
        """With its model, and measured on all samples."""
        whole = self._is_whole(trial.measurement) and trial.model is not None
        return trial if whole else self.measure(trial.decisions)

    def _is_whole(self, measurement: Measurement) -> bool:
        return measurement.samples == len(self._evaluator.samples)

    def _known(self, decisions: Choice, *, glance: bool) -> Measurement | None:
        """What was measured before, where it says as much as a measurement now would."""
        evaluator, share = self._evaluator, self.options.share
        known = self._findings.measurements.get(seen_of(decisions))
        if known is None or self._is_whole(known):
            return known
        enough = glance and evaluator.holds_clearly(known, share)
        return known if enough or evaluator.clearly_fails(known, share) else None

    def spent(self, trial: Trial) -> float:
        """Of the budget's share."""
        return self._evaluator.spent_anywhere(trial.measurement) / self.options.share

    def _measured(self, decisions: Choice, *, glance: bool = False) -> Trial:
        options = self.options
        started = time.monotonic()
        model = self._built(decisions)
        known = self._known(decisions, glance=glance)
        if known is not None:
            return Trial(decisions, known, model)
        self._tried += 1
        with self._blaming(decisions):
            session = Session(model, threads=options.threads)
            measurement = self._evaluator.measure(session, share=options.share, glance=glance)
        self._findings.note(decisions, measurement)
        self._take_down(decisions, model, measurement)
        if not any(decision.candidate.refined for decision in decisions):
            self.expected_s = time.monotonic() - started
            self.quickest_s = min(self.quickest_s, self.expected_s)
        self._tell(
            Progress(f"{self._pool.names}: models tried", self._tried, best=options.journal.best)
        )
        logger.debug(
            "%s: %d sites: drop %.2f, worst SQNR %.1f dB",
            self._pool.names,
            len(decisions),
            measurement.drop,
            measurement.worst_sqnr_db,
        )
        return Trial(decisions, measurement, model)

    def _built(self, decisions: Choice) -> ir.Model:
        """What carries them out, fitted again where they say so.

        Raises:
            UnfinishedError: there was no time to fit all of it again.
        """
        key, refits = seen_of(decisions), self._findings.refits
        if key in refits:
            return refits[key]
        options = self.options
        model = self._pool.rewrite_refined(
            self._context,
            decisions,
            options.calibration,
            threads=options.threads,
            over=options.out_of_time,
        )
        if any(decision.candidate.refined for decision in decisions):
            refits[key] = model
        return model

    def _take_down(self, decisions: Choice, model: ir.Model, measurement: Measurement) -> None:
        key, findings = seen_of(decisions), self._findings
        clocked, latency = findings.clocked.get(key), findings.latencies.get(key)
        self.options.journal.note(
            self._pool.names,
            key,
            decisions,
            measurement,
            weight_bytes=model_file.weight_bytes(model),
            spent=self._evaluator.spent_anywhere(measurement),
            holds=self._evaluator.holds(measurement, self.options.share),
            latency=clocked.latency if latency is None and clocked is not None else latency,
        )

    def refined(self, trial: Trial) -> Trial:
        """The nearer of both fits; see `Trials`."""
        options = self.options
        known = options.calibration is not None and self._context.statistics is not None
        wanted = options.refining and self._pool.refines and not options.out_of_time()
        if trial.refitted or not (known and wanted):
            return trial
        again = tuple(
            replace(decision, candidate=replace(decision.candidate, refined=True))
            for decision in trial.decisions
        )
        try:
            found = self.measure(again)
        except UnfinishedError:
            return trial
        noise = self._evaluator.noise
        nearer = noise(found.measurement) <= noise(trial.measurement)
        return replace(found if nearer else trial, refitted=True)

    def holds(self, trial: Trial) -> bool:
        """Whether the budget's share holds."""
        return self._evaluator.holds(trial.measurement, self.options.share)

    def clearly_fails(self, decisions: Choice) -> bool:
        """On the screening samples; see `Trials`."""
        key, known = seen_of(decisions), self._findings.screened
        if key not in known:
            known[key] = self._on_few(decisions, self._evaluator.screening)
        return self._evaluator.clearly_fails(known[key], self.options.share)

    def noise(self, decisions: Sequence[Decision], samples: int) -> float:
        """On the worst output; by prediction where time is up."""
        if self.options.out_of_time():
            return sum(decision.candidate.predicted_error for decision in decisions)
        key = seen_of(decisions), samples
        noises = self._findings.noises
        if key not in noises:
            measured = self._on_few(tuple(decisions), samples, resumed=True)
            noises[key] = self._evaluator.noise(measured)
        return noises[key]

    def _on_few(self, decisions: Choice, samples: int, *, resumed: bool = False) -> Measurement:
        """On the first samples.

        Args:
            decisions: a choice.
            samples: how many.
            resumed: run only what is behind the first change, whose last bits may then differ.
        """
        model = self._pool.rewrite(self._context, decisions)
        with self._blaming(decisions):
            try:
                rest = self._rest(model, samples) if resumed and self._resumes else None
                if rest is not None:
                    return self._evaluator.measure(rest, samples)
            except ModelError as error:
                logger.info("run whole, as the part behind the change does not run: %s", error)
                # It would fail again, and take its time.
                self._resumes = False
            return self._evaluator.measure(Session(model, threads=self.options.threads), samples)

    def _rest(self, model: ir.Model, samples: int) -> Resumed | None:
        """What is behind the first change, where something is held before it."""
        if self._prefix is None:
            before, feeds = self._context.model, self._evaluator.samples.feeds
            self._prefix = Prefix(before, feeds, threads=self.options.threads)
        return self._prefix.resumed(model, samples)

    def nbytes(self, decisions: Choice) -> int:
        """Of the weights of a draft."""
        return model_file.weight_bytes(self._draft(decisions))

    def clocked(self, decisions: Choice) -> Clocked:
        """On a draft, which takes a moment; see `Trials`."""
        known = self._findings.clocked.get(seen_of(decisions))
        if known is not None:
            return known
        model = self._draft(decisions)
        latency = self.options.clock(
            self._reference(),
            self._session(model, decisions),
            self._evaluator.samples.feeds[0],
            budget_s=_CLOCK_S,
        )
        found = Clocked(model_file.weight_bytes(model), latency)
        self._findings.clocked[seen_of(decisions)] = found
        return found

    def latency(self, trial: Trial) -> Latency:
        """Of a trial against the model before."""
        assert trial.model is not None
        key, known = seen_of(trial.decisions), self._findings.latencies
        if key not in known:
            known[key] = self.options.clock(
                self._reference(),
                self._session(trial.model, trial.decisions),
                self._evaluator.samples.feeds[0],
            )
        self.options.journal.clock(self._pool.names, key, known[key])
        return known[key]

    def _draft(self, decisions: Choice) -> ir.Model:
        return self._pool.rewrite(replace(self._context, draft=True), decisions)

    def _reference(self) -> Session:
        if self._before is None:
            self._before = Session(self._context.model, threads=self.options.threads)
        return self._before

    def _session(self, model: ir.Model, decisions: Sequence[Decision]) -> Session:
        """For the clock, of a model that runs.

        Raises:
            PassError: onnxruntime refuses the model.
        """
        with self._blaming(decisions):
            session = Session(model, threads=self.options.threads)
            session.run(self._evaluator.samples.feeds[0])
        return session

    @contextmanager
    def _blaming(self, decisions: Sequence[Decision]) -> Iterator[None]:
        """That what passes wrote cannot be opened or run is their fault.

        Raises:
            PassError: onnxruntime refuses the model.
        """
        try:
            yield
        except ModelError as error:
            what = f"rewrite left a model that does not run: {error}"
            raise PassError(self._culprit(decisions), what) from error

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
