"""What of a student is trained: weights, biases, scales of norms, and integers through rounding.

An integer weight behind DequantizeLinear, or behind Cast, is trained as a float that
QuantizeLinear rounds to it in every step (straight through, arXiv:1308.3432): what is trained is
what runs. Zeros of pruned weights stay zero; of packed ones the table of the others is trained,
which Gather puts in their places.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from onnxpress.graph import (
    Names,
    add_initializer,
    attribute,
    constant,
    insert_behind,
    is_constant,
    is_standard,
)
from onnxpress.layers import WEIGHT_INPUTS

__all__ = ["Parameter", "Trainable", "trainable", "write_back", "write_values"]

Floats = npt.NDArray[np.float32]

_PLACES: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
}
"""Inputs that are trained."""
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
_MASKS = 1e4
"""What is as large is added to close a place, not to be learned."""
_PRUNED_SHARE = 0.1
_PRUNED_TIMES = 8
"""Zeros of integers that are more than this share, and than so many times as many as 1 or -1, were
pruned; rounding makes about as many of each."""
_LEAST_SIZE = 0.01
"""Biases may start at 0."""
_INTEGERS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}


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
    """

    name: str
    stands_for: str
    start: Floats
    mask: npt.NDArray[np.bool_] | None
    scale: Floats | None = None
    zero: npt.NDArray[np.float32] | None = None
    dtype: ir.DataType = ir.DataType.FLOAT

    @property
    def size(self) -> float:
        """What its rate is relative to: its root mean square, or a step where that is larger."""
        steps = 0.0 if self.scale is None else float(np.mean(self.scale))
        return max(float(np.sqrt(np.mean(np.square(self.start)))), steps, _LEAST_SIZE)

    def stored(self, values: Floats) -> npt.NDArray[np.generic]:
        """Trained values as the student stores them."""
        if self.scale is None or self.zero is None:
            return values
        low, high = _INTEGERS.get(self.dtype, (-(2**31), 2**31 - 1))
        steps = np.rint(values.astype(np.float64) / self.scale) + self.zero
        kind = self.dtype.numpy()
        return np.clip(steps, low, high).astype(kind)


@dataclass(frozen=True)
class Trainable:
    """A copy of a student whose trained arrays are initializers in float.

    Attributes:
        model: the copy.
        parameters: by name.
        left: why other weights are not trained, by name.
        rounds: whether it rounds what depends on them.
    """

    model: ir.Model
    parameters: Mapping[str, Parameter]
    left: Mapping[str, str]
    rounds: bool


def trainable(student: ir.Model) -> Trainable:
    """What can be trained of a student, which is not changed."""
    model = student.clone()
    # Axes that the conversion of the opset makes constants are read from initializers.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=1)(model)
    graph = model.graph
    names = Names(model)
    parameters: dict[str, Parameter] = {}
    left: dict[str, str] = {}
    behind, varying = _behind_layers(graph), _varying(graph)
    rounds = any(node.op_type == "QuantizeLinear" for node in graph)
    for value in list(graph.initializers.values()):
        name = value.name or ""
        if not is_constant(value) or not value.uses():
            continue
        if any(node.graph is not graph for node, _ in value.uses()):
            if _is_weight(value):
                left[name] = "a body of If, Loop or Scan reads it"
            continue
        packed = _is_packed(value, varying)
        if value.dtype == ir.DataType.FLOAT and (packed or _is_trained(value, behind)):
            array = constant(value)
            assert array is not None
            mask = array != 0 if packed else _mask(array, integers=False)
            parameters[name] = Parameter(name, name, array.astype(np.float32), mask)
        elif value.dtype in _INTEGERS or value.dtype == ir.DataType.INT32:
            made = _in_float(names, graph, value, packed=packed)
            if made is not None:
                parameters[made.name] = made
                rounds = rounds or value.dtype in _INTEGERS
        elif _is_weight(value):
            floats = value.dtype == ir.DataType.FLOAT
            left[name] = (
                "an embedding is not trained"
                if floats
                else f"weights of type {value.dtype} are not trained"
            )
    return Trainable(model, parameters, left, rounds)


def _is_weight(value: ir.Value) -> bool:
    return any(
        is_standard(node) and index in WEIGHT_INPUTS.get(node.op_type, ())
        for node, index in value.uses()
    )


