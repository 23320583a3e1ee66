"""Models that store half weights behind Cast, and the same numbers in float32."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import graphs_of, prepend
from onnxpress.model_file import to_bytes

LEAST_NUMBERS = 128


def twins(model: ir.Model) -> tuple[ir.Model, ir.Model]:
    """A model with its weights rounded to half, in float32, and with them in half behind Casts.

    Initializers of the main graph and of bodies, and what nodes Constant give.
    """
    single, half = model.clone(), model.clone()
    for graph in graphs_of(single.graph):
        for name, value in graph.initializers.items():
            if (array := _chosen(value.const_value)) is not None:
                value.const_value = ir.Tensor(array.astype(np.float32), name=name)
        for node in graph:
            if node.op_type == "Constant" and (array := _chosen(_given(node))) is not None:
                node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(array.astype("f4")))
    for graph in graphs_of(half.graph):
        for name, value in list(graph.initializers.items()):
            if (array := _chosen(value.const_value)) is not None:
                stored = _constant(f"{name}_fp16", array)
                cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{name}_cast")
                ir.convenience.replace_all_uses_with(value, cast.outputs[0])
                del graph.initializers[name]
                graph.register_initializer(stored)
                cast.outputs[0].name = name
                prepend(graph, [cast])
        for node in list(graph):
            if node.op_type == "Constant" and (array := _chosen(_given(node))) is not None:
                node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(array))
                old = node.outputs[0]
                cast = ir.node("Cast", [old], {"to": ir.DataType.FLOAT}, name=f"{old.name}_cast")
                readers = [(user, index) for user, index in old.uses() if user is not cast]
                for user, index in readers:
                    user.replace_input_with(index, cast.outputs[0])
                cast.outputs[0].name, old.name = old.name, f"{old.name}_fp16"
                old.type = ir.TensorType(ir.DataType.FLOAT16)
                graph.insert_after(node, [cast])
    return ir.from_proto(ir.to_proto(single)), ir.from_proto(ir.to_proto(half))


def size(model: ir.Model) -> int:
    """Bytes of its file."""
    return len(to_bytes(model))


def _given(node: ir.Node) -> ir.TensorProtocol | None:
    given = node.attributes.get("value")
    return None if given is None else given.as_tensor()


def _chosen(
    tensor: ir.TensorProtocol | None,
) -> npt.NDArray[np.float16] | None:
    """Its numbers in half, where it is a weight."""
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < LEAST_NUMBERS:
        return None
    with np.errstate(over="ignore"):
        half: npt.NDArray[np.float16] = tensor.numpy().astype(np.float16)
    return half if np.isfinite(half).all() else None


def _constant(name: str, array: npt.NDArray[np.float16]) -> ir.Value:
    kind = ir.TensorType(ir.DataType.FLOAT16)
    shape = ir.Shape(array.shape)
    return ir.Value(name=name, type=kind, shape=shape, const_value=ir.Tensor(array, name=name))
