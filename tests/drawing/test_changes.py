"""Which nodes of two models are said to be the same, changed, removed and added."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from bodies import LOOP, NESTED

from onnxpress import model_file
from onnxpress.drawing.changes import Changes, compare_pictures
from onnxpress.drawing.graphs import Box, Picture, pictures_of
from onnxpress.drawing.viewing import view_document

HEAD = '<ir_version: 10, opset_import: ["" : 17, "own" : 1]>'
TWO = (
    HEAD
    + """ g (float[1, 4] x) => (float[1, 4] y)
    <float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1},
     float[4] b = {1, 2, 3, 4}> {
        p = MatMul (x, w)  q = Add (p, b)  r = Relu (q)  y = Softmax <axis = 1> (r)
    }"""
)
FUNCTION = (
    HEAD
    + """ g (float[1, 4] x) => (float[1, 4] y) { p = own.twice (x) y = own.twice (p) }
    <opset_import: ["" : 17], domain: "own"> twice (a) => (c) { b = Relu (a) c = Add (b, b) }"""
)


def model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def compared(a: ir.Model, b: ir.Model) -> tuple[Picture, Picture, Changes]:
    one, other = pictures_of(a), pictures_of(b)
    return one, other, compare_pictures(one, other, {})


def counts(a: ir.Model, b: ir.Model) -> tuple[int, ...]:
    return tuple(compared(a, b)[2].counts().values())


def box_of(picture: Picture, operator: str) -> Box:
    return next(box for box in picture.boxes if box.op_type == operator)


def renamed(found: ir.Model) -> ir.Model:
    """With other names for all nodes and all tensors but inputs and outputs."""
    copy = found.clone()
    kept = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    for number, node in enumerate(copy.graph.all_nodes()):
        node.name = f"other {number}"
        for place, value in enumerate(node.outputs):
            if value.name and value.name not in kept:
                value.name = f"tensor {number}.{place}"
    return copy


@pytest.mark.parametrize("make", [lambda: model(TWO), lambda: model(FUNCTION)])
@pytest.mark.parametrize("change", [lambda m: m, renamed])
def test_a_model_is_the_same_as_itself(
    make: Callable[[], ir.Model], change: Callable[[ir.Model], ir.Model]
) -> None:
    same, changed, removed, added = counts(make(), change(make()))
    assert (changed, removed, added) == (0, 0, 0)
    assert same == 4


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_mobile", "fashion_mlp"])
def test_structure_alone_finds_all_nodes_of_a_network(models: Path, name: str) -> None:
    found = model_file.load(models / f"{name}.onnx")
    same, *rest = counts(found, renamed(found))
    assert rest == [0, 0, 0]
    assert same > 0


def test_names_that_were_numbered_anew_say_nothing(models: Path) -> None:
    found = model_file.load(models / "fashion_cnn.onnx")
    after = renamed(found)
    names = [node.outputs[0].name for node in found.graph]
    for node, name in zip(list(after.graph)[:-1], names[1:], strict=True):
        node.outputs[0].name = name
    assert counts(found, after)[1:] == (0, 0, 0)


@pytest.mark.parametrize("text", [NESTED, LOOP])
def test_nodes_in_bodies_are_compared_too(text: str) -> None:
    whole = model(text.replace("{opset}", "17"))
    nodes = sum(
        1 for node in whole.graph.all_nodes() if node.op_type != "Constant" and any(node.inputs)
    )
    same, *rest = counts(whole, whole.clone())
    assert rest == [0, 0, 0]
    assert same == nodes


def test_a_change_in_a_body_is_a_change_of_its_node() -> None:
    before = model(NESTED.replace("{opset}", "17"))
    after = before.clone()
    (inner,) = [node for node in after.graph.all_nodes() if node.op_type == "Neg"][-1:]
    inner.op_type = "Abs"
    one, _, changes = compared(before, after)
    whole = box_of(one, "If")
    assert changes.status[whole] == "changed"
    assert changes.why[whole] == ["else_branch changed inside"]


def test_attributes_and_constants_that_differ_are_told() -> None:
    after = model(TWO.replace("{1, 2, 3, 4}", "{1, 2, 3, 8}").replace("axis = 1", "axis = 0"))
    one, _, changes = compared(model(TWO), after)
    assert changes.status[box_of(one, "MatMul")] == "same"
    assert changes.why[box_of(one, "Softmax")] == ["axis 1 became 0"]
    assert changes.why[box_of(one, "Add")] == ["b [4] differs (2.7 dB)"]


def test_floats_that_are_one_in_the_file_are_the_same() -> None:
    text = TWO.replace("Relu (q)", "LeakyRelu <alpha = 0.1> (q)")
    before, after = model(text), model(text)
    (node,) = [node for node in after.graph if node.op_type == "LeakyRelu"]
    node.attributes.add(ir.AttrFloat32("alpha", 0.1))
    assert before.graph[2].attributes["alpha"].as_float() != 0.1
    assert counts(before, after)[1:] == (0, 0, 0)


def test_a_node_that_reads_another_tensor_is_changed() -> None:
    after = model(TWO.replace("r = Relu (q)", "r = Relu (p)"))
    one, _, changes = compared(model(TWO), after)
    assert changes.why[box_of(one, "Relu")] == ["reads p instead of q"]


def test_integers_there_and_back_are_added_and_change_no_other_node() -> None:
    quantized = TWO.replace(
        "q = Add (p, b)",
        """s = Constant <value = float {0.1}> ()  z = Constant <value = uint8 {0}> ()
        i = QuantizeLinear (p, s, z)  d = DequantizeLinear (i, s, z)  q = Add (d, b)""",
    )
    assert counts(model(TWO), model(quantized)) == (4, 0, 0, 2)


def test_a_bias_that_was_folded_is_removed_and_its_layer_changed() -> None:
    fused = TWO.replace("p = MatMul (x, w)  q = Add (p, b)", "q = Gemm (x, w, b)")
    one, other, changes = compared(model(TWO), model(fused))
    assert changes.status[box_of(one, "MatMul")] == "removed"
    assert changes.why[box_of(one, "Add")] == ["Add became Gemm"]
    assert changes.status[box_of(other, "Gemm")] == "changed"


def test_a_norm_that_was_folded_leaves_its_layer_a_counterpart() -> None:
    before = (
        HEAD
        + """ g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] s = {1, 2}> {
        p = Conv (x, w)  y = BatchNormalization (p, s, s, s, s) }"""
    )
    after = (
        HEAD
        + """ g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[2, 2, 1, 1] w = {1, 3, 3, 4}, float[2] s = {1, 2}> { y = Conv (x, w, s) }"""
    )
    one, _, changes = compared(model(before), model(after))
    assert changes.status[box_of(one, "Conv")] == "changed"
    assert changes.status[box_of(one, "BatchNormalization")] == "removed"


def test_values_pair_what_neither_names_nor_structure_do() -> None:
    after = (
        HEAD
        + """ g (float[1, 4] x) => (float[1, 4] y) {
        t = Exp (x)  u = Log (t)  v = Tanh (u)  y = Neg (v) }"""
    )
    one, other = pictures_of(model(TWO)), pictures_of(model(after))
    changes = compare_pictures(one, other, {"q": "v"})
    add = box_of(one, "Add")
    assert changes.why[add] == ["Add became Tanh"]


def test_models_with_nothing_in_common_are_said_to_be() -> None:
    after = HEAD + " g (int64[3] other) => (int64[3] z) { z = Abs (other) }"
    document = view_document([model(TWO), model(after)], ["a", "b"])
    assert "nothing in common" in document["notes"][0]
    assert document["changes"] == {"same": 0, "changed": 0, "removed": 4, "added": 1}


def test_what_constants_compute_is_a_constant_of_its_reader() -> None:
    weight = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    text = (
        HEAD
        + """ g (float[1, 16] x, int8[16, 16] w) => (float[1, 16] y) {
        s = Constant <value = float {0.5}> ()
        d = DequantizeLinear (w, s)  t = Transpose (d)  y = MatMul (x, t) }"""
    )
    found = model(text)
    value = found.graph.inputs.pop(1)
    value.const_value = ir.tensor(weight, name="w")
    found.graph.register_initializer(value)
    (document,) = view_document([found], ["a"])["models"]
    assert [box["op"] for box in document["graphs"][0]["boxes"]] == ["input", "MatMul", "output"]
    ((name, number, through),) = document["graphs"][0]["boxes"][1]["constants"]
    assert (name, through) == ("t", ["DequantizeLinear", "Transpose"])
    constant = document["constants"][number]
    assert (constant["type"], constant["low"], constant["high"]) == ("int8[16, 16]", -128, 127)
    assert sum(constant["counts"]) == 256


def test_a_body_shows_what_it_takes_from_around_it() -> None:
    picture = pictures_of(model(NESTED.replace("{opset}", "17")))
    place = next(n for n, box in enumerate(picture.boxes) if box.op_type == "If")
    inside = picture.inner[place, "else_branch"]
    assert [(box.kind, box.op_type) for box in inside.boxes] == [
        ("outer", "outer"),
        ("node", "Neg"),
        ("output", "output"),
    ]
    assert any(place in net.targets and net.value.name == "x" for net in picture.nets)