def _is_trained(value: ir.Value, behind: set[ir.Value]) -> bool:
    """Whether every use is that of a weight, or of a row of numbers behind a layer."""
    array = constant(value)
    if array is None or array.size == 0 or not np.isfinite(array).all():
        return False
    for node, index in value.uses():
        if not is_standard(node):
            return False
        if index in _PLACES.get(node.op_type, ()):
            continue
        if node.op_type not in _ELEMENTWISE or array.size < 2 or np.abs(array).max() > _MASKS:
            return False
        if node.inputs[1 - index] not in behind:
            return False
    return True


def _behind_layers(graph: ir.Graph) -> set[ir.Value]:
    """What depends on the output of a layer."""
    found: set[ir.Value] = set()
    for node in graph:
        layer = node.op_type in WEIGHT_INPUTS and is_standard(node)
        if layer or any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _varying(graph: ir.Graph) -> set[ir.Value]:
    """What depends on an input."""
    found = set(graph.inputs)
    for node in graph:
        if any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _is_packed(value: ir.Value, varying: set[ir.Value]) -> bool:
    """Whether a vector is the table from which constant places fetch a weight."""
    uses = list(value.uses())
    if len(uses) != 1 or value.shape is None or len(value.shape) != 1:
        return False
    node, index = uses[0]
    fetched = is_standard(node) and node.op_type == "Gather" and index == 0
    return fetched and node.inputs[1] not in varying


def _mask(array: npt.NDArray[np.generic], *, integers: bool) -> npt.NDArray[np.bool_] | None:
    """Where a weight may change; `None` for vectors, and where zeros are no sign of pruning."""
    if array.ndim < 2:
        return None
    zeros = int(np.sum(array == 0))
    if integers:
        beside = max(int(np.sum(array == number)) for number in (1, -1))
        if zeros < max(_PRUNED_SHARE * array.size, _PRUNED_TIMES * beside):
            return None
    return np.asarray(array != 0, np.bool_) if zeros else None


def _in_float(names: Names, graph: ir.Graph, value: ir.Value, *, packed: bool) -> Parameter | None:
    """Let integers be rounded from floats in every step; `None` where it is no weight."""
    uses = list(value.uses())
    if len(uses) != 1 or uses[0][1] != 0 or value.dtype is None:
        return None
    node = uses[0][0]
    array = constant(value)
    if array is None or not is_standard(node):
        return None
    scale: Floats | None = np.ones((), np.float32)
    zero: Floats | None
    if packed and value.dtype in _INTEGERS:
        # What stands for all zeros comes first.
        zero = array[0].astype(np.float32)
    elif node.op_type in ("DequantizeLinear", "Cast"):
        scale, zero = _steps(node, array)
    else:
        return None
    if scale is None or zero is None:
        return None
    start = ((array.astype(np.float32) - zero) * scale).astype(np.float32)
    centred = array.astype(np.float32) - zero
    mask = centred != 0 if packed else _mask(centred, integers=True)
    shadow = add_initializer(names, graph, f"{value.name}_float", start)
    made = Parameter(shadow.name or "", value.name or "", start, mask, scale, zero, value.dtype)
    if value.dtype == ir.DataType.INT32:
        # Steps of 32 bits are finer than float: nothing to round.
        if node.op_type != "DequantizeLinear":
            del graph.initializers[shadow.name or ""]
            return None
        node.outputs[0].replace_all_uses_with(shadow)
        return made
    _round(names, graph, node, shadow, zero)
    return made


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
    integers = node.inputs[0]
    assert integers is not None
    assert integers.dtype is not None
    inputs: list[ir.Value | None]
    if node.op_type != "DequantizeLinear":
        kind = integers.dtype.numpy()
        one = add_initializer(names, graph, "distill_one", np.ones((), np.float32))
        none = add_initializer(names, graph, "distill_zero", zero.astype(kind))
        inputs, attributes = [shadow, one, none], []
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
    node.replace_input_with(0, rounding.outputs[0])


def write_back(
    student: ir.Model, parameters: Mapping[str, Parameter], values: Mapping[str, Floats]
) -> ir.Model:
    """A copy of the student with trained values in their places."""
    model = student.clone()
    write_values(model, parameters, values)
    return model


def write_values(
    model: ir.Model, parameters: Mapping[str, Parameter], values: Mapping[str, Floats]
) -> None:
    """Put trained values in their places; the model is changed."""
    for name, array in values.items():
        parameter = parameters[name]
        value = model.graph.initializers[parameter.stands_for]
        stored = np.ascontiguousarray(parameter.stored(array))
        value.const_value = ir.Tensor(stored, dtype=parameter.dtype, name=value.name)
