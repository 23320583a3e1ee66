"""Layers: matrices of every operator's layout, and weights that are none."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnxpress import model_file
from onnxpress.layers import find_layers
from onnxpress.passes.simplify import simplify
from onnxpress.testing import SAMPLE_MODELS


@pytest.mark.parametrize("name", SAMPLE_MODELS)
def test_layer_matrix_survives_reading_and_writing(name: str) -> None:
    model = SAMPLE_MODELS[name]()
    simplify(model)
    before = model_file.to_bytes(model)
    layers = find_layers(model)
    assert layers
    for layer in layers:
        layer.write(layer.read())
    assert model_file.to_bytes(model) == before


def test_initializer_that_may_be_overridden_is_an_input_and_no_layer(linear_model: Path) -> None:
    proto = onnx.load(linear_model)
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("weight", onnx.TensorProto.FLOAT, [64, 64])
    )
    model = ir.from_proto(proto)
    simplify(model)
    assert [value.name for value in model.graph.inputs] == ["x", "weight"]
    assert find_layers(model) == []
