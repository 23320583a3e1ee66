"""The codes of a weight in few bits, with the error they cause.

Steps come first, by block (`low_bits`). Of layers whose inputs were observed the codes are then
chosen column by column, so that their errors cancel (`rounding`), whatever block a column is in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.contract import (
    Candidate,
    Context,
    Parameter,
    RecipeError,
    StoredWeight,
    memoised,
)
from onnxpress.layers import Layer
from onnxpress.passes.quantize.goals import Goal, compensable, goal_of, judged
from onnxpress.passes.quantize.low_bits import (
    Blocks,
    LowBitForm,
    LowBits,
    block_steps,
    empty,
    nearest_codes,
    with_codes,
)
from onnxpress.passes.quantize.rounding import Compensation, Grid
from onnxpress.passes.quantize.tiles import tiled, untiled
from onnxpress.passes.quantize.unpacking import NODES_BYTES
from onnxpress.pieces import row_blocks

__all__ = [
    "LOW_BIT_FAMILIES",
    "LowBitRounded",
    "blocks_of",
    "low_bit_candidates",
    "low_bit_form",
    "low_bit_weight",
]

Float64 = npt.NDArray[np.float64]

_AT_A_TIME = 1 << 22
"""Elements that are rounded together: in double precision 34 MB, a few times."""
LOW_BIT_FAMILIES = {f"weight_only_{bits}_bit": bits for bits in range(2, 8)}
"""Families of candidates, and the bits of their codes."""
_INPUTS_LAST = ("gemm_out_in", "out_in", "directions_out_in")


@dataclass(frozen=True, slots=True)
class LowBitRounded:
    """A weight in few bits.

    Attributes:
        weight: codes and steps.
        offset: `[out]` what the bias has to take up, or `None`.
        error: power of the output's change over that of the output; without observed inputs,
            of the weight.
    """

    weight: LowBits
    offset: Float64 | None
    error: float


def blocks_of(weight: Layer | StoredWeight, form: LowBitForm) -> Blocks:
    """How a weight is cut, by its shape alone.

    Along the inputs of a layer; an embedding along its words, what is no layer along its last axis.
    """
    size = int(np.prod(weight.shape))
    if isinstance(weight, StoredWeight) or weight.op_type == "Gather":
        last = weight.shape[-1]
        return Blocks.of(size // last, last, form)
    use, groups = weight.uses[0], weight.groups
    if weight.op_type == "Conv":
        return Blocks.of(weight.shape[0], size // weight.shape[0], form)
    if weight.op_type == "ConvTranspose":
        inputs = weight.shape[0] // groups
        return Blocks.of(size // inputs, inputs, form, groups, swapped=True)
    if use.layout in _INPUTS_LAST:
        return Blocks.of(size // weight.shape[-1], weight.shape[-1], form)
    inputs = weight.shape[-2]
    return Blocks.of(size // inputs, inputs, form, groups, swapped=True)


def low_bit_weight(
    context: Context, weight: Layer | StoredWeight, form: LowBitForm
) -> LowBitRounded:
    """The weight in a form, rounded as well as what is known of its inputs allows."""
    if isinstance(weight, StoredWeight) or not compensable(weight):
        return _of_array(context, weight.weight.const_value, blocks_of(weight, form), form)
    return _of_layer(context, weight, form)


@memoised
def _of_array(context: Context, tensor: object, blocks: Blocks, form: LowBitForm) -> LowBitRounded:
    """By its numbers alone."""
    array: npt.NDArray[np.floating] = tensor.numpy()  # type: ignore[attr-defined]
    rows = array.reshape(blocks.rows, blocks.columns)
    found = _rounded(rows, form, blocks, None, thorough=not context.draft)
    return LowBitRounded(found, None, _relative_error(rows, found))


@memoised
def _of_layer(context: Context, layer: Layer, form: LowBitForm) -> LowBitRounded:
    goal = goal_of(context, layer)
    found = _rounded(goal.weights, form, blocks_of(layer, form), goal, thorough=not context.draft)
    delta = found.dequantize() - goal.weights
    return LowBitRounded(found, *judged(context, layer, goal, delta))


def _rounded(
    matrix: npt.NDArray[np.floating],
    form: LowBitForm,
    blocks: Blocks,
    goal: Goal | None,
    *,
    thorough: bool,
) -> LowBits:
    gram = None if goal is None else goal.gram
    importance = None
    if goal is not None and gram is not None:
        # Of a wide layer each tile has inputs of its own.
        importance = np.einsum("gii->gi", gram).reshape(len(gram) // goal.tiles, -1)
    steps, zeros = block_steps(matrix, form, blocks, importance, thorough=thorough)
    found = replace(empty(form, blocks), steps=steps, zeros=zeros)
    compensation = None if gram is None or not thorough else Compensation.of(gram)
    alone = gram is None or goal is None or len(gram) == goal.tiles
    for rows in row_blocks(matrix, _AT_A_TIME) if alone else [slice(0, blocks.rows)]:
        w = matrix[rows]
        if compensation is None or goal is None:
            own = (
                np.full(steps[rows].shape, form.middle, np.uint8) if zeros is None else zeros[rows]
            )
            whole = nearest_codes(blocks.filled(w), steps[rows], own, form)
            with_codes(found, rows, whole.reshape(len(w), -1)[:, : blocks.columns])
        else:
            with_codes(found, rows, _compensated(w, found, rows, compensation, goal))
    return found


def _compensated(
    matrix: npt.NDArray[np.floating],
    low: LowBits,
    rows: slice,
    compensation: Compensation,
    goal: Goal,
) -> Float64:
    """Whole numbers `[r, in]`, 0 for 0, of some rows."""
    blocks, form, tiles = low.blocks, low.form, goal.tiles
    groups = len(compensation.gram)
    steps = np.asarray(blocks.spread(low.steps[rows]), np.float64)
    # Squares of very small weights would underflow.
    units = np.abs(steps).max(axis=1, keepdims=True)

    def cut(array: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        parts = tiled(array, tiles)
        return parts.reshape(groups, -1, parts.shape[1])

    lowest: float | npt.NDArray[np.float32] = -float(form.middle)
    highest: float | npt.NDArray[np.float32] = lowest + form.levels
    if low.zeros is not None:
        lowest = -cut(blocks.spread(low.zeros[rows]).astype(np.float32)).astype(np.float32)
        highest = lowest + np.float32(form.levels)
    relative = steps / units
    grid = Grid(lowest, highest, cut(relative).astype(np.float32))
    target = tiled(np.asarray(matrix, np.float64) / units, tiles)
    found = compensation.fitted(np.asarray(target, np.float64), grid, keep_zeros=goal.keeps_zeros)
    return np.asarray(np.round(untiled(found, tiles) / relative), np.float64)


def _relative_error(rows: npt.NDArray[np.floating], low: LowBits) -> float:
    """Power of the weight's change over that of the weight."""
    noise = power = 0.0
    for some in row_blocks(rows):
        wanted = rows[some].astype(np.float64)
        noise += float(np.square(low.dequantize(some) - wanted).sum())
        power += float(np.square(wanted).sum())
    return noise / power if power > 0 else 0.0


