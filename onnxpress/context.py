"""What a pass may look at: a model, what was observed of it, and where it will run."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxpress.errors import RecipeError, UsageError, nearest
from onnxpress.graph import Names
from onnxpress.layers import Layer, find_layers
from onnxpress.memory import Memory
from onnxpress.selectable import Selectable, closeness, matching, origin_of, selectable_sites
from onnxpress.statistics import LayerStatistics, Statistics
from onnxpress.stored import StoredWeight, beside, find_stored
from onnxpress.targets import Target

if TYPE_CHECKING:
    # Inspection trains nothing, and loads what it does not need for nothing.
    from onnxpress.distillation.teaching import Teacher

__all__ = ["OUT_OF_TIME", "Context"]

OUT_OF_TIME = "the time was over before it was looked at: give more with --time-limit [L010]"
"""The reason of what a pass leaves alone once `Context.out_of_time` says yes."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Context:
    """What a pass may look at.

    Attributes:
        model: what the earlier stage left; in `rewrite`, a clone of it that is to be changed.
        target: what the provider accepts.
        statistics: of this model, or `None` without calibration data. Where a decision is
            refined, those of its layers are of what the rewritten model feeds them.
        seed: for anything drawn at random.
        survey: only sites, savings and reasons are wanted of `propose`, so that what candidates
            cost need not be computed; `inspect` asks so.
        shapes_only: of a survey, that the weights are too large to be read for it: sites and
            reasons are wanted as far as shapes tell them.
        untried: what is taken of the offer will not be run, so that nothing is taken back.
        draft: a rewrite is wanted for the clock, so that its weights need the right form but not
            the best values.
        observed: a rewrite is wanted to be run and observed: a tensor that keeps its name has to
            stand for what it did before, so that nothing may be folded through it.
        idle: names of tensors of `base` that nothing will compute, where a rewrite is to be run and
            observed: what they alone follow from may be left as it is.
        layers: the model's layers with a constant weight; found if not given.
        base: the model that was proposed on, which nobody changes; `model` if not given.
        base_statistics: of `base`, before any refinement; `statistics` if not given.
        names: what is free in `model`; a rewrite takes every new name from it.
        memory: what `memoised` functions of this stage returned.
        out_of_time: asked by `propose` between sites that take long; once it says yes, the rest is
            left alone with `OUT_OF_TIME` as the reason.
        kept: names of layers whose weights the user keeps from the pass: candidates that change
            them are dropped, and a rewrite that does is refused.
        teacher: the original with samples, for passes of the stage that recovers; else `None`.
        selectable: by which names a user may speak of what was in the model before any pass, those
            of the model that was given among them; of this model where nothing is given.
    """

    model: ir.Model
    target: Target
    statistics: Statistics | None = None
    seed: int = 0
    untried: bool = False
    draft: bool = False
    observed: bool = False
    idle: frozenset[str] = frozenset()
    survey: bool = False
    shapes_only: bool = False
    layers: tuple[Layer, ...] = ()
    base: ir.Model = None  # type: ignore[assignment] # filled in below
    base_statistics: Statistics | None = None
    names: Names = None  # type: ignore[assignment] # filled in below
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)
    out_of_time: Callable[[], bool] = field(default=_never, compare=False, repr=False)
    kept: frozenset[str] = frozenset()
    teacher: "Teacher | None" = field(default=None, compare=False, repr=False)
    selectable: tuple[Selectable, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        fill = object.__setattr__
        if not self.layers:
            fill(self, "layers", tuple(find_layers(self.model)))
        if self.base is None:
            fill(self, "base", self.model)
        if self.base_statistics is None:
            fill(self, "base_statistics", self.statistics)
        if self.names is None:
            fill(self, "names", Names(self.model))

    @functools.cached_property
    def stored(self) -> tuple[StoredWeight, ...]:
        """Weights that no pass may change but for the form in which they are stored."""
        return tuple(find_stored(self.model, self.layers))

    @property
    def weights(self) -> tuple[Layer | StoredWeight, ...]:
        """All that a user can keep: layers, and stored weights that are none."""
        return beside(self.layers, self.stored)

    def moments(self, layer: Layer) -> LayerStatistics | None:
        """What was observed of the layer's inputs."""
        return None if self.statistics is None else self.statistics.layers.get(layer.name)

    def base_moments(self, layer: Layer) -> LayerStatistics | None:
        """What was observed of the layer's inputs in `base`, whatever is refined since."""
        known = self.base_statistics
        return None if known is None else known.layers.get(layer.name)

    def is_idle(self, layer: Layer) -> bool:
        """Whether nothing that the layer computes will be run (`idle`)."""
        return bool(self.idle) and all(
            output.name in self.idle for use in layer.uses for output in use.node.outputs
        )

    def multiply_adds(self, layer: Layer) -> float:
        """Of one run; of one application of the weight where the layer was not observed."""
        if layer.op_type == "Gather":
            return 0.0
        moments = self.moments(layer)
        rows = 1.0 if moments is None else moments.rows_per_sample
        return float(rows * math.prod(layer.shape))

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
            "made for another model or another version of onnxpress [R001]"
        )

    def selected(self, pattern: str) -> tuple[frozenset[str], int]:
        """Weights that a user speaks of, and how closely (`selectable.closeness`).

        Args:
            pattern: the name of a layer or node, an operator type, or a pattern of names.

        Returns:
            Names of `weights`, also of those that passes made of what was meant; none: it stands
            for nothing that has a weight.
        """
        sites = self.selectable or tuple(selectable_sites(self.model))
        found = matching(pattern, sites)
        known = {site.name for site in sites if site.is_layer}
        names = (weight.name for weight in self.weights)
        own = frozenset(name for name in names if origin_of(name, known) in found)
        return own, closeness(pattern, sites)

    def named_layers(self, names: Sequence[str], pass_name: str) -> list[Layer]:
        """The layers of these names, or all where none is named.

        Args:
            names: as a setting of the pass has them.
            pass_name: for the message.

        Raises:
            UsageError: the model has no layer of one of the names.
        """
        known = {layer.name: layer for layer in self.layers}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"{pass_name}: there is no layer {name!r}{nearest(name, list(known))} "
                    "(onnxpress inspect lists them) [U001]"
                )
        return [known[name] for name in names] or list(self.layers)
