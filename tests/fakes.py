"""Candidates and trials of which every figure stands in a table: no model, no clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onnxpress.contract import Candidate, Decision, Proposal
from onnxpress.judge import Measurement, OutputFidelity
from onnxpress.runtime import Latency
from onnxpress.search.trial import Choice, Clocked, Magnifications, SearchOptions, Trial


def candidate(error: float, saved: int = 100, family: str = "int8", **more: object) -> Candidate:
    """A candidate that errs and saves so much."""
    return Candidate({}, error, saved, family=family, **more)  # type: ignore[arg-type]


def site(name: str, *candidates: Candidate) -> Proposal:
    """A proposal for a site."""
    return Proposal(name, candidates)


@dataclass
class FakeTrials:
    """Choices by their true noise, which adds up and may be other than predicted.

    Attributes:
        allowed: noise that the budget allows.
        true: noise of a decision; by default what is predicted.
        speedup: of a choice against the model before.
        total: bytes of the model before.
        options: of the search.
        measured: all that was measured, in order.
        weighed: how often noise was asked for.
        floor: `min_sqnr`.
        numbers: of a sample, in the smallest output.
        asked: on how many samples noise was asked for, each time.
        magnifications: as far as they are known.
        expected_s: seconds that a choice takes.
    """

    allowed: float
    true: Callable[[Decision], float] = lambda d: d.candidate.predicted_error
    speedup: Callable[[Choice], float] = lambda _: 1.0
    total: int = 10_000
    options: SearchOptions = field(default_factory=SearchOptions)
    measured: list[Choice] = field(default_factory=list)
    weighed: int = 0
    floor: float = 20.0
    numbers: int = 10
    asked: list[int] = field(default_factory=list)
    magnifications: Magnifications = field(default_factory=dict)
    expected_s: float = 0.0

    @property
    def tried(self) -> int:
        """How many choices were measured."""
        return len(self.measured)

    @property
    def min_sqnr(self) -> float:
        """Of the budget."""
        return self.floor

    def noise_of(self, decisions: Sequence[Decision]) -> float:
        """True noise of a choice."""
        return sum(self.true(decision) for decision in decisions)

    def measure(self, decisions: Choice) -> Trial:
        """Note it and give its figures."""
        self.measured.append(decisions)
        return Trial(decisions, self._figures(decisions))

    def _figures(self, decisions: Choice) -> Measurement:
        noise = self.noise_of(decisions)
        return Measurement({"y": OutputFidelity(-noise, 1.0, noise, 0.0)}, (), 1, "a table")

    def glanced(self, decisions: Choice) -> Trial:
        """As `measure`."""
        return self.measure(decisions)

    def recalled(self, decisions: Choice) -> Trial | None:
        """Where the same decisions were measured."""
        return Trial(decisions, self._figures(decisions)) if decisions in self.measured else None

    def completed(self, trial: Trial) -> Trial:
        """As it is."""
        return trial

    def spent(self, trial: Trial) -> float:
        """True noise over what is allowed."""
        return self.noise_of(trial.decisions) / self.allowed

    def refined(self, trial: Trial) -> Trial:
        """Nothing to refine."""
        return trial

    def holds(self, trial: Trial) -> bool:
        """Whether the noise is allowed."""
        return self.noise_of(trial.decisions) <= self.allowed

    def clearly_fails(self, decisions: Choice) -> bool:
        """Half the fidelity that is asked for."""
        self.weighed += 1
        return self.noise_of(decisions) > 2 * self.allowed

    def noise(self, decisions: Sequence[Decision], samples: int) -> float:
        """True noise, and that it was asked for."""
        self.weighed += 1
        self.asked.append(samples)
        return self.noise_of(decisions)

    def nbytes(self, decisions: Choice) -> int:
        """What is left."""
        return self.total - sum(decision.candidate.saved_bytes for decision in decisions)

    def clocked(self, decisions: Choice) -> Clocked:
        """By the table."""
        return Clocked(self.nbytes(decisions), latency(self.speedup(decisions)))

    def latency(self, trial: Trial) -> Latency:
        """By the table."""
        return latency(self.speedup(trial.decisions))


def latency(speedup: float) -> Latency:
    """Of a model that is so much faster, without any spread."""
    return Latency(1 / speedup, 1.0, speedup, speedup, speedup)
