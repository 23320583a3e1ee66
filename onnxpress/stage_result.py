"""What one pass did, to which layers, and what was measured of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxpress.contract import Decision, Pass, Skip
from onnxpress.judge import Measurement
from onnxpress.runtime import Latency, Session

if TYPE_CHECKING:
    # Inspection searches nothing, and loads what it does not need for nothing.
    from onnxpress.search import Cost

__all__ = ["StageResult"]


@dataclass(frozen=True)
class StageResult:
    """What a pass did and why.

    Attributes:
        pass_: which.
        model: what its stage left; the same object as before when that changed nothing.
        decisions: what it did, by site.
        left: sites it left alone, or treated less strongly than it could, with reasons.
        note: why it changed nothing, or what was given up; empty when all went as proposed.
        measurement: of the model its stage left; `None` when nothing was measured.
        latency: of that model against the one before, where that was measured.
        tried: how many models were measured.
        failed: whether the pass broke its contract, which `note` says.
        costliest: its decisions that cost most fidelity, where there was time to measure it.
        sated: whether more of the budget would have given no more.
        session: of the model, where one was opened; for the stages behind, not for the result.
    """

    pass_: Pass
    model: ir.Model
    decisions: tuple[Decision, ...] = ()
    left: tuple[Skip, ...] = ()
    note: str = ""
    measurement: Measurement | None = None
    latency: Latency | None = None
    tried: int = 0
    failed: bool = False
    costliest: "tuple[Cost, ...]" = ()
    sated: bool = False
    session: Session | None = field(default=None, repr=False, compare=False)

    @property
    def lost(self) -> bool:
        """Whether anything was done that spends of the budget."""
        return self.pass_.stage.loses and bool(self.decisions)
