"""Names of the forms below 8 bits in plans and recipes, and what is written of them there."""

from typing import get_args

from onnxpress.contract import Candidate, Parameter, RecipeError
from onnxpress.passes.quantize.block_operators import BLOCK_SIZES, BLOCKED_BITS, is_block
from onnxpress.passes.quantize.levels import Kind, Layout
from onnxpress.passes.quantize.low_bits import LowBitForm

__all__ = [
    "BYTE",
    "KERNEL_FAMILIES",
    "KINDS",
    "LOW_FAMILIES",
    "form_of",
    "kernel_family",
    "parameters_of",
    "stored_family",
]

BYTE = 8
"""Bits of what a form of fewer is compared with."""
KINDS: tuple[Kind, ...] = get_args(Kind)


def _suffix(bits: int, kind: Kind) -> str:
    return f"_{bits}_bit" + ("" if kind == "uniform" else f"_{kind}")


_PACKED: dict[str, tuple[int, Kind, Layout]] = {
    _suffix(bits, kind): (bits, kind, "packed") for kind in KINDS for bits in range(2, BYTE)
}
LOW_FAMILIES: dict[str, tuple[int, Kind, Layout]] = {
    **{f"weight_only{suffix}": form for suffix, form in _PACKED.items()},
    **{
        f"weight_only_{bits}_bit_{layout}": (bits, "uniform", layout)
        for layout, widths in BLOCKED_BITS.items()
        for bits in widths
    },
}
"""Of weights that are only stored, or that operators read in blocks."""
KERNEL_FAMILIES: dict[str, str] = {
    f"{kernel}{suffix}": kernel for kernel in ("static", "dynamic") for suffix in _PACKED
}
"""Of weights that are unpacked to the integers of a kernel, and which kernel that is."""


def stored_family(form: LowBitForm) -> str:
    """Of a weight that is only stored."""
    if form.layout != "packed":
        return f"weight_only_{form.bits}_bit_{form.layout}"
    return f"weight_only{_suffix(form.bits, form.kind)}"


def kernel_family(kernel: str, form: LowBitForm) -> str:
    """Of a weight that is unpacked to the integers of a kernel: static or dynamic."""
    return f"{kernel}{_suffix(form.bits, form.kind)}"


def parameters_of(form: LowBitForm) -> dict[str, Parameter]:
    """What the family does not say."""
    parameters: dict[str, Parameter] = {
        "block_size": form.block_size,
        "symmetric": form.symmetric,
    }
    if form.shifts:
        parameters["power_of_two_scales"] = True
    if form.centred:
        parameters["centred"] = True
    return parameters


def form_of(candidate: Candidate) -> LowBitForm:
    """The form that a candidate of one of these families stands for.

    Raises:
        RecipeError: its parameters mean nothing.
    """
    given = candidate.parameters
    size, symmetric = given.get("block_size", 32), given.get("symmetric", True)
    shifts, centred = given.get("power_of_two_scales", False), given.get("centred", False)
    answers = {"symmetric": symmetric, "power_of_two_scales": shifts, "centred": centred}
    if type(size) is not int or size < 0:
        raise RecipeError(
            f"a decision of {candidate.family} has block_size = {size!r}; expected a whole number "
            "from 0 up [R004]"
        )
    for name, answer in answers.items():
        if type(answer) is not bool:
            raise RecipeError(
                f"a decision of {candidate.family} has {name} = {answer!r}; expected true or "
                "false [R004]"
            )
    kernel = KERNEL_FAMILIES.get(candidate.family)
    if kernel is None:
        bits, kind, layout = LOW_FAMILIES[candidate.family]
    else:
        bits, kind, layout = _PACKED[candidate.family.removeprefix(kernel)]
    if layout != "packed" and not is_block(size):
        raise RecipeError(
            f"a decision of {candidate.family} has block_size = {size}; expected {BLOCK_SIZES}"
        )
    if centred and (layout != "packed" or kernel is not None):
        raise RecipeError(
            f"a decision of {candidate.family} has centred = true, which only weights that are "
            "stored alone and packed can be; expected false [R004]"
        )
    return LowBitForm(bits, size, bool(symmetric), kind, bool(shifts), layout, bool(centred))
