"""What searches found out about the choices of one model, for the next search of the same.

Where untouched samples show that too much was lost, a plan is followed again with less of the
budget. What candidates are there, how fast they are and what they cost is the same then.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxpress.contract import Context, Decision
from onnxpress.judge import Measurement
from onnxpress.pool import PoolOffer
from onnxpress.runtime import Latency
from onnxpress.search.trial import Choice, Clocked, Magnifications

__all__ = ["Findings", "seen_of"]


@dataclass
class Findings:
    """Of one pool on one model; what follows is by what a rewrite sees of a choice.

    Attributes:
        context: of the model.
        offer: what the pool proposes for it, where no pass failed.
        measurements: of choices, by `seen_of`; without those that hold answers, as metrics of whole
            sets do.
        screened: measurements of single changes on few samples, by `seen_of`.
        noises: of choices, by `seen_of` and the number of samples.
        clocked: drafts, by `seen_of`.
        latencies: of choices, by `seen_of`.
        layers: latencies of layers alone, by what they depend on; `None` where they cannot be run.
        refits: choices that were fitted again, by `seen_of`: they take longest to be built.
        magnifications: of errors at the outputs, which all models that the pool meets share.
    """

    context: Context | None = None
    offer: PoolOffer | None = None
    measurements: dict[Hashable, Measurement] = field(default_factory=dict)
    screened: dict[Hashable, Measurement] = field(default_factory=dict)
    noises: dict[Hashable, float] = field(default_factory=dict)
    clocked: dict[Hashable, Clocked] = field(default_factory=dict)
    latencies: dict[Hashable, Latency] = field(default_factory=dict)
    layers: dict[Hashable, Latency | None] = field(default_factory=dict)
    refits: dict[Hashable, ir.Model] = field(default_factory=dict)
    magnifications: Magnifications = field(default_factory=dict)

    def note(self, choice: Choice, measurement: Measurement) -> None:
        """Remember a measurement that takes little memory."""
        if all(figure.whole is None for figure in measurement.metrics):
            self.measurements[seen_of(choice)] = measurement


def seen_of(choice: Sequence[Decision]) -> Hashable:
    """What a rewrite sees of a choice; predictions and savings it does not."""
    return tuple(
        (
            decision.site,
            decision.candidate.pass_name,
            decision.candidate.family,
            decision.candidate.members,
            decision.candidate.refined,
            tuple(sorted(decision.candidate.parameters.items())),
        )
        for decision in choice
    )
