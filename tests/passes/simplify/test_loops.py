"""States that never change leave their loops, and constants are cut up where they are read."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from simplification import SINCE_1_22

from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session

RNG = np.random.default_rng(0)
CELL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,4] x, int64 n, float[4,4] w, float[4] b) => (float[2,4] h, {more})
{{
    go = Constant <value = bool {{1}}> ()
    h, u, c = Loop <body = cell (int64 i, bool on, float[2,4] s, float[4,4] v, float[4] a)
        => (bool on_again, float[2,4] t, float[4,4] v_again, float[4] a_again)
    {{
        on_again = Identity (on)
        p = MatMul (s, v)
        q = Add (p, a)
        t = Tanh (q)
        v_same = Identity (v)
        v_again = Identity (v_same)
        a_again = {bias}
    }}> (n, go, x, w, b)
    {after}
}}"""


def cell(bias: str = "Identity (a)", more: str = "float[4,4] u", after: str = "") -> ir.Model:
    proto = onnx.parser.parse_model(CELL.format(bias=bias, more=more, after=after))
    for name, shape in (("w", (4, 4)), ("b", (4,))):
        array = RNG.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        proto.graph.input.remove(next(v for v in proto.graph.input if v.name == name))
    return ir.serde.deserialize_model(proto)


def answers(model: ir.Model, turns: int) -> list[npt.NDArray[Any]]:
    feed = {"x": np.ones((2, 4), np.float32), "n": np.array(turns)}
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    wanted: Any = ReferenceEvaluator(proto).run(None, feed)
    found: Any = Session(model).run(feed)
    for one, other in zip(wanted, found.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return list(wanted)


def states(model: ir.Model) -> int:
    (loop,) = (node for node in model.graph if node.op_type in ("Loop", "Scan"))
    return len(loop.inputs)


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (cell, 3),
        (lambda: cell(more="float[4,4] u, float[4] c"), 3),
        (lambda: cell(more="float[4,4] y", after="y = MatMul (u, u)"), 3),
        (lambda: cell(bias="Neg (a)"), 4),
    ],
    ids=["state as output", "both as outputs", "read behind the loop", "one that changes"],
)
def test_states_that_never_change_leave_a_loop(model: Any, inputs: int, turns: int) -> None:
    made: ir.Model = model()
    wanted = answers(made, turns)
    names = [value.name for value in made.graph.outputs]
    simplify(made)
    assert states(made) == inputs
    assert [value.name for value in made.graph.outputs] == names
    for one, other in zip(wanted, answers(made, turns), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@SINCE_1_22
def test_states_leave_a_scan_and_its_sequences_stay() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[3,2] x, float[2] w) => (float[2] s, float[3,2] y)
        {
            zero = Constant <value = float[2] {0.0, 0.0}> ()
            w_end, s, y = Scan <num_scan_inputs = 1, body = step
                (float[2] v, float[2] a, float[2] e) => (float[2] v_same, float[2] b, float[2] o)
            { v_same = Identity (v)  p = Mul (e, v)  b = Add (a, p)  o = Sub (b, v) }> (w, zero, x)
        }""")
    feed = {"x": RNG.standard_normal((3, 2)), "w": RNG.standard_normal(2)}
    feed = {name: array.astype(np.float32) for name, array in feed.items()}
    wanted: list[Any] = list(ReferenceEvaluator(ir.to_proto(model)).run(None, feed))
    simplify(model)
    assert states(model) == 2
    found: list[Any] = list(Session(model).run(feed).values())
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_states_leave_loops_within_loops() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, int64 n, float[2] w) => (float[2] y)
        {
            go = Constant <value = bool {1}> ()
            y, w_end = Loop <body = outer (int64 i, bool on, float[2] s, float[2] v)
                => (bool on_too, float[2] t, float[2] v_too)
            {
                on_too = Identity (on)
                t, v_too = Loop <body = inner (int64 j, bool go_on, float[2] a, float[2] u)
                    => (bool still, float[2] c, float[2] u_too)
                { still = Identity (go_on)  c = Add (a, u)  u_too = Identity (u) }> (n, on, s, v)
            }> (n, go, x, w)
        }""")
    feed = {"x": np.ones(2, np.float32), "n": np.array(3), "w": np.array([1, 2], np.float32)}
    simplify(model)
    assert [len(n.inputs) for n in model.graph.all_nodes() if n.op_type == "Loop"] == [3, 3]
    np.testing.assert_array_equal(Session(model).run(feed)["y"], [10, 19])


