"""What a provider did with a model: five different answers, and the figures behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from onnxpress.judge import Measurement
from onnxpress.runtime import Latency

__all__ = ["Placement", "ProviderVerdict", "Status", "unmet"]


class Status(StrEnum):
    """Only `RAN` and `EMULATED` prove something; `STATIC` is what the provider's rules say."""

    RAN = "ran"
    EMULATED = "emulated"
    STATIC = "static"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Placement:
    """What the provider took of the model.

    Attributes:
        nodes: in the graph that onnxruntime split, without constants.
        placed: of these on the provider.
        multiply_add_share: of one run's multiply-adds, 0 to 1; by nodes where there are none.
        partitions: compiled pieces; `None` where the provider runs node by node.
        left: operators that stayed elsewhere, and how many nodes.
    """

    nodes: int
    placed: int
    multiply_add_share: float
    partitions: int | None = None
    left: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProviderVerdict:
    """One provider's answer.

    Attributes:
        provider: its name.
        status: which of the five.
        detail: by what it is emulated, why it is absent and how to get it, what failed.
        versions: of what ran, by name.
        placement: `None` where nothing ran and no rules are known.
        measurement: against the original in float, on the samples that ran.
        exact_sqnr_db: worst output against the same model computed exactly on the CPU.
        floor_db: worst output of the original on the provider: its own rounding.
        latency: of the model against the original on this provider; `None` under emulation.
        integer_kernels: which computed in integers, and how many; `None`: cannot be seen.
        warnings: what the user should know, in sentences.
        advice: what would make the provider take more, in sentences.
        seconds: how long the check took.
    """

    provider: str
    status: Status
    detail: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    placement: Placement | None = None
    measurement: Measurement | None = None
    exact_sqnr_db: float | None = None
    floor_db: float | None = None
    latency: Latency | None = None
    integer_kernels: Mapping[str, int] | None = None
    warnings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether the model really ran there."""
        return self.status in (Status.RAN, Status.EMULATED)

    def __str__(self) -> str:
        return f"{self.status} ({self.detail})" if self.detail else str(self.status)


def unmet(verdicts: Sequence[ProviderVerdict], required: Sequence[str]) -> list[str]:
    """For each required provider that did not run, a sentence."""
    found = {verdict.provider: verdict for verdict in verdicts}
    return [
        f"required provider {name} did not run the model: {found[name]}"
        for name in required
        if not found[name].counts
    ]
