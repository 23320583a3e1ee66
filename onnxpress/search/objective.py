"""What a choice is weighed by, apart from what it loses: one rule for stage and pipeline."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["GOALS", "Goal", "Objective"]

Goal = Literal["balanced", "latency", "size"]
GOALS: tuple[Goal, ...] = ("balanced", "latency", "size")


@dataclass(frozen=True, slots=True)
class Objective:
    """The goal of a search.

    Attributes:
        goal: `size` weighs bytes and accepts a slower model; `latency` weighs time, `balanced`
            bytes times time, and neither accepts a slower one.
    """

    goal: Goal = "balanced"

    @property
    def accepts_slower(self) -> bool:
        """Whether a model may be slower than the one before."""
        return self.goal == "size"

    def cost(self, nbytes: float, relative_time: float) -> float:
        """The lower the better; comparable among models of one original.

        Args:
            nbytes: of the model.
            relative_time: of one run, over the time of the same reference.
        """
        if self.goal == "size":
            return nbytes
        return relative_time if self.goal == "latency" else nbytes * relative_time
