"""Models that nothing can be made up for: what needs no run is done, and no more is claimed."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxpress
from onnxpress import model_file
from onnxpress.errors import DataError
from onnxpress.graph import name_nodes_apart
from onnxpress.report.document import document
from onnxpress.shedding import kept_small
from onnxpress.untreated import untreated_weights, why_no_layer

SEQUENCE = """g (seq(float[n, k]) parts) => (float[n, m] y) {
    a = Constant <value = float[1] {2.0}> ()
    b = Constant <value = float[1] {3.0}> ()
    c = Add (a, b)
    x = ConcatFromSequence <axis = 1> (parts)
    y = Mul (x, c)
}"""
STRINGS = """g (string[n] words) => (string[n] y) { x = Identity (words)
    y = Identity (x) }"""


def _saved(text: str, path: Path) -> Path:
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    model_file.save(model, path)
    return path


@pytest.mark.parametrize("text", [SEQUENCE, STRINGS], ids=["sequence", "strings"])
@pytest.mark.parametrize("passes", [["simplify"], None], ids=["simplify", "all"])
def test_a_model_without_made_up_inputs_is_simplified_and_it_is_said(
    text: str, passes: list[str] | None, tmp_path: Path
) -> None:
    path = _saved(text, tmp_path / "model.onnx")
    result = onnxpress.optimize(path, passes=passes)
    onnx.checker.check_model(
        onnx.load_from_string(model_file.to_bytes(result.model)), full_check=True
    )
    assert len(list(result.model.graph)) < len(list(model_file.load(path).graph))
    assert result.within_budget
    assert "nothing was run" in document(result)["warnings"][0]
    assert all(not stage.decisions for stage in result.stages if stage.pass_.stage.loses)


def test_a_pass_that_loses_and_was_named_is_refused_without_inputs(tmp_path: Path) -> None:
    path = _saved(SEQUENCE, tmp_path / "model.onnx")
    with pytest.raises(DataError, match="evaluation"):
        onnxpress.optimize(path, passes=["quantize"])


def test_weights_in_integers_are_not_denied() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (uint8[2, 16] x, uint8[16, 8] w) => (int32[2, 8] y) { y = MatMulInteger (x, w) }"""
    )
    value = model.graph.inputs.pop(1)
    value.const_value = ir.tensor(np.ones((16, 8), np.uint8), name="w")
    model.graph.register_initializer(value)
    assert untreated_weights(model) == {"in integers already": {"MatMulInteger": 1}}
    assert why_no_layer(model) == "its weights are in integers already (MatMulInteger 1)"


def test_a_model_without_weights_has_none() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { y = Abs (x) }"""
    )
    assert untreated_weights(model) == {}
    assert "no layer" in why_no_layer(model)


def _chain(length: int) -> ir.Model:
    steps = "\n".join(f"t{n + 1} = Abs (t{n})" for n in range(length))
    text = f"g (float[2] t0) => (float[2] t{length}) {{ {steps} }}"
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')


def test_names_and_shapes_that_were_added_go_before_the_file_grows() -> None:
    given = _chain(60)
    for node in given.graph:
        node.name = None
    before = len(model_file.to_bytes(given))
    model = given.clone()
    name_nodes_apart(model)
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([2])
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    assert len(model_file.to_bytes(model)) > 1.5 * before
    assert kept_small(model, given, before) is None
    assert len(model_file.to_bytes(model)) <= before


def test_a_file_that_is_larger_all_the_same_is_said() -> None:
    assert "larger" in (kept_small(_chain(200), _chain(2), 100) or "")
