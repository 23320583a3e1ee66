"""Graphs in blocks: exact, cut where few bytes cross, and whatever a graph may hold."""

import contextlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from block_runs import block_models, by_blocks, check_exact, whole
from bodies import draw, feeds, if_model, loop_model, nested_model, scan_model
from built_graphs import STEPS, Builder, attention, build
from generated import initialized
from hypothesis import given
from hypothesis import strategies as st
from onnx.helper import make_function, make_graph, make_model, make_node, make_opsetid

from onnxpress import model_file
from onnxpress.blocks import Cut, cut, observed_bytes
from onnxpress.blocks.cutting import _shortest
from onnxpress.conversion import settle_weights
from onnxpress.data import load_samples, random_samples
from onnxpress.errors import DataError
from onnxpress.runtime import Array, Feed, Session
from onnxpress.testing import SAMPLE_MODELS

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
CACHE = Path(__file__).parents[1] / "models" / ".cache"
HEAD = '<ir_version: 10, opset_import: ["" : 18]>'


def some_feed(model: ir.Model) -> Feed:
    return random_samples(Session(model), 1, seed=0, model=model).feeds[0]


def check_blocks(model: ir.Model, budget: int, feed: Feed | None = None) -> Cut:
    """They give the same bits as the whole, and each but indivisible ones keeps to the budget."""
    given_feed = some_feed(model) if feed is None else feed
    found = cut(model, budget, sizes=observed_bytes(model, given_feed, threads=1))
    check_exact(whole(model, given_feed), by_blocks(model, found, given_feed))
    assert found.note or all(block.weight_bytes <= budget for block in found.blocks)
    assert [block.start for block in found.blocks[1:]] == [b.stop for b in found.blocks[:-1]]
    return found


@pytest.mark.parametrize("name", SAMPLE_MODELS)
@pytest.mark.parametrize("budget", [0, 20_000])
def test_blocks_of_sample_models_are_exact(name: str, budget: int) -> None:
    check_blocks(SAMPLE_MODELS[name](), budget)


@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 1000))
def test_blocks_of_generated_graphs_are_exact(
    steps: list[Callable[[Builder], None]], seed: int
) -> None:
    check_blocks(build(steps, seed), 3000 * (seed % 3))


@pytest.mark.parametrize("make", [if_model, loop_model, nested_model, scan_model])
def test_a_node_with_bodies_is_whole_in_one_block(make: Callable[[], ir.Model]) -> None:
    model = make()
    found = check_blocks(model, 0, feeds(draw(model, 1))[0])
    assert len(found.blocks) > 1 or len(model.graph) == 1
    kinds = [[node.op_type for node in part.graph] for part in block_models(found)]
    assert sum(len({"If", "Loop", "Scan"} & set(names)) for names in kinds) == 1


