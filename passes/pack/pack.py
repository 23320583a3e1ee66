"""The pass itself: a bit for every weight, and the values of those that are not zero.

Standard operators put the weight together again: BitShift and Mod take the mask apart, CumSum
numbers its ones, Gather fetches the values. All their inputs are constant, so onnxruntime folds
them when it loads the model, and the kernels, their speed and the answers stay as they were.

A mask costs 1 bit a weight, so 32-bit weights gain above 3% of zeros and 8-bit ones above 12.5%.
ONNX's `sparse_initializer` takes a 64-bit index for each value that is not zero: it would be the
smaller only above 98.4% zeros (32-bit weights), so it is not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from annotated_types import Interval

from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip, Stage, setting
from onnxpress.graph import Names, add_initializer, constant, replace_initializer, standard_opset
from onnxpress.pieces import pieces
from onnxpress.storage import store_as, stored_bytes

__all__ = ["Pack"]

_TYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.UINT8,
    }
)
_NODES_BYTES = 1000
"""Of the eight or nine nodes and their small constants."""
_SHARED_PREFIX = "onnxpress_pack"


@dataclass(frozen=True)
class Pack(Pass):
    """Zeros in one bit each."""

    name: ClassVar[str] = "pack"
    stage: ClassVar[Stage] = Stage.STORAGE
    families: ClassVar[tuple[str, ...]] = ("bit_mask",)
    minimum_opset: ClassVar[int] = 11

    least_gain: Annotated[float, Interval(ge=0, lt=1)] = setting(
        0.1, "Share of a weight's bytes that must be saved for it to be packed."
    )

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Every initializer of the main graph whose mask and values are smaller."""
        if standard_opset(context.model) < self.minimum_opset:
            return [Skip("weights", f"opset {standard_opset(context.model)} has no CumSum [K001]")]
        proposals: list[Proposal | Skip] = []
        for name, value in context.model.graph.initializers.items():
            array = constant(value)
            if array is None or value.dtype not in _TYPES or value.is_graph_output():
                continue
            whole = stored_bytes(value)
            background = _background(array)
            kept = sum(int(np.count_nonzero(piece != background)) for piece in pieces(array))
            packed = -(-array.size // 8) + kept * whole // max(array.size, 1) + _NODES_BYTES
            if whole - packed > self.least_gain * whole:
                candidate = Candidate(
                    saved_bytes=whole - packed, family="bit_mask", keeps_kernels=True
                )
                proposals.append(Proposal(name, (candidate,)))
        if not proposals:
            reason = "no weight has so many zeros that a bit mask would be smaller [K002]"
            return [Skip("weights", reason)]
        return proposals

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Put the nodes that expand a weight in its place."""
        for decision in decisions:
            _expand(context.names, context.model.graph, decision.site)


def _background(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """0, or what stands for it in unsigned integers: their most frequent value."""
    if array.dtype == np.uint8 and array.size:
        return np.asarray(np.bincount(array.reshape(-1), minlength=256).argmax(), np.uint8)
    return np.zeros((), array.dtype)


def _expand(names: Names, graph: ir.Graph, name: str) -> None:
    weight = graph.initializers[name]
    array = constant(weight)
    assert array is not None
    background = _background(array)
    flat = array.reshape(-1)
    present = flat != background
    table = np.concatenate([background.reshape(1), flat[present]]).astype(array.dtype)
    # Bit k of byte i is weight 8·i + k.
    mask = np.packbits(present, bitorder="little").reshape(-1, 1)
    nodes: list[ir.Node] = []

    def shared(key: str, values: npt.NDArray[np.generic]) -> ir.Value:
        wanted = f"{_SHARED_PREFIX}_{key}"
        found = graph.initializers.get(wanted)
        return add_initializer(names, graph, wanted, values) if found is None else found

    def node(
        op_type: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr] = ()
    ) -> ir.Value:
        made = ir.Node("", op_type, inputs, attributes, name=f"{name}_{op_type}_{len(nodes)}")
        made.outputs[0].name = f"{name}_packed_{len(nodes)}"
        nodes.append(made)
        return made.outputs[0]

    whole_mask = add_initializer(names, graph, f"{name}_mask", mask)
    values = add_initializer(names, graph, f"{name}_values", table, weight.dtype)
    store_as(values, weight)
    shifts = shared("shifts", np.arange(8, dtype=np.uint8))
    shifted = node("BitShift", [whole_mask, shifts], [ir.AttrString("direction", "RIGHT")])
    bits = node("Mod", [shifted, shared("two", np.asarray(2, np.uint8))])
    line = node("Reshape", [bits, shared("flat", np.asarray([-1], np.int64))])
    if array.size % 8:
        start = shared("start", np.asarray([0], np.int64))
        end = add_initializer(names, graph, f"{name}_size", np.asarray([array.size], np.int64))
        line = node("Slice", [line, start, end])
    ones = node("Cast", [line], [ir.AttrInt64("to", ir.DataType.INT32)])
    numbers = node("CumSum", [ones, shared("axis", np.asarray(0, np.int32))])
    places = node("Mul", [numbers, ones])
    found = node("Gather", [values, places], [ir.AttrInt64("axis", 0)])
    shape = add_initializer(names, graph, f"{name}_shape", np.asarray(array.shape, np.int64))
    expanded = node("Reshape", [found, shape])
    expanded.type, expanded.shape = weight.type, ir.Shape(array.shape)
    replace_initializer(graph, weight, nodes, expanded)
