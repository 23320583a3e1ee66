"""The pass itself: how many weights of which layer go, and what the rest become.

With calibration data the weights that stay are solved for anew, and the sparsity of each layer
follows from what it costs at the model's outputs; the sum over all layers is as asked for.
Without, the smallest magnitudes go (`torch.nn.utils.prune`'s L1, over all layers or in each).

Zeros make no dense kernel faster. `pack` stores them in one bit each, so the file gets smaller;
2:4 is what sparse tensor cores take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval

from onnxpress.bias import shift_bias
from onnxpress.contract import (
    OUT_OF_TIME,
    Candidate,
    Context,
    Decision,
    Layer,
    Observations,
    Parameter,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
    setting,
)
from onnxpress.errors import RecipeError
from onnxpress.passes.sparsify.masks import Pattern
from onnxpress.passes.sparsify.solving import Float64, error_of, kernel_of, scores_of, solved
from onnxpress.pieces import is_finite
from onnxpress.recurrent import RECURRENT

__all__ = ["Sparsify"]

_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)
_STEPS = (1.0, 0.75, 0.5, 0.25)
"""Fractions of the wanted sparsity that are offered, so that a layer can be restored in part."""
_SPARSITIES = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Where a layer's error is worked out; between them it is interpolated."""
_FINEST = 0.01
"""Of a layer: what is asked for in all is reached, and exceeded by less than such a step."""


