"""Passes propose, a plan decides: the plain data that both sides exchange.

A pass offers candidates for each *site* (a layer, mostly) or says why it leaves it alone.
A decision is a candidate that was chosen; what a stage decided is enough to repeat it.
"""

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

import onnx_ir as ir

from onnxpress.errors import RecipeError
from onnxpress.layers import Layer, find_layers
from onnxpress.statistics import LayerStatistics, Observations, Statistics
from onnxpress.targets import Target

__all__ = [
    "Candidate",
    "Context",
    "Decision",
    "Parameter",
    "Pass",
    "Proposal",
    "Quota",
    "Skip",
    "Stage",
    "TimingSubgraph",
    "sites",
]

T = TypeVar("T")

Parameter = bool | int | float | str
"""What a candidate's parameters may be, so that they survive the text of a recipe."""


class Stage(enum.IntEnum):
    """When a technique acts; each stage proposes on the model the earlier one left.

    LOSSLESS and STORAGE change no answer, and take part whatever passes are asked for.
    """

    LOSSLESS = 0
    STRUCTURE = 1
    LOW_RANK = 2
    SPARSITY = 3
    QUANTIZATION = 4
    DISTILLATION = 5
    STORAGE = 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to change a site.

    Attributes:
        parameters: all that the rewrite needs besides the model and its statistics.
        predicted_error: power of the layer's output error over the power of its output.
        saved_bytes: of the file.
        saved_multiply_adds: of one run, where known; integer kernels save none by this count.
        zeroed_weights: weights that become zero in a file that stays as large.
        keeps_kernels: the same kernels run as before, so speed need not be measured (a form that
            onnxruntime expands when it loads the model).
        carried: it saves nothing itself but lets its neighbours stay in one form.
        saved_microseconds: of one run of the layer alone by the clock; 0 where not measured.
    """

    parameters: Mapping[str, Parameter]
    predicted_error: float
    saved_bytes: int = 0
    saved_multiply_adds: float = 0.0
    zeroed_weights: int = 0
    keeps_kernels: bool = False
    carried: bool = False
    saved_microseconds: float = 0.0

    @property
    def saves(self) -> bool:
        """Whether the file gets smaller or a run cheaper; zeros alone do neither."""
        return self.saved_bytes > 0 or self.saved_multiply_adds > 0 or self.carried


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a stage has to save in all, where its settings say so.

    Attributes:
        unit: the attribute of `Candidate` that counts.
        amount: the sum over all decisions to reach.
    """

    unit: str
    amount: float


@dataclass(frozen=True, slots=True)
class Skip:
    """Why a site is left alone, as a sentence for people."""

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
    """The candidate chosen for a site."""

    site: str
    candidate: Candidate


def sites(decision: Decision) -> list[str]:
    """The layers a decision changes: its site, or the `members` its candidate names."""
    return str(decision.candidate.parameters.get("members", decision.site)).split("\n")


@dataclass(frozen=True)
class Context:
    """What a pass may look at.

    Attributes:
        model: the model the earlier stage left.
        target: what the provider accepts.
        statistics: of this model, or `None` without calibration data.
        seed: for anything drawn at random.
        layers: the model's layers with a constant weight.
        draft: a rewrite is wanted for the clock, so that its weights need the right form but not
            the best values.
        cache: what a pass worked out for these statistics in `propose` and needs again in
            `rewrite`, by keys of its own.
    """

    model: ir.Model
    target: Target
    statistics: Statistics | None = None
    seed: int = 0
    layers: tuple[Layer, ...] = field(default=())
    draft: bool = False
    cache: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.layers:
            object.__setattr__(self, "layers", tuple(find_layers(self.model)))

    def moments(self, layer: Layer) -> LayerStatistics | None:
        """What was observed of the layer's inputs."""
        return None if self.statistics is None else self.statistics.layers.get(layer.name)

    def multiply_adds(self, layer: Layer) -> float:
        """Of one run; of one application of the weight where the layer was not observed."""
        if layer.op_type == "Gather":
            return 0.0
        moments = self.moments(layer)
        rows = 1.0 if moments is None else moments.rows_per_sample
        return float(rows * math.prod(layer.shape))

    def quota_of(self, ratio: float) -> Quota | None:
        """The multiply-adds to save to keep `ratio` of them; `None` for a ratio of 0."""
        if not ratio:
            return None
        total = sum(self.multiply_adds(layer) for layer in self.layers)
        return Quota("saved_multiply_adds", (1 - ratio) * total)

    def cached(self, key: Hashable, layers: Sequence[Layer], make: Callable[[], T]) -> T:
        """What `make` returns, kept as long as the statistics of the layers stay the same."""
        known = tuple(
            (layer.name, None if moments is None else moments.revision)
            for layer, moments in ((layer, self.moments(layer)) for layer in layers)
        )
        place = key, known, self.draft
        if place not in self.cache:
            self.cache[place] = make()
        return cast("T", self.cache[place])

    def layer(self, site: str) -> Layer:
        """The layer of that name.

        Raises:
            RecipeError: the model has no such layer.
        """
        for layer in self.layers:
            if layer.name == site:
                return layer
        raise RecipeError(
            f"the plan names the layer {site!r}, which this model does not have; the recipe was "
            "made for another model or another version of onnxpress"
        )


@dataclass(frozen=True)
class TimingSubgraph:
    """A piece of a model as it is and as a candidate would leave it, to be timed alone.

    Attributes:
        key: what the time depends on; timing_subgraphs with equal keys are timed once.
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
    command line. A subclass names its fields' help in `metadata={"help": ...}`.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    minimum_opset: ClassVar[int] = 1
    """The pipeline raises the model's opset to this, where it can, before it loses anything."""
    by_name_only: ClassVar[str] = ""
    """Why the pass acts only when asked for by name; empty when it takes part by default."""
    rewrites_from_statistics: ClassVar[bool] = False
    """Whether `rewrite` needs the statistics again, besides the decisions."""

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

    def prepare(self, model: ir.Model) -> ir.Model:
        """The model that the pass looks at: itself, or a changed clone where settings say so."""
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

    @abstractmethod
    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Candidates or a reason for every site; the model is not touched."""

    @abstractmethod
    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Change `context.model` in place as decided; what was not decided stays."""
