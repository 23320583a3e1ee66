"""The codes of a weight in few bits, with the error they cause.

Steps come first, by block (`low_bits`). Of layers whose inputs were observed the codes are then
chosen column by column, so that their errors cancel (`rounding`), whatever block a column is in.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxpress.contract import (
    Context,
    StoredWeight,
    memoised,
)
from onnxpress.graph import standard_opset
from onnxpress.layers import Layer
from onnxpress.passes.quantize.column_codes import AT_A_TIME, low_bits_of
from onnxpress.passes.quantize.goals import PRUNED_SHARE, compensable, goal_of, judged
from onnxpress.passes.quantize.low_bits import (
    INPUTS_LAST,
    Blocks,
    LowBitForm,
    LowBits,
    OftenRows,
    nearest_codes,
    put_codes,
)
from onnxpress.passes.quantize.steps import without_codes
from onnxpress.passes.quantize.weights import quantize_weight
from onnxpress.pieces import row_blocks

__all__ = [
    "LARGE",
    "LowBitRounded",
    "blocks_of",
    "is_centred",
    "low_bit_weight",
    "often_rows",
]

Float64 = npt.NDArray[np.float64]

LARGE = 1 << 25
"""Elements: in double precision, and what is computed of them, 0.8 GB."""
_OFTEN = 32
"""Of so many rows one, at most, that is looked up often: an eighth of a bit a weight."""
_WORTH = 0.9
"""Of the error, that has to be left at most: less than half a decibel is not worth an addition."""
_NO_ROWS = np.zeros(0, np.int64)
_SCATTER_OPSET = 11


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
    size = math.prod(weight.shape)
    if isinstance(weight, StoredWeight) or weight.op_type == "Gather":
        last = weight.shape[-1]
        return Blocks.of(size // last, last, form)
    use, groups = weight.uses[0], weight.groups
    if weight.op_type == "Conv":
        return Blocks.of(weight.shape[0], size // weight.shape[0], form)
    if weight.op_type == "ConvTranspose":
        inputs = weight.shape[0] // groups
        return Blocks.of(size // inputs, inputs, form, groups, swapped=True)
    if use.layout in INPUTS_LAST:
        return Blocks.of(size // weight.shape[-1], weight.shape[-1], form)
    inputs = weight.shape[-2]
    return Blocks.of(size // inputs, inputs, form, groups, swapped=True)


def low_bit_weight(
    context: Context, weight: Layer | StoredWeight, form: LowBitForm
) -> LowBitRounded:
    """The weight in a form, rounded as well as what is known of its inputs allows."""
    if isinstance(weight, StoredWeight) or not _compensated_by_columns(weight):
        blocks = blocks_of(weight, form)
        often = often_rows(context, weight) if form.layout == "packed" else _NO_ROWS
        return _of_array(context, weight.weight.const_value, blocks, form, often)
    return _of_layer(context, weight, form)


def often_rows(context: Context, weight: Layer | StoredWeight) -> npt.NDArray[np.int64]:
    """Rows of an embedding that the samples look up most, as few as cost little in 8 bits.

    What a text is made of mostly is a few hundred words; on samples of others than these the rest
    is as good as without.
    """
    known = context.base_statistics
    counts = None
    if isinstance(weight, Layer) and known is not None:
        counts = known.lookups.get(weight.name)
    if counts is None or standard_opset(context.model) < _SCATTER_OPSET:
        return _NO_ROWS
    most = len(counts) // _OFTEN
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(order[counts[order] > 0]).astype(np.int64)


def is_centred(context: Context, weight: Layer | StoredWeight, form: LowBitForm) -> bool:
    """Whether the mean of all rows pays for its bytes where codes are of the rest alone.

    Steps are as long as what they hold is large, so that of the error a share is left like that of
    the sum of squares; a bit a weight more has to make it four times less. Chance takes a row's
    share of that sum from weights that have nothing in common, which pays nothing.
    """
    if context.shapes_only or form.layout != "packed" or form.shifts:
        return False
    blocks, centred = blocks_of(weight, form), replace(form, centred=True)
    bits = 8 * (blocks.nbytes(centred) - blocks.nbytes(form))
    left, zeros = _uncommon(context, weight.weight.const_value, blocks)
    pruned = zeros > PRUNED_SHARE
    return not pruned and left * 4 ** (bits / (blocks.rows * blocks.columns)) < _WORTH


@memoised
def _uncommon(context: Context, tensor: object, blocks: Blocks) -> tuple[float, float]:
    """The share of the sum of squares that is left without the mean row, and that of zeros."""
    array: npt.NDArray[np.floating] = tensor.numpy()  # type: ignore[attr-defined]
    matrix = blocks.matrix(array)
    largest = float(np.abs(matrix).max(initial=0.0))
    total = np.zeros(matrix.shape[1])
    power = zeros = 0.0
    for rows in row_blocks(matrix):
        # Squares of very large weights would be no numbers.
        some = matrix[rows] / (largest or 1.0)
        total += some.sum(axis=0, dtype=np.float64)
        power += float(np.square(some, dtype=np.float64).sum())
        zeros += float((some == 0).sum())
    shared = float(np.square(total).sum()) / max(len(matrix), 1)
    left = 1 - shared / power if power > 0 else 1.0
    return left, zeros / max(matrix.size, 1)


def _compensated_by_columns(layer: Layer) -> bool:
    """Very large weights are rounded to the nearest, some rows at a time."""
    return compensable(layer) and math.prod(layer.shape) <= LARGE


@memoised
def _of_array(
    context: Context,
    tensor: object,
    blocks: Blocks,
    form: LowBitForm,
    often: npt.NDArray[np.int64],
) -> LowBitRounded:
    """By its numbers alone."""
    array: npt.NDArray[np.floating] = tensor.numpy()  # type: ignore[attr-defined]
    matrix = blocks.matrix(array)
    rest, common = matrix, None
    if form.centred:
        common = matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
        rest = matrix - common
    found = without_codes(rest, form, blocks, None, thorough=not context.draft)
    for rows in row_blocks(rest, AT_A_TIME):
        put_codes(found, rows, nearest_codes(found, rows, rest[rows]))
    found = replace(found, common=common)
    if len(often):
        found = replace(found, often=OftenRows(often, quantize_weight(matrix[often], 0)))
    return LowBitRounded(found, None, _relative_error(matrix, found))


@memoised
def _of_layer(context: Context, layer: Layer, form: LowBitForm) -> LowBitRounded:
    """So that errors cancel at the layer's output, where its inputs were observed."""
    goal, blocks = goal_of(context, layer), blocks_of(layer, form)
    moments = context.moments(layer)
    found = low_bits_of(goal, form, blocks, moments, draft=context.draft)
    delta = found.dequantize() - goal.weights
    return LowBitRounded(found, *judged(context, layer, goal, delta))


def _relative_error(rows: npt.NDArray[np.floating], low: LowBits) -> float:
    """Power of the weight's change over that of the weight."""
    noise = power = 0.0
    for some in row_blocks(rows):
        wanted = rows[some].astype(np.float64)
        noise += float(np.square(low.dequantize(some) - wanted).sum())
        power += float(np.square(wanted).sum())
    return noise / power if power > 0 else 0.0
