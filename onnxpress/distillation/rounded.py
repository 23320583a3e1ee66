"""Integers and half precision as floats that are trained, and how these are stored again.

An integer weight is trained as a float that QuantizeLinear rounds to it in every step (straight
through, arXiv:1308.3432), so that what is trained is what runs.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.distillation.lookups import Plane
from onnxpress.graph import (
    Names,
    add_initializer,
    attribute,
    constant,
    insert_behind,
    is_standard,
)

__all__ = ["INTEGERS", "Parameter", "in_float", "mask_of"]

Floats = npt.NDArray[np.float32]

INTEGERS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
"""Types of weights that are trained, with their ends."""
_PRODUCTS = ("MatMulInteger", "ConvInteger")
_PRUNED_SHARE = 0.1
_PRUNED_TIMES = 8
"""Zeros of integers that are more than this share, and than so many times as many as 1 or -1, were
pruned; rounding makes about as many of each."""
_LEAST_SIZE = 0.01
"""Biases may start at 0."""
_LEAST_SCALE = 0.1
"""Of a scale: it must not reach 0."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One array that is trained.

    Attributes:
        name: of the initializer of the training graph.
        stands_for: the initializer of the student; another one for integers.
        start: its values.
        mask: False where a zero stays; `None`: all may change.
        scale: step size of integers in a shape that broadcasts, or `None`.
        zero: their zero point.
        dtype: of what is stored.
        scale_from: name of the parameter that is their scale, where it is trained too.
        least: what values must not fall below, or `None`.
        planes: of codes that a table expands, where values are levels of such.
    """

    name: str
    stands_for: str
    start: Floats
    mask: npt.NDArray[np.bool_] | None
    scale: Floats | None = None
    zero: npt.NDArray[np.float32] | None = None
    dtype: ir.DataType = ir.DataType.FLOAT
    scale_from: str = ""
    least: Floats | None = None
    planes: tuple[Plane, ...] = ()

    @property
    def size(self) -> Floats:
        """What its rate is relative to: its root mean square, or a step where that is larger.

        Of scales each its own, `[...]` as they are: they differ by far.
        """
        if self.least is not None:
            return self.start
        steps = 0.0 if self.scale is None else float(np.mean(self.scale))
        rms = float(np.sqrt(np.mean(np.square(self.start))))
        return np.asarray(max(rms, steps, _LEAST_SIZE), np.float32)

    def stored(self, values: Floats) -> npt.NDArray[np.generic]:
        """Trained values as the student stores them."""
        if self.scale is None or self.zero is None:
            return values.astype(self.dtype.numpy(), copy=False)
        low, high = INTEGERS.get(self.dtype, (-(2**31), 2**31 - 1))
        steps = np.rint(values.astype(np.float64) / self.scale) + self.zero
        kind = self.dtype.numpy()
        return np.clip(steps, low, high).astype(kind)


def mask_of(array: npt.NDArray[np.generic], *, integers: bool) -> npt.NDArray[np.bool_] | None:
    """Where a weight may change; `None` for vectors, and where zeros are no sign of pruning."""
    if array.ndim < 2:
        return None
    zeros = int(np.sum(array == 0))
    if integers:
        beside = max(int(np.sum(array == number)) for number in (1, -1))
        if zeros < max(_PRUNED_SHARE * array.size, _PRUNED_TIMES * beside):
            return None
    return np.asarray(array != 0, np.bool_) if zeros else None


def in_float(names: Names, graph: ir.Graph, value: ir.Value, *, packed: bool) -> list[Parameter]:
    """Let integers be rounded from floats in every step; empty where they are no weight.

    Their scale is trained too where nothing else has to agree with it.

    Args:
        names: what is free in the graph.
        graph: of the student; it is changed.
        value: the integers.
        packed: whether they are the table of a packed weight.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.dtype is None:
        return []
    node, place = uses[0]
    array = constant(value)
    multiplied = node.op_type in _PRODUCTS and place == 1
    if array is None or not is_standard(node) or (place != 0 and not multiplied):
        return []
    scale: Floats | None = np.ones((), np.float32)
    zero: Floats | None
    if packed and value.dtype in INTEGERS:
        # What stands for all zeros comes first.
        zero = array[0].astype(np.float32)
    elif multiplied:
        zero = _zero_of_product(node, array)
    elif node.op_type in ("DequantizeLinear", "Cast"):
        scale, zero = _steps(node, array)
    else:
        return []
    if scale is None or zero is None:
        return []
    start = ((array.astype(np.float32) - zero) * scale).astype(np.float32)
    centred = array.astype(np.float32) - zero
    mask = centred != 0 if packed else mask_of(centred, integers=True)
    shadow = add_initializer(names, graph, f"{value.name}_float", start)
    made = Parameter(shadow.name or "", value.name or "", start, mask, scale, zero, value.dtype)
    if value.dtype == ir.DataType.INT32:
        # Steps of 32 bits are finer than float: nothing to round.
        if node.op_type != "DequantizeLinear":
            del graph.initializers[shadow.name or ""]
            return []
        node.outputs[0].replace_all_uses_with(shadow)
        return [made]
    of_scale = _trained_scale(node)
    _round(names, graph, node, shadow, zero)
    if of_scale is None:
        return [made]
    return [replace(made, scale_from=of_scale.name), of_scale]


