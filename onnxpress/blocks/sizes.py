"""How many bytes a tensor takes: by its shape where that is known, else as one run shows."""

import logging
import math

import onnx
import onnx_ir as ir

from onnxpress.beyond_ir import holds_map, to_proto
from onnxpress.errors import ModelError
from onnxpress.graph import Names, static_shape
from onnxpress.runtime import Feed, Session

__all__ = [
    "can_cross",
    "constant_bytes",
    "observed_bytes",
    "tensor_bytes",
    "with_types",
    "without_weights",
]

logger = logging.getLogger(__name__)

_LARGE_BYTES = 1000
_ITEM_BYTES = {
    ir.DataType.BOOL: 1,
    ir.DataType.INT8: 1,
    ir.DataType.UINT8: 1,
    ir.DataType.INT16: 2,
    ir.DataType.UINT16: 2,
    ir.DataType.FLOAT16: 2,
    ir.DataType.INT32: 4,
    ir.DataType.UINT32: 4,
    ir.DataType.FLOAT: 4,
    ir.DataType.INT64: 8,
    ir.DataType.UINT64: 8,
    ir.DataType.DOUBLE: 8,
}
"""Of what both onnxruntime and NumPy hand over as they are."""


def with_types(model: ir.Model) -> ir.Model:
    """The model, or a copy with the types and shapes that can be inferred where some are missing.

    Without data propagation, which would build the tensors that it follows; of nodes in bodies
    nothing is asked.
    """
    values = (value for node in model.graph for value in node.outputs)
    if all(value.type is not None and value.shape is not None for value in values):
        return model
    try:
        proto = onnx.shape_inference.infer_shapes(without_weights(model))
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        logger.info("shapes are not inferred: %s", error)
        return model
    found = model.clone()
    kinds = {info.name: info.type for info in proto.graph.value_info}
    for node in found.graph:
        for value in node.outputs:
            kind = kinds.get(value.name or "")
            if kind is None or holds_map(kind):
                continue
            if value.type is None:
                value.type = ir.serde.deserialize_type_proto_for_type(kind)
            if value.shape is None:
                value.shape = ir.serde.deserialize_type_proto_for_shape(kind)
    return found


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """What shapes are inferred of: large initializers are inputs, so that nothing copies them."""
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _LARGE_BYTES and not value.is_graph_input():
            value.type = value.type or ir.TensorType(tensor.dtype)
            value.shape = value.shape or ir.Shape(tensor.shape.numpy())
            del copy.graph.initializers[name]
            copy.graph.inputs.append(value)
    return to_proto(copy)


def can_cross(value: ir.Value) -> bool:
    """Whether a value may go from a block to another: a tensor of numbers, of known rank."""
    numbers = isinstance(value.type, ir.TensorType) and value.dtype in _ITEM_BYTES
    return numbers and value.shape is not None


def tensor_bytes(value: ir.Value) -> int:
    """By type and shape; a dimension that is not known counts as 1."""
    if value.shape is None or value.dtype is None:
        return 0
    known = (dim for dim in value.shape if isinstance(dim, int))
    return math.prod(known) * _ITEM_BYTES.get(value.dtype, 1)


def constant_bytes(value: ir.Value) -> int:
    """Of an initializer as stored, or of what is computed of constants."""
    held = value.const_value
    return tensor_bytes(value) if held is None else held.nbytes


def observed_bytes(model: ir.Model, feed: Feed, *, threads: int = 0) -> dict[str, int]:
    """Bytes of the tensors whose shapes the model leaves open, from one run.

    The run gives shapes alone (a Shape node each), so that tensors are freed as usual.

    Args:
        model: not changed.
        feed: what to run it on.
        threads: of onnxruntime.
    """
    copy = with_types(model).clone()
    names, asked = Names(copy), dict[str, tuple[str, int]]()
    for node in list(copy.graph):
        for value in node.outputs:
            if value.name and can_cross(value) and static_shape(value) is None:
                shape = ir.node("Shape", [value])
                shape.outputs[0].name = names.free(f"{value.name}_shape")
                shape.outputs[0].type = ir.TensorType(ir.DataType.INT64)
                copy.graph.append(shape)
                copy.graph.outputs.append(shape.outputs[0])
                assert value.dtype is not None
                asked[shape.outputs[0].name] = value.name, _ITEM_BYTES[value.dtype]
    if not asked:
        return {}
    try:
        found = Session(copy, threads=threads, arena=False).run(feed, list(asked))
    except ModelError as error:
        logger.info("sizes of tensors are not observed: %s", error)
        return {}
    return {
        name: math.prod(found[output].tolist()) * item for output, (name, item) in asked.items()
    }
