"""Write weights of few bits for operators that compute with them in blocks at every run.

- `blocked`: DequantizeLinear with `block_size` (ONNX opset 21) of int4 or int8, unsigned beside
  zero points, along an axis of the weight, whoever reads it.
- `nbits`: onnxruntime's com.microsoft MatMulNBits in place of MatMul and Gemm,
  GatherBlockQuantized in place of Gather (`ContribOperators.md`).

Codes of a block lie one after the other, the first in the lowest bits of a byte; the last block of
a row may be filled up. MatMulNBits is told to add up in int8 (`accuracy_level` 4): it has no other
kernel worth the name for 2 and 8 bits, and the 44 dB of its rounded inputs are far from what 4 bits
lose.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Context, StoredWeight
from onnxpress.graph import (
    Names,
    add_initializer,
    attribute,
    drop_unused,
    replace_initializer,
    standard_opset,
    take_over,
)
from onnxpress.layers import Layer, is_scaled_gemm
from onnxpress.passes.quantize.levels import Layout
from onnxpress.passes.quantize.low_bits import INPUTS_LAST, Blocks, LowBitForm, LowBits
from onnxpress.passes.quantize.packing import packed

__all__ = ["BLOCKED_BITS", "BLOCK_SIZES", "OPERATORS", "is_block", "operator_for", "write_blocks"]

_DOMAIN = "com.microsoft"
BLOCKED_BITS: dict[Layout, tuple[int, ...]] = {"blocked": (4, 8), "nbits": (2, 4, 8)}
_LEAST_BLOCK, _LARGEST_BLOCK = 16, 256
"""Blocks of 512 gave zeros in a released onnxruntime."""
BLOCK_SIZES = f"a power of two from {_LEAST_BLOCK} to {_LARGEST_BLOCK}"
_BLOCKED_OPSET = 21
_BLOCKED_IR_VERSION = 10
_GATHER_BITS = (4, 8)
_INT8_SUMS = 4
OPERATORS: dict[Layout, tuple[str, ...]] = {
    "packed": (),
    "blocked": ("DequantizeLinear",),
    "nbits": ("MatMulNBits", "GatherBlockQuantized"),
}
_OPERATORS = {"MatMul": "MatMulNBits", "Gemm": "MatMulNBits", "Gather": "GatherBlockQuantized"}


def is_block(size: int) -> bool:
    """Whether operators take blocks of so many weights."""
    return _LEAST_BLOCK <= size <= _LARGEST_BLOCK and size.bit_count() == 1


def operator_for(context: Context, weight: Layer | StoredWeight, form: LowBitForm) -> str | None:
    """What computes with a weight in blocks on the target; `None`: nothing does."""
    layout, bits = form.layout, form.bits
    if bits not in BLOCKED_BITS.get(layout, ()) or weight.weight.dtype != ir.DataType.FLOAT:
        return None
    found = None
    if layout == "blocked":
        if standard_opset(context.model) >= _BLOCKED_OPSET and _axis(weight) is not None:
            found = "DequantizeLinear"
    elif isinstance(weight, Layer) and _is_plain(weight):
        found = _OPERATORS.get(weight.op_type)
        if weight.op_type == "Gather" and bits not in _GATHER_BITS:
            found = None
    return found if found in context.target.low_bit_operators else None


def _is_plain(layer: Layer) -> bool:
    """Whether one MatMul, Gemm or Gather reads a matrix as the contrib operators do."""
    node = layer.node
    if len(layer.uses) != 1 or layer.other_uses or len(layer.shape) != 2:
        return False
    if node.op_type == "Gemm":
        return not is_scaled_gemm(node) and not attribute(node, "transA", 0)
    return layer.uses[0].index == (1 if node.op_type == "MatMul" else 0)


def _axis(weight: Layer | StoredWeight) -> int | None:
    """Along which a weight is cut; `None`: its blocks run across several."""
    shape = weight.shape
    if isinstance(weight, StoredWeight) or weight.op_type == "Gather":
        return len(shape) - 1
    if weight.op_type in ("Conv", "ConvTranspose"):
        return None
    return len(shape) - (1 if weight.uses[0].layout in INPUTS_LAST else 2)


def write_blocks(context: Context, weight: Layer | StoredWeight, low: LowBits) -> None:
    """Put codes, scales and zero points in place of a constant that `operator_for` serves."""
    if low.form.layout == "blocked":
        _write_dequantize(context, weight, low)
    else:
        assert isinstance(weight, Layer)
        _write_contrib(context, weight, low)


def _write_dequantize(context: Context, weight: Layer | StoredWeight, low: LowBits) -> None:
    value, home, names = weight.weight, weight.graph, context.names
    axis, bits, blocks = _axis(weight), low.form.bits, low.blocks
    assert axis is not None
    name = value.name or ""
    signed = low.zeros is None
    kinds = {4: (ir.DataType.INT4, ir.DataType.UINT4), 8: (ir.DataType.INT8, ir.DataType.UINT8)}
    kind = kinds[bits][0 if signed else 1]
    whole = low.codes.reshape(blocks.rows, -1)[:, : blocks.columns]
    codes = _in_place(blocks, whole.astype(np.int16) - (low.form.middle if signed else 0))
    sizes = list(weight.shape)
    graph = context.model.graph
    parts = [_integers(names, graph, f"{name}_{bits}_bits", codes.reshape(sizes), kind)]
    sizes[axis] = blocks.count
    scales = _in_place(blocks, low.scales()).reshape(sizes)
    parts.append(add_initializer(names, graph, f"{name}_scale", scales.astype(np.float32)))
    if low.zeros is not None:
        zeros = _in_place(blocks, low.zeros).reshape(sizes)
        parts.append(_integers(names, graph, f"{name}_zero_point", zeros, kind))
    attributes = [ir.AttrInt64("axis", axis), ir.AttrInt64("block_size", low.form.block_size)]
    node = ir.Node("", "DequantizeLinear", parts, attributes)
    node.name = names.free(f"{name}_DequantizeLinear")
    output = node.outputs[0]
    output.type, output.shape = value.type, value.shape
    replace_initializer(home, value, [node], output)
    context.model.ir_version = max(context.model.ir_version or 0, _BLOCKED_IR_VERSION)


def _in_place(blocks: Blocks, rows: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """`[rows, n]` in the order of the weight's elements."""
    stored = blocks.stored(rows[:, :, None])
    return np.ascontiguousarray(stored)