def test_attention_with_shapes_of_its_input_is_cut_exactly() -> None:
    check_blocks(attention(), 1000)


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_mlp", "fashion_mobile"])
def test_blocks_of_committed_models_are_exact(models: Path, name: str) -> None:
    model = model_file.load(models / f"{name}.onnx")
    found = check_blocks(model, model_file.weight_bytes(model) // 8)
    assert len(found.blocks) >= 3


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
def test_blocks_of_light_architectures_are_exact(name: str) -> None:
    check_light(name)


@pytest.mark.public
@pytest.mark.parametrize(
    "name", ["bvlc_alexnet", "densenet121", "inception_v2", "resnet50", "vgg19", "zfnet512"]
)
def test_blocks_of_large_light_architectures_are_exact(name: str) -> None:
    check_light(name)


def check_light(name: str) -> None:
    """Weights that a node computes of constants are weights of the blocks that read them."""
    given_model = model_file.load(LIGHT / f"light_{name}.onnx")
    model, _ = settle_weights(given_model, overridable=False)
    found = check_blocks(model, 4_000_000)
    assert len(found.blocks) >= 2
    made = [value.name for node in model.graph for value in node.outputs]
    weights = {f for f in made if f and "ConstantOfShape" in f}
    assert not weights & {name for block in found.blocks for name in block.inputs}


def public_models() -> list[str]:
    return sorted(path.parent.name for path in CACHE.glob("*/model.onnx"))


@pytest.mark.public
@pytest.mark.parametrize("name", public_models() or ["none"])
def test_blocks_of_public_models_are_exact(name: str) -> None:
    path = CACHE / name / "model.onnx"
    if not path.exists():
        pytest.skip("run models/fetch.py first")
    model = model_file.load(path)
    data = path.with_name("calibration.npz")
    feed = None
    if data.exists():
        # Those of a decoder hold what its pipeline is fed, without the cache.
        with contextlib.suppress(DataError):
            feed = load_samples(data, Session(model).inputs).feeds[0]
    check_blocks(model, model_file.weight_bytes(model) // 8, feed)


def test_a_capture_of_a_body_crosses_between_blocks() -> None:
    model = initialized(
        HEAD
        + """ g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
        h = MatMul (x, a)  k = MatMul (h, b)  zero = Constant <value = float {0.0}> ()
        s = ReduceSum <keepdims = 0> (k)  positive = Greater (s, zero)
        y = If (positive) <
            then_branch = yes () => (float[1, 4] r) { r = MatMul (h, a) },
            else_branch = no () => (float[1, 4] r) { r = Neg (k) }
        > }"""
    )
    found = check_blocks(model, 64)
    assert "h" in found.blocks[-1].inputs


def test_a_shared_weight_goes_to_each_block_that_reads_it() -> None:
    model = initialized(
        HEAD
        + """ g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
        h = MatMul (x, a)  k = MatMul (h, b)  y = MatMul (k, a) }"""
    )
    found = check_blocks(model, 64)
    assert [sorted(part.graph.initializers) for part in block_models(found)] == [
        ["a"],
        ["b"],
        ["a"],
    ]


def test_what_follows_from_constants_is_computed_where_it_is_read() -> None:
    model = initialized(
        HEAD
        + """ g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
        c = Transpose (a)  h = MatMul (x, c)  k = MatMul (h, b)  y = MatMul (k, c) }"""
    )
    found = check_blocks(model, 64)
    assert [block.inputs for block in found.blocks] == [(), ("h",), ("k",)]


def test_what_is_drawn_at_random_is_drawn_once() -> None:
    text = (
        HEAD
        + """ g (float[2, 2] x) => (float[2, 2] y) {
        r = RandomNormal <shape = [2, 2], seed = 1.0> ()  h = Add (x, r)  y = Sub (h, r) }"""
    )
    found = cut(ir.from_onnx_text(text), 0)
    parts = block_models(found)
    assert sum(node.op_type == "RandomNormal" for part in parts for node in part.graph) == 1


@pytest.mark.parametrize(
    "text",
    [
        """ g (float[2, 2] x) => (float[4, 2] y) {
            a = Abs (x)  s = SequenceConstruct (a, x)  t = SequenceInsert (s, a)
            one = Constant <value = int64 {1}> ()  u = SequenceErase (t, one)
            y = ConcatFromSequence <axis = 0> (u) }""",
        """ g (float[2, 2] x) => (float[2, 2] y) {
            a = Abs (x)  o = Optional (a)  b = Neg (a)  c = OptionalGetElement (o)
            y = Add (b, c) }""",
    ],
    ids=["sequence", "optional"],
)
def test_sequences_and_optionals_cross_no_border(text: str) -> None:
    model = ir.from_onnx_text(HEAD + text)
    found = check_blocks(model, 0, {"x": np.ones((2, 2), np.float32)})
    made = {value.name: value for node in found.typed.graph for value in node.outputs}
    crossing = [made[name] for block in found.blocks for name in block.inputs]
    assert all(isinstance(value.type, ir.TensorType) for value in crossing)


def test_a_graph_that_nothing_divides_is_one_block_and_says_so() -> None:
    model = initialized(
        HEAD
        + """ g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
        h = MatMul (x, a)  y = MatMul (h, b) }"""
    )
    found = cut(model, 64, widest_bytes=8)
    assert len(found.blocks) == 1
    assert found.note.startswith("the graph is one block of 128 bytes")
    assert not cut(model, 64).note


def test_a_layer_larger_than_the_budget_is_a_block_and_said() -> None:
    model = initialized(
        HEAD
        + """ g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
        h = MatMul (x, a)  y = MatMul (h, b) }"""
    )
    found = check_blocks(model, 10)
    assert len(found.blocks) == 2
    assert "cannot be divided" in found.note


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2] x) => (float[2] x) { }",
        "g (float[2] x) => (float[2] x, float[2] y) { h = Neg (x)  y = Abs (h) }",
        "g (float[2] x) => (float[2] y, float[2] h) { h = Neg (x)  y = Abs (h) }",
        "g (float[2] x) => (float[2] y, float[2] c) <float[2] c = {1.0, 2.0}> { y = Add (x, c) }",
        "g (float[2] x) => (float[2] y) { h = Clip (x, , )  m = Abs (h)  y = Neg (m) }",
    ],
)
def test_odd_ends_of_a_graph_are_given(text: str) -> None:
    model = ir.from_onnx_text(HEAD + text)
    feed = {
        value.name or "": np.array([-1, 2], np.float32)
        for value in model.graph.inputs
        if not value.is_initializer()
    }
    found = cut(model, 0)
    wanted: dict[str, Array] = {
        k: v for k, v in feed.items() if k in {o.name for o in model.graph.outputs}
    }
    if len(model.graph):
        wanted.update(whole(model, feed))
    check_exact(wanted, by_blocks(model, found, feed))


