"""The sizes of tensors' axes, as far as they follow without samples.

What the file says comes first. Where it says nothing (a graph that no tool has inferred shapes of,
operators that inference does not know) the sizes follow from the operators, mostly the last ones,
which is what a network's widths are. Shapes that are computed (Shape, Gather, Concat → Reshape) are
followed element by element.
"""

import math
from collections.abc import Callable

import onnx_ir as ir

from onnxpress.constants import Constants
from onnxpress.graph import attribute

__all__ = ["Sizes", "SizesOf"]

Sizes = list[int | None]
"""Of a tensor's axes; `None` where a size is known at run time only."""

_SAME = (
    *("Abs", "BatchNormalization", "BiasGelu", "Cast", "CastLike", "Ceil", "Clip", "Cos", "CumSum"),
    *("DequantizeLinear", "Dropout", "DynamicQuantizeLinear", "Elu", "Erf", "Exp", "FastGelu"),
    *("Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsNaN", "LayerNormalization"),
    *("LeakyRelu", "Log", "LogSoftmax", "Neg", "Not", "QuantizeLinear", "QuickGelu", "Relu"),
    *("RMSNormalization", "Reciprocal", "RotaryEmbedding", "ScatterElements", "ScatterND"),
    *("Sigmoid", "SimplifiedLayerNormalization", "Sin", "SkipLayerNormalization", "Softmax"),
    *("SkipSimplifiedLayerNormalization", "Softplus", "Sqrt", "Swish", "Tanh"),
)
"""Operators whose result is as large as their first input."""
_BROADCAST = (
    *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"),
    *("Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where"),
)
_PRODUCTS = ("MatMul", "MatMulInteger", "FusedMatMul", "Gemm", "DynamicQuantizeMatMul")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceL2")
_CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Resize")


_DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Whose operators the rules are about; a function of a model may have any name."""


class SizesOf:
    """The sizes of all tensors of a model."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._known: dict[ir.Value, Sizes | None] = {}
        for node in constants.nodes:
            for value in node.outputs:
                self._known[value] = self._stated(value, self._made(node, value))

    def __call__(self, value: ir.Value | None) -> Sizes | None:
        """Of one; `None`: not even how many axes it has."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = self._stated(value, None)
        return self._known[value]

    def _stated(self, value: ir.Value, made: Sizes | None) -> Sizes | None:
        if value.const_value is not None:
            return [int(size) for size in value.const_value.shape.numpy()]
        if value.shape is None:
            return made
        stated: Sizes = [size if isinstance(size, int) else None for size in value.shape]
        if made is None or len(made) != len(stated):
            return stated
        return [one if one is not None else other for one, other in zip(stated, made, strict=True)]

    def _made(self, node: ir.Node, value: ir.Value) -> Sizes | None:
        if not node.inputs:
            array = self._constants.array(value)
            return None if array is None else list(array.shape)
        if value is not node.outputs[0]:
            if node.op_type == "DynamicQuantizeLinear":
                return []
            if node.op_type != "Split" and not node.op_type.startswith("Skip"):
                return None
        rule = _RULES.get(node.op_type) if node.domain in _DOMAINS else None
        return None if rule is None else rule(self, node)

    # Element by element

    def elements(self, value: ir.Value | None) -> Sizes | None:
        """The elements of a tensor that is a shape; `None`: not even how many."""
        array = self._constants.array(value)
        if array is not None:
            return [int(size) for size in array.reshape(-1)] if array.dtype.kind in "iu" else None
        node = None if value is None else value.producer()
        if node is None:
            return None
        if node.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze"):
            return self.elements(node.inputs[0])
        if node.op_type == "Shape":
            return (self(node.inputs[0]) or [])[attribute(node, "start", 0) :] or None
        if node.op_type in ("Gather", "Slice"):
            return self._picked(node)
        return self._joined(node) if node.op_type == "Concat" else None

    def _picked(self, node: ir.Node) -> Sizes | None:
        elements = self.elements(node.inputs[0])
        if elements is None:
            return None
        if node.op_type == "Slice":
            starts = self._constants.integers(node, "starts", 1)
            ends = self._constants.integers(node, "ends", 2)
            return None if not starts or not ends else elements[starts[0] : ends[0]]
        places = self._constants.integers(node, "", 1) or []
        return [elements[at] for at in places if -len(elements) <= at < len(elements)] or None

    def _joined(self, node: ir.Node) -> Sizes | None:
        elements: Sizes = []
        for part in node.inputs:
            found = self.elements(part)
            if found is None:
                sizes = self(part)
                length = sizes[0] if sizes is not None and len(sizes) == 1 else None
                if length is None:
                    return None
                found = [None] * length
            elements += found
        return elements

    # Operators

    def same(self, node: ir.Node) -> Sizes | None:
        """As large as the first input."""
        return self(node.inputs[0])

    def broadcast(self, node: ir.Node) -> Sizes | None:
        """Element by element."""
        known = [sizes for sizes in map(self, node.inputs) if sizes is not None]
        if len(known) < len(node.inputs):
            return None
        rank, one = max(map(len, known)), [1]
        result: Sizes = []
        padded: list[Sizes] = [[*one * (rank - len(sizes)), *sizes] for sizes in known]
        for facing in zip(*padded, strict=True):
            others = [size for size in facing if size != 1]
            sure = [size for size in others if size is not None]
            result.append(sure[0] if sure else None if others else 1)
        return result

    def product(self, node: ir.Node) -> Sizes | None:
        """Of matrices."""
        first, second = self(node.inputs[0]), self(node.inputs[1])
        if first is None or second is None or min(len(first), len(second)) < 2:
            return None
        if attribute(node, "transA", 0):
            first = [*first[:-2], first[-1], first[-2]]
        if attribute(node, "transB", 0):
            second = [*second[:-2], second[-1], second[-2]]
        longer = first if len(first) >= len(second) else second
        return [*longer[:-2], first[-2], second[-1]]

    def reduced(self, node: ir.Node) -> Sizes | None:
        """Without some axes, or with one of them."""
        first = self(node.inputs[0])
        if first is None:
            return None
        given = self._constants.integers(node, "axes", 1)
        places = {at % len(first) for at in given} if given and first else range(len(first))
        if attribute(node, "keepdims", 1):
            return [1 if at in places else size for at, size in enumerate(first)]
        return [size for at, size in enumerate(first) if at not in places]

    def convolved(self, node: ir.Node) -> Sizes | None:
        """Channels by the weight."""
        first = self(node.inputs[0])
        weight = self(node.inputs[3 if node.op_type == "QLinearConv" else 1])
        if first is None or weight is None:
            return None
        return [first[0], weight[0], *[None] * (len(first) - 2)]

    def pooled(self, node: ir.Node) -> Sizes | None:
        """Channels as before."""
        first = self(node.inputs[0])
        return None if first is None else [*first[:2], *[None] * (len(first) - 2)]

    def shape(self, node: ir.Node) -> Sizes | None:
        """As long as there are axes."""
        first = self(node.inputs[0])
        return [None if first is None else len(first)]

    def line(self, node: ir.Node) -> Sizes | None:  # one rule among others
        """A vector."""
        return [None]

    def expanded(self, node: ir.Node) -> Sizes | None:
        """As large as a shape asks for."""
        wanted = node.inputs[-1]
        target, length = self.elements(wanted), self(wanted)
        if target is None and length and length[0]:
            target = [None] * length[0]
        first = self(node.inputs[0])
        if target is None or node.op_type == "ConstantOfShape" or first is None:
            return target if node.op_type == "ConstantOfShape" else None
        rank = max(len(target), len(first))
        one: Sizes = [1]
        padded, asked = one * (rank - len(first)) + first, one * (rank - len(target)) + target
        return [old if old != 1 else new for old, new in zip(padded, asked, strict=True)]

    def reshaped(self, node: ir.Node) -> Sizes | None:
        """A target, with what it leaves open."""
        first, target = self(node.inputs[0]), self.elements(node.inputs[-1])
        if target is None:
            return None
        kept = [
            first[at] if size == 0 and first is not None and at < len(first) else size
            for at, size in enumerate(target)
        ]
        # Axes of unknown size are taken to stay as they are: batch and length, where heads part.
        if kept.count(-1) == 1 and first is not None and first.count(None) == kept.count(None):
            rest = math.prod(size for size in kept if size is not None and size > 0)
            whole = math.prod(size for size in first if size is not None)
            kept = [whole // max(rest, 1) if size == -1 else size for size in kept]
        return [size if size is not None and size > 0 else None for size in kept]

    def transposed(self, node: ir.Node) -> Sizes | None:
        """Axes in another order."""
        first, perm = self(node.inputs[0]), node.attributes.get("perm")
        if first is None:
            return None
        order = range(len(first))[::-1] if perm is None else perm.as_ints()
        return [first[at] for at in order] if len(order) == len(first) else None

    def squeezed(self, node: ir.Node) -> Sizes | None:
        """With or without axes of one."""
        first, axes = self(node.inputs[0]), self._constants.integers(node, "axes", 1)
        if first is None or not axes:
            return None
        grows = node.op_type == "Unsqueeze"
        rank = len(first) + (len(axes) if grows else 0)
        places = {at % rank for at in axes} if rank else set()
        if not grows:
            return [size for at, size in enumerate(first) if at not in places]
        rest = iter(first)
        return [1 if at in places else next(rest, None) for at in range(rank)]

    def sliced(self, node: ir.Node) -> Sizes | None:
        """Shorter along some axes."""
        first = self(node.inputs[0])
        if first is None:
            return None
        numbers = self._constants.integers
        starts, ends = numbers(node, "starts", 1), numbers(node, "ends", 2)
        axes, steps = numbers(node, "axes", 3), numbers(node, "steps", 4)
        result, whole = list(first), starts is not None and ends is not None
        for at, axis in enumerate(range(len(first)) if axes is None else axes):
            place = axis % max(len(first), 1)
            result[place] = None
            if whole and starts and ends and at < len(starts) and not (steps and steps[at] != 1):
                result[place] = _length(first[place], starts[at], ends[at])
        return result

    def along(self, node: ir.Node) -> Sizes | None:
        """Split and Concat: all sizes but that of one axis."""
        first = self(node.inputs[0])
        if first is None:
            return None
        place = attribute(node, "axis", 0) % max(len(first), 1)
        together = None
        if node.op_type == "Concat":
            parts = [self(value) or [] for value in node.inputs]
            sizes = [part[place] if place < len(part) else None for part in parts]
            known = [size for size in sizes if size is not None]
            together = sum(known) if len(known) == len(sizes) else None
        return [size if at != place else together for at, size in enumerate(first)]

    def gathered(self, node: ir.Node) -> Sizes | None:
        """Indices in the place of an axis."""
        first, picked = self(node.inputs[0]), self(node.inputs[1])
        if first is None or picked is None:
            return None
        place = attribute(node, "axis", 0) % max(len(first), 1)
        return [*first[:place], *picked, *first[place + 1 :]]


def _length(size: int | None, start: int, end: int) -> int | None:
    if size is not None:
        return len(range(*slice(start, end).indices(size)))
    return max(end - start, 0) if (start < 0) == (end < 0) else None


Rule = Callable[[SizesOf, ir.Node], Sizes | None]
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, SizesOf.same),
    **dict.fromkeys(_BROADCAST, SizesOf.broadcast),
    **dict.fromkeys(_PRODUCTS, SizesOf.product),
    **dict.fromkeys(_REDUCTIONS, SizesOf.reduced),
    **dict.fromkeys(_CONVOLUTIONS, SizesOf.convolved),
    **dict.fromkeys(_POOLS, SizesOf.pooled),
    **dict.fromkeys(("ConstantOfShape", "Expand"), SizesOf.expanded),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), SizesOf.squeezed),
    **dict.fromkeys(("Concat", "Split"), SizesOf.along),
    "Gather": SizesOf.gathered,
    "Range": SizesOf.line,
    "Reshape": SizesOf.reshaped,
    "Shape": SizesOf.shape,
    "Slice": SizesOf.sliced,
    "Transpose": SizesOf.transposed,
}