@dataclass(frozen=True)
class Sparsify(Pass):
    """Zero the weights whose loss the others can make up for."""

    name: ClassVar[str] = "sparsify"
    stage: ClassVar[Stage] = Stage.SPARSITY
    families: ClassVar[tuple[str, ...]] = ("sparse",)
    by_name_only: ClassVar[str] = (
        "zeros make dense kernels no faster, and 8-bit weights save more for the same loss; "
        "name sparsify to apply it [S004]"
    )
    rewrites_from_statistics: ClassVar[bool] = True

    sparsity: Annotated[float, Interval(gt=0, lt=1)] = setting(
        0.5, "Share of the weights to set to zero."
    )
    pattern: str = setting(
        "unstructured",
        "unstructured, or N:M such as 2:4: N of every M input channels stay, whatever the sparsity "
        "says.",
    )
    scope: Literal["auto", "loss", "global", "layer", "row"] = setting(
        "auto",
        "How the sparsity is shared out: loss (by what each layer costs; needs calibration data), "
        "global (one threshold), or in each layer or row alike; auto: loss where possible.",
    )
    importance: Literal["auto", "magnitude", "wanda", "second_order"] = setting(
        "auto", "What goes first; all but magnitude need calibration data; auto: the best possible."
    )
    compensation: Literal["auto", "alternating", "columns", "none"] = setting(
        "auto",
        "What the weights that stay become: alternating is ALPS, columns SparseGPT; auto: "
        "alternating where there is calibration data.",
    )
    threshold: Annotated[float, Ge(0)] | None = setting(
        None, "Zero all weights of at most this magnitude instead of a share."
    )
    layers: tuple[str, ...] = setting(
        (), "Only this layer, by name; may be repeated. Without: all."
    )
    refinement: bool = setting(
        default=True, help="Fit each layer again to what the sparse network feeds it."
    )

    def conflict(self) -> str | None:
        """A pattern that cannot be read."""
        if self.pattern != "unstructured" and Pattern.parse(self.pattern) is None:
            return f"pattern is {self.pattern!r}; expected unstructured, or N:M with N below M"
        return None

    @property
    def refines(self) -> bool:
        """Only weights that are solved for can be solved for again."""
        return self.refinement and self.compensation in ("auto", "alternating")

    @property
    def _masking(self) -> tuple[Pattern | None, bool]:
        """N:M, and whether each row gets its share."""
        return self._group, self.scope == "row"

    @property
    def _by_threshold(self) -> bool:
        return self.threshold is not None

    @property
    def _group(self) -> Pattern | None:
        return Pattern.parse(self.pattern)

    def observes(self, context: Context) -> Observations:
        """The inputs of every layer that can be pruned, with their Gram matrices."""
        if self._by_threshold or (self.importance == "magnitude" and self.compensation == "none"):
            return Observations()
        names = frozenset(layer.name for layer in context.layers if layer.op_type in _OPERATORS)
        return Observations(layers=names, gram=True)

    def quota(self, context: Context) -> Quota | None:
        """The zeros to make in all, where layers share them out among themselves."""
        if self._scope(context) != "loss" or self._group is not None or self._by_threshold:
            return None
        sizes = [
            layer.read().size
            for layer in context.named_layers(self.layers, self.name)
            if (_refusal(layer) or _unreadable(layer)) is None
        ]
        return Quota("zeroed_weights", self.sparsity * sum(sizes))

    def _scope(self, context: Context) -> str:
        if self.scope != "auto":
            return self.scope
        return "global" if context.statistics is None else "loss"

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Sparsities for every layer, the highest first."""
        proposals: list[Proposal | Skip] = []
        chosen: list[Layer] = []
        asked = context.named_layers(self.layers, self.name)
        for layer in asked:
            reason = _refusal(layer) or self._misfit(layer) or self._unknown(context, layer)
            reason = reason or (None if context.shapes_only else _unreadable(layer))
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
            else:
                chosen.append(layer)
        if context.survey:
            rough = (Candidate(family="sparse", keeps_kernels=True),)
            return [*proposals, *(Proposal(layer.name, rough) for layer in chosen)]
        thresholds = None
        if self._scope(context) == "global" and chosen and not self._group:
            kinds = {self._importance(context, layer) for layer in chosen}
            # Scores of different kinds have no common scale.
            kind = kinds.pop() if len(kinds) == 1 else "magnitude"
            pool = np.concatenate([scores_of(context, layer, kind).reshape(-1) for layer in chosen])
            thresholds = self._thresholds(pool)
        for layer in chosen:
            if context.out_of_time():
                proposals.append(Skip(layer.name, OUT_OF_TIME))
                continue
            candidates = self._candidates(context, layer, thresholds)
            proposals.append(
                Proposal(layer.name, candidates)
                if candidates
                else Skip(layer.name, "every weight is more important than the threshold [S003]")
            )
        order = {layer.name: index for index, layer in enumerate(asked)}
        return sorted(proposals, key=lambda item: order[item.site])

    def _misfit(self, layer: Layer) -> str | None:
        """Why N:M does not fit a layer, or `None`."""
        if self._group is None:
            return None
        channels = layer.read().shape[1] // kernel_of(layer)
        if channels % self._group.group:
            return (
                f"{channels} input channels are no multiple of {self._group.group}, so "
                f"{self.pattern} does not fit it [S002]"
            )
        return None

    def _unknown(self, context: Context, layer: Layer) -> str | None:
        moments = context.moments(layer)
        needs = {self.importance, self.compensation, self._scope(context)} & {
            "wanda",
            "second_order",
            "alternating",
            "columns",
            "loss",
        }
        if needs and not self._by_threshold and (moments is None or moments.rows == 0):
            return f"its inputs were not observed, and {needs.pop()} needs them [L014]"
        return None

    def _importance(self, context: Context, layer: Layer) -> str:
        if self.importance != "auto":
            return self.importance
        moments = context.moments(layer)
        if moments is None or moments.rows == 0:
            return "magnitude"
        return "wanda" if moments.gram is None else "second_order"

    def _compensation(self, context: Context, layer: Layer) -> str:
        """How the rest of a layer is solved for."""
        moments = context.moments(layer)
        solvable = moments is not None and moments.gram is not None and len(layer.uses) == 1
        if not solvable or self._by_threshold:
            return "none"
        if self.compensation != "auto":
            return self.compensation
        return "none" if self.importance == "magnitude" else "alternating"

    def _candidates(
        self, context: Context, layer: Layer, thresholds: Sequence[float] | None
    ) -> tuple[Candidate, ...]:
        common: dict[str, Parameter] = {
            "importance": self._importance(context, layer),
            "compensation": self._compensation(context, layer),
        }
        if self._by_threshold:
            return self._at(context, layer, {**common, "threshold": float(self.threshold or 0.0)})
        if self._group is not None:
            sparsity = 1 - self._group.kept / self._group.group
            return self._at(context, layer, {**common, "sparsity": sparsity})
        if self._scope(context) == "loss":
            return self._curve(context, layer, common)
        found: list[Candidate] = []
        if thresholds is not None:
            for threshold in thresholds:
                found += self._at(context, layer, {**common, "threshold": threshold})
            return tuple(found)
        for step in _STEPS:
            found += self._at(context, layer, {**common, "sparsity": self.sparsity * step})
        return tuple(found)

    def _thresholds(self, pool: Float64) -> list[float]:
        """The scores below which the shares of all weights lie."""
        counts = [round(pool.size * self.sparsity * step) for step in _STEPS]
        return [float(np.partition(pool, count - 1)[count - 1]) for count in counts if count]

    def _curve(
        self, context: Context, layer: Layer, common: dict[str, Parameter]
    ) -> tuple[Candidate, ...]:
        """Candidates in fine steps: errors at some sparsities, and on the chord between."""
        size = layer.read().size
        known: list[Candidate] = []
        for sparsity in _SPARSITIES:
            known += self._at(context, layer, {**common, "sparsity": sparsity})
        if not known:
            return ()
        places = [float(c.parameters["sparsity"]) for c in known]
        # More zeros never err less; a solver that was lucky once does not change that.
        errors = np.maximum.accumulate([c.predicted_error for c in known])
        candidates = []
        for sparsity in np.arange(places[-1], places[0] - _FINEST / 2, -_FINEST):
            rounded = float(np.round(sparsity, 4))
            zeros = round(rounded * size) - _zeros(layer)
            error = float(np.interp(rounded, places, errors))
            candidates.append(
                Candidate(
                    {**common, "sparsity": rounded},
                    error,
                    zeroed_weights=zeros,
                    family="sparse",
                    keeps_kernels=True,
                )
            )
        return tuple(candidate for candidate in candidates if candidate.zeroed_weights > 0)

    def _at(
        self, context: Context, layer: Layer, parameters: dict[str, Parameter]
    ) -> tuple[Candidate, ...]:
        """The candidate with these parameters; none where it would remove nothing or all."""
        matrix = layer.read()
        found, _ = solved(context, self._masking, layer, parameters)
        zeros = int((found == 0).sum())
        if zeros <= _zeros(layer) or zeros == matrix.size:
            return ()
        moments = context.moments(layer)
        error = error_of(found, layer, moments, parameters)
        return (
            Candidate(
                parameters,
                predicted_error=error,
                zeroed_weights=zeros - _zeros(layer),
                family="sparse",
                keeps_kernels=True,
            ),
        )

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Write the weights anew, with zeros."""
        for decision in decisions:
            layer = context.layer(decision.site)
            parameters = dict(decision.candidate.parameters)
            moments = context.moments(layer)
            blind = parameters["importance"] == "magnitude"
            if not (blind and parameters["compensation"] == "none") and (
                moments is None or moments.rows == 0
            ):
                raise RecipeError(
                    f"pruning {layer.name!r} needs the calibration data it was planned with; "
                    "give it with --calibration [R002]"
                )
            weights, offset = solved(context, self._masking, layer, parameters)
            layer.write(weights)
            if offset is not None:
                shift_bias(context.names, layer.graph, layer.node, offset)


def _refusal(layer: Layer) -> str | None:
    if layer.op_type not in _OPERATORS:
        return f"{layer.op_type} looks rows up, and any of them may be asked for [S001]"
    if layer.unsafe is not None:
        return layer.unsafe
    return None


def _unreadable(layer: Layer) -> str | None:
    return None if is_finite(layer.array) else "its weight holds NaN or infinity [L001]"


def _zeros(layer: Layer) -> int:
    return int((layer.read() == 0).sum())
