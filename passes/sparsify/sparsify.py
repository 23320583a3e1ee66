"""The pass itself: how many weights of which layer go, and what the rest become.

With calibration data the weights that stay are solved for anew, and the sparsity of each layer
follows from what it costs at the model's outputs; the sum over all layers is as asked for.
Without, the smallest magnitudes go (`torch.nn.utils.prune`'s L1, over all layers or in each).

Zeros make no dense kernel faster. `pack` stores them in one bit each, so the file gets smaller;
2:4 is what sparse tensor cores take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Parameter,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
)
from onnxpress.errors import RecipeError, UsageError
from onnxpress.layers import Layer
from onnxpress.passes.sparsify.compensate import Problem, alternating, columns, solve_masked
from onnxpress.passes.sparsify.masks import Pattern, keep_highest, keep_n_of_m
from onnxpress.reconstruction import damped_gram, output_energy, relative_error, repaired
from onnxpress.registry import nearest
from onnxpress.statistics import LayerStatistics, Observations

__all__ = ["Sparsify"]

_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_STEPS = (1.0, 0.75, 0.5, 0.25)
"""Fractions of the wanted sparsity that are offered, so that a layer can be restored in part."""
_SPARSITIES = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Where a layer's error is worked out; between them it is interpolated."""
_FINEST = 0.01
"""Of a layer: what is asked for in all is reached, and exceeded by less than such a step."""

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sparsify(Pass):
    """Zero the weights whose loss the others can make up for."""

    name: ClassVar[str] = "sparsify"
    stage: ClassVar[Stage] = Stage.SPARSITY
    by_name_only: ClassVar[str] = (
        "zeros make dense kernels no faster, and 8-bit weights save more for the same loss; "
        "name sparsify to apply it"
    )
    rewrites_from_statistics: ClassVar[bool] = True

    sparsity: float = field(
        default=0.5, metadata={"help": "Share of the weights to set to zero, above 0, below 1."}
    )
    pattern: str = field(
        default="unstructured",
        metadata={
            "help": "unstructured, or N:M such as 2:4: N of every M input channels stay, "
            "whatever the sparsity says."
        },
    )
    scope: str = field(
        default="auto",
        metadata={
            "help": "How the sparsity is shared out: loss (by what each layer costs; needs "
            "calibration data), global (one threshold), layer, row, or auto: loss where possible."
        },
    )
    importance: str = field(
        default="auto",
        metadata={
            "help": "magnitude, wanda or second_order (both need calibration data), or auto: "
            "the best possible."
        },
    )
    compensation: str = field(
        default="auto",
        metadata={
            "help": "What the weights that stay become: alternating (ALPS), columns (SparseGPT), "
            "none, or auto: alternating where there is calibration data."
        },
    )
    threshold: float = field(
        default=0.0,
        metadata={"help": "Zero all weights of at most this magnitude instead; 0: by sparsity."},
    )
    layers: str = field(
        default="",
        metadata={"help": "Only these layers, by name, separated by commas; empty: all."},
    )
    refinement: bool = field(
        default=True,
        metadata={"help": "Fit each layer again to what the pruned network feeds it."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.sparsity < 1:
            raise UsageError(
                f"sparsify: sparsity is {self.sparsity:g}; expected a share above 0 and below 1"
            )
        if self.threshold < 0:
            raise UsageError(f"sparsify: threshold is {self.threshold:g}; expected 0 or more")
        if self.pattern != "unstructured" and Pattern.parse(self.pattern) is None:
            raise UsageError(
                f"sparsify: pattern is {self.pattern!r}; expected unstructured, or N:M with N "
                "below M"
            )
        choices = {
            "scope": ("auto", "loss", "global", "layer", "row"),
            "importance": ("auto", "magnitude", "wanda", "second_order"),
            "compensation": ("auto", "alternating", "columns", "none"),
        }
        for setting, allowed in choices.items():
            if getattr(self, setting) not in allowed:
                raise UsageError(
                    f"sparsify: {setting} is {getattr(self, setting)!r}; expected one of "
                    f"{', '.join(allowed)}"
                )

    @property
    def refines(self) -> bool:
        """Only weights that are solved for can be solved for again."""
        return self.refinement and self.compensation in ("auto", "alternating")

    @property
    def _group(self) -> Pattern | None:
        return Pattern.parse(self.pattern)

    def observes(self, context: Context) -> Observations:
        """The inputs of every layer that can be pruned, with their Gram matrices."""
        if self.threshold or (self.importance == "magnitude" and self.compensation == "none"):
            return Observations()
        names = frozenset(layer.name for layer in context.layers if layer.op_type in _OPERATORS)
        return Observations(layers=names, gram=True)

    def quota(self, context: Context) -> Quota | None:
        """The zeros to make in all, where layers share them out among themselves."""
        if self._scope(context) != "loss" or self._group is not None or self.threshold:
            return None
        sizes = [layer.read().size for layer in self._chosen(context) if _refusal(layer) is None]
        return Quota("zeroed_weights", self.sparsity * sum(sizes))

    def _scope(self, context: Context) -> str:
        if self.scope != "auto":
            return self.scope
        return "global" if context.statistics is None else "loss"

    def _chosen(self, context: Context) -> list[Layer]:
        if not self.layers:
            return list(context.layers)
        wanted = [name.strip() for name in self.layers.split(",")]
        known = {layer.name: layer for layer in context.layers}
        for name in wanted:
            if name not in known:
                raise UsageError(
                    f"sparsify: there is no layer {name!r}{nearest(name, list(known))} "
                    "(onnxpress inspect lists them)"
                )
        return [known[name] for name in wanted]

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Sparsities for every layer, the highest first."""
        proposals: list[Proposal | Skip] = []
        chosen: list[Layer] = []
        asked = self._chosen(context)
        for layer in asked:
            reason = _refusal(layer) or self._misfit(layer) or self._unknown(context, layer)
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
            else:
                chosen.append(layer)
        pool = None
        if self._scope(context) == "global" and chosen and not self._group:
            kinds = {self._importance(context, layer) for layer in chosen}
            # Scores of different kinds have no common scale.
            kind = kinds.pop() if len(kinds) == 1 else "magnitude"
            pool = np.concatenate([_scores(context, layer, kind).reshape(-1) for layer in chosen])
        for layer in chosen:
            candidates = self._candidates(context, layer, pool)
            proposals.append(
                Proposal(layer.name, candidates)
                if candidates
                else Skip(layer.name, "every weight is more important than the threshold")
            )
        order = {layer.name: index for index, layer in enumerate(asked)}
        return sorted(proposals, key=lambda item: order[item.site])

    def _misfit(self, layer: Layer) -> str | None:
        """Why N:M does not fit a layer, or `None`."""
        if self._group is None:
            return None
        channels = layer.read().shape[1] // _kernel(layer)
        if channels % self._group.group:
            return (
                f"{channels} input channels are no multiple of {self._group.group}, so "
                f"{self.pattern} does not fit it"
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
        if needs and not self.threshold and (moments is None or moments.rows == 0):
            return f"its inputs were not observed, and {needs.pop()} needs them"
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
        if not solvable or self.threshold:
            return "none"
        if self.compensation != "auto":
            return self.compensation
        return "none" if self.importance == "magnitude" else "alternating"

    def _candidates(
        self, context: Context, layer: Layer, pool: Float64 | None
    ) -> tuple[Candidate, ...]:
        common: dict[str, Parameter] = {
            "importance": self._importance(context, layer),
            "compensation": self._compensation(context, layer),
        }
        if self.threshold:
            return self._at(context, layer, {**common, "threshold": self.threshold})
        if self._group is not None:
            sparsity = 1 - self._group.kept / self._group.group
            return self._at(context, layer, {**common, "sparsity": sparsity})
        if self._scope(context) == "loss":
            return self._curve(context, layer, common)
        found: list[Candidate] = []
        for step in _STEPS:
            wanted = self.sparsity * step
            if pool is None:
                found += self._at(context, layer, {**common, "sparsity": wanted})
                continue
            count = round(pool.size * wanted)
            if count:
                threshold = float(np.partition(pool, count - 1)[count - 1])
                found += self._at(context, layer, {**common, "threshold": threshold})
        return tuple(found)

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
                    {**common, "sparsity": rounded}, error, zeroed_weights=zeros, keeps_kernels=True
                )
            )
        return tuple(candidate for candidate in candidates if candidate.zeroed_weights > 0)

    def _at(
        self, context: Context, layer: Layer, parameters: dict[str, Parameter]
    ) -> tuple[Candidate, ...]:
        """The candidate with these parameters; none where it would remove nothing or all."""
        matrix = layer.read()
        found, _ = self._solved(context, layer, parameters)
        zeros = int((found == 0).sum())
        if zeros <= _zeros(layer) or zeros == matrix.size:
            return ()
        moments = context.moments(layer)
        error = _error(found, matrix, moments, biased=_biased(layer, parameters))
        return (
            Candidate(
                parameters,
                predicted_error=error,
                zeroed_weights=zeros - _zeros(layer),
                keeps_kernels=True,
            ),
        )

    def _solved(
        self, context: Context, layer: Layer, parameters: dict[str, Parameter]
    ) -> tuple[Float64, Float64 | None]:
        """The layer's new weight `[out, in]`, and what its bias has to take up."""
        key = ("sparsify", *sorted(parameters.items()))
        return context.cached(key, [layer], lambda: self._solve(context, layer, parameters))

    def _solve(
        self, context: Context, layer: Layer, parameters: dict[str, Parameter]
    ) -> tuple[Float64, Float64 | None]:
        importance = str(parameters["importance"])
        compensation = str(parameters["compensation"])
        matrix = np.asarray(layer.read(), np.float64)
        moments = context.moments(layer)
        if compensation == "none" or moments is None or moments.gram is None:
            scores = _scores(context, layer, importance)
            return np.where(self._kept(layer, scores, parameters), matrix, 0.0), None
        biased = _biased(layer, parameters)
        target, drift = repaired(matrix, moments, biased=biased)
        gram = moments.centred_gram if biased else moments.gram
        assert gram is not None
        gram = damped_gram(gram, moments.rows)
        grouped = target.reshape(len(gram), -1, target.shape[1])

        def problem() -> Problem:
            key = ("problem", biased)
            return context.cached(key, [layer], lambda: Problem.of(grouped, gram))

        def choose(scores: npt.NDArray[np.floating]) -> Mask:
            flat = scores.reshape(-1, scores.shape[2])
            return self._kept(layer, flat, parameters).reshape(scores.shape)

        if compensation == "columns":
            found = columns(grouped, gram, choose)
        elif importance == "second_order":
            found = alternating(problem(), choose)
        else:
            scores = _scores(context, layer, importance).reshape(grouped.shape)
            found = solve_masked(problem(), choose(scores))
        solved = found.reshape(matrix.shape)
        if not np.isfinite(solved).all():
            scores = _scores(context, layer, "wanda")
            return np.where(self._kept(layer, scores, parameters), matrix, 0.0), None
        offset = None
        if biased:
            lost = (grouped - found) @ moments.mean[:, :, None]
            offset = drift + lost.reshape(-1)
        return solved, offset

    def _kept(
        self, layer: Layer, scores: npt.NDArray[np.floating], parameters: dict[str, Parameter]
    ) -> Mask:
        """The mask of what stays, of a layer's scores or of a block of its columns."""
        if "threshold" in parameters:
            return np.asarray(scores > float(parameters["threshold"]), bool)
        if self._group is not None:
            kernel = _kernel(layer)
            whole = scores.shape[1] == layer.read().shape[1]
            return keep_n_of_m(scores, self._group, kernel if whole else 1)
        sparsity = float(parameters["sparsity"])
        by_row = self.scope == "row"
        size = scores.shape[1] if by_row else scores.size
        return keep_highest(scores, round(sparsity * size), by_row=by_row)

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Write the weights anew, with zeros."""
        for decision in decisions:
            layer = context.layer(decision.site)
            parameters = {
                key: value
                for key, value in decision.candidate.parameters.items()
                if key != "refined"
            }
            moments = context.moments(layer)
            blind = parameters["importance"] == "magnitude"
            if not (blind and parameters["compensation"] == "none") and (
                moments is None or moments.rows == 0
            ):
                raise RecipeError(
                    f"pruning {layer.name!r} needs the calibration data it was planned with; "
                    "give it with --calibration"
                )
            weights, offset = self._solved(context, layer, parameters)
            layer.write(weights)
            if offset is not None:
                shift_bias(layer.graph, layer.node, offset)


def _refusal(layer: Layer) -> str | None:
    if layer.op_type not in _OPERATORS:
        return f"{layer.op_type} looks rows up, and any of them may be asked for"
    if layer.unsafe is not None:
        return layer.unsafe
    if not np.isfinite(layer.read()).all():
        return "its weight holds NaN or infinity"
    return None


def _kernel(layer: Layer) -> int:
    return int(np.prod(layer.shape[2:])) if layer.op_type == "Conv" else 1


def _zeros(layer: Layer) -> int:
    return int((layer.read() == 0).sum())


def _biased(layer: Layer, parameters: dict[str, Parameter]) -> bool:
    """Whether a bias takes up the mean of what is lost."""
    return parameters["compensation"] == "alternating" and takes_bias(layer)


def _error(
    found: Float64,
    matrix: npt.NDArray[np.floating],
    moments: LayerStatistics | None,
    *,
    biased: bool,
) -> float:
    delta = found - matrix
    if moments is None:
        return relative_error(delta, matrix, None)
    energy = output_energy(matrix, moments.gram, moments.second_moment)
    gram, second = moments.gram, moments.second_moment
    if biased:
        gram = moments.centred_gram
    return output_energy(delta, gram, second) / energy if energy > 0 else 0.0


def _scores(context: Context, layer: Layer, importance: str) -> Float64:
    """`[out, in]` importance of every weight.

    Magnitude |w|; Wanda |w|·√E[x²] (arXiv 2306.11695); second order w²/[H⁻¹]ᵢᵢ, what the output
    loses at best (Optimal Brain Surgeon), as its root. To compare layers, the latter two are
    divided by the norm of the layer's output.
    """
    magnitude = np.abs(np.asarray(layer.read(), np.float64))
    moments = context.moments(layer)
    if importance == "magnitude" or moments is None:
        return magnitude
    norms = np.sqrt(moments.second_moment)
    if importance == "second_order" and moments.gram is not None:
        inputs = moments.gram.shape[1]
        damping = 0.01 * np.einsum("gii->g", moments.gram) / inputs
        damped = moments.gram + damping[:, None, None] * np.eye(inputs)
        norms = 1 / np.sqrt(np.einsum("gii->gi", np.linalg.pinv(damped, hermitian=True)))
    grouped = magnitude.reshape(len(norms), -1, norms.shape[1]) * norms[:, None, :]
    energy = output_energy(layer.read(), moments.gram, moments.second_moment)
    scores: Float64 = grouped.reshape(magnitude.shape)
    return scores / np.sqrt(energy) if energy > 0 else scores
