"""What a run may spend on explaining itself, beside what it took to find its answer."""

import time
from dataclasses import dataclass, field

__all__ = ["Allowance"]

_SHARE = 0.05


@dataclass
class Allowance:
    """Seconds for telling what decisions cost: a share of those that the run took so far.

    Attributes:
        started: on the monotonic clock.
        spent: of it.
        share: of the whole.
    """

    started: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    share: float = _SHARE

    @property
    def left(self) -> float:
        """Seconds."""
        return self.share * (time.monotonic() - self.started) - self.spent
