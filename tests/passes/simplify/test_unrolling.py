"""Loops over layers with stacked weights become the layers; others stay loops."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from generated import hold
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxpress.layers import find_layers
from onnxpress.model_file import weight_bytes
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session
from onnxpress.selectable import matching, selectable_sites

WIDTH, TURNS = 96, 4
LOOP = """<ir_version: 10, opset_import: ["" : 21]>
g (float[b, {width}] x, int64 n, bool stop, float[{turns}, {width}, {width}] w,
   float[{width}, {turns}] v) => (float[b, {width}] y, {more})
{{
    turns = Constant <value = int64 {{{turns}}}> ()
    go = Constant <value = bool {{1}}> ()
    y, {all} = Loop <body = layer (int64 i, bool on, float[b, {width}] s)
        => (bool on_again, float[b, {width}] t{seen})
    {{
        on_again = {again}
        own = Gather (w, i)
        gain = Gather <axis = 1> (v, {index})
        p = MatMul (s, own)
        q = {scaled}
        t = Tanh (q)
    }}> ({trips}, go, x)
    {after}
}}"""
SCAN = """<ir_version: 10, opset_import: ["" : 21]>
g (float[b, {width}] x, int64 n, bool stop, float[{width}, {turns}] offsets,
   float[{turns}, {width}, {width}] w)
    => (float[b, {width}] y, float[{turns}, b, {width}] all)
{{
    y, all = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], body = layer (
            float[b, {width}] s, float[{width}, {width}] own, float[{width}] offset)
        => (float[b, {width}] t, float[b, {width}] p)
    {{
        p = MatMul (s, own)
        q = Add (p, offset)
        t = Tanh (q)
    }}> (x, w, offsets)
}}"""
NESTED = """If (on) <
            then_branch = yes () => (float[b, {width}] r) { r = Mul (p, gain) },
            else_branch = no () => (float[b, {width}] r) { r = Neg (p) } >"""


def made(
    parts: Mapping[str, str] = MappingProxyType({}), text: str = LOOP, width: int = WIDTH
) -> ir.Model:
    """A model whose `w` and `v` are constants."""
    usual = {
        "more": "bool unread",
        "all": "",
        "seen": "",
        "again": "Identity (on)",
        "index": "i",
        "scaled": "Mul (p, gain)",
        "trips": "turns",
        "after": "unread = Not (stop)",
    }
    filled = {
        key: value.replace("{width}", str(width)) for key, value in ({**usual, **parts}).items()
    }
    text = text.format(width=width, turns=TURNS, **filled).replace("y,  =", "y =")
    proto, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in (("w", (TURNS, width, width)), ("v", (width, TURNS))):
        given = [value for value in proto.graph.input if value.name == name]
        for value in given:
            array = (0.1 * rng.standard_normal(shape)).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            proto.graph.input.remove(value)
    return ir.serde.deserialize_model(proto)


def answers(model: ir.Model) -> list[npt.NDArray[Any]]:
    """Of onnxruntime, which the reference agrees with."""
    rng = np.random.default_rng(1)
    feed: dict[str, Any] = {
        "x": rng.standard_normal((3, WIDTH)).astype(np.float32),
        "n": np.array(2),
        "stop": np.zeros((), np.bool_),
        "offsets": rng.standard_normal((WIDTH, TURNS)).astype(np.float32),
    }
    feed = {value.name or "": feed[value.name or ""] for value in model.graph.inputs}
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    found: list[Any] = list(Session(model).run(feed).values())
    # ONNX's reference goes along first axes alone.
    has_scan = any(node.op_type == "Scan" for node in model.graph)
    wanted: Any = found if has_scan else ReferenceEvaluator(proto).run(None, feed)
    for one, other in zip(wanted, found, strict=True):
        # It joins what turns give where it should stack them.
        np.testing.assert_allclose(one.reshape(other.shape), other, rtol=1e-4, atol=1e-5)
    return found


def loops(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in ("Loop", "Scan")]


STACKED = {"more": f"float[{TURNS}, b, {{width}}] all", "all": "all", "after": ""}


@pytest.mark.parametrize(
    "model",
    [
        made(),
        made(STACKED | {"seen": ", float[b, {width}] p"}),
        made({"again": "Identity (go)"}),
        made({"scaled": NESTED}),
        made(text=SCAN),
    ],
    ids=["states", "values of all turns", "an outer condition", "a body inside", "Scan"],
)
def test_turns_become_layers(model: ir.Model) -> None:
    wanted, names = answers(model), [value.name for value in model.graph.outputs]
    before = weight_bytes(model)
    assert len(loops(model)) == 1
    simplify(model)
    assert not loops(model)
    assert [value.name for value in model.graph.outputs] == names
    for one, other in zip(wanted, answers(model), strict=True):
        np.testing.assert_array_equal(one, other)
    found = find_layers(model)
    assert len(found) == TURNS
    assert {layer.node.op_type for layer in found} <= {"MatMul", "Gemm"}
    assert weight_bytes(model) <= before + 1000


def test_layers_go_by_the_name_of_the_stacked_weight() -> None:
    given_model = made()
    for graph in given_model.graphs():
        for node in graph:
            node.name = node.outputs[0].name
    model = given_model.clone()
    simplify(model)
    sites = selectable_sites(model, given_model)
    layers = {layer.name for layer in find_layers(model)}
    assert len(layers) == TURNS
    assert matching("w", sites) == layers
    assert matching("p", sites) == layers
    assert matching("w_2", sites) == {"w_2"}


def test_an_index_may_be_a_vector() -> None:
    body = "Unsqueeze (i, zero)"
    text = LOOP.replace(
        "own = Gather (w, i)", f"at = {body}\n kept = Gather (w, at)\n own = Squeeze (kept, zero)"
    ).replace("go = Constant", "zero = Constant <value = int64[1] {{0}}> ()\n    go = Constant")
    model = made(text=text)
    wanted = answers(model)
    simplify(model)
    assert not loops(model)
    np.testing.assert_array_equal(answers(model)[0], wanted[0])


@pytest.mark.parametrize(
    "parts",
    [
        {"trips": "n"},
        {"again": "Not (stop)"},
        {"after": "unread = Not (stop)", "again": "Identity (stop)"},
    ],
    ids=["turns given", "an end that is computed", "a condition that is given"],
)
def test_loops_whose_turns_are_not_known_stay(parts: dict[str, str]) -> None:
    model = made(parts)
    wanted = answers(model)
    simplify(model)
    assert len(loops(model)) == 1
    for one, other in zip(wanted, answers(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_others_read_too_are_not_stored_twice() -> None:
    more = {"more": f"float[{TURNS}, {{width}}, {{width}}] twice", "after": "twice = Add (w, w)"}
    model = made(more)
    simplify(model, fold_limit=0)
    assert len(loops(model)) == 1


def test_small_weights_are_not_worth_the_nodes() -> None:
    model = made(width=16)
    simplify(model)
    assert len(loops(model)) == 1


@given(
    order=st.permutations(range(3)),
    turns=st.integers(1, 5),
    axis=st.sampled_from([0, 1, -1]),
    collected=st.lists(st.integers(0, 2), max_size=2),
)
def test_states_may_change_places(
    order: Sequence[int], turns: int, axis: int, collected: Sequence[int]
) -> None:
    """What a turn hands on stands where the next one looks for it, be it changed or not."""
    # With a negative axis the turns lie along the last one.
    shape = [WIDTH, WIDTH]
    shape.insert(axis if axis >= 0 else 2, turns)
    handed = [("t" if at == 0 else f"s{at}") for at in order]
    given_out = ", ".join(f"float[b, {WIDTH}] c{number}" for number in range(len(collected)))
    lists = "".join(f", all{number}" for number in range(len(collected)))
    declared = "".join(
        f", float[k{number}, b, {WIDTH}] all{number}" for number in range(len(collected))
    )
    copies = "\n".join(f"c{number} = Neg (s{at})" for number, at in enumerate(collected))
    results = "\n".join(f"r{at} = Identity ({name})" for at, name in enumerate(handed))
    states = ", ".join(f"float[b, {WIDTH}] s{at}" for at in range(3))
    returned = ", ".join(f"float[b, {WIDTH}] r{at}" for at in range(3))
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[b, {WIDTH}] x, float[b, {WIDTH}] y, float[{", ".join(map(str, shape))}] w)
        => (float[b, {WIDTH}] f0, float[b, {WIDTH}] f1, float[b, {WIDTH}] f2{declared})
    {{
        turns = Constant <value = int64 {{{turns}}}> ()
        go = Constant <value = bool {{1}}> ()
        z = Add (x, y)
        f0, f1, f2{lists} = Loop <body = layer (int64 i, bool on, {states})
            => (bool again, {returned}{", " * bool(collected)}{given_out})
        {{
            again = Identity (on)
            own = Gather <axis = {axis}> (w, i)
            p = MatMul (s0, own)
            q = Add (p, y)
            t = Tanh (q)
            {copies}
            {results}
        }}> (turns, go, x, y, z)
    }}"""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(0)
    weight = (0.1 * rng.standard_normal(shape)).astype(np.float32)
    model = hold(model, {"w": weight})
    feed = {name: rng.standard_normal((2, WIDTH)).astype(np.float32) for name in ("x", "y")}
    wanted: dict[str, Any] = Session(model).run(feed)
    simplify(model)
    assert not loops(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found: dict[str, Any] = Session(model).run(feed)
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        # Fused elsewhere, the last bits may differ.
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