def _zero_of_product(node: ir.Node, array: npt.NDArray[np.generic]) -> Floats | None:
    """The zero point of an integer product's second operand, in a shape that broadcasts."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return np.zeros((), np.float32)
    zero = constant(node.inputs[3])
    if zero is None or zero.ndim > 1 or (zero.ndim == 1 and array.ndim < 2):
        return None
    point = zero.astype(np.float32)
    return point.reshape(-1, *[1] * (array.ndim - 1)) if node.op_type == "ConvInteger" else point


def _trained_scale(node: ir.Node) -> Parameter | None:
    """The scale of a weight in floats, where no integer bias has to agree with it (LSQ).

    Its gradient is that of learned step sizes (arXiv:1902.08153, equation 3). The factor by which
    they scale it down has no effect on Adam's steps, which do not depend on a gradient's size.
    """
    if node.op_type != "DequantizeLinear":
        return None
    scale, array = node.inputs[1], constant(node.inputs[1])
    if scale is None or array is None or len(list(scale.uses())) != 1:
        return None
    start = array.astype(np.float32)
    if array.dtype != np.float32 or (start <= 0).any():
        return None
    for reader, _ in node.outputs[0].uses():
        for other in reader.inputs:
            made = None if other is None or other is node.outputs[0] else other.producer()
            if made is not None and made.op_type == "DequantizeLinear":
                return None
    return Parameter(scale.name or "", scale.name or "", start, None, least=_LEAST_SCALE * start)


def _steps(
    node: ir.Node, array: npt.NDArray[np.generic]
) -> tuple[Floats | None, npt.NDArray[np.float32] | None]:
    """Scale and zero point in shapes that broadcast; 1 and 0 before a Cast."""
    if node.op_type == "Cast":
        if attribute(node, "to", 0) != int(ir.DataType.FLOAT) or array.ndim < 2:
            return None, None
        return np.ones((), np.float32), np.zeros((), np.float32)
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.float32)
    if scale is None or zero is None or scale.ndim > 1 or attribute(node, "block_size", 0):
        return None, None
    if scale.dtype != np.float32:
        return None, None
    steps = scale.astype(np.float32)
    if scale.ndim == 0:
        return steps, zero.astype(np.float32)
    axis = attribute(node, "axis", 1) % max(array.ndim, 1)
    column = [-1 if other == axis else 1 for other in range(array.ndim)]
    points = zero.astype(np.float32)
    return steps.reshape(column), points.reshape(column) if points.ndim else points


def _round(names: Names, graph: ir.Graph, node: ir.Node, shadow: ir.Value, zero: Floats) -> None:
    """QuantizeLinear of a float before the node that reads integers."""
    place = 1 if node.op_type in _PRODUCTS else 0
    integers = node.inputs[place]
    assert integers is not None
    assert integers.dtype is not None
    inputs: list[ir.Value | None]
    if node.op_type != "DequantizeLinear":
        kind = integers.dtype.numpy()
        flat = zero.reshape(-1) if zero.ndim else zero
        one = add_initializer(names, graph, "distill_one", np.ones(flat.shape, np.float32))
        none = add_initializer(names, graph, "distill_zero", flat.astype(kind))
        axis = 0 if node.op_type == "ConvInteger" else -1
        inputs, attributes = [shadow, one, none], [ir.AttrInt64("axis", axis)]
    else:
        point = node.inputs[2] if len(node.inputs) > 2 else None
        inputs = [shadow, node.inputs[1], *([point] if point is not None else [])]
        attributes = [a for n, a in node.attributes.items() if n == "axis"]
        if point is None and integers.dtype != ir.DataType.UINT8:
            scale = constant(node.inputs[1])
            assert scale is not None
            zeros = np.zeros(scale.shape, integers.dtype.numpy())
            inputs.append(add_initializer(names, graph, f"{integers.name}_zero", zeros))
    rounding = ir.Node("", "QuantizeLinear", inputs, attributes)
    rounding.name = names.free(f"{node.name}_rounded")
    rounding.outputs[0].name = names.free(f"{integers.name}_rounded")
    rounding.outputs[0].type, rounding.outputs[0].shape = integers.type, integers.shape
    insert_behind(graph, shadow, [rounding])
    node.replace_input_with(place, rounding.outputs[0])