def low_bit_candidates(
    context: Context,
    weight: Layer | StoredWeight,
    forms: Sequence[LowBitForm],
    least_bytes: float,
) -> list[Candidate]:
    """The forms that are worth their loss, the smallest first.

    Args:
        context: of the proposal.
        weight: finite, with elements, that may be rounded.
        forms: that the settings allow.
        least_bytes: what more bits save already.
    """
    found: list[Candidate] = []
    for form in sorted(forms, key=lambda form: form.bits):
        saved = weight.nbytes - blocks_of(weight, form).nbytes(form) - NODES_BYTES
        if saved <= least_bytes:
            continue
        error = 0.0
        if not context.survey:
            rounded = low_bit_weight(context, weight, form)
            error, saved = rounded.error, weight.nbytes - rounded.weight.nbytes - NODES_BYTES
        parameters: dict[str, Parameter] = {"block_size": form.block_size}
        parameters["symmetric"] = form.symmetric
        family = f"weight_only_{form.bits}_bit"
        found.append(Candidate(parameters, error, saved, family=family, keeps_kernels=True))
    return found


def low_bit_form(candidate: Candidate) -> LowBitForm:
    """What a decision says.

    Raises:
        RecipeError: its parameters mean nothing.
    """
    given = candidate.parameters
    size, symmetric = given.get("block_size", 32), given.get("symmetric", True)
    if type(size) is not int or size < 0 or type(symmetric) is not bool:
        raise RecipeError(
            f"a decision of {candidate.family} has block_size = {size!r} and symmetric = "
            f"{symmetric!r}; expected a whole number from 0 up, and true or false"
        )
    return LowBitForm(LOW_BIT_FAMILIES[candidate.family], size, symmetric)