@pytest.mark.parametrize("turns", [0, 3])
def test_state_that_is_a_result_of_each_turn_too_stays_one(turns: int) -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, int64 n, float[2] w) => (float[2] y, float[k, 2] all)
        {
            go = Constant <value = bool {1}> ()
            y, w_end, all = Loop <body = cell (int64 i, bool on, float[2] s, float[2] v)
                => (bool on_too, float[2] t, float[2] v_same, float[2] v)
            { on_too = Identity (on)  t = Add (s, v)  v_same = Identity (v) }> (n, go, x, w)
        }""")
    feed = {"x": np.ones(2, np.float32), "n": np.array(turns), "w": np.array([1, 2], np.float32)}
    wanted = Session(model).run(feed)
    simplify(model)
    assert states(model) == 3
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for one, other in zip(wanted.values(), Session(model).run(feed).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_states_that_change_places_stay() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, int64 n, float[2] w) => (float[2] y, float[2] z)
        {
            go = Constant <value = bool {1}> ()
            y, z = Loop <body = cell (int64 i, bool on, float[2] s, float[2] v)
                => (bool on_too, float[2] t, float[2] u)
            { on_too = Identity (on)  t = Identity (v)  u = Identity (s) }> (n, go, x, w)
        }""")
    simplify(model)
    assert states(model) == 4


CUTS = {
    "slices": """s = Constant <value = int64[1] {0}> ()  m = Constant <value = int64[1] {30}> ()
        e = Constant <value = int64[1] {9223372036854775807}> ()
        k = Constant <value = int64[1] {1}> ()
        a = Slice (w, s, m, k)  b = Slice (w, m, e, k)""",
    "backwards": """s = Constant <value = int64[1] {-1}> ()  m = Constant <value = int64[1] {29}> ()
        e = Constant <value = int64[1] {-9223372036854775808}> ()
        k = Constant <value = int64[1] {1}> ()  d = Constant <value = int64[1] {-1}> ()
        a = Slice (w, m, e, k, d)  b = Slice (w, s, m, k, d)""",
    "split": "k = Constant <value = int64[2] {30, 30}> ()  a, b = Split <axis = 1> (w, k)",
    "halves": "a, b = Split <axis = -1> (w)",
}


@pytest.mark.parametrize("cuts", CUTS)
def test_constant_that_is_cut_up_becomes_its_parts(cuts: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,40] x, float[40,60] w) => (float[n,30] y)
        {{ {CUTS[cuts]}  p = MatMul (x, a)  q = MatMul (x, b)  r = Tanh (q)  y = Mul (p, r) }}"""
    proto = onnx.parser.parse_model(text)
    array = RNG.standard_normal((40, 60)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    del proto.graph.input[1]
    model = ir.serde.deserialize_model(proto)
    feed = {"x": RNG.standard_normal((3, 40)).astype(np.float32)}
    given: Any = ReferenceEvaluator(proto).run(None, feed)
    (wanted,) = given
    simplify(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "MatMul", "Tanh", "Mul"]
    found: Any = Session(model).run(feed)["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_parts_that_are_more_than_the_whole_are_not_stored() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,40] x, float[40,60] w) => (float[n,50] y)
        { s = Constant <value = int64[1] {0}> ()  m = Constant <value = int64[1] {50}> ()
          t = Constant <value = int64[1] {10}> ()  e = Constant <value = int64[1] {60}> ()
          k = Constant <value = int64[1] {1}> ()
          a = Slice (w, s, m, k)  b = Slice (w, t, e, k)
          p = MatMul (x, a)  q = MatMul (x, b)  y = Mul (p, q) }"""
    proto = onnx.parser.parse_model(text)
    array = RNG.standard_normal((40, 60)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    del proto.graph.input[1]
    model = ir.serde.deserialize_model(proto)
    simplify(model)
    assert [node.op_type for node in model.graph].count("Slice") == 2
