"""Names of our own take little of a file, and nothing else changes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.brief_names import briefly_named
from onnxpress.model_file import whole_size

LONG = "/model/encoder/layers.0/self_attention/query/MatMul_output_0"


def _bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString()


def _original() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["t0"], name="n0")
    last = helper.make_node("Relu", ["t0"], ["y"], name="relu")
    return _model([node, last], [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")])


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pressed(name: str = LONG) -> onnx.ModelProto:
    """Weight and input in integers, all names as `quantize` makes them; an If behind."""
    zero, scale = np.zeros((), np.int8), np.array(0.02, np.float32)
    weights: dict[str, npt.NDArray[np.generic]] = {
        f"{name}_quantized": np.round(np.eye(4) / 0.02).astype(np.int8),
        f"{name}_scale": scale,
        f"{name}_zero_point": zero,
        f"{name}_other_scale": scale,
        f"{name}_other_zero_point": zero,
        f"{name}_condition": np.ones((), bool),
    }
    parts = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
    other = [f"{name}_other_scale", f"{name}_other_zero_point"]
    inner = [helper.make_node("Abs", ["t0"], [f"{name}_inside"], name=f"{name}_inner_node")]
    bodies: dict[str, Any] = {
        branch: helper.make_graph(
            inner, branch, [], [helper.make_tensor_value_info(f"{name}_inside", 1, ["N", 4])]
        )
        for branch in ("then_branch", "else_branch")
    }
    nodes = [
        helper.make_node("DequantizeLinear", parts, [f"{name}_dequantized"], name=f"{name}_dq"),
        helper.make_node("QuantizeLinear", ["x", *other], [f"{name}_x"], name=f"{name}_q"),
        helper.make_node(
            "DequantizeLinear", [f"{name}_x", *other], [f"{name}_xdq"], name=f"{name}_x"
        ),
        helper.make_node("MatMul", [f"{name}_xdq", f"{name}_dequantized"], ["t0"], name="n0"),
        helper.make_node("If", [f"{name}_condition"], [f"{name}_if"], name=f"{name}_if", **bodies),
        helper.make_node("Relu", [f"{name}_if"], ["y"], name="relu"),
    ]
    return _model(nodes, [numpy_helper.from_array(a, key) for key, a in weights.items()])


def _run(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString())
    given = {"x": np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)}
    return np.asarray(session.run(None, given)[0])


@pytest.fixture
def pressed() -> ir.Model:
    return ir.from_proto(_pressed())


@pytest.fixture
def given() -> ir.Model:
    return ir.from_proto(_original())


def test_the_file_is_smaller_valid_and_computes_the_same(
    pressed: ir.Model, given: ir.Model
) -> None:
    before = _bytes(pressed)
    brief = ir.to_proto(briefly_named(pressed, given))
    onnx.checker.check_model(brief, full_check=True)
    assert len(brief.SerializeToString()) < 0.7 * len(before)
    assert LONG not in str(brief)
    np.testing.assert_array_equal(_run(brief), _run(_pressed()))
    assert _bytes(pressed) == before, "the model that was given is left alone"


def test_what_the_original_has_keeps_its_name(pressed: ir.Model, given: ir.Model) -> None:
    brief = ir.to_proto(briefly_named(pressed, given)).graph
    assert [value.name for value in (*brief.input, *brief.output)] == ["x", "y"]
    made = {name for node in brief.node for name in node.output}
    assert {"t0", "y"} <= made
    assert {"n0", "relu"} <= {node.name for node in brief.node}


def test_no_name_stands_twice_also_where_the_original_has_brief_ones(
    pressed: ir.Model, given: ir.Model
) -> None:
    brief = briefly_named(pressed, given)
    nodes = [node.name for node in brief.graph.all_nodes()]
    values = [value.name for node in brief.graph.all_nodes() for value in node.outputs]
    assert len(set(nodes)) == len(nodes)
    assert len(set(values)) == len(values)
    assert not set(values) & set(brief.graph.initializers)


def test_equal_constants_stay_apart(pressed: ir.Model, given: ir.Model) -> None:
    """Onnxruntime refuses weights with one zero point in its exact mode for x86-64."""
    assert len(briefly_named(pressed, given).graph.initializers) == len(pressed.graph.initializers)


def test_a_second_time_changes_nothing(pressed: ir.Model, given: ir.Model) -> None:
    brief = briefly_named(pressed, given)
    assert _bytes(briefly_named(brief, given)) == _bytes(brief)


def test_names_that_are_little_of_the_file_stay(given: ir.Model) -> None:
    large = ir.from_proto(_pressed("w"))
    ballast = np.random.default_rng(0).integers(-9, 9, 1 << 16).astype(np.int8)
    value = ir.Value(
        name="w_quantized_too", shape=ir.Shape(ballast.shape), const_value=ir.tensor(ballast)
    )
    large.graph.register_initializer(value)
    assert whole_size(large) > 1 << 16
    assert briefly_named(large, given) is large
