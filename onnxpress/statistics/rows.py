"""The input rows of a layer, taken from its input tensor: what the weight is multiplied with.

For Conv a row is the receptive field of one output position (im2col); of the many positions a
few are drawn, because neighbours repeat each other. Padding follows the ONNX Conv operator
(`pads` or `auto_pad`).
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import attribute
from onnxpress.layers import Layer
from onnxpress.recurrent import HIDDEN_WEIGHT, is_recurrent

__all__ = ["drawn_places", "input_rows", "reading_of", "recurrent_rows"]

Rows = npt.NDArray[np.float32]
_GATHERED = 1 << 18
"""Numbers that are fetched at once."""


def input_rows(
    layer: Layer, tensor: npt.NDArray[np.floating], limit: int, rng: np.random.Generator
) -> tuple[Rows, int]:
    """At most `limit` rows `[rows, groups, in]` of a run's input tensor, and how many there are.

    Batched MatMul weights and embeddings give no rows: `[0, groups, in]`.
    """
    node = layer.node
    if layer.op_type == "Conv":
        return _conv_rows(layer, tensor, limit, rng)
    if layer.op_type == "ConvTranspose":
        channels = np.moveaxis(tensor, 1, -1)
        flat = channels.reshape(-1, layer.groups, tensor.shape[1] // layer.groups)
        return _draw(flat, limit, rng), len(flat)
    if is_recurrent(node):
        flat = recurrent_rows(layer, tensor)
        return _draw(flat, limit, rng), len(flat)
    if layer.op_type == "Gather" or (layer.op_type == "MatMul" and len(layer.shape) > 2):
        return np.zeros((0, layer.groups, layer.read().shape[1]), np.float32), int(tensor.size)
    if layer.op_type == "Gemm":
        matrix = tensor.T if attribute(node, "transA", 0) else tensor
    else:
        matrix = tensor if layer.uses[0].index == 1 else np.swapaxes(tensor, -1, -2)
    flat = matrix.reshape(-1, 1, matrix.shape[-1])
    return _draw(flat, limit, rng), len(flat)


def reading_of(layer: Layer) -> Hashable:
    """What the rows follow from besides the tensor: layers that are equal in it share them.

    The projections of queries, keys and values read one tensor alike, and so do the two of a gated
    MLP and the branches of an Inception block.
    """
    attributes = sorted((name, str(one.value)) for name, one in layer.node.attributes.items())
    kernel = layer.shape[1:] if layer.op_type == "Conv" else len(layer.shape)
    inputs = layer.read().shape[1]
    return layer.op_type, layer.groups, layer.uses[0].index, inputs, kernel, tuple(attributes)


def recurrent_rows(layer: Layer, tensor: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """`[steps·batch, directions, in]` of X, which both directions read, or of hidden states."""
    if layer.uses[0].index != HIDDEN_WEIGHT:
        flat = tensor.reshape(-1, 1, tensor.shape[-1])
        return np.broadcast_to(flat, (len(flat), layer.groups, flat.shape[-1]))
    directions = 2 if attribute(layer.node, "layout", 0) else 1
    return np.moveaxis(tensor, directions, 2).reshape(-1, layer.groups, tensor.shape[-1])


def drawn_places(total: int, limit: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Which of so many rows are drawn, in their order."""
    if total <= limit:
        return np.arange(total)
    return np.sort(rng.choice(total, limit, replace=False))


def _draw(rows: npt.NDArray[np.floating], limit: int, rng: np.random.Generator) -> Rows:
    if len(rows) > limit:
        rows = rows[drawn_places(len(rows), limit, rng)]
    return np.ascontiguousarray(rows, dtype=np.float32)


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    found = node.attributes.get(name)
    return default if found is None else list(found.as_ints())


def _conv_rows(
    layer: Layer, tensor: npt.NDArray[np.floating], limit: int, rng: np.random.Generator
) -> tuple[Rows, int]:
    node, kernel = layer.node, layer.shape[2:]
    axes = len(kernel)
    strides = _ints(node, "strides", [1] * axes)
    dilations = _ints(node, "dilations", [1] * axes)
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    pads = _pads(node, tensor.shape[2:], spans, strides)
    padded = _padded(tensor, pads)
    sizes = padded.shape[2:]
    if any(size < span for size, span in zip(sizes, spans, strict=True)):
        return np.zeros((0, layer.groups, math.prod(layer.shape[1:])), np.float32), 0
    places = [len(padded)] + [
        (size - span) // step + 1 for size, span, step in zip(sizes, spans, strides, strict=True)
    ]
    total = math.prod(places)
    chosen = drawn_places(total, limit, rng)
    # Places in the flat tensor: of the first number of each row, and of the others from there, in
    # the order of the flattened Conv weight, channels before the kernel.
    apart = [math.prod(sizes[axis + 1 :]) for axis in range(axes)]
    image, *position = np.unravel_index(chosen, places)
    first = image * padded[:1].size
    offsets = np.arange(padded.shape[1]) * math.prod(sizes)
    for axis in range(axes):
        first = first + position[axis] * (strides[axis] * apart[axis])
        reached = np.arange(kernel[axis]) * (dilations[axis] * apart[axis])
        offsets = np.add.outer(offsets, reached)
    rows = _gathered(padded.reshape(-1), first, offsets.reshape(-1))
    # A network with channels removed feeds the layer fewer than its weight has.
    return rows.reshape(len(chosen), layer.groups, offsets.size // layer.groups), total


def _padded(
    tensor: npt.NDArray[np.floating], pads: Sequence[tuple[int, int]]
) -> npt.NDArray[np.floating]:
    """With zeros around all axes but the first two."""
    if not np.any(pads):
        return tensor
    sizes = [size + sum(pad) for size, pad in zip(tensor.shape[2:], pads, strict=True)]
    found = np.zeros((*tensor.shape[:2], *sizes), tensor.dtype)
    inner = [slice(pad[0], pad[0] + size) for size, pad in zip(tensor.shape[2:], pads, strict=True)]
    found[(slice(None), slice(None), *inner)] = tensor
    return found


def _gathered(
    flat: npt.NDArray[np.floating], first: npt.NDArray[np.intp], offsets: npt.NDArray[np.intp]
) -> Rows:
    """`[first, offsets]` of the numbers at both together, few rows at a time: indices are long."""
    rows = np.empty((len(first), len(offsets)), np.float32)
    step = max(_GATHERED // max(len(offsets), 1), 1)
    for start in range(0, len(first), step):
        part = first[start : start + step, None] + offsets
        rows[start : start + step] = flat.take(part)
    return rows


def _pads(
    node: ir.Node, sizes: tuple[int, ...], spans: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    axes = len(spans)
    mode = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, span, stride in zip(sizes, spans, strides, strict=True):
            whole = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
            small, large = whole // 2, whole - whole // 2
            pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
        return pads
    if mode == "VALID":
        return [(0, 0)] * axes
    values = _ints(node, "pads", [0] * (2 * axes))
    return [(values[axis], values[axis + axes]) for axis in range(axes)]
