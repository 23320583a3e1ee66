"""What a model may lose."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxpress.errors import UsageError
from onnxpress.judge.kinds import Kind, Reading

__all__ = ["DEFAULT_MAX_DROP", "DEFAULT_MIN_SQNR", "Budget", "least_sqnr"]

DEFAULT_MAX_DROP = 1.0
DEFAULT_MIN_SQNR = 20.0
"""1% of the variance of every group of slices."""
DEFAULT_MIN_SQNR_OF_SCORES = 15.0
"""3% of the variance of log-odds, beside a metric that counts decisions: a class keeps its order
(a correlation of 0.98), also one that no sample is of."""

_SCORED = (Kind.CLASSIFICATION, Kind.MULTI_LABEL, Kind.SEQUENCE)


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be lost.

    Attributes:
        max_drop: points of a task metric in percent; `None`: 1, where there is a metric.
        min_sqnr: dB on the worst group of slices of every float output; `None`: 20, and 15 for
            log-odds of class scores.
        metric: `auto`, `accuracy`, `agreement`, `none`, `module:function` (a score for each
            sample), or `set=module:function` (one for all).
        task: a kind for every output that it fits; `None`: read from the model.
        outputs: kinds by the name of an output.
        confidence: that what is lost stays within the budget; `None`: the samples decide by
            their mean, and the bound is reported.
    """

    max_drop: float | None = None
    min_sqnr: float | None = None
    metric: str = "auto"
    task: str | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Refuse budgets that mean nothing."""
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(
                f"max drop is {self.max_drop:g}; expected a percentage, 0 to 100 [U009]"
            )
        if self.min_sqnr is not None and math.isnan(self.min_sqnr):
            raise UsageError("min SQNR is not a number; expected decibels [U009]")
        if self.confidence is not None and not 0.5 <= self.confidence < 1:
            raise UsageError(
                f"confidence is {self.confidence:g}; expected a share of 0.5 to "
                "below 1, as 0.95 [U009]"
            )


def least_sqnr(reading: Reading, budget: Budget, *, measured: bool) -> float | None:
    """What an output has to keep, in dB; `None` where only a metric counts.

    A user's own metric decides alone. Whoever lets a metric lose more than a point lets the
    noise power of its output grow as much.

    Args:
        reading: of the output.
        budget: what was asked for.
        measured: whether a metric looks at the output.
    """
    if reading.varying or reading.kind == Kind.INTEGERS:
        return None
    if budget.min_sqnr is not None:
        return budget.min_sqnr
    if ":" in budget.metric:
        return None
    least = DEFAULT_MIN_SQNR
    if reading.kind in _SCORED and measured:
        least = DEFAULT_MIN_SQNR_OF_SCORES
    if measured and budget.max_drop is not None:
        least -= 10 * math.log10(max(budget.max_drop / DEFAULT_MAX_DROP, 1.0))
    return least
