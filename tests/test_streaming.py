"""A model's file written a weight at a time is the file that protobuf writes."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress import model_file
from onnxpress.spill import Spill

KINDS = [ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.INT64]


def _model(sizes: list[tuple[int, ir.DataType, bool]]) -> ir.Model:
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17], producer_name: "a test">\n'
        "g (float[n] x) => (float[n] y) { y = Relu (x) }"
    )
    model.metadata_props["kept"] = "as it is"
    model.graph.doc_string = "what stands behind the weights"
    spill = Spill()
    for number, (size, kind, apart) in enumerate(sizes):
        array = np.arange(size).astype(kind.numpy())
        tensor: ir.TensorProtocol = ir.Tensor(array, name=f"w{number}", doc_string="a weight")
        value = ir.Value(name=tensor.name, const_value=spill.put(tensor) if apart else tensor)
        model.graph.register_initializer(value)
    return model


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 127, 128, 5000]), st.sampled_from(KINDS), st.booleans()),
        max_size=4,
    )
)
def test_weights_in_files_and_in_memory_give_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, ir.DataType, bool]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxpress.spill._LEAST_BYTES", 1)
        model = _model(sizes)
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    model_file.save(model, path)
    wanted = model_file.to_bytes(_model([(size, kind, False) for size, kind, _ in sizes]))
    assert path.read_bytes() == wanted
    assert model_file.whole_size(model) == len(wanted)


def test_a_model_with_external_data_becomes_one_file(tmp_path: Path) -> None:
    model = _model([(5000, ir.DataType.FLOAT, False), (3, ir.DataType.INT64, False)])
    apart = tmp_path / "apart.onnx"
    model_file.save(model, apart, external_data=True)
    assert len(list(tmp_path.glob("apart.onnx.*.data"))) == 1
    loaded = model_file.load(apart)
    model_file.save(loaded, tmp_path / "whole.onnx")
    assert (tmp_path / "whole.onnx").read_bytes() == model_file.to_bytes(loaded)
