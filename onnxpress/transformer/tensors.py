"""How a tensor came about: what it was made of, what it was moved from, what it is moved into.

Exports differ in what lies between two steps of a network: reshapes, casts, quantizers, shapes that
are computed. Here they are stepped over, so that the rest looks at the network alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from onnxpress.constants import Constants
from onnxpress.transformer.sizes import SizesOf

__all__ = ["MOVING", "Tensors"]

MOVING = frozenset(
    [
        *("Cast", "CastLike", "DequantizeLinear", "Dropout", "DynamicQuantizeLinear", "Expand"),
        *("Flatten", "Identity", "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze", "Pad", "Gather", "Tile", "SplitToSequence", "SequenceAt"),
    ]
)
"""Operators that hand on the numbers of their first input."""
_FIRST = MOVING | frozenset(
    [
        *("Clip", "GatherElements", "GatherND", "LayerNormalization", "RMSNormalization"),
        *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Resize", "RotaryEmbedding"),
        *("SimplifiedLayerNormalization", "Trilu", "Pow", "LpNormalization"),
    ]
)
"""Operators whose other inputs say how, not what."""
_NUMBERS = frozenset(
    [
        *("ConstantOfShape", "Equal", "EyeLike", "Greater", "GreaterOrEqual", "IsNaN", "Less"),
        *("LessOrEqual", "NonZero", "Not", "And", "Or", "Range", "Shape", "Size"),
    ]
)
"""Operators that make something else of a tensor than a tensor of the network."""
_FARTHEST = 400
"""Nodes that are looked at from one tensor."""


class Tensors:
    """The tensors of a model, in all of its graphs."""

    def __init__(self, model: ir.Model) -> None:
        self.constants = Constants(model)
        self.nodes = self.constants.nodes
        self.sizes = SizesOf(self.constants)
        self.array = self.constants.array

    def is_constant(self, value: ir.Value) -> bool:
        """Whether it follows from constants alone."""
        return value in self.constants

    def activations(self, node: ir.Node) -> list[ir.Value]:
        """Inputs that carry numbers of the network."""
        if node.op_type in _NUMBERS:
            return []
        if node.op_type in _FIRST:
            chosen: Sequence[ir.Value | None] = node.inputs[:1]
        elif node.op_type == "Where":
            chosen = node.inputs[1:3]
        elif node.op_type in ("ScatterND", "ScatterElements", "Scatter"):
            chosen = (node.inputs[0], node.inputs[2])
        elif node.op_type == "TensorScatter":
            chosen = node.inputs[:2]
        else:
            chosen = node.inputs
        return [value for value in chosen if value is not None and not self.is_constant(value)]

    def number(self, value: ir.Value | None) -> float | None:
        """A constant of one element."""
        sizes = self.sizes(value)
        if value is None or sizes is None or math.prod(size or 0 for size in sizes) != 1:
            return None
        array = self.array(value)
        return None if array is None else float(array.reshape(-1)[0])

    def is_number(self, value: ir.Value) -> bool:
        """Whether it is a single one, computed or not."""
        sizes = self.sizes(value)
        return sizes is not None and all(size == 1 for size in sizes)

    def stored(self, value: ir.Value) -> ir.Value:
        """The stored constant that a constant was made of."""
        while value.const_value is None and (node := value.producer()) is not None:
            sources = [v for v in node.inputs if v is not None]
            if not sources:
                break
            value = sources[0]
        return value

    def root(self, value: ir.Value) -> ir.Value:
        """What it was moved from: through reshapes, casts, quantizers."""
        while (node := value.producer()) is not None and node.op_type in MOVING:
            if value is not node.outputs[0] and node.op_type == "DynamicQuantizeLinear":
                break
            above = node.inputs[0]
            if above is None or self.is_constant(above):
                break
            value = above
        return value

    def way(self, value: ir.Value) -> Iterator[ir.Value]:
        """A tensor, and all that `root` passes by."""
        root = self.root(value)
        while value is not root:
            yield value
            node = value.producer()
            above = None if node is None else node.inputs[0]
            if above is None:
                return
            value = above
        yield root

    def upward(
        self, value: ir.Value, through: Callable[[ir.Node], bool]
    ) -> Iterator[tuple[ir.Value, ir.Node | None]]:
        """Tensors that a tensor was made of, the nearest first, each with its node.

        Args:
            value: where to begin; it is the first.
            through: whether to look at what a node reads.
        """
        waiting, seen = [value], {value}
        for current in waiting:
            node = current.producer()
            if node is not None and node.op_type == "DynamicQuantizeLinear":
                # Its scale says nothing of where the numbers come from.
                node = node if current is node.outputs[0] else None
                if node is None:
                    continue
            yield current, node
            if node is None or len(waiting) > _FARTHEST or not through(node):
                continue
            for above in self.activations(node):
                if above not in seen:
                    seen.add(above)
                    waiting.append(above)