def _integers(
    names: Names,
    graph: ir.Graph,
    name: str,
    array: npt.NDArray[np.generic],
    kind: ir.DataType,
) -> ir.Value:
    return add_initializer(names, graph, name, array.astype(kind.numpy()), kind)


def _write_contrib(context: Context, layer: Layer, low: LowBits) -> None:
    """MatMulNBits and an Add of what Gemm adds, or GatherBlockQuantized."""
    node, bits, blocks = layer.node, low.form.bits, low.blocks
    graph, names = context.model.graph, context.names
    rows, gathers = blocks.rows, node.op_type == "Gather"
    (codes,) = _bytes(low.codes, bits)
    codes = codes.reshape(rows, -1) if gathers else codes.reshape(rows, blocks.count, -1)
    if gathers:
        codes = codes[:, : -(-blocks.columns * bits // 8)]
    parts = [
        add_initializer(names, graph, f"{layer.name}_{bits}_bits", np.ascontiguousarray(codes)),
        add_initializer(names, graph, f"{layer.name}_scale", low.scales().astype(np.float32)),
    ]
    if low.zeros is not None:
        rest = -blocks.count % (8 // bits)
        (zeros,) = _bytes(np.pad(low.zeros, ((0, 0), (0, rest))), bits)
        name = f"{layer.name}_zero_point"
        parts.append(add_initializer(names, graph, name, zeros.reshape(rows, -1)))
    numbers = {"bits": bits, "block_size": low.form.block_size}
    activation = node.inputs[1 if gathers else 0]
    if gathers:
        numbers |= {"gather_axis": 0, "quantize_axis": 1}
        inputs = [parts[0], activation, *parts[1:]]
    else:
        numbers |= {"K": blocks.columns, "N": rows, "accuracy_level": _INT8_SUMS}
        inputs = [activation, *parts]
    attributes = [ir.AttrInt64(key, value) for key, value in numbers.items()]
    made = [ir.Node(_DOMAIN, _OPERATORS[node.op_type], inputs, attributes)]
    addend = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if addend is not None:
        made.append(ir.Node("", "Add", [made[0].outputs[0], addend]))
    for step in made:
        step.name = names.free(f"{node.name or layer.name}_{step.op_type}")
        step.outputs[0].name = names.free(f"{layer.name}_{step.op_type.lower()}")
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, made)
    take_over(node, made[-1])
    drop_unused(layer.weight)
    context.model.graph.opset_imports.setdefault(_DOMAIN, 1)


def _bytes(codes: npt.NDArray[np.uint8], bits: int) -> Iterable[npt.NDArray[np.uint8]]:
    return [codes.reshape(-1)] if bits == 8 else packed(codes, bits)
