"""The table of latencies: what each node took on a machine.

A row's key is operator, attributes and types with those around it, and sizes (`keys`); the table's
own is the processor, the threads and the version of onnxruntime. A row that is there stays, so that
nothing is measured twice and the same table gives the same choices, and figures lie on a grid that
is coarser than the noise of a clock. After ZipLM's latency table (2302.04089, section 3.2).
"""

import functools
import hashlib
import math
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime as ort

from onnxpress.costs.keys import NodeKey

__all__ = ["CostTable", "Machine", "ModelTime", "Row", "on_grid", "this_machine"]

_STEPS = 32
"""Of the grid in a doubling: 2.2%, about what two medians of the same kernel differ by."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What all rows of a table have in common.

    Attributes:
        processor: its name, and a digest of the instructions that it knows.
        threads: of onnxruntime.
        onnxruntime: version.
    """

    processor: str
    threads: int
    onnxruntime: str


@dataclass(frozen=True, slots=True)
class Row:
    """What a node took.

    Attributes:
        operator: type.
        contexts: see `NodeKey`; likewise the other parts of the key.
        sizes: of what it reads and gives.
        multiply_adds: of one run.
        nbytes: that it reads and writes.
        microseconds: of one run of the model; 0 where it is fused into another node.
        integer: whether it reads what was integers.
    """

    operator: str
    contexts: tuple[str, ...]
    sizes: str
    multiply_adds: int
    nbytes: int
    microseconds: float
    integer: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Under which a table holds it."""
        return self.contexts[-1], self.sizes


@dataclass(frozen=True, slots=True)
class ModelTime:
    """What a whole model took.

    Attributes:
        microseconds: of one run, without a profile.
        nodes: the sum of its rows, in microseconds.
        inputs: shapes by name.
    """

    microseconds: float
    nodes: float
    inputs: Mapping[str, tuple[int, ...]]


@dataclass
class CostTable:
    """Rows by what they depend on.

    Attributes:
        machine: that they are of.
        rows: by `Row.key`, the oldest first.
        models: whole models by a digest of their keys.
        note: why a file on disk was not used; empty where it was, or there is none.
    """

    machine: Machine
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    models: dict[str, ModelTime] = field(default_factory=dict)
    note: str = ""
    _alike: dict[str, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index()

    def add(self, rows: Iterable[Row]) -> None:
        """Take what is not there yet, on the grid; rows of one key as their median."""
        together: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            if row.key not in self.rows:
                together[row.key].append(row)
        for key, same in together.items():
            middle = statistics.median(row.microseconds for row in same)
            self.rows[key] = replace(same[0], microseconds=on_grid(middle))
        if together:
            self._index()

    def exact(self, key: NodeKey) -> float | None:
        """Microseconds of a node of the same sizes in the same context, the most precise."""
        found = self.rows.get((key.contexts[-1], key.sizes))
        return None if found is None else found.microseconds

    def alike(self, key: NodeKey) -> Sequence[Row]:
        """Rows of the same operator and types, in whatever context, of whatever sizes."""
        return self._alike.get(key.contexts[0], ())

    def _index(self) -> None:
        alike: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows.values():
            alike[row.contexts[0]].append(row)
        self._alike = dict(alike)


def on_grid(value: float) -> float:
    """The nearest point of a grid of equal ratios, which noise seldom leaves; 0 stays."""
    if value <= 0:
        return 0.0
    return float(f"{2 ** (round(math.log2(value) * _STEPS) / _STEPS):.4g}")


def this_machine(threads: int = 0) -> Machine:
    """The machine that this process runs on.

    Args:
        threads: of onnxruntime; 0: as many as it takes by itself, all cores.
    """
    return Machine(_processor(), threads or _cores(), ort.__version__)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@functools.cache
def _processor() -> str:
    """Its name and a digest of what it knows: virtual processors of one name differ in that."""
    told: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            told[name.strip().lower()] = value.strip()
    except OSError:
        pass
    name = told.get("model name") or platform.processor() or platform.machine()
    kinds = ("cpu family", "model", "flags", "features", "cpu part")
    known = "|".join(told.get(kind, "") for kind in kinds)
    return f"{name} {hashlib.sha256(known.encode()).hexdigest()[:8]}"
