"""In how many bits a weight may be stored that is expanded when a model is loaded.

The 8-bit form has a scale for each channel (`storing`, `integers`); forms of fewer bits have one
for each block (`low_bits`), and levels of several kinds. Which a weight gets is the search's
choice, or a setting's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Layer,
    Parameter,
    RecipeError,
    StoredWeight,
    shift_bias,
)
from onnxpress.errors import UsageError
from onnxpress.passes.quantize.block_operators import (
    BLOCK_SIZES,
    BLOCKED_BITS,
    OPERATORS,
    is_block,
    operator_for,
    write_blocks,
)
from onnxpress.passes.quantize.levels import Kind, Layout
from onnxpress.passes.quantize.low_bit_weights import blocks_of, low_bit_weight, often_rows
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.unpacking import nodes_bytes, write_low_bits
from onnxpress.passes.quantize.writing import write_stored, write_weight_only
from onnxpress.targets import Target

__all__ = ["STORED_FAMILIES", "StoredForms", "write_weights"]

_BYTE = 8
_LEAST_BLOCK = 8
_NODE_BYTES = 400
"""Of a node in place of another, and its constants."""
_OFTEN_BYTES = 12
"""Of a row in 8 bits beside its integers: its number and its scale."""
KINDS: tuple[Kind, ...] = get_args(Kind)


def _family(bits: int, kind: Kind) -> str:
    return f"weight_only_{bits}_bit" + ("" if kind == "uniform" else f"_{kind}")


def _in_blocks(bits: int, layout: Layout) -> str:
    return f"weight_only_{bits}_bit_{layout}"


_LOW: dict[str, tuple[int, Kind, Layout]] = {
    **{_family(bits, kind): (bits, kind, "packed") for kind in KINDS for bits in range(2, _BYTE)},
    **{
        _in_blocks(bits, layout): (bits, "uniform", layout)
        for layout, widths in BLOCKED_BITS.items()
        for bits in widths
    },
}
"""Families of candidates below 8 bits, or in blocks for operators."""
STORED_FAMILIES = ("weight_only", *_LOW)
"""Families of candidates that are only stored."""


@dataclass(frozen=True, slots=True)
class StoredForms:
    """What the settings allow.

    Attributes:
        bits: of the forms that were asked for; none: 8.
        block_size: of those below 8 bits.
        symmetric: whether these have no zero points.
        kinds: how the levels of these may lie; none: uniformly.
        shifts: whether their steps are powers of two.
        layout: what reads them where the target and the weight allow it.
    """

    bits: tuple[int, ...]
    block_size: int
    symmetric: bool
    kinds: tuple[Kind, ...] = ()
    shifts: bool = False
    layout: Layout = "packed"

    @property
    def counts_lookups(self) -> bool:
        """Whether it matters which rows of an embedding are looked up."""
        return self.layout == "packed" and any(bits < _BYTE for bits in self.bits)

    def conflict(self) -> str | None:
        """Blocks whose scales take what is saved, or that no operator reads."""
        if 0 < self.block_size < _LEAST_BLOCK:
            return f"block_size is {self.block_size}; expected 0 or at least {_LEAST_BLOCK}"
        if self.layout == "packed":
            return None
        if not is_block(self.block_size):
            return (
                f"block_size is {self.block_size} and stored_as {self.layout}; expected "
                f"{BLOCK_SIZES}"
            )
        if set(self.kinds) - {"uniform"}:
            return f"stored_as is {self.layout}, which has uniform levels only"
        widths = BLOCKED_BITS[self.layout]
        if self.bits and not set(self.bits) & set(widths):
            return (
                f"stored_as is {self.layout}, which has no weights of "
                f"{', '.join(map(str, self.bits))} bits; expected {', '.join(map(str, widths))}"
            )
        return None

    def refuse(self, target: Target) -> None:
        """Complain where a target computes with no operator that reads weights so.

        Raises:
            UsageError: what it has.
        """
        wanted, own = OPERATORS[self.layout], target.low_bit_operators
        if wanted and not own & set(wanted):
            has = ", ".join(sorted(own)) or "no operator for weights in blocks"
            fits = [name for name, operators in OPERATORS.items() if own & set(operators)]
            raise UsageError(
                f"quantize: stored_as is {self.layout!r}, which needs {' or '.join(wanted)}, and "
                f"target {target.name} has {has}; expected {' or '.join(['packed', *fits])}"
            )

    def offered(
        self, context: Context, weight: Layer | StoredWeight, of_bytes: Candidate
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Forms below 8 bits as far as they save more than 8, the smallest first; and the latter.

        Of kinds of levels with as many bits each weight gets the one that errs least, where a bit a
        weight more has to make the error four times less. Where no form does, 8 bits are offered
        although others were asked for.

        Args:
            context: of the proposal.
            weight: finite, with elements.
            of_bytes: its 8-bit form.
        """
        served = self._in_blocks(context, weight)
        if served:
            return served, []
        low: list[Candidate] = []
        often = often_rows(context, weight)
        kept = context.untried and _BYTE in self.bits
        for bits in () if kept else sorted({bits for bits in self.bits if bits < _BYTE}):
            forms = [
                LowBitForm(bits, self.block_size, self.symmetric, kind, self.shifts)
                for kind in dict.fromkeys(self.kinds or KINDS[:1])
            ]
            saved = {form: _saved(weight, form, len(often)) for form in forms}
            forms = [form for form in forms if saved[form] > of_bytes.saved_bytes]
            if not forms:
                continue
            # Which kind fits takes the numbers.
            blind = context.shapes_only or (context.survey and len(forms) == 1)
            errors = {
                form: 0.0 if blind else low_bit_weight(context, weight, form).error
                for form in forms
            }
            size = math.prod(weight.shape)
            best = min(forms, key=lambda form: errors[form] * 4 ** (-_BYTE * saved[form] / size))
            low.append(self._candidate(best, errors[best], saved[best]))
        stays = not self.bits or _BYTE in self.bits or not low
        return low, [of_bytes] if stays else []

    def _in_blocks(self, context: Context, weight: Layer | StoredWeight) -> list[Candidate]:
        """For operators that read blocks, the smallest first; none where none does."""
        found = []
        # What is not tried cannot be taken back where it loses too much.
        kept = not self.bits or (context.untried and _BYTE in self.bits)
        for bits in (_BYTE,) if kept else sorted(set(self.bits)):
            form = LowBitForm(
                bits, self.block_size, self.symmetric, "uniform", self.shifts, self.layout
            )
            if operator_for(context, weight, form) is None:
                continue
            saved = weight.nbytes - blocks_of(weight, form).nbytes(form) - _NODE_BYTES
            if saved > 0:
                error = 0.0 if context.survey else low_bit_weight(context, weight, form).error
                found.append(self._candidate(form, error, saved))
        return found

    def _candidate(self, form: LowBitForm, error: float, saved: int) -> Candidate:
        parameters: dict[str, Parameter] = {
            "block_size": self.block_size,
            "symmetric": self.symmetric,
        }
        if self.shifts:
            parameters["power_of_two_scales"] = True
        family = _family(form.bits, form.kind)
        if form.layout != "packed":
            family = _in_blocks(form.bits, form.layout)
        keeps = form.layout == "packed"
        return Candidate(parameters, error, saved, family=family, keeps_kernels=keeps)


