"""Places where two models differ: a kind each, with what belongs to it."""

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.drawing.regions import region_documents

HEAD = '<ir_version: 10, opset_import: ["" : 17]>'
BEFORE = (
    HEAD
    + """ g (float[1, 4] x) => (float[1, 4] y)
    <float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> {
        p = MatMul (x, w)  q = Relu (p)  r = MatMul (q, w)  s = Relu (r)
        t = MatMul (s, w)  u = Neg (t)  y = Identity (u)
    }"""
)


def model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def after() -> ir.Model:
    """Two of three MatMuls quantized, and the last nodes left out."""
    nodes = []
    for source, target in (("x", "p"), ("q", "r")):
        nodes.append(
            f"{source}_i = QuantizeLinear ({source}, step, zero) "
            f"{source}_d = DequantizeLinear ({source}_i, step, zero) "
            f"{target} = MatMul ({source}_d, v)"
        )
    return model(
        HEAD
        + f""" g (float[1, 4] x) => (float[1, 4] y)
        <float[4, 4] w = {{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}},
         float[4, 4] v = {{2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2}},
         float step = {{0.1}}, uint8 zero = {{0}}> {{
            {nodes[0]}  q = Relu (p)  {nodes[1]}  s = Relu (r)
            t = MatMul (s, w)  y = Neg (t)
        }}"""
    )


def test_a_model_and_itself_have_no_regions() -> None:
    assert region_documents(model(BEFORE), model(BEFORE)) == []


def test_places_of_one_kind_are_one_region_with_what_was_added_for_them() -> None:
    first, *rest = region_documents(model(BEFORE), after())
    assert first["before"] == ["MatMul"]
    assert first["after"] == ["QuantizeLinear", "DequantizeLinear", "MatMul"]
    assert first["places"] == 2
    assert [one["places"] for one in rest] == [1]
    assert rest[0]["before"] == ["Identity"]
    assert rest[0]["after"] == []


def test_what_stands_beside_is_drawn_and_marked() -> None:
    drawn = region_documents(model(BEFORE), after())[0]["optimized"]
    assert [(box["operator"], box["status"]) for box in drawn["boxes"]] == [
        ("input", "beside"),
        ("QuantizeLinear", "added"),
        ("DequantizeLinear", "added"),
        ("MatMul", "changed"),
        ("Relu", "beside"),
    ]
    assert [box["row"] for box in drawn["boxes"]] == [0, 1, 2, 3, 4]
    assert [(arrow["from"], arrow["to"]) for arrow in drawn["arrows"]] == [
        (0, [1]),
        (1, [2]),
        (2, [3]),
        (3, [4]),
    ]


def test_large_places_are_cut_and_say_so() -> None:
    rows = "".join(f"a{n + 1} = Tanh (a{n}) " for n in range(40))
    text = HEAD + f" g (float[1, 4] a0) => (float[1, 4] y) {{ {rows} y = Neg (a40) }}"
    short = HEAD + " g (float[1, 4] a0) => (float[1, 4] y) { y = Neg (a0) }"
    (found,) = region_documents(model(text), model(short))
    assert found["before"] == ["Tanh"] * 40
    assert found["original"]["left_out"] == 24
    assert len(found["original"]["boxes"]) <= 16 + 2
    assert found["optimized"]["boxes"] == []


def test_bodies_have_regions_of_their_own() -> None:
    body = """ y = If (c) <
        then_branch = yes () => (float[1, 4] r) {{ r = {} (x) }},
        else_branch = no () => (float[1, 4] r) {{ r = Neg (x) }} > }}"""
    head = HEAD + " g (float[1, 4] x, bool c) => (float[1, 4] y) { "
    (found,) = region_documents(model(head + body.format("Abs")), model(head + body.format("Exp")))
    assert (found["before"], found["after"]) == (["Abs"], ["Exp"])


def test_weights_are_compared_by_a_few_elements() -> None:
    found = model(BEFORE)
    other = found.clone()
    value = other.graph.initializers["w"]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[3, 3] += 1
    value.const_value = ir.tensor(np.asarray(array), name="w")
    (region,) = region_documents(found, other)
    assert (region["before"], region["places"]) == (["MatMul"], 3)
