"""What a strategy knows of models, files and clocks.

It sees only the protocol `Trials`, so that it can be tested against a table.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import onnx_ir as ir

from onnxpress.contract import Candidate, Decision
from onnxpress.data import Samples
from onnxpress.judge import Measurement
from onnxpress.progress import Tell, unheard
from onnxpress.runtime import Clock, Latency, compare_latency
from onnxpress.search.allowance import Allowance
from onnxpress.search.journal import Journal
from onnxpress.search.objective import Objective

__all__ = ["Choice", "Clocked", "Magnifications", "Measures", "SearchOptions", "Trial", "Trials"]

Choice = tuple[Decision, ...]
Magnifications = dict[tuple[str, str, str, int], float]
"""Noise at the outputs over what is predicted of a layer, by the site, the pass, the family of the
candidate and its place among those of this family; with no family, of one that stands for all."""


@dataclass(frozen=True)
class SearchOptions:
    """What a search has to respect.

    Attributes:
        objective: what is weighed.
        share: of the budget that all stages up to this one may have spent, 0 to 1.
        named: asked for by name, so that candidates which save nothing count too.
        kernel_preserving_only: only candidates that leave the kernels alone.
        launch_multiply_adds: that a candidate has to save for each kernel it adds; 0: by the clock
            alone, or a slower model is welcome.
        calibration: what the statistics were collected on, for passes that refine.
        threads: of onnxruntime.
        deadline: on the monotonic clock; the search stops there with the best it has.
        stop: whether it has to stop at once, with the best it has.
        clock: compares the latency of two sessions.
        progress: told what was tried.
        refining: whether what is chosen is fitted again on its own activations.
        explaining: seconds for telling which decisions cost most; `None`: that is not asked.
        journal: takes down every model that is measured.
    """

    objective: Objective = field(default_factory=Objective)
    share: float = 1.0
    named: bool = False
    kernel_preserving_only: bool = False
    launch_multiply_adds: int = 0
    calibration: Samples | None = None
    threads: int = 0
    deadline: float = float("inf")
    stop: Callable[[], bool] = field(default=lambda: False)
    clock: Clock = compare_latency
    progress: Tell = unheard
    refining: bool = True
    explaining: Allowance | None = None
    journal: Journal = field(default_factory=Journal)

    def pays_its_launches(self, candidate: Candidate) -> bool:
        """Whether what a candidate saves is worth the kernels that it adds, as far as is known."""
        launches = candidate.added_kernels * self.launch_multiply_adds
        return launches == 0 or candidate.saved_multiply_adds > launches

    def out_of_time(self, needed_s: float = 0.0) -> bool:
        """Whether the search has to take the best it has.

        Args:
            needed_s: seconds of what would be done next.
        """
        return self.stop() or time.monotonic() + needed_s > self.deadline

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def with_part_of_time(self, parts: int, kept_s: float = 0.0) -> "SearchOptions":
        """The same with the first of so many equal parts of the time that is left.

        Args:
            parts: how many.
            kept_s: seconds at the end that belong to none.
        """
        now = time.monotonic()
        return replace(self, deadline=now + (self.deadline - kept_s - now) / parts)


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


class Measures(Protocol):
    """What a bisection asks of choices."""

    options: SearchOptions
    expected_s: float
    """Seconds that the next choice takes to be built and measured, by the last one."""

    @property
    def allowed(self) -> float:
        """The budget's share, in the unit of `noise`."""

    def measure(self, decisions: Choice) -> Trial:
        """Build it and run it on the evaluation samples, on few where these show a failure."""

    def glanced(self, decisions: Choice) -> Trial:
        """As `measure`, and on few samples too where these show that it holds with some room."""

    def recalled(self, decisions: Choice) -> Trial | None:
        """What was measured of it before, without its model."""

    def completed(self, trial: Trial) -> Trial:
        """With its model, and measured on all samples."""

    def spent(self, trial: Trial) -> float:
        """Of the budget's share; more than 1 does not hold."""

    def holds(self, trial: Trial) -> bool:
        """Whether the budget's share holds."""


class Trials(Measures, Protocol):
    """What a strategy asks of choices."""

    magnifications: Magnifications

    @property
    def tried(self) -> int:
        """How many choices were measured."""

    @property
    def min_sqnr(self) -> float:
        """In dB, what stands for the whole budget in `noise`."""

    @property
    def numbers(self) -> int:
        """Of one sample, in the smallest output that `noise` may be about."""

    def refined(self, trial: Trial) -> Trial:
        """The trial, or the same fitted on its own activations where that is nearer."""

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
