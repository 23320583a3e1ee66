"""What is done once for a model is not done again: counted, as no test asserts a time."""

import gc
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from command_line import run
from onnxscript.optimizer._constant_folding import FoldConstantsPass

from onnxpress.memory import collected_rarely
from onnxpress.model_file import save
from onnxpress.passes.simplify import simplify


def chain(nodes: int) -> ir.Model:
    """Add and Tanh in turn, on [n, 8]."""
    body, name = "", "x"
    for number in range(nodes // 2):
        last = "y" if number == nodes // 2 - 1 else f"t{number}"
        body += f"a{number} = Add({name}, step) {last} = Tanh(a{number}) "
        name = last
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        chain (float[n, 8] x) => (float[n, 8] y) <float[1] step = {{0.1}}> {{ {body} }}
    """
    return ir.from_proto(onnx.parser.parse_model(text))


def test_simplifying_opens_one_session_of_the_original_and_one_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(chain(20), tmp_path / "model.onnx")
    opened: list[object] = []
    real = ort.InferenceSession

    def counted(source: object, *rest: object, **more: object) -> object:
        opened.append(source)
        return real(source, *rest, **more)

    monkeypatch.setattr("onnxruntime.InferenceSession", counted)
    result = run("simplify", tmp_path / "model.onnx", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    assert len(opened) == 2


def test_shapes_that_the_whole_graph_told_are_not_inferred_again_node_by_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    usual = FoldConstantsPass._do_inference

    def counted(self: FoldConstantsPass, node: ir.Node) -> None:
        asked.append(node.op_type)
        usual(self, node)

    monkeypatch.setattr(FoldConstantsPass, "_do_inference", counted)
    simplify(chain(20))
    assert not asked


def test_shapes_that_are_known_are_not_inferred_for_the_whole_graph_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    usual = onnx.shape_inference.infer_shapes

    def counted(*arguments: Any, **options: Any) -> onnx.ModelProto:
        asked.append(arguments)
        return usual(*arguments, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    simplify(chain(20))
    assert len(asked) == 1


def test_shapes_that_only_folding_makes_known_are_inferred() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3, 4] x, int64[1] rows) => (float[a, b] y)
            <int64[1] last = {12}, int64 first = {1}, int64[1] zero = {0}> {
            s = Shape(x)
            i = Gather(s, zero)
            j = Concat<axis=0>(i, last)
            r = Reshape(x, j)
            y = Relu(r)
        }
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    simplify(model)
    assert [node.op_type for node in model.graph] == ["Reshape", "Relu"]
    assert list(model.graph.node(0).outputs[0].shape or ()) == [2, 12]


def test_garbage_is_looked_for_as_before_after_an_error() -> None:
    usual = gc.get_threshold()

    def fail() -> None:
        with collected_rarely():
            assert gc.get_threshold()[0] > usual[0]
            raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        fail()
    assert gc.get_threshold() == usual


def test_where_the_user_collects_no_garbage_none_is_collected() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with collected_rarely():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*usual)
