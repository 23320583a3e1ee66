"""Targets are data: what a provider accepts, one TOML file each, read and checked here."""

import dataclasses
import functools
import tomllib
from importlib import resources
from pathlib import Path

from onnxpress.errors import UsageError

__all__ = ["Target", "load_target", "processor_features", "target_names"]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What a provider accepts.

    Attributes:
        name: of the file.
        description: one line.
        provider: onnxruntime's name of the execution provider.
        activation_type: `uint8` or `int8`.
        weight_type: `int8` or `uint8`.
        per_channel: whether weights may have a scale per output channel.
        weight_bits: 8, or 7 where 8 would saturate in 16-bit sums.
        blocked_layout: whether the provider keeps convolutions in a blocked layout of its own,
            so that operators between them which it computes outside cost two conversions.
        rank_quantum: ranks below the next multiple cost what the multiple costs.
        channel_quantum: the same for channel counts of convolutions.
        quantized_operators: operators that have an integer kernel between Q and DQ.
        minimum_opset: what the integer forms need.
    """

    name: str
    description: str
    provider: str
    activation_type: str
    weight_type: str
    per_channel: bool
    weight_bits: int
    blocked_layout: bool
    rank_quantum: int
    channel_quantum: int
    quantized_operators: frozenset[str]
    minimum_opset: int


@functools.cache
def processor_features() -> frozenset[str]:
    """Flags of this machine's processor as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def target_names() -> list[str]:
    """Names of the targets that have a file."""
    folder = resources.files("onnxpress.targets")
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """Read a target's file and fit it to this machine's processor where the file says so.

    Raises:
        UsageError: there is no such target.
    """
    if name not in target_names():
        raise UsageError(f"there is no target {name!r} (there are: {', '.join(target_names())})")
    text = resources.files("onnxpress.targets").joinpath(f"{name}.toml").read_text("utf-8")
    table = tomllib.loads(text)
    unless = table.pop("unless_processor_has", {})
    if unless and not processor_features() & set(unless.pop("any_of")):
        table.update(unless)
    table["quantized_operators"] = frozenset(table["quantized_operators"])
    wanted = {field.name for field in dataclasses.fields(Target)} - {"name"}
    if set(table) != wanted:
        raise UsageError(
            f"target {name!r}: its file has {sorted(table)}; expected {sorted(wanted)}"
        )
    return Target(name=name, **table)
