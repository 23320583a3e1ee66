"""Node names that repeat: ONNX allows them, and onnxruntime loads no such model."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import onnxpress
from onnxpress.conversion import with_own_names
from onnxpress.difference import compare_models
from onnxpress.errors import ModelError
from onnxpress.graph import graphs_of
from onnxpress.inspection import inspect_model

REPEATING = """<ir_version: 9, opset_import: ["" : 18]>
    g (float[N, 4] x, bool deep) => (float[N, 4] y)
    <float[4, 4] a = {2, 0, 0, 1, 0, 1, 0, 0, 0, 3, 1, 0, 0, 0, 0, 1}> {
    [linear] b = MatMul (x, a)
    [act] c = Relu (b)
    [linear] d = MatMul (c, a)
    [linear] e = If (deep) <
        then_branch = then () => (float[N, 4] t) { [act] t0 = Neg (d) [act] t = MatMul (t0, a) },
        else_branch = other () => (float[N, 4] f) { [act] f = Relu (d) }
    >
    [act] y = Add (e, d) }"""


INSIDE = """<ir_version: 9, opset_import: ["" : 18, "own" : 1]>
    g (float[N, 4] x) => (float[N, 4] y) { [a] t = own.f (x) [b] y = own.f (t) }
    <domain: "own", opset_import: ["" : 18]>
    f (x) => (y) { [n] z = Relu (x) [n] y = Neg (z) }"""


@pytest.fixture
def repeating(tmp_path: Path) -> Path:
    """A file that the ONNX checker takes."""
    model = onnx.parser.parse_model(REPEATING)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(Exception, match="same node name"):
        onnxruntime.InferenceSession(path)
    return path


def test_nodes_of_a_graph_get_names_of_their_own_and_the_first_keeps_its() -> None:
    model = ir.from_onnx_text(REPEATING)
    found, said = with_own_names(model)
    assert "4 nodes have the names" in said
    per_graph = [[node.name for node in graph] for graph in graphs_of(found.graph)]
    assert all(len(names) == len(set(names)) for names in per_graph)
    assert per_graph[0][:2] == ["linear", "act"]
    assert [node.name for node in model.graph].count("linear") == 3, "not changed"
    assert with_own_names(found) == (found, "")


def test_what_onnxruntime_does_not_load_is_optimized_and_answers_alike(repeating: Path) -> None:
    result = onnxpress.optimize(repeating)
    assert result.validation is not None
    assert any("[W022]" in said for said in (*result.warnings, *result.validation.warnings))
    written = repeating.with_name("result.onnx")
    result.save(written)
    session = onnxruntime.InferenceSession(written)
    original = ReferenceEvaluator(onnx.load(repeating))
    for deep in (True, False):
        feed = {"x": np.eye(4, dtype=np.float32) - 0.5, "deep": np.array(deep)}
        wanted = original.run(None, feed)
        assert isinstance(wanted, list)
        np.testing.assert_allclose(session.run(None, feed)[0], wanted[0], 1e-6)


def test_such_a_file_is_inspected(repeating: Path) -> None:
    found = inspect_model(repeating)
    assert any("[W022]" in said for said in found["problems"])
    assert not any("same node name" in said for said in found["problems"])


def test_functions_that_repeat_a_name_are_read_too(tmp_path: Path) -> None:
    """Onnxruntime writes them into the graph, with the names of both nodes."""
    model = ir.from_onnx_text(INSIDE)
    found, _ = with_own_names(model)
    names = [[n.name for n in function] for function in found.functions.values()]
    assert names == [["n", "n_1"]]
    assert [n.name for function in model.functions.values() for n in function] == ["n", "n"]
    ir.save(model, tmp_path / "model.onnx")
    with pytest.raises(Exception, match="same node name"):
        onnxruntime.InferenceSession(tmp_path / "model.onnx")
    onnxpress.optimize(tmp_path / "model.onnx").save(tmp_path / "result.onnx")
    onnxruntime.InferenceSession(tmp_path / "result.onnx")


def test_such_a_file_is_what_results_are_compared_with(repeating: Path) -> None:
    written = repeating.with_name("result.onnx")
    onnxpress.optimize(repeating).save(written)
    assert onnxpress.validate(written, repeating).within_budget
    assert compare_models(repeating, written).same
    with pytest.raises(ModelError, match="M006"):
        # What is not loaded where it is used is no good result.
        onnxpress.validate(repeating, written)
