"""Set the least important weights to zero, where they stand.

Importance is the magnitude |w|, or with statistics |w|·√E[x²], the weight times the norm of
its input (Wanda, arXiv 2306.11695). A weight goes when its score is at most a threshold, which
comes from the wanted sparsity, over all layers or in each. To compare layers, Wanda's scores
are divided by the norm of the layer's output.

Zeros in place make a file neither smaller nor faster on dense kernels: they serve compressed
transport and sparse hardware, so `optimize` prunes only when asked for by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnxpress.errors import RecipeError, UsageError
from onnxpress.graph import Layer
from onnxpress.plan import Candidate, Context, Decision, Pass, Proposal, Skip, Stage
from onnxpress.reconstruction import output_energy, relative_error
from onnxpress.statistics import LayerStatistics, Observations

__all__ = ["Prune"]

_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_STEPS = (1.0, 0.75, 0.5, 0.25)
"""Fractions of the wanted sparsity that are offered, so that a layer can be restored in part."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prune(Pass):
    """Zero the weights that matter least."""

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.SPARSITY
    by_name_only: ClassVar[str] = (
        "zeros make neither the file smaller nor dense kernels faster; name prune to apply it"
    )
    rewrites_from_statistics: ClassVar[bool] = True

    sparsity: float = field(
        default=0.5, metadata={"help": "Share of the weights to set to zero, above 0, below 1."}
    )
    scope: str = field(
        default="global",
        metadata={"help": "One threshold for all layers (global) or one for each (layer)."},
    )
    importance: str = field(
        default="auto",
        metadata={"help": "magnitude, wanda (needs calibration data), or auto: the best possible."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.sparsity < 1:
            raise UsageError(
                f"prune: sparsity is {self.sparsity:g}; expected a share above 0 and below 1"
            )
        if self.scope not in ("global", "layer"):
            raise UsageError(f"prune: scope is {self.scope!r}; expected global or layer")
        if self.importance not in ("auto", "magnitude", "wanda"):
            raise UsageError(
                f"prune: importance is {self.importance!r}; expected auto, magnitude or wanda"
            )

    def observes(self, context: Context) -> Observations:
        """The inputs of every layer that can be pruned, with their Gram matrices."""
        if self.importance == "magnitude":
            return Observations()
        names = frozenset(layer.name for layer in context.layers if layer.op_type in _OPERATORS)
        return Observations(layers=names, gram=True)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """The wanted sparsity for every layer, and three weaker ones."""
        proposals: list[Proposal | Skip] = []
        chosen: list[tuple[Layer, Scores, bool]] = []
        for layer in context.layers:
            reason = _refusal(layer)
            wanda = self._uses_wanda(context, layer)
            if reason is None and self.importance == "wanda" and not wanda:
                reason = "its inputs were not observed, and importance is wanda"
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
            else:
                chosen.append((layer, _scores(context, layer, wanda=wanda), wanda))
        if len({wanda for *_, wanda in chosen}) > 1:
            # Scores of the two kinds have no common scale.
            chosen = [
                (layer, _scores(context, layer, wanda=False), False) for layer, _, _ in chosen
            ]
        everything = (
            np.concatenate([scores.reshape(-1) for _, scores, _ in chosen]) if chosen else None
        )
        for layer, scores, wanda in chosen:
            pool = everything if self.scope == "global" and everything is not None else scores
            candidates = tuple(
                candidate
                for step in _STEPS
                if (candidate := self._candidate(context, layer, scores, pool, step, wanda=wanda))
            )
            proposals.append(
                Proposal(layer.name, candidates)
                if candidates
                else Skip(layer.name, "every weight is more important than the global threshold")
            )
        return proposals

    def _uses_wanda(self, context: Context, layer: Layer) -> bool:
        statistics = _statistics(context, layer)
        return self.importance != "magnitude" and statistics is not None and statistics.rows > 0

    def _candidate(
        self,
        context: Context,
        layer: Layer,
        scores: Scores,
        pool: Scores,
        step: float,
        *,
        wanda: bool,
    ) -> Candidate | None:
        count = round(pool.size * self.sparsity * step)
        if count == 0:
            return None
        threshold = float(np.partition(pool.reshape(-1), count - 1)[count - 1])
        removed = scores <= threshold
        if not removed.any() or removed.all():
            return None
        matrix = layer.read()
        statistics = _statistics(context, layer)
        error = relative_error(
            np.where(removed, matrix, 0),
            matrix,
            None if statistics is None else statistics.gram,
            None if statistics is None else statistics.second_moment,
        )
        return Candidate(
            {
                "importance": "wanda" if wanda else "magnitude",
                "threshold": threshold,
                "sparsity": float(removed.mean()),
            },
            predicted_error=error,
            zeroed_weights=int(removed.sum() - (matrix == 0).sum()),
            neutral=True,
        )

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Zero what scores at most the decided threshold."""
        for decision in decisions:
            layer = context.layer(decision.site)
            wanda = decision.candidate.parameters["importance"] == "wanda"
            statistics = _statistics(context, layer)
            if wanda and (statistics is None or statistics.rows == 0):
                raise RecipeError(
                    f"pruning {layer.name!r} by wanda needs the calibration data it was planned "
                    "with; give it with --calibration"
                )
            threshold = float(decision.candidate.parameters["threshold"])
            matrix = layer.read()
            scores = _scores(context, layer, wanda=wanda)
            layer.write(np.where(scores <= threshold, 0, matrix))


def _statistics(context: Context, layer: Layer) -> LayerStatistics | None:
    return None if context.statistics is None else context.statistics.layers.get(layer.name)


def _refusal(layer: Layer) -> str | None:
    if layer.op_type not in _OPERATORS:
        return f"{layer.op_type} looks rows up: zeros there save nothing anywhere"
    if layer.unsafe is not None:
        return layer.unsafe
    if not np.isfinite(layer.read()).all():
        return "its weight holds NaN or infinity"
    return None


def _scores(context: Context, layer: Layer, *, wanda: bool) -> Scores:
    """`[out, in]` importance of every weight."""
    magnitude = np.abs(np.asarray(layer.read(), np.float64))
    statistics = _statistics(context, layer)
    if not wanda or statistics is None:
        return magnitude
    norms = np.sqrt(statistics.second_moment)
    grouped = magnitude.reshape(len(norms), -1, norms.shape[1]) * norms[:, None, :]
    energy = output_energy(layer.read(), statistics.gram, statistics.second_moment)
    scores: Scores = grouped.reshape(magnitude.shape)
    return scores / np.sqrt(energy) if energy > 0 else scores
