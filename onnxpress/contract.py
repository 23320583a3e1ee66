"""What an author of a pass needs: a pass proposes candidates, a plan decides, a pass rewrites.

A pass offers candidates for each *site* (a layer, mostly) or says why it leaves it alone.
A decision is a candidate that was chosen; what a stage decided is enough to repeat it.
`docs/authors.md` shows the whole life of a pass.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.context import OUT_OF_TIME, Context
from onnxpress.errors import PassError, RecipeError, UsageError
from onnxpress.graph import Names, add_initializer
from onnxpress.layers import Layer
from onnxpress.memoisation import memoised, memoised_of_model
from onnxpress.reconstruction import relative_error, repaired
from onnxpress.settings import setting, validate
from onnxpress.statistics import LayerStatistics, Observations
from onnxpress.stored import StoredWeight
from onnxpress.targets import Target

__all__ = [
    "OUT_OF_TIME",
    "Candidate",
    "Context",
    "Decision",
    "Layer",
    "LayerStatistics",
    "Names",
    "Observations",
    "Parameter",
    "Pass",
    "PassError",
    "Proposal",
    "Quota",
    "RecipeError",
    "Skip",
    "Stage",
    "StoredWeight",
    "Target",
    "TimingSubgraph",
    "add_initializer",
    "memoised",
    "memoised_of_model",
    "relative_error",
    "repaired",
    "setting",
    "shift_bias",
    "takes_bias",
]

Parameter = bool | int | float | str
"""What a candidate's parameters may be, so that they survive the text of a recipe."""


