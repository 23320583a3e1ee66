"""What `optimize` is asked for, and the plan that follows from it."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxpress import registry
from onnxpress.constraints import NO_CONSTRAINTS, Constraints
from onnxpress.contract import Pass, Stage
from onnxpress.conversion import Conversion, require_half
from onnxpress.data import Data
from onnxpress.errors import RecipeError, UsageError
from onnxpress.judge import Budget
from onnxpress.memory import memory_budget
from onnxpress.pool import pools_of
from onnxpress.progress import Tell, unheard
from onnxpress.providers import NO_PROVIDERS, ProviderOptions
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.runtime import Clock, compare_latency
from onnxpress.search import GOALS, Goal, Objective
from onnxpress.selection import Selection, Selector
from onnxpress.targets import load_target

__all__ = ["DataArgument", "Plan", "Request", "planned"]

DataArgument = Data


@dataclass(frozen=True)
class Request:
    """Everything `optimize` can be told; see its arguments.

    Attributes:
        model: a file or an onnx-ir model; neither is changed.
        calibration: samples the passes may look at.
        evaluation: samples the budget is judged on.
        budget: what may be lost.
        goal: what is weighed.
        target: names of targets; of several, the model is good for all of them.
        passes: names or passes, instead of all.
        recipe: repeat these decisions.
        conversion: shapes, half precision and opset asked for.
        seed: of everything drawn at random.
        threads: of onnxruntime; 0: all cores.
        time_limit: seconds after which the search takes the best it has.
        stop: asked again and again from the beginning of the search, whether to take it at once.
        max_memory: bytes, or as `4GB`; a model that takes more is run block by block, if at all.
            `None`: half of what is free.
        providers: where else the result is run before it is given back.
        clock: compares the latency of two models.
        progress: told how far it is.
        keep: layers that no lossy pass touches: names, patterns, operator types.
        only: layers besides which lossy passes touch nothing; `PASS:…` for one pass.
        exclude: as `keep`; `PASS:…` from one pass.
        overridable: whether callers may override weights that are inputs too; `None`: by the
            version of the file.
        constraints: what has to be reached, with as little lost as can be.
    """

    model: str | os.PathLike[str] | ir.Model
    calibration: DataArgument | None = None
    evaluation: DataArgument | None = None
    budget: Budget = field(default_factory=Budget)
    goal: Goal = "balanced"
    target: tuple[str, ...] = ("cpu",)
    passes: Sequence[str | Pass] | None = None
    recipe: str | os.PathLike[str] | Recipe | None = None
    conversion: Conversion = field(default_factory=Conversion)
    seed: int = 0
    threads: int = 0
    time_limit: float | None = None
    providers: ProviderOptions = NO_PROVIDERS
    clock: Clock = compare_latency
    progress: Tell = unheard
    keep: Sequence[str] = ()
    only: Sequence[str | Selector] = ()
    exclude: Sequence[str] = ()
    overridable: bool | None = None
    stop: Callable[[], bool] = lambda: False
    max_memory: int | str | None = None
    constraints: Constraints = NO_CONSTRAINTS

    def __post_init__(self) -> None:
        """Refuse before any work what means nothing.

        Raises:
            UsageError: an unknown goal or provider, or two ways to say the same.
        """
        if self.goal not in GOALS:
            raise UsageError(f"goal is {self.goal!r}; expected one of {', '.join(GOALS)} [U009]")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; expected a whole number from 0 up [U009]")
        if self.recipe is not None and self.passes is not None:
            raise UsageError("give either passes or a recipe: a recipe names its passes [U008]")
        if self.recipe is not None and self.conversion != Conversion():
            raise UsageError(
                "give either a recipe or shapes, half precision and opset: it has its own [U008]"
            )
        _require_faster(self.constraints, self.goal)
        if self.time_limit is not None and not self.time_limit >= 0:
            raise UsageError(
                f"time limit is {self.time_limit:g}; expected seconds, 0 or more [U009]"
            )
        self.providers.check()
        if self.max_memory is not None:
            memory_budget(self.max_memory)

    def deadline(self, started: float) -> float:
        """When all has to end, by the clock by which it started; never without a limit."""
        return math.inf if self.time_limit is None else started + self.time_limit

    @property
    def named(self) -> bool:
        """Whether passes were asked for by name: then they count although they save nothing."""
        return self.passes is not None

    @property
    def selection(self) -> Selection:
        """What lossy passes leave alone.

        Raises:
            UsageError: a selector is empty.
        """
        given = [item for item in self.passes or () if isinstance(item, Pass)]
        return Selection.parse(self.keep, self.only, self.exclude, registry.lossy_names(given))

    @property
    def objective(self) -> Objective:
        """What the search weighs."""
        return Objective(self.goal)


@dataclass(frozen=True)
class Plan:
    """The recipe to follow, and what was left out of it.

    Attributes:
        recipe: a given one, or passes with their decisions open.
        problems: passes that take no part because they cannot be had, in sentences.
    """

    recipe: Recipe
    problems: tuple[str, ...] = ()


def _require_faster(constraints: Constraints, goal: str) -> None:
    """Refuse a speed that is asked for together with a goal that accepts a slower model.

    Raises:
        UsageError: both are.
    """
    if constraints.timed and goal == "size":
        raise UsageError(
            "the goal size accepts a slower model, and min speedup or max latency ask for a "
            "faster one: leave the goal out [U008]"
        )


def planned(request: Request, digest: str) -> Plan:
    """What to do with a model.

    Args:
        request: what was asked for.
        digest: SHA-256 of the model.

    Raises:
        UsageError: a pass does not exist or contradicts another, or the target takes no half types,
            or a speed is asked for that cannot be timed here.
        RecipeError: the recipe was made for another model.
    """
    if request.recipe is not None:
        given = request.recipe
        recipe = given if isinstance(given, Recipe) else Recipe.load(Path(given))
        require_half(recipe.conversion, load_target(recipe.target))
        if recipe.model_sha256 not in (None, digest):
            raise RecipeError(
                "the recipe was made for another model (its SHA-256 begins with "
                f"{(recipe.model_sha256 or '')[:12]}, this model's with {digest[:12]}); remove "
                "model_sha256 from the recipe to use it all the same [R001]"
            )
        selection = recipe.selection.joined(request.selection)
        overridable = recipe.overridable if request.overridable is None else request.overridable
        recipe = replace(
            recipe,
            model_sha256=digest,
            selection=selection,
            overridable=overridable,
            constraints=request.constraints.or_else(recipe.constraints),
        )
        _require_timed(recipe)
        _require_faster(recipe.constraints, request.goal)
        return Plan(recipe)
    require_half(request.conversion, load_target("+".join(request.target)))
    chosen, problems = _chosen(request)
    aimed = [pass_.aimed_at(request.goal) for pass_ in chosen]
    ordered = [pass_ for pool in pools_of(aimed) for pass_ in pool.passes]
    stages = tuple(RecipeStage(pass_, None) for pass_ in ordered)
    target = "+".join(request.target)
    recipe = Recipe(
        stages,
        target,
        request.seed,
        digest,
        None,
        request.conversion,
        request.selection,
        request.overridable,
        constraints=request.constraints,
    )
    _require_timed(recipe)
    return Plan(recipe, tuple(problems))


def _require_timed(recipe: Recipe) -> None:
    """Refuse to ask for a speed that this machine's clock says nothing of."""
    target = load_target(recipe.target)
    if recipe.constraints.timed and not target.timed_here:
        raise UsageError(
            f"min speedup and max latency are about this machine, and {target.name} runs "
            "elsewhere: ask for a size, or time the result there (docs/bench.md) [U008]"
        )


def _chosen(request: Request) -> tuple[list[Pass], list[str]]:
    """The passes that take part, and why others do not that were to."""
    problems: list[str] = []
    if request.passes is not None:
        chosen = [
            registry.create(item) if isinstance(item, str) else item for item in request.passes
        ]
    else:
        found, problems = registry.default_passes()
        chosen = [pass_ for pass_ in found if not pass_.by_name_only]
    if request.conversion.float16 != "no":
        integers = [pass_.name for pass_ in chosen if pass_.stage == Stage.QUANTIZATION]
        if request.named and integers:
            raise UsageError(
                f"half precision takes the place of {integers[0]}: ask for one of them [U008]"
            )
        chosen = [pass_ for pass_ in chosen if pass_.stage != Stage.QUANTIZATION]
    for pass_ in registry.default_passes()[0]:
        # What changes no answer takes part whatever is asked for.
        lossless = not pass_.stage.loses and not pass_.by_name_only
        if lossless and all(other.stage != pass_.stage for other in chosen):
            chosen.append(pass_)
    return chosen, problems
