"""Models of tests from ONNX's text form, which has no room for large weights."""

from collections.abc import Mapping

import onnx_ir as ir

from onnxpress.runtime import Array


def hold(model: ir.Model, arrays: Mapping[str, Array]) -> ir.Model:
    """The model itself, whose inputs of these names have become initializers."""
    for value in list(model.graph.inputs):
        name = value.name or ""
        if name in arrays:
            model.graph.inputs.remove(value)
            value.const_value = ir.Tensor(arrays[name], name=name)
            model.graph.register_initializer(value)
    return model