class Stage(enum.IntEnum):
    """When a technique acts; each stage proposes on the model the earlier one left.

    LOSSLESS and STORAGE change no answer, and take part whatever passes are asked for. RECOVERY
    brings back some of what those before it lost, and spends nothing.
    """

    LOSSLESS = 0
    STRUCTURE = 1
    LOW_RANK = 2
    SPARSITY = 3
    QUANTIZATION = 4
    RECOVERY = 5
    STORAGE = 6

    @property
    def loses(self) -> bool:
        """Whether passes of the stage spend of the budget."""
        return self not in (Stage.LOSSLESS, Stage.RECOVERY, Stage.STORAGE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to change a site.

    Attributes:
        parameters: all that the rewrite needs besides the model and its statistics.
        predicted_error: power of the layer's output error over the power of its output.
        saved_bytes: of the file.
        saved_multiply_adds: of one run, where known; integer kernels save none by this count.
        added_kernels: nodes that are computed at each run, more than before.
        zeroed_weights: weights that become zero in a file that stays as large.
        family: the form in a word or two, for people; the search tries each family whole.
        members: the layers that are changed, where they are more than the site.
        keeps_kernels: the same kernels run as before, so speed need not be measured (a form
            that onnxruntime expands when it loads the model).
        carried: it saves nothing itself but lets its neighbours stay in one form.
        timing_key: what the time of the rewritten layer depends on besides the layer's own
            shapes; `None`: the family and all parameters.
        refined: `rewrite` fits it again to what the rewritten network computes; set by the
            engine.
        saved_microseconds: of one run of the layer alone by the clock; 0 where not measured;
            set by the engine.
        pass_name: which pass offers it; set by the engine.
    """

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    predicted_error: float = 0.0
    saved_bytes: int = 0
    saved_multiply_adds: float = 0.0
    added_kernels: int = 0
    zeroed_weights: int = 0
    family: str = ""
    members: tuple[str, ...] = ()
    keeps_kernels: bool = False
    carried: bool = False
    timing_key: Hashable = None
    refined: bool = False
    saved_microseconds: float = 0.0
    pass_name: str = ""

    @property
    def saves(self) -> bool:
        """Whether the file gets smaller or a run cheaper, by other kernels perhaps.

        Zeros alone do neither.
        """
        cheaper = self.saved_multiply_adds > 0 or not self.keeps_kernels
        return self.saved_bytes > 0 or cheaper or self.carried


UNITS = ("saved_bytes", "zeroed_weights", "saved_microseconds", "saved_multiply_adds")
"""Attributes of `Candidate` in which a saving can be counted."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a stage has to save in all, where its settings say so.

    Attributes:
        unit: the attribute of `Candidate` that counts.
        amount: the sum over all decisions to reach.
    """

    unit: str
    amount: float

    @classmethod
    def of_ratio(cls, context: Context, ratio: float | None) -> "Quota | None":
        """The multiply-adds to save to keep `ratio` of them; `None` where none is wanted."""
        if ratio is None:
            return None
        total = sum(context.multiply_adds(layer) for layer in context.layers)
        return cls("saved_multiply_adds", (1 - ratio) * total)


@dataclass(frozen=True, slots=True)
class Skip:
    """Why a site is left alone.

    Attributes:
        site: which.
        reason: as a sentence for people.
    """

    site: str
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """The candidates for a site, the strongest first.

    Attributes:
        site: which.
        candidates: at least one.
        limit: why a stronger form is not among them, as a sentence for people.
    """

    site: str
    candidates: tuple[Candidate, ...]
    limit: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The candidate chosen for a site.

    Attributes:
        site: which.
        candidate: that the plan took.
    """

    site: str
    candidate: Candidate

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers it changes."""
        return self.candidate.members or (self.site,)


@dataclass(frozen=True)
class TimingSubgraph:
    """A piece of a model as it is and as a candidate would leave it, to be timed alone.

    Attributes:
        key: what the time depends on; subgraphs with equal keys are timed once.
        build: makes (before, after), models that take one tensor each.
        shapes: of those tensors.
    """

    key: Hashable
    build: Callable[[], tuple[ir.Model, ir.Model]]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Pass(ABC):
    """A technique: a frozen data class of its settings, each with a default that is right mostly.

    The same class is the Python API, the `[[pass]]` table of a recipe and the options of the
    command line. A subclass declares its fields with `setting(default, help)`; types and bounds
    are checked when it is made.
    """

    name: ClassVar[str]
    """Of the pass everywhere: module, entry point, recipe and command."""
    stage: ClassVar[Stage]
    """When it acts."""
    after: ClassVar[tuple[str, ...]] = ()
    """Passes of the same stage that have to act before this one; others offer beside it."""
    minimum_opset: ClassVar[int] = 1
    """The pipeline raises the model's opset to this, where it can, before it loses anything."""
    by_name_only: ClassVar[str] = ""
    """Why the pass acts only when asked for by name; empty when it takes part by default."""
    families: ClassVar[tuple[str, ...]] = ()
    """What `family` its candidates may have, for recipes; empty: anything."""
    rewrites_from_statistics: ClassVar[bool] = False
    """Whether `rewrite` needs the statistics again, besides the decisions."""

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            UsageError: a setting has the wrong type, lies outside its bounds, or contradicts
                another.
        """
        validate(self, self.name)
        conflict = self.conflict()
        if conflict is not None:
            raise UsageError(f"{self.name}: {conflict} [U008]")

    def conflict(self) -> str | None:
        """What is wrong with the settings together, or with one beyond type and bounds."""
        return None

    @property
    def refines(self) -> bool:
        """Whether `rewrite` is repeated with statistics of what the rewritten network computes.

        `reconstruction.repaired` then says what each layer should give, so that it makes up for
        what the layers before it lost.
        """
        return False

    @property
    def needed_opset(self) -> int:
        """`minimum_opset`, or more where the settings ask for more."""
        return self.minimum_opset

    def aimed_at(self, goal: str) -> "Pass":
        """The pass with what its open settings mean for a goal; itself by default.

        Args:
            goal: `size`, `latency` or `balanced`.
        """
        return self

    def prepare(self, model: ir.Model) -> ir.Model:
        """The model that the pass looks at: itself as it is, or a changed clone."""
        return model

    def observes(self, context: Context) -> Observations:
        """What must be known of the activations before `propose`; nothing by default."""
        return Observations()

    def quota(self, context: Context) -> Quota | None:
        """What must be saved in all; `None`: as much as the budget allows."""
        return None

    def saving(self, context: Context, decisions: Sequence[Decision], unit: str) -> float:
        """What decisions save together, where that is not the sum of what each saves alone.

        Args:
            context: that the decisions were proposed in.
            decisions: at most one a site.
            unit: the attribute of `Candidate` that counts.
        """
        return float(sum(getattr(decision.candidate, unit) for decision in decisions))

    def timing_subgraphs(
        self, context: Context, proposal: Proposal, candidate: Candidate
    ) -> list[TimingSubgraph] | None:
        """What to time for a candidate; `None`: the rewritten layers alone."""
        return None

    def changes(self, context: Context, decision: Decision) -> Collection[str]:
        """Names of the layers whose weights a decision changes, where they are more than these.

        What the user keeps is dropped by it. By default the candidate's members, or the site.

        Args:
            context: that the decision was proposed in.
            decision: that might be taken.
        """
        return decision.layers

    @abstractmethod
    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Candidates or a reason for every site; the model is not touched."""

    @abstractmethod
    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Change `context.model` in place as decided; what was not decided stays."""
