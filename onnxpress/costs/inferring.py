"""Shapes that follow from those of the inputs, arithmetic on shapes included.

ONNX's shape inference follows tensors, and stops where a graph computes a size: Shape, Gather, Mul,
Concat, Reshape. With inputs of fixed shapes these are constants: they are worked out with ONNX's
reference implementation and inferred again, until nothing more becomes known.
"""

import logging
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["inferred_shapes"]

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.generic]

_ROUNDS = 6
"""Sizes that hang on sizes that hang on sizes: more than models of texts need."""
_MOST_ELEMENTS = 1024
"""Of what is worked out: sizes, not data."""
_ARITHMETIC = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Neg", "Abs", "Floor", "Ceil", "Sqrt"),
        *("Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Identity"),
        *("Equal", "Less", "Greater", "Not", "And", "Or", "Where", "ReduceProd", "Constant"),
    )
)
_MAKING = frozenset(("ConstantOfShape", "Expand"))
"""Operators that make more than they are given; their last input is the shape."""


def inferred_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes that are known in full, by name.

    Args:
        proto: with fixed shapes of its inputs, and without large weights; what is worked out of it
            takes the place of its nodes.
    """
    known: dict[str, tuple[int, ...]] = {}
    for _ in range(_ROUNDS):
        try:
            found = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            logger.info("shapes are not inferred: %s", error)
            break
        for info in (*found.graph.input, *found.graph.value_info, *found.graph.output):
            shape = _static(info)
            if shape is not None:
                known[info.name] = shape
        if not _fold(proto, known):
            break
    return known


def _static(info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    shape = tuple(dim.dim_value for dim in dims)
    return shape if min(shape, default=0) >= 0 else None


def _fold(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Put constants in the place of nodes that compute sizes; whether there were any."""
    values: dict[str, Array] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in proto.graph.initializer
        if math.prod(tensor.dims) <= _MOST_ELEMENTS
    }
    kept: list[onnx.NodeProto] = []
    folded = False
    for node in proto.graph.node:
        result = _result(node, values, shapes, proto)
        if result is None:
            kept.append(node)
            continue
        folded = True
        values[node.output[0]] = result
        shapes[node.output[0]] = result.shape
        proto.graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return folded


def _result(
    node: onnx.NodeProto,
    values: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    proto: onnx.ModelProto,
) -> Array | None:
    """What a node computes of sizes, where all that it reads is known."""
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        shape = np.asarray(shapes[node.input[0]], np.int64)
        if node.op_type == "Size":
            return np.asarray(shape.prod(), np.int64)
        ends = {one.name: one.i for one in node.attribute}
        return shape[ends.get("start", 0) : ends.get("end", len(shape))]
    if node.op_type not in _ARITHMETIC and node.op_type not in _MAKING:
        return None
    given = {name: values.get(name) for name in node.input if name}
    if any(array is None for array in given.values()):
        return None
    if node.op_type in _MAKING:
        wanted = np.asarray(given[node.input[-1]], np.float64)
        if np.prod(np.abs(wanted)) > _MOST_ELEMENTS:
            return None
    return _evaluated(node, given, proto)


def _evaluated(
    node: onnx.NodeProto, given: Mapping[str, Array | None], proto: onnx.ModelProto
) -> Array | None:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - most models need none

    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        (result,) = ReferenceEvaluator(node, opsets=opsets).run(None, dict(given))
    except Exception as error:  # noqa: BLE001 - it raises what numpy does with what is not valid
        logger.debug("a size is not worked out: %s", error)
        return None
    array = np.asarray(result)
    return array if array.size <= _MOST_ELEMENTS and array.dtype != object else None
