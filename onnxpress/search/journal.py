"""Every model that a search built and measured, in order, for people who want to see them all."""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from onnxpress.contract import Decision
from onnxpress.judge import Measurement
from onnxpress.progress import Best
from onnxpress.runtime import Latency
from onnxpress.search.objective import Objective

__all__ = ["Journal", "TriedModel"]


@dataclass(frozen=True, slots=True)
class TriedModel:
    """A model that was measured, without the model.

    Attributes:
        passes: whose choice it is, by name.
        forms: how many sites took each form, by pass and family.
        weight_bytes: of all weights.
        spent: the share of the budget that it spends on the samples to choose by; above 1 it
            breaks it.
        holds: whether it kept within the part of the budget that the search had then.
        samples: it was measured on; few where these were clear.
        drop: of the worst metric, in points; `None` where there is no metric.
        worst_sqnr_db: of all float outputs.
        speedup: over the model before its stage; `None` where it was not timed.
    """

    passes: str
    forms: Mapping[str, int]
    weight_bytes: int
    spent: float
    holds: bool
    samples: int
    drop: float | None
    worst_sqnr_db: float
    speedup: float | None = None


@dataclass
class Journal:
    """What was tried in one run.

    Attributes:
        original_bytes: of the weights of the original; 0: not known.
        objective: by which one is the best.
        tried: in order.
    """

    original_bytes: int = 0
    objective: Objective = field(default_factory=Objective)
    tried: list[TriedModel] = field(default_factory=list)
    _places: dict[Hashable, int] = field(default_factory=dict)

    def note(
        self,
        passes: str,
        key: Hashable,
        decisions: tuple[Decision, ...],
        measurement: Measurement,
        *,
        weight_bytes: int,
        spent: float,
        holds: bool,
        latency: Latency | None,
    ) -> None:
        """Add a model that was just measured.

        Args:
            passes: of the pool.
            key: what a rewrite sees of the choice (`findings.seen_of`).
            decisions: the choice.
            measurement: of it.
            weight_bytes: of all weights of what it makes.
            spent: share of the whole budget.
            holds: whether its part of the budget holds.
            latency: against the model before, where the clock has seen such a choice.
        """
        forms = Counter(f"{d.candidate.pass_name} {d.candidate.family}".strip() for d in decisions)
        worst = measurement.worst_metric
        self._places[passes, key] = len(self.tried)
        self.tried.append(
            TriedModel(
                passes,
                dict(sorted(forms.items())),
                weight_bytes,
                spent,
                holds,
                measurement.samples,
                None if worst is None else worst.drop,
                measurement.worst_sqnr_db,
                None if latency is None else latency.speedup,
            )
        )

    @property
    def best(self) -> Best | None:
        """What costs least by the objective of all that held; `None` where nothing did."""
        held = [one for one in self.tried if one.holds]
        if not held:
            return None
        best = min(held, key=lambda m: self.objective.cost(m.weight_bytes, 1 / (m.speedup or 1.0)))
        ratio = self.original_bytes / max(best.weight_bytes, 1)
        return Best(ratio, best.speedup, best.drop, best.worst_sqnr_db)

    def clock(self, passes: str, key: Hashable, latency: Latency) -> None:
        """Add the time of a choice to the last model that was made by it."""
        place = self._places.get((passes, key))
        if place is not None:
            self.tried[place] = replace(self.tried[place], speedup=latency.speedup)
