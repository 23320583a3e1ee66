"""Write weights in few bits: packed codes that standard operators unpack when a model is loaded.

bytes → Cast → Gather of a table with what the parts of each byte stand for → Cast → Reshape to
blocks → Mul with the steps → Reshape to the weight. Codes of more than one plane are added up, zero
points are unpacked likewise and subtracted, what rows have in common is added, and what blocks were
filled up with is cut off. Codes of levels that are in a table stay whole numbers and are looked up
in it by a second Gather. All of it is of constants, so that onnxruntime does it once, and the
kernels and their speed stay as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Context
from onnxpress.graph import Names, add_initializer, prepend, replace_initializer, standard_opset
from onnxpress.passes.quantize.low_bits import LowBitForm, LowBits, OftenRows
from onnxpress.passes.quantize.packing import packed, planes, table, table_bytes
from onnxpress.passes.quantize.weights import QuantizedWeight

__all__ = ["integer_nodes_bytes", "nodes_bytes", "write_low_bits", "write_packed_integers"]

_NODES_BYTES = 1000
"""Of the nodes and small constants of a weight, about."""
_LOOK_UP_BYTES = 400
"""Of the nodes that look levels up, beside what these take."""
_COMMON_BYTES = 250
"""Of the node that adds what rows have in common, beside the numbers."""
_ROUNDING_BYTES = 250
"""Of the nodes that round to a kernel's integers."""
_SLICE_WITH_INPUTS = 10
_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass
class _Nodes:
    """Nodes that are made for one weight.

    Attributes:
        names: free ones of the model.
        graph: that constants are put into.
        stem: of their names.
        made: so far.
    """

    names: Names
    graph: ir.Graph
    stem: str
    made: list[ir.Node] = field(default_factory=list)

    def node(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr] = ()
    ) -> ir.Value:
        node = ir.Node("", op_type, inputs, attributes)
        node.name = self.names.free(f"{self.stem}_{op_type}")
        node.outputs[0].name = self.names.free(f"{self.stem}_{op_type.lower()}")
        self.made.append(node)
        return node.outputs[0]

    def constant(
        self, suffix: str, array: npt.NDArray[np.generic], dtype: ir.DataType | None = None
    ) -> ir.Value:
        return add_initializer(self.names, self.graph, f"{self.stem}_{suffix}", array, dtype)

    def shared(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """A constant of the main graph that all weights use."""
        known = self.graph.initializers.get(name)
        if known is not None:
            return known
        return add_initializer(self.names, self.graph, name, array)

    def cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        return self.node("Cast", [value], [ir.AttrInt64("to", int(kind))])

    def shaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        sizes = self.constant("shape", np.asarray(shape, np.int64))
        return self.node("Reshape", [value, sizes])

    def cut(self, value: ir.Value, axis: int, end: int, opset: int) -> ir.Value:
        """The first `end` along an axis (ONNX operator Slice, whose version 10 has inputs)."""
        ends = {"starts": [0], "ends": [end], "axes": [axis]}
        if opset < _SLICE_WITH_INPUTS:
            return self.node("Slice", [value], [ir.AttrInt64s(k, v) for k, v in ends.items()])
        inputs = [self.constant(k, np.asarray(v, np.int64)) for k, v in ends.items()]
        return self.node("Slice", [value, *inputs])

    def unpacked(
        self,
        suffix: str,
        codes: npt.NDArray[np.uint8],
        bits: int,
        offset: int,
        kind: ir.DataType,
    ) -> ir.Value:
        """The numbers `[bytes, parts]` that codes stand for, and what fills up the last byte."""
        sums: ir.Value | None = None
        own = packed(codes, bits)
        several = len(own) > 1
        for number, (plane, (width, shift)) in enumerate(zip(own, planes(bits), strict=True)):
            stem = f"{suffix}_{number}" if several else suffix
            index = self.cast(self.constant(stem, plane), ir.DataType.INT32)
            added = offset if number == 0 else 0
            name = f"onnxpress_{width}_bits_{shift}_{-added}"
            # Of three axes: a table of two would be an embedding.
            rows = table(width, shift, added)[:, None]
            found = self.node("Gather", [self.shared(name, rows), index], [ir.AttrInt64("axis", 0)])
            found = self.cast(found, kind)
            if several:
                found = self.shaped(found, [-1])
            sums = found if sums is None else self.node("Add", [sums, found])
        assert sums is not None
        return sums


def nodes_bytes(form: LowBitForm) -> int:
    """What unpacks a weight, with the tables that it may share with others."""
    looked_up = 0 if form.kind == "uniform" else _LOOK_UP_BYTES
    common = _COMMON_BYTES if form.centred else 0
    return _NODES_BYTES * len(list(planes(form.bits))) + table_bytes(form.bits) + looked_up + common


def integer_nodes_bytes(form: LowBitForm) -> int:
    """What unpacks the weight of an integer kernel."""
    return nodes_bytes(form) + _ROUNDING_BYTES


def write_low_bits(context: Context, weight: ir.Value, home: ir.Graph, low: LowBits) -> None:
    """Put packed codes and what unpacks them in place of a constant of the graph `home`."""
    kind = weight.dtype
    assert kind is not None
    assert weight.shape is not None
    # onnxruntime's CPU provider has no Mul for half types, so it would not fold one when it loads.
    dtype = ir.DataType.FLOAT if kind in _HALVES else kind
    write = _Nodes(context.names, context.model.graph, weight.name or "")
    value = _numbers(write, low, weight.shape.numpy(), dtype, standard_opset(context.model))
    if low.often is not None:
        value = _often(write, value, low.often, dtype)
    if dtype != kind:
        value = write.cast(value, kind)
    value.type, value.shape = ir.TensorType(kind), weight.shape
    replace_initializer(home, weight, write.made, value)


def write_packed_integers(
    context: Context,
    home: ir.Graph,
    stem: str,
    low: LowBits,
    weight: QuantizedWeight,
    *,
    transposed: bool = False,
) -> ir.Value:
    """What codes stand for, rounded to the integers of a kernel's weight, in the graph `home`.

    Args:
        context: of the rewrite.
        home: where the nodes that unpack it come first.
        stem: of names.
        low: in units of the kernel's scales.
        weight: the integers that come of it.
        transposed: with its two axes exchanged.
    """
    write = _Nodes(context.names, context.model.graph, stem)
    shape, kind = weight.values.shape, ir.DataType.from_numpy(weight.values.dtype)
    opset = standard_opset(context.model)
    value = write.node("Round", [_numbers(write, low, shape, ir.DataType.FLOAT, opset)])
    if weight.zero_point:
        zero = write.constant("middle", np.asarray(weight.zero_point, np.float32))
        value = write.node("Add", [value, zero])
    value = write.cast(value, kind)
    if transposed:
        value = write.node("Transpose", [value], [ir.AttrInt64s("perm", [1, 0])])
        shape = shape[::-1]
    value.name = context.names.free(f"{stem}_quantized")
    value.type, value.shape = ir.TensorType(kind), ir.Shape(shape)
    prepend(home, write.made)
    return value


def _numbers(
    write: "_Nodes", low: LowBits, shape: Sequence[int], dtype: ir.DataType, opset: int
) -> ir.Value:
    """What codes stand for, in the weight's shape."""
    form, blocks = low.form, low.blocks
    offset = -form.middle if low.zeros is None and low.tables is None else 0
    codes = np.asarray(blocks.stored(low.codes), np.uint8)
    numbers = dtype if low.tables is None else ir.DataType.INT32
    value = write.unpacked(f"{form.bits}_bits", codes, form.bits, offset, numbers)
    value = write.shaped(value, blocks.stored_shape)
    if low.tables is not None:
        value = _looked_up(write, value, low, dtype)
    one = blocks.steps_shape
    if low.zeros is not None:
        value = write.node("Sub", [value, _points(write, low, dtype, opset)])
    scales = write.constant("scale", _by_row(low, low.units).astype(dtype.numpy()))
    if low.steps is not None:
        steps = np.asarray(blocks.stored(low.steps[:, :, None])).reshape(one)
        scales = write.node("Mul", [write.cast(write.constant("steps", steps), dtype), scales])
    value = write.node("Mul", [value, scales])
    if low.common is not None:
        # Of all rows, in the order of blocks; what these are filled up with is cut off below.
        common = blocks.filled(low.common[None])
        shape_of_one = (1, blocks.count, blocks.size, *[1] * len(one[3:]))
        mean = write.constant("common", common.reshape(shape_of_one).astype(dtype.numpy()))
        value = write.node("Add", [value, mean])
    length = blocks.count * blocks.size
    if length != blocks.columns:
        outputs = blocks.stored_shape[3:]
        value = write.shaped(value, (blocks.stored_shape[0], length, *outputs))
        value = write.cut(value, 1, blocks.columns, opset)
    return write.shaped(value, shape)


def _points(write: "_Nodes", low: LowBits, dtype: ir.DataType, opset: int) -> ir.Value:
    """The codes of 0 of each block."""
    assert low.zeros is not None
    zeros = np.asarray(low.blocks.stored(low.zeros[:, :, None]), np.uint8)
    # Every plane ends with the same byte.
    whole = np.concatenate([zeros.reshape(-1), np.zeros(-zeros.size % 8, np.uint8)])
    points = write.unpacked("zero_points", whole, low.form.bits, 0, dtype)
    if whole.size != zeros.size:
        points = write.cut(write.shaped(points, [-1]), 0, zeros.size, opset)
    return write.shaped(points, low.blocks.steps_shape)


def _often(write: "_Nodes", table: ir.Value, often: OftenRows, dtype: ir.DataType) -> ir.Value:
    """The table with some rows in 8 bits (ONNX operator ScatterND)."""
    scales = often.weight.scales[:, None].astype(dtype.numpy())
    integers = write.cast(write.constant("often", often.weight.values), dtype)
    rows = write.node("Mul", [integers, write.constant("often_scale", scales)])
    return write.node("ScatterND", [table, write.constant("rows", often.rows[:, None]), rows])


def _looked_up(write: "_Nodes", codes: ir.Value, low: LowBits, dtype: ir.DataType) -> ir.Value:
    """The levels of codes, which of a table for each row are counted on from one to the next."""
    assert low.tables is not None
    if len(low.tables) == 1:
        levels = write.constant("levels", low.tables[0].astype(dtype.numpy()))
    else:
        first = np.arange(len(low.tables), dtype=np.int32) * (low.form.levels + 1)
        codes = write.node("Add", [codes, write.constant("first", _by_row(low, first))])
        whole = write.constant("levels", low.tables.reshape(-1).astype(np.int8))
        levels = write.cast(whole, dtype)
    return write.node("Gather", [levels, codes], [ir.AttrInt64("axis", 0)])


def _by_row(low: LowBits, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A number of each row, in a shape that broadcasts with the steps."""
    blocks = low.blocks
    spread = np.broadcast_to(numbers[:, None, None], (blocks.rows, 1, 1))
    first, _, one, *outputs = blocks.steps_shape
    return blocks.stored(spread).reshape(first, 1, one, *outputs)