def _saved(weight: Layer | StoredWeight, form: LowBitForm, often: int) -> int:
    """Bytes, with so many rows in 8 bits beside."""
    saved = weight.nbytes - blocks_of(weight, form).nbytes(form) - nodes_bytes(form)
    return saved - often * (weight.shape[-1] + _OFTEN_BYTES)


def write_weights(context: Context, decisions: Sequence[Decision]) -> None:
    """Put integers in the place of weights alone, whoever reads them.

    Raises:
        RecipeError: a decision means nothing for this model.
    """
    if not decisions:
        return
    stored = {item.name: item for item in context.stored}
    for decision in decisions:
        for name in decision.layers:
            weight = stored.get(name) or context.layer(name)
            if isinstance(weight, Layer) and context.is_idle(weight):
                continue
            if decision.candidate.family in _LOW:
                _write_low_bits(context, weight, _form(decision.candidate))
            elif isinstance(weight, Layer):
                write_weight_only(context, weight)
            else:
                write_stored(context, weight)


def _form(candidate: Candidate) -> LowBitForm:
    given = candidate.parameters
    size, symmetric = given.get("block_size", 32), given.get("symmetric", True)
    shifts = given.get("power_of_two_scales", False)
    if type(size) is not int or size < 0 or type(symmetric) is not bool or type(shifts) is not bool:
        raise RecipeError(
            f"a decision of {candidate.family} has block_size = {size!r}, symmetric = "
            f"{symmetric!r} and power_of_two_scales = {shifts!r}; expected a whole number from 0 "
            "up, and true or false twice [R004]"
        )
    bits, kind, layout = _LOW[candidate.family]
    if layout != "packed" and not is_block(size):
        raise RecipeError(
            f"a decision of {candidate.family} has block_size = {size}; expected {BLOCK_SIZES}"
        )
    return LowBitForm(bits, size, symmetric, kind, shifts, layout)


def _write_low_bits(context: Context, weight: Layer | StoredWeight, form: LowBitForm) -> None:
    if form.layout != "packed" and operator_for(context, weight, form) is None:
        raise RecipeError(
            f"a decision stores {weight.name} in {form.bits} bits as {form.layout}, which no "
            f"operator of target {context.target.name} reads there; expected another form"
        )
    rounded = low_bit_weight(context, weight, form)
    if rounded.offset is not None and isinstance(weight, Layer):
        shift_bias(context.names, context.model.graph, weight.node, rounded.offset)
    if form.layout == "packed":
        write_low_bits(context, weight.weight, weight.graph, rounded.weight)
    else:
        write_blocks(context, weight, rounded.weight)
