"""Which operators compute in half and which in float32, by the error that was measured.

What does not fit in half (`half_range`), and what computes sizes, stays in float32. Then half
arithmetic is emulated (`emulation`). Where less than `AIM_DB` is left, the operators that lose most
are looked for: errors of parts add up, so a model with only a part of it in half shows the part's
share, and the largest share is divided until it is one operator. Those go to float32 until what is
predicted for the rest is enough; emulation has the last word, and more go where it is not.
Between them, what costs fewer Casts in float32 stays there too (`fewest_casts`).
"""

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.conversion.emulation import emulated
from onnxpress.conversion.fewest_casts import kept_in_float32
from onnxpress.conversion.half import key_of, to_half
from onnxpress.conversion.precision import Flow, Slot, Unit
from onnxpress.runtime import Array, Feed, Session

__all__ = ["AIM_DB", "Mixed", "emulated_db", "mixed", "operators"]

AIM_DB = 50.0
"""What half arithmetic shall leave of every output on the samples that choose."""
_MOST_PROBES = 160
_PARTS = 8
_WHOLE = 1e9
"""The share of a part that gives no number."""
_ROUNDS = 4

_Answers = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class Mixed:
    """A model in half precision, partly.

    Attributes:
        model: as it is written, with float32 inputs and outputs.
        lossy: operators that lose too much, and the dB that each leaves if it alone is half.
        between: how many more are in float32 because that costs fewer Casts.
        emulated_db: what half arithmetic leaves of the worst output on the samples that chose.
    """

    model: ir.Model
    lossy: Mapping[Unit, float]
    between: int
    emulated_db: float


def mixed(model: ir.Model, flow: Flow, wide: Collection[Unit], feeds: Sequence[Feed]) -> Mixed:
    """Choose the precision of every unit.

    Args:
        model: as `prepared` gives it; not changed.
        flow: of it.
        wide: units that have to stay in float32.
        feeds: samples to choose by; without any nothing but `wide` stays.
    """
    wanted = _answers(Session(model), feeds)
    lossy: dict[Unit, float] = {}
    search = _Search(model, flow, wide, feeds, wanted)
    allowed = 10 ** (-AIM_DB / 10)
    for _ in range(_ROUNDS):
        half, kept = _with(model, flow, {*wide, *lossy})
        lost = _lost(wanted, feeds, half) if feeds else 0.0
        if lost <= 10 ** (-AIM_DB / 10):
            break
        # Shares of parts that are computed one after the other may be worth more together.
        allowed /= 2
        lossy.update(search.largest(allowed))
    between = len(kept) - len({*wide, *lossy})
    return Mixed(half, lossy, between, _db(lost))


def emulated_db(model: ir.Model, original: Session, feeds: Sequence[Feed]) -> float:
    """What half arithmetic leaves of the worst float output, pooled over samples; -inf for NaN."""
    return _db(_lost(_answers(original, feeds), feeds, model))


def _with(model: ir.Model, flow: Flow, wide: Collection[Unit]) -> tuple[ir.Model, frozenset[Unit]]:
    kept = kept_in_float32(flow, wide)
    return to_half(model, {key_of(unit) for unit in flow.units if unit not in kept}), kept


class _Search:
    """Parts of the operators and the share of the outputs' power that each loses, largest first."""

    def __init__(
        self,
        model: ir.Model,
        flow: Flow,
        wide: Collection[Unit],
        feeds: Sequence[Feed],
        wanted: _Answers,
    ) -> None:
        self._model, self._feeds, self._wanted = model, feeds, wanted
        self._probes = 0
        self._found: dict[Unit, float] = {}
        units = [unit for unit in flow.units if unit not in wide]
        self._heap: list[tuple[float, int, list[Unit]]] = [(-_WHOLE, 0, units)]

    def largest(self, allowed: float) -> dict[Unit, float]:
        """Units without which the rest loses no more, with the dB that each leaves alone."""
        while self._heap and -sum(share for share, _, _ in self._heap) > allowed:
            share, _, units = heapq.heappop(self._heap)
            if len(units) == 1 or self._probes >= _MOST_PROBES:
                self._found.update(dict.fromkeys(units, _db(-share)))
                continue
            size = -(-len(units) // (_PARTS if not self._probes else 2))
            for start in range(0, len(units), size):
                self._probe(units[start : start + size])
        return dict(self._found)

    def _probe(self, units: list[Unit]) -> None:
        self._probes += 1
        half = to_half(self._model, {key_of(unit) for unit in units})
        share = min(_lost(self._wanted, self._feeds, half), _WHOLE)
        if share:
            heapq.heappush(self._heap, (-share, self._probes, units))


def _lost(wanted: _Answers, feeds: Sequence[Feed], half: ir.Model) -> float:
    """The share of the power of the worst float output that half arithmetic loses."""
    found = _answers(Session(emulated(half), optimize=False), feeds)
    worst = 0.0
    for name, first in wanted[0].items():
        if not np.issubdtype(first.dtype, np.floating):
            continue
        noise = power = 0.0
        for one, other in zip(wanted, found, strict=True):
            if one[name].shape != other[name].shape:
                return math.inf
            reference = np.asarray(one[name], np.float64)
            known = np.isfinite(reference)
            error = np.asarray(other[name], np.float64)[known] - reference[known]
            noise += float(np.sum(np.square(error)))
            power += float(np.sum(np.square(reference[known])))
        if not math.isfinite(noise):
            return math.inf
        worst = max(worst, noise / power if power else float(noise > 0))
    return worst


def _answers(session: Session, feeds: Sequence[Feed]) -> _Answers:
    return [session.run(feed) for feed in feeds]


def _db(share: float) -> float:
    return -10 * math.log10(share) if share else math.inf


def operators(units: Collection[Unit]) -> int:
    """How many of some units are operators, and not places where bodies begin and end."""
    return sum(not isinstance(unit, Slot) for unit in units)


