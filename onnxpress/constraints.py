"""The other kind of budget: how small and how fast a model has to become, and whether it is.

Where constraints are given, as little as possible is lost while they are met (`least_loss`); where
none are, as much is gained as the budget allows.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from onnxpress.errors import UsageError
from onnxpress.memory import bytes_of
from onnxpress.runtime import Latency

__all__ = ["NO_CONSTRAINTS", "Constraints", "Expectation", "Requirement"]

_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|s)?\s*", re.IGNORECASE)
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Requirement:
    """One thing that was asked for, or agreed on.

    Attributes:
        name: of it: `size`, `budget`, `speedup` or `latency`.
        wanted: in words.
        found: in words.
        met: whether it holds.
    """

    name: str
    wanted: str
    found: str
    met: bool


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is predicted of one thing that was asked for, before any search.

    Attributes:
        name: of it, as of a `Requirement`.
        wanted: in words.
        predicted: in words.
        reached: by the prediction; `None`: it says nothing, or does not know all that may be done.
    """

    name: str
    wanted: str
    predicted: str
    reached: bool | None


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a model has to reach.

    Attributes:
        max_size: bytes of the file with its external data.
        min_speedup: how many times as fast as the original, by the median of interleaved rounds.
        max_latency: milliseconds of one run on this machine, by the median of the same.
    """

    max_size: int | None = None
    min_speedup: float | None = None
    max_latency: float | None = None

    @classmethod
    def of(
        cls,
        max_size: str | float | None,
        min_speedup: float | None,
        max_latency: str | float | None,
    ) -> "Constraints":
        """From what users write: `4MB`, `2`, `8ms`.

        Raises:
            UsageError: one of them is no such size, factor or time.
        """
        if min_speedup is not None and not 0 < min_speedup < math.inf:
            raise UsageError(
                f"min speedup is {min_speedup:g}; expected how many times as fast as the original "
                "the model has to be, as 2 [U009]"
            )
        return cls(
            None if max_size is None else bytes_of(max_size, "max size"),
            min_speedup,
            None if max_latency is None else _milliseconds(max_latency),
        )

    def __bool__(self) -> bool:
        return bool(self.table())

    @property
    def timed(self) -> bool:
        """Whether the clock decides about one of them."""
        return self.min_speedup is not None or self.max_latency is not None

    def or_else(self, other: "Constraints") -> "Constraints":
        """These, and of others what is not said here."""
        return Constraints(**(other.table() | self.table()))

    def table(self) -> dict[str, Any]:
        """Those that are given, by name, as a recipe and JSON keep them."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in known.items() if value is not None}

    def excess(self, nbytes: int, latency: Latency) -> float:
        """How many times as large or slow as allowed a model is, by the worst; 1 or less meets all.

        Of speed the slower quartile counts, as the rounds that judge in the end are others.

        Args:
            nbytes: of the file.
            latency: against the original.
        """
        found = [0.0]
        if self.max_size is not None:
            found.append(nbytes / self.max_size)
        if self.min_speedup is not None:
            found.append(self.min_speedup / latency.low)
        if self.max_latency is not None:
            slower = latency.median_ms * latency.speedup / latency.low
            found.append(slower / self.max_latency)
        return max(found)

    def requirements(self, nbytes: int, latency: Latency | None) -> tuple[Requirement, ...]:
        """What became of each.

        Args:
            nbytes: of the file.
            latency: against the original, from rounds that chose nothing; `None`: not timed.
        """
        return tuple(self._requirements(nbytes, latency))

    def _requirements(self, nbytes: int, latency: Latency | None) -> Iterator[Requirement]:
        if self.max_size is not None:
            met = nbytes <= self.max_size
            yield Requirement("size", self._wanted_size, f"{nbytes:,} bytes", met)
        if latency is not None and math.isnan(latency.speedup):
            latency = None
        if self.min_speedup is not None:
            if latency is None:
                yield Requirement("speedup", self._wanted_speedup, "not timed", met=False)
            else:
                found = (
                    f"{latency.speedup:.2f} times as fast (quartiles {latency.low:.2f} to "
                    f"{latency.high:.2f})"
                )
                met = latency.speedup >= self.min_speedup
                yield Requirement("speedup", self._wanted_speedup, found, met)
        if self.max_latency is not None:
            if latency is None:
                yield Requirement("latency", self._wanted_latency, "not timed", met=False)
            else:
                met = latency.median_ms <= self.max_latency
                found = f"{latency.median_ms:.3g} ms"
                yield Requirement("latency", self._wanted_latency, found, met)

    def expectations(
        self, nbytes: int, original_ms: float | None, predicted_ms: float | None, *, whole: bool
    ) -> tuple[Expectation, ...]:
        """What a prediction says of each.

        Args:
            nbytes: predicted, of the file.
            original_ms: of one run of the original; `None`: not known.
            predicted_ms: of one run of the result; `None`: not predicted.
            whole: whether all that may be done is in the prediction; what does not reach a
                constraint by it might otherwise.
        """
        return tuple(self._expectations(nbytes, original_ms, predicted_ms, whole=whole))

    def _expectations(
        self, nbytes: int, original_ms: float | None, predicted_ms: float | None, *, whole: bool
    ) -> Iterator[Expectation]:
        short = False if whole else None
        if self.max_size is not None:
            reached = nbytes <= self.max_size or short
            yield Expectation("size", self._wanted_size, f"about {nbytes:,} bytes", reached)
        if self.min_speedup is not None:
            wanted = self._wanted_speedup
            if original_ms and predicted_ms:
                speedup = original_ms / predicted_ms
                words, reached = f"about {speedup:.1f} times", speedup >= self.min_speedup or short
                yield Expectation("speedup", wanted, words, reached)
            else:
                yield Expectation("speedup", wanted, "no time", None)
        if self.max_latency is not None:
            wanted = self._wanted_latency
            if predicted_ms is None:
                yield Expectation("latency", wanted, "no time", None)
            else:
                reached = predicted_ms <= self.max_latency or short
                yield Expectation("latency", wanted, f"about {predicted_ms:.2g} ms", reached)

    @property
    def _wanted_size(self) -> str:
        return f"at most {self.max_size:,} bytes"

    @property
    def _wanted_speedup(self) -> str:
        return f"at least {self.min_speedup:g} times as fast"

    @property
    def _wanted_latency(self) -> str:
        return f"at most {self.max_latency:g} ms"


NO_CONSTRAINTS = Constraints()


def _milliseconds(asked: str | float) -> float:
    """A time in milliseconds.

    Args:
        asked: a number of them, or with a unit: `8ms`, `500us`, `0.5s`.

    Raises:
        UsageError: it is no such time.
    """
    found = _TIME.fullmatch(f"{asked}")
    if found is None or not float(found[1]):
        raise UsageError(
            f"max latency is {asked!r}; expected a time of one run, as 8ms, 500us or 0.5s [U009]"
        )
    return float(found[1]) * _MILLISECONDS[(found[2] or "ms").lower()]
