"""Which operators compute in half and which in float32, by the error that was measured.

What does not fit in half (`half_range`), and what computes sizes, stays in float32. Then half
arithmetic is emulated (`emulation`). Where less than `AIM_DB` is left, the operators that lose most
(`shares`) go to float32 until what is predicted for the rest is enough; emulation has the last
word, and more go where it is not. Between them, what costs fewer Casts in float32 stays there too
(`fewest_casts`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.conversion.emulation import emulated
from onnxpress.conversion.fewest_casts import kept_in_float32
from onnxpress.conversion.half import key_of, to_half
from onnxpress.conversion.half_storage import stored_in_half
from onnxpress.conversion.precision import Flow, Unit
from onnxpress.conversion.shares import Answers, answers, decibels, left_out, lost
from onnxpress.runtime import Feed, Session

__all__ = ["AIM_DB", "Mixed", "emulated_db", "mixed"]

AIM_DB = 46.0
"""What half arithmetic shall leave of every output on the choosing samples that lose most."""


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


def mixed(
    model: ir.Model,
    flow: Flow,
    wide: Collection[Unit],
    exact_weights: Collection[str],
    feeds: Sequence[Feed],
) -> Mixed:
    """Choose the precision of every unit.

    Args:
        model: as `prepared` gives it; not changed.
        flow: of it.
        wide: units that have to stay in float32.
        exact_weights: of float32 operators, which are not stored in half either.
        feeds: samples to choose by; without any nothing but `wide` stays.

    Raises:
        ModelError: onnxruntime cannot run the model or what was made of it.
    """

    def changed(narrow: Collection[Unit], some: Sequence[Feed]) -> Answers:
        return _emulated_answers(to_half(model, {key_of(unit) for unit in narrow}), some)

    def mixture(lossy: Collection[Unit]) -> ir.Model:
        kept = kept_in_float32(flow, {*wide, *lossy})
        half = to_half(model, {key_of(unit) for unit in flow.units if unit not in kept})
        return stored_in_half(half, exact_weights)[0]

    def without(lossy: Collection[Unit], some: Sequence[Feed]) -> Answers:
        return _emulated_answers(mixture(lossy), some)

    wanted = answers(Session(model), feeds)
    units = [unit for unit in flow.units if unit not in wide]
    lossy, whole = left_out(units, changed, without, wanted, feeds, AIM_DB)
    kept = kept_in_float32(flow, {*wide, *lossy})
    alone = {unit: decibels(part) for unit, part in lossy.items()}
    return Mixed(mixture(lossy), alone, len(kept) - len({*wide, *lossy}), decibels(whole))


def emulated_db(model: ir.Model, original: Session, feeds: Sequence[Feed]) -> float:
    """What half arithmetic leaves of the worst float output, pooled over samples; -inf for NaN."""
    return decibels(lost(answers(original, feeds), _emulated_answers(model, feeds)))


def _emulated_answers(half: ir.Model, feeds: Sequence[Feed]) -> Answers:
    return answers(Session(emulated(half), optimize=False), feeds)
