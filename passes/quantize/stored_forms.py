"""In how many bits a weight may be stored that is expanded when a model is loaded.

The 8-bit form has a scale for each channel (`storing`, `integers`); forms of fewer bits have one
for each block (`low_bits`), and levels of several kinds. Which a weight gets is the search's
choice, or a setting's.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Layer,
    RecipeError,
    StoredWeight,
    shift_bias,
)
from onnxpress.errors import UsageError
from onnxpress.graph import standard_opset
from onnxpress.passes.quantize.block_operators import (
    BLOCK_SIZES,
    BLOCKED_BITS,
    OPERATORS,
    is_block,
    operator_for,
    write_blocks,
)
from onnxpress.passes.quantize.forms import (
    BYTE,
    KINDS,
    LOW_FAMILIES,
    form_of,
    kernel_family,
    parameters_of,
    stored_family,
)
from onnxpress.passes.quantize.levels import Kind, Layout
from onnxpress.passes.quantize.low_bit_weights import (
    LARGE,
    blocks_of,
    is_centred,
    low_bit_weight,
    often_rows,
)
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.unpacking import integer_nodes_bytes, nodes_bytes, write_low_bits
from onnxpress.passes.quantize.writing import write_stored, write_weight_only
from onnxpress.targets import Target

__all__ = ["STORED_FAMILIES", "StoredForms", "write_weights"]

_LEAST_BLOCK = 8
_ROUND_OPSET = 11
_NODEBYTES = 400
"""Of a node in place of another, and its constants."""
_OFTENBYTES = 12
"""Of a row in 8 bits beside its integers: its number and its scale."""
STORED_FAMILIES = ("weight_only", *LOW_FAMILIES)
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
        return self.layout == "packed" and any(bits < BYTE for bits in self.bits)

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

        Of kinds of levels with as many bits each weight gets the one that errs least. Where no form
        does, 8 bits are offered although others were asked for.

        Args:
            context: of the proposal.
            weight: finite, with elements.
            of_bytes: its 8-bit form.
        """
        served = self._in_blocks(context, weight)
        if served:
            return served, []
        low: list[Candidate] = []
        often = len(often_rows(context, weight))
        for plain in self._packed(context):
            forms = [replace(f, centred=is_centred(context, weight, f)) for f in plain]
            more = {form: _saved(weight, form, often) - of_bytes.saved_bytes for form in forms}
            best = self._fitting(
                context, weight, more, lambda form: low_bit_weight(context, weight, form).error
            )
            if best is not None:
                form, error = best
                low.append(_candidate(form, error, of_bytes.saved_bytes + more[form]))
        return low, [of_bytes] if self._keeps_bytes(low) else []

    def _in_blocks(self, context: Context, weight: Layer | StoredWeight) -> list[Candidate]:
        """For operators that read blocks, the smallest first; none where none does."""
        found = []
        # What is not tried cannot be taken back where it loses too much.
        kept = not self.bits or (context.untried and BYTE in self.bits)
        for bits in (BYTE,) if kept else sorted(set(self.bits)):
            form = LowBitForm(
                bits, self.block_size, self.symmetric, "uniform", self.shifts, self.layout
            )
            if operator_for(context, weight, form) is None:
                continue
            saved = weight.nbytes - blocks_of(weight, form).nbytes(form) - _NODEBYTES
            if saved > 0:
                error = 0.0 if context.survey else low_bit_weight(context, weight, form).error
                found.append(_candidate(form, error, saved))
        return found

    def unread(self, context: Context, weight: Layer | StoredWeight) -> str | None:
        """Why a weight is packed where operators should read blocks; `None`: one does, or need not.

        DequantizeLinear in blocks before a Conv is valid, but not folded at load: it took up to
        half of the Conv's time again (onnxruntime 1.32), for what `packed` stores as small.
        """
        bits = self.bits or (BYTE,)
        forms = [LowBitForm(b, self.block_size, layout=self.layout) for b in bits]
        if self.layout == "packed" or any(operator_for(context, weight, form) for form in forms):
            return None
        return (
            f"{weight.op_type} has no operator that reads its weight as {self.layout}; it is "
            "packed, and expanded at load [Q014]"
        )

    def kernels(
        self,
        context: Context,
        layer: Layer,
        of_bytes: Candidate,
        error_of: Callable[[LowBitForm], float],
    ) -> list[Candidate]:
        """An integer kernel's candidates of fewer bits in the file, the smallest first.

        Where 8 bits are not among those that were asked for and a form saves more, the kernel's
        8-bit candidate is not among them.

        Args:
            context: of the proposal.
            layer: with a kernel for integers.
            of_bytes: the kernel's candidate with 8 bits in the file.
            error_of: what is predicted of a form, activations included.
        """
        low: list[Candidate] = []
        fits = standard_opset(context.model) >= _ROUND_OPSET and math.prod(layer.shape) <= LARGE
        for forms in self._packed(context) if fits else ():
            size = math.prod(layer.shape)
            more = {
                form: size - blocks_of(layer, form).nbytes(form) - integer_nodes_bytes(form)
                for form in forms
            }
            best = self._fitting(context, layer, more, error_of)
            if best is not None:
                form, error = best
                family = kernel_family(of_bytes.family, form)
                saved = of_bytes.saved_bytes + more[form]
                parameters = {**of_bytes.parameters, **parameters_of(form)}
                low.append(Candidate(parameters, error, saved, family=family))
        return [*low, of_bytes] if self._keeps_bytes(low) else low

    def _packed(self, context: Context) -> Iterator[list[LowBitForm]]:
        """Forms below 8 bits, those of as many bits together."""
        # What is not tried cannot be taken back where it loses too much.
        kept = context.untried and BYTE in self.bits
        for bits in () if kept else sorted({bits for bits in self.bits if bits < BYTE}):
            yield [
                LowBitForm(bits, self.block_size, self.symmetric, kind, self.shifts)
                for kind in dict.fromkeys(self.kinds or KINDS[:1])
            ]

    @staticmethod
    def _fitting(
        context: Context,
        weight: Layer | StoredWeight,
        saved: Mapping[LowBitForm, int],
        error_of: Callable[[LowBitForm], float],
    ) -> tuple[LowBitForm, float] | None:
        """Of forms that save something the one that errs least, with its error.

        A bit a weight more has to make the error four times less.
        """
        forms = [form for form, more in saved.items() if more > 0]
        # Which kind fits takes the numbers.
        blind = context.shapes_only or (context.survey and len(forms) == 1)
        errors = {form: 0.0 if blind else error_of(form) for form in forms}
        if not forms:
            return None
        size = math.prod(weight.shape)
        best = min(forms, key=lambda form: errors[form] * 4 ** (-BYTE * saved[form] / size))
        return best, errors[best]

    def _keeps_bytes(self, low: Sequence[Candidate]) -> bool:
        """Whether 8 bits are a candidate beside those of fewer."""
        return not self.bits or BYTE in self.bits or not low


def _candidate(form: LowBitForm, error: float, saved: int) -> Candidate:
    keeps = form.layout == "packed"
    return Candidate(
        parameters_of(form), error, saved, family=stored_family(form), keeps_kernels=keeps
    )


def _saved(weight: Layer | StoredWeight, form: LowBitForm, often: int) -> int:
    """Bytes, with so many rows in 8 bits beside."""
    saved = weight.nbytes - blocks_of(weight, form).nbytes(form) - nodes_bytes(form)
    return saved - often * (weight.shape[-1] + _OFTENBYTES)


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
            if decision.candidate.family in LOW_FAMILIES:
                _write_low_bits(context, weight, form_of(decision.candidate))
            elif isinstance(weight, Layer):
                write_weight_only(context, weight)
            else:
                write_stored(context, weight)


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
