"""Bring tensors that lie in other files into a model."""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

__all__ = ["in_memory", "is_in_memory", "read_from", "with_own_attributes"]


def read_from(model: ir.Model) -> set[Path]:
    """Files that a model in memory still reads its weights from."""
    return {
        Path(value.const_value.path).resolve()
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }


def in_memory(model: ir.Model, *, but_large: bool = False) -> ir.Model:
    """The model with external tensors read; the same model where there are none.

    Args:
        model: it is not changed.
        but_large: weights of the main graph stay where they are.
    """
    if is_in_memory(model):
        return model
    model = with_own_attributes(model.clone())
    for graph in model.graph.subgraphs() if but_large else model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _read(value.const_value)
    return model


def is_in_memory(model: ir.Model) -> bool:
    """Whether no tensor of the model lies in another file."""
    return not any(True for _ in _external_attributes(model)) and not read_from(model)


def with_own_attributes(model: ir.Model) -> ir.Model:
    """The same model, changed: attributes hold their tensors, which no runtime reads elsewhere."""
    for node, attribute in list(_external_attributes(model)):
        node.attributes.add(ir.AttrTensor(attribute.name, _read(attribute.as_tensor())))
    return model


def _external_attributes(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Attr]]:
    for graph in (*model.graphs(), *model.functions.values()):
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and isinstance(
                    attribute.value, ir.ExternalTensor
                ):
                    yield node, attribute


def _read(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
