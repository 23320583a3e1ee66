"""What of a student is trained: weights, biases, scales of norms, and integers through rounding.

An integer weight behind DequantizeLinear, or behind Cast, is trained as a float that
QuantizeLinear rounds to it in every step (straight through, arXiv:1308.3432): what is trained is
what runs. Zeros of pruned weights stay zero; of packed ones the table of the others is trained,
which Gather puts in their places.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from onnxpress.distillation.lookups import encoded, looked_up, rounded_levels
from onnxpress.distillation.plain import without_packed_products
from onnxpress.distillation.rounded import INTEGERS, Parameter, in_float, mask_of
from onnxpress.graph import Names, attribute, constant, is_constant, is_standard
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
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
}
"""Inputs that are trained."""
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
_MASKS = 1e4
"""What is as large is added to close a place, not to be learned."""
_LARGEST_TABLE = 4_000_000
"""Numbers of an embedding: of larger ones few samples read few rows."""


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
    without_packed_products(model)
    graph = model.graph
    names = Names(model)
    parameters: dict[str, Parameter] = {}
    left: dict[str, str] = {}
    for lookup in looked_up(model):
        shadow = rounded_levels(names, graph, lookup)
        parameters[shadow.name or ""] = Parameter(
            shadow.name or "",
            lookup.planes[0].name,
            lookup.levels,
            None,
            np.ones((), np.float32),
            np.zeros((), np.float32),
            planes=lookup.planes,
        )
    behind, varying = _behind_layers(graph), _varying(graph)
    rounds = bool(parameters) or any(node.op_type == "QuantizeLinear" for node in graph)
    for value in list(graph.initializers.values()):
        name = value.name or ""
        if not is_constant(value) or not value.uses() or name in parameters:
            continue
        if any(node.graph is not graph for node, _ in value.uses()):
            if _is_weight(value):
                left[name] = "a body of If, Loop or Scan reads it"
            continue
        packed = _is_packed(value, varying)
        if value.dtype == ir.DataType.FLOAT and (packed or _is_trained(value, behind)):
            array = constant(value)
            assert array is not None
            mask = array != 0 if packed else mask_of(array, integers=False)
            parameters[name] = Parameter(name, name, array.astype(np.float32), mask)
        elif value.dtype in INTEGERS or value.dtype == ir.DataType.INT32:
            made = in_float(names, graph, value, packed=packed)
            for one in made:
                parameters[one.name] = one
            if made:
                rounds = rounds or value.dtype in INTEGERS
        elif _is_weight(value):
            floats = value.dtype == ir.DataType.FLOAT
            left[name] = (
                f"an embedding of more than {_LARGEST_TABLE:,} numbers is not trained"
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
        if index in _PLACES.get(node.op_type, ()) or _is_table(node, index, array):
            continue
        if node.op_type not in _ELEMENTWISE or array.size < 2 or np.abs(array).max() > _MASKS:
            return False
        if node.inputs[1 - index] not in behind:
            return False
    return True


def _is_table(node: ir.Node, index: int, array: npt.NDArray[np.generic]) -> bool:
    """Whether a Gather looks up rows of an embedding that is not too large."""
    looked_up = node.op_type == "Gather" and index == 0 and attribute(node, "axis", 0) == 0
    floats = array.ndim == 2 and array.dtype.kind == "f"
    return looked_up and floats and array.size <= _LARGEST_TABLE and not is_constant(node.inputs[1])


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
        if parameter.planes:
            for plane, stored in encoded(parameter.planes, array).items():
                model.graph.initializers[plane].const_value = ir.Tensor(stored, name=plane)
            continue
        if parameter.scale_from in values and parameter.scale is not None:
            scale = values[parameter.scale_from].reshape(parameter.scale.shape)
            parameter = replace(parameter, scale=scale)
        value = model.graph.initializers[parameter.stands_for]
        stored = np.ascontiguousarray(parameter.stored(array))
        value.const_value = ir.Tensor(stored, dtype=parameter.dtype, name=value.name)