def test_a_default_that_callers_override_is_an_input_of_each_block_that_reads_it() -> None:
    text = """ g (float[2] x, float[2] c) => (float[2] y) { h = Add (x, c)  y = Mul (h, c) }"""
    model = ir.from_onnx_text(HEAD + text)
    c = model.graph.inputs[1]
    c.const_value = ir.Tensor(np.array([1, 2], np.float32), name="c")
    model.graph.register_initializer(c)
    x = {"x": np.array([-1, 2], np.float32)}
    found = cut(model, 0)
    assert len(found.blocks) == 2
    for feed in (x, {**x, "c": np.array([5, 5], np.float32)}):
        check_exact(whole(model, feed), by_blocks(model, found, feed))


def test_functions_and_operator_sets_go_with_the_blocks_that_use_them() -> None:
    twice = make_function(
        "own", "Twice", ["a"], ["b"], [make_node("Add", ["a", "a"], ["b"])], [make_opsetid("", 17)]
    )
    nodes = [
        make_node("Twice", ["x"], ["h"], domain="own"),
        make_node("Gelu", ["h"], ["k"], domain="com.microsoft"),
        make_node("Binarizer", ["k"], ["m"], domain="ai.onnx.ml", threshold=0.5),
        make_node("Twice", ["m"], ["y"], domain="own"),
    ]
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4])
        for name in ("x", "h", "k", "m", "y")
    ]
    graph = make_graph(nodes, "g", infos[:1], infos[4:], value_info=infos[1:4])
    domains = [("", 17), ("own", 1), ("com.microsoft", 1), ("ai.onnx.ml", 3)]
    proto = make_model(
        graph,
        functions=[twice],
        opset_imports=[make_opsetid(*domain) for domain in domains],
        ir_version=9,
    )
    found = check_blocks(ir.from_proto(proto), -1)
    assert len(found.blocks) == 4
    assert [len(part.functions) for part in block_models(found)] == [1, 0, 0, 1]


def test_unused_outputs_and_dead_nodes_do_no_harm() -> None:
    text = """ g (float[4] x) => (float[2] y) {
        a, b = Split <num_outputs = 2> (x)  dead = Neg (b)  deader = Neg (dead)  y = Abs (a) }"""
    check_blocks(ir.from_onnx_text(HEAD + text), -1)


def test_sizes_come_from_a_run_where_shapes_are_open() -> None:
    model = ir.from_onnx_text(
        HEAD
        + """ g (float[n, 8] x) => (float[n] y) {
        h = Neg (x)  axes = Constant <value = int64[1] {1}> ()
        k = ReduceSum <keepdims = 0> (h, axes)  y = Abs (k) }"""
    )
    feed = {"x": np.ones((5, 8), np.float32)}
    assert observed_bytes(model, feed) == {"h": 160, "k": 20, "y": 20}
    assert cut(model, -1, sizes=observed_bytes(model, feed), widest_bytes=20).crossing_bytes == 20


@given(
    st.lists(st.integers(-1, 9), min_size=1, max_size=7),
    st.lists(st.sets(st.sampled_from("abcdef")), min_size=8, max_size=8),
    st.integers(0, 6),
)
def test_the_fewest_bytes_cross(costs: list[int], reads: list[set[str]], budget: int) -> None:
    """Against all ways to cut; a weight of a letter is one byte."""
    ends = [0, *(cost for cost in costs if cost >= 0), 0]
    values = {letter: ir.Value(name=letter) for letter in "abcdef"}
    loads = [{values[letter]: 1 for letter in sorted(r)} for r in reads[: len(ends) - 1]]

    def fits(start: int, stop: int) -> bool:
        held = set().union(*(load.keys() for load in loads[start:stop]))
        return stop == start + 1 or len(held) <= budget

    def price(stops: list[int]) -> float:
        if all(itertools.starmap(fits, itertools.pairwise(stops))):
            return sum(ends[stop] for stop in stops)
        return math.inf

    last = len(ends) - 1
    inner = range(1, last)
    ways = [
        [0, *chosen, last]
        for count in range(len(inner) + 1)
        for chosen in itertools.combinations(inner, count)
    ]
    assert price(_shortest(ends, loads, budget)) == min(map(price, ways))


@pytest.mark.long
def test_twenty_thousand_nodes_are_cut() -> None:
    """Its small siblings run above; the same blocks over and over."""
    b = Builder(0, 4)
    for _ in range(10_000):
        b.conv(4, kernel=1)
        (b.value,) = b.add("Relu", b.value)
    model = b.model([2, 4, 6, 6], [2, 4, 6, 6])
    found = cut(model, 8000)
    # 80 bytes of weights a convolution.
    assert len(found.blocks) == 100
    assert sum(len(part.graph) for part in block_models(found)) == 20_000
