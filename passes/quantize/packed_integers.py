"""Weights of integer kernels that lie in the file in fewer than 8 bits.

Codes and steps are those of any weight in few bits (`low_bits`), of the smoothed weight where its
input is smoothed. What they stand for is rounded to whole numbers of the kernel's scales, which is
what the nodes that unpack them do when the model is loaded: in single precision and in the same
order, so that both come to the same integers. The kernel and its speed are those of 8 bits; so is
the finest step there is, that of the whole row.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxpress.contract import Context
from onnxpress.layers import Layer, from_matrix
from onnxpress.passes.quantize.column_codes import low_bits_of
from onnxpress.passes.quantize.goals import goal_of
from onnxpress.passes.quantize.low_bit_weights import blocks_of
from onnxpress.passes.quantize.low_bits import LowBitForm, LowBits
from onnxpress.passes.quantize.tiles import tiled
from onnxpress.passes.quantize.weights import QuantizedWeight

__all__ = ["packed_integers"]

Float64 = npt.NDArray[np.float64]


def packed_integers(
    context: Context,
    layer: Layer,
    form: LowBitForm,
    plain: QuantizedWeight,
    factors: npt.NDArray[np.floating] | None,
) -> tuple[LowBits, QuantizedWeight]:
    """Codes, in units of the kernel's scales, and the integers that they are unpacked to.

    Args:
        context: with statistics, or without for nearest rounding.
        layer: whose weight it is.
        form: packed.
        plain: the weight in 8 bits, with the least scales that will do.
        factors: `[out, in]` of the smoothing; `None`: it is not smoothed.
    """
    goal = goal_of(context, layer)
    of_inputs: Float64 | None = None
    if factors is not None:
        whole = np.asarray(factors, np.float64)
        # All rows of a group have the factors of the group.
        groups = 1 if goal.gram is None else len(goal.gram) // goal.tiles
        of_inputs = whole[:: len(whole) // groups]
        gram = goal.gram
        if gram is not None:
            own = tiled(of_inputs, goal.tiles)
            gram = gram / (own[:, :, None] * own[:, None, :])
        goal = replace(goal, weights=goal.weights * whole, gram=gram)
    blocks = blocks_of(layer, form)
    found = low_bits_of(goal, form, blocks, context.moments(layer), of_inputs, draft=context.draft)
    largest = np.abs(found.dequantize()).max(axis=1, initial=0.0)
    if plain.axis is None:
        largest = largest.max(keepdims=True)
    # Steps of least squares may reach beyond the largest weight.
    scales = np.maximum(plain.scales, largest / np.float32(plain.highest)).astype(np.float32)
    low = replace(found, units=(found.units / scales).astype(np.float32))
    integers = from_matrix(np.rint(low.dequantize()), layer.shape, layer.uses[0], layer.groups)
    values: npt.NDArray[np.int8] | npt.NDArray[np.uint8] = integers.astype(np.int8)
    if plain.zero_point:
        values = (integers + plain.zero_point).astype(np.uint8)
    return low, replace(plain, values=values, scales=scales)
