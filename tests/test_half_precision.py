"""Half precision: what may be half, casts, storage, emulation, choice by measured error."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from command_line import message, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import onnxpress
from onnxpress.beyond_ir import from_proto
from onnxpress.conversion import Conversion, convert_form, with_float_weights
from onnxpress.conversion.emulation import emulated
from onnxpress.conversion.fewest_casts import kept_in_float32
from onnxpress.conversion.half import key_of, prepared, to_half
from onnxpress.conversion.half_range import Magnitudes
from onnxpress.conversion.half_storage import chosen_storage, stored_in_half
from onnxpress.conversion.mixing import emulated_db
from onnxpress.conversion.precision import Slot, flow_of
from onnxpress.conversion.shares import Shares
from onnxpress.data import from_feeds
from onnxpress.errors import UsageError
from onnxpress.layers import find_layers
from onnxpress.model_file import save, to_bytes
from onnxpress.runtime import Feed, Session
from onnxpress.statistics.magnitudes import observe_magnitudes
from onnxpress.targets import load_target

WIDTH = 48


def parsed(body: str, opset: int = 17, /, **constants: npt.ArrayLike) -> ir.Model:
    """From x [n, 48] to y, in ONNX text; constants are float32."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : {opset}]> '
        f"g (float[n, {WIDTH}] x) => (float[n, m] y) {{ {body} }}"
    )
    for name, array in constants.items():
        kept = np.asarray(array)
        kept = kept.astype(np.float32) if kept.dtype.kind == "f" else kept
        proto.graph.initializer.append(onnx.numpy_helper.from_array(kept, name))
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def drawn(scale: float = 1.0, number: int = 6, seed: int = 3) -> list[Feed]:
    rng = np.random.default_rng(seed)
    return [
        {"x": (scale * rng.standard_normal((3, WIDTH))).astype(np.float32)} for _ in range(number)
    ]


def weight(seed: int = 0, scale: float = 0.15) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((WIDTH, WIDTH))).astype(np.float32)


def chosen(model: ir.Model, feeds: Sequence[Feed]) -> tuple[ir.Model, list[str]]:
    """As `optimize` converts a model for a GPU."""
    samples = from_feeds(list(feeds), Session(model).inputs, source="drawn")

    def observe(named: ir.Model) -> Magnitudes:
        return observe_magnitudes(named, [samples], most=6, made_up=False)

    return convert_form(model, load_target("cuda"), Conversion(float16="keep-io"), feeds, observe)


def everything_half(model: ir.Model) -> ir.Model:
    typed = prepared(model)
    return to_half(typed, {key_of(unit) for unit in flow_of(typed).units})


def answer(model: ir.Model, feed: Feed) -> npt.NDArray[np.float64]:
    return np.asarray(Session(model).run(feed)["y"], np.float64)


def casts(model: ir.Model) -> int:
    return sum(node.op_type == "Cast" for node in model.graph.all_nodes())


def assert_no_idle_cast(model: ir.Model) -> None:
    """No Cast to what a tensor is, no two of one tensor to one type, no half and back."""
    seen = set()
    for node in model.graph.all_nodes():
        if node.op_type != "Cast":
            continue
        source, to = node.inputs[0], node.attributes["to"].as_int()
        assert source is not None
        assert source.dtype != to, "to the type that it has"
        assert (source, to) not in seen, "twice"
        seen.add((source, to))
        first = source.producer()
        if first is not None and first.op_type == "Cast":
            before = first.inputs[0]
            assert before is None or before.dtype != to, "there and back"


LAYERS = {
    "MatMul": "{o} = MatMul({i}, w{k})",
    "Relu": "{o} = Relu({i})",
    "Softmax": "{o} = Softmax({i})",
    "Exp": "{o} = Exp({i})",
    "Tanh": "{o} = Tanh({i})",
    "Square": "{o} = Mul({i}, {i})",
    "Norm": "{o} = LayerNormalization({i}, ones, zeros)",
    "Large": "g{k} = Mul({i}, large) {o} = Mul(g{k}, tiny)",
    "Residual": "{o} = Add({i}, x)",
    "If": "s{k} = ReduceMax<keepdims=0>({i}) t{k} = Greater(s{k}, zero) {o} = If (t{k}) "
    "<then_branch = th{k} () => (float[n, 48] p{k}) "
    "{{ q{k} = Tanh({i}) p{k} = MatMul(q{k}, w{k}) }}, "
    "else_branch = el{k} () => (float[n, 48] r{k}) {{ r{k} = Identity({i}) }}>",
    "Loop": "{o} = Loop(two, yes, {i}) <body = lo{k} (int64 n{k}, bool c{k}, float[n, 48] a{k}) "
    "=> (bool d{k}, float[n, 48] b{k}) {{ d{k} = Identity(c{k}) e{k} = MatMul(a{k}, w{k}) "
    "b{k} = Tanh(e{k}) }}>",
}
"""Of a chain: {i} in, {o} out, {k} a number."""


def chain(layers: Sequence[str]) -> ir.Model:
    names = [*(f"v{number}" for number in range(len(layers))), "y"]
    body = "v0 = MatMul(x, first) " + " ".join(
        LAYERS[layer].format(i=names[number], o=names[number + 1], k=number)
        for number, layer in enumerate(layers)
    )
    weights = {f"w{k}": weight(k + 1) for k, layer in enumerate(layers) if f"w{k}" in body}
    fixed: dict[str, npt.ArrayLike] = {
        "first": weight(),
        "ones": np.ones(WIDTH),
        "zeros": np.zeros(WIDTH),
        "large": 3e6,
        "tiny": 3e-7,
        "zero": 0.0,
        "two": np.array(2),
        "yes": np.ones((), bool),
    }
    used = {name: array for name, array in fixed.items() if f"{name}" in body}
    return parsed(body, **used, **weights)


@settings(max_examples=40, deadline=None)
@given(layers=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6), data=st.data())
def test_any_choice_gives_a_model_that_loads_without_idle_casts(
    layers: list[str], data: st.DataObject
) -> None:
    model = prepared(chain(layers))
    keys = sorted(key_of(unit) for unit in flow_of(model).units)
    narrow = data.draw(st.sets(st.sampled_from(keys)))
    before = to_bytes(model)
    half = to_half(model, narrow)
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    assert Session(half).inputs[0].dtype == "float32"
    assert_no_idle_cast(half)
    assert to_bytes(model) == before, "the model is not changed"


@settings(max_examples=30, deadline=None)
@given(layers=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6))
def test_a_chosen_mixture_keeps_its_decibels_on_samples_that_did_not_choose(
    layers: list[str],
) -> None:
    # How far exp(exp(x)) reaches, no few samples show: figures of some say nothing of the next.
    assume(layers.count("Exp") < 2)
    model = chain(layers)
    original = Session(model)
    unseen = drawn(seed=11)
    known = [original.run(feed)["y"] for feed in (*drawn(), *unseen)]
    if not all(np.isfinite(array).all() and np.abs(array).max() < 1e30 for array in known):
        return
    half, _ = chosen(model, drawn())
    assert emulated_db(half, original, unseen) > 45


@settings(max_examples=25, deadline=None)
@given(
    layers=st.lists(
        st.sampled_from([name for name in sorted(LAYERS) if name not in ("Large", "Norm")]),
        min_size=1,
        max_size=5,
    )
)
def test_emulation_gives_what_the_reference_evaluator_computes_in_half(layers: list[str]) -> None:
    half = everything_half(chain(layers))
    (feed,) = drawn(number=1)
    with np.errstate(all="ignore"):
        answers = ReferenceEvaluator(ir.to_proto(half)).run(None, dict(feed))
    assert isinstance(answers, list)
    wanted = np.asarray(answers[0], np.float64)
    found = np.asarray(Session(emulated(half), optimize=False).run(feed)["y"], np.float64)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    known = np.isfinite(wanted)
    # The evaluator adds up in half inside Softmax and MatMul, kernels in float32.
    np.testing.assert_allclose(found[known], wanted[known], rtol=0.05, atol=2e-3)


MASK = np.tile(np.arange(WIDTH) % 2, (3, 1))
MASK[0] = 1
"""Of the first row nothing is seen, as of padding."""
VARIANCE = (
    "p = MatMul(x, w) m = ReduceMean<axes=[-1]>(p) d = Sub(p, m) q = Mul(d, d) "
    "v = ReduceMean<axes=[-1]>(q) e = Sqrt(v) n = Div(d, e) y = MatMul(n, w)"
)
SUM = (
    "p = MatMul(x, w) t = Abs(p) u = Expand(t, shape) r = Reshape(u, line) "
    "s = ReduceSum(r, last) n = Div(s, k) d = Div(p, n) y = MatMul(d, w)"
)
OVERFLOWS: dict[str, tuple[str, dict[str, npt.ArrayLike], float]] = {
    "a mask of -1e9": (
        "p = MatMul(x, w) m = Mul(p, k) a = Add(p, b) s = Softmax(a) y = MatMul(s, w)",
        {"b": MASK * -1e9, "k": 1.0},
        1.0,
    ),
    "a mask of -3.4e38": (
        "p = MatMul(x, w) a = Add(p, b) s = Softmax(a) y = MatMul(s, w)",
        {"b": MASK * -3.4e38},
        1.0,
    ),
    "large activations": (
        "a = MatMul(x, w) b = Mul(a, k) c = Mul(b, j) y = MatMul(c, w)",
        {"k": 1e6, "j": 1e-6},
        1.0,
    ),
    "an exponential": (
        "p = MatMul(x, w) a = Exp(p) b = Add(a, k) c = Log(b) y = MatMul(c, w)",
        {"k": 1.0},
        15.0,
    ),
    "a variance": (
        VARIANCE,
        {},
        500.0,
    ),
    "a sum of 70 000": (
        SUM,
        {
            "shape": np.array([1500, 1, WIDTH]),
            "line": np.array([1, -1]),
            "last": np.array([1]),
            "k": 7e4,
        },
        1.0,
    ),
}


@pytest.mark.parametrize("case", OVERFLOWS)
def test_models_made_to_overflow_keep_45_db_and_their_products_in_half(case: str) -> None:
    body, constants, scale = OVERFLOWS[case]
    model = parsed(body, w=weight(), **constants)
    original, unseen = Session(model), drawn(scale, seed=12)
    assert not emulated_db(everything_half(model), original, unseen) > 20, (
        "all of it in half breaks"
    )
    half, _ = chosen(model, drawn(scale))
    assert emulated_db(half, original, unseen) > 45
    products = [node for node in half.graph.all_nodes() if node.op_type == "MatMul"]
    assert any(node.outputs[0].dtype == ir.DataType.FLOAT16 for node in products)
    assert_no_idle_cast(half)


def test_a_sum_that_overflows_in_a_loop_stays_in_float32_there() -> None:
    model = parsed(
        "a = MatMul(x, w) b = Loop(three, yes, a) <body = lo (int64 i, bool c, float[n, 48] s) => "
        "(bool d, float[n, 48] t) { d = Identity(c) q = Mul(s, k) r = Relu(q) t = Mul(r, j) }> "
        "y = MatMul(b, w)",
        w=weight(),
        k=1e6,
        j=1e-6,
        three=np.array(3),
        yes=np.ones((), bool),
    )
    original, unseen = Session(model), drawn(seed=12)
    assert not emulated_db(everything_half(model), original, unseen) > 20
    half, _ = chosen(model, drawn())
    assert emulated_db(half, original, unseen) > 45
    body = next(n for n in half.graph if n.op_type == "Loop").attributes["body"].as_graph()
    assert all(n.outputs[0].dtype == ir.DataType.FLOAT for n in body if n.op_type == "Mul")


def test_operators_between_two_in_float32_stay_where_casts_are_saved() -> None:
    model = prepared(
        parsed("a = MatMul(x, w) b = Exp(a) c = Relu(b) d = Log(c) y = MatMul(d, w)", w=weight())
    )
    flow = flow_of(model)
    by_name = {unit.op_type: unit for unit in flow.units if isinstance(unit, ir.Node)}
    kept = kept_in_float32(flow, {by_name["Exp"], by_name["Log"]})
    assert {u.op_type for u in kept if isinstance(u, ir.Node)} == {"Exp", "Relu", "Log"}
    half = to_half(model, {key_of(unit) for unit in flow.units if unit not in kept})
    assert casts(half) == 4, "into and out of the three, at the input, at the output"


@settings(max_examples=25, deadline=None)
@given(layers=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4), data=st.data())
def test_no_smaller_cut_exists(layers: list[str], data: st.DataObject) -> None:
    model = prepared(chain(layers))
    flow = flow_of(model)
    free = [unit for unit in flow.units if isinstance(unit, Slot) or unit.op_type != "MatMul"][:7]
    wide = set(data.draw(st.lists(st.sampled_from(flow.units), min_size=1, max_size=2)))

    def cost(kept: set[object]) -> int:
        half = to_half(model, {key_of(unit) for unit in flow.units if unit not in kept})
        own = [u for u in kept if isinstance(u, ir.Node) and u.op_type not in ("Identity", "Cast")]
        return 2 * casts(half) + len(own)

    best = cost(set(kept_in_float32(flow, wide)))
    for number in range(2 ** len(free)):
        other = {unit for place, unit in enumerate(free) if number >> place & 1}
        assert best <= cost({*wide, *other})


def test_what_computes_the_size_of_a_picture_stays_in_float32() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[1, 1, 30, 30] x) => (float[1, 1, h, v] y) {
          s = Shape(x) f = Cast<to=1>(s) t = Mul(f, third) i = Cast<to=7>(t)
          r = Resize<mode="nearest">(x, , , i) y = Relu(r) }""")
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([1, 1, 1.1, 1.1], np.float32), "third")
    )
    model = prepared(from_proto(proto))
    exact = {unit.op_type for unit in flow_of(model).exact if isinstance(unit, ir.Node)}
    assert "Mul" in exact
    assert "Resize" not in exact


@pytest.mark.parametrize(
    ("scale", "form"), [(0.1, "float16"), (1e7, "scaled float16"), (1e-9, "scaled float16")]
)
def test_a_weight_beyond_half_is_stored_by_a_power_of_two(scale: float, form: str) -> None:
    model = parsed("a = MatMul(x, w) y = Mul(a, k)", w=weight(scale=scale), k=1 / scale)
    small, (stored,) = stored_in_half(model)
    assert (stored.form, bool(stored.reason)) == (form, form != "float16")
    assert len(to_bytes(small)) < 0.6 * len(to_bytes(model))
    (feed,) = drawn(number=1)
    wanted, found = answer(model, feed), answer(small, feed)
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(("opset", "form"), [(17, "bfloat16"), (12, "")])
def test_a_weight_of_too_wide_a_range_is_bfloat16_or_stays_and_says_why(
    opset: int, form: str
) -> None:
    rows = weight() * np.float32(10.0) ** np.linspace(-12, 12, WIDTH, dtype=np.float32)[:, None]
    model = parsed("y = MatMul(x, w)", opset, w=rows)
    small, (stored,) = stored_in_half(model)
    assert stored.form == form
    assert "its numbers lie between" in stored.reason
    for row in range(WIDTH):
        feed = {"x": np.eye(WIDTH, dtype=np.float32)[row : row + 1]}
        np.testing.assert_allclose(answer(small, feed), answer(model, feed), rtol=2**-8)


def test_infinite_weights_are_infinite_in_half_and_rows_that_are_nothing_do_not_count() -> None:
    given = weight()
    given[0, 0], given[5] = -np.inf, 1e-40
    small, (stored,) = stored_in_half(parsed("y = MatMul(x, w)", w=given))
    assert stored.form == "float16"
    found = small.graph.initializers["w_half"].const_value
    assert found is not None
    assert found.numpy()[0, 0] == -np.inf


@pytest.mark.parametrize("shape", [(), (0, WIDTH), (1,), (WIDTH,)])
def test_scalars_biases_and_empty_weights_stay_as_they_are(shape: tuple[int, ...]) -> None:
    model = parsed("a = MatMul(x, w) z = Mul(k, k) y = Relu(a)", w=weight(), k=np.ones(shape))
    small, stored = stored_in_half(model)
    assert [item.name for item in stored] == ["w"]
    assert Session(small).run(drawn(number=1)[0])["y"].shape == (3, WIDTH)


def test_a_model_without_weights_is_not_stored_and_says_so() -> None:
    model = parsed("y = Relu(x)")
    asked = Conversion(float16="storage")
    same, notes = convert_form(model, load_target("cpu"), asked, drawn())
    assert same is model
    assert notes == ["half storage: not done: no float32 weight would be smaller [H002]"]


def test_weights_that_lose_too_much_stay_and_the_others_are_half() -> None:
    # Neighbours of equal size cancel: what is left of them is what half rounds away.
    large = weight(scale=300.0)
    model = parsed(
        "a = MatMul(x, w) b = MatMul(x, v) c = Sub(a, b) e = MatMul(x, u) y = Add(c, e)",
        w=large + 0.01,
        v=large,
        u=weight(scale=0.01),
    )
    made, _, costly = chosen_storage(model, drawn())
    assert set(costly) == {"w", "v"}
    assert made.graph.initializers["u_half"].dtype == ir.DataType.FLOAT16


def test_weights_of_bodies_are_stored_in_half_where_they_are() -> None:
    model = parsed(
        "s = ReduceMax<keepdims=0>(x) t = Greater(s, zero) y = If (t) <then_branch = th () => "
        "(float[n, 48] p) { p = MatMul(x, w) }, else_branch = el () => (float[n, 48] q) "
        "{ q = Identity(x) }>",
        zero=0.0,
        w=weight(),
    )
    small, (stored,) = stored_in_half(model)
    assert stored.form == "float16"
    (feed,) = drawn(number=1)
    np.testing.assert_allclose(answer(small, feed), answer(model, feed), atol=5e-3)


def test_shares_find_the_parts_that_lose_in_few_looks() -> None:
    loses = {17: 1.0, 204: 0.5, 230: 1e-9}
    looks: list[Collection[int]] = []

    def share(parts: Collection[int]) -> float:
        looks.append(parts)
        return math.fsum(loses.get(part, 0.0) for part in parts)

    found = Shares(range(256), share).largest(1e-6)
    assert found == {17: 1.0, 204: 0.5}
    assert len(looks) < 40


def test_a_target_without_half_is_refused_with_what_it_has(tmp_path: Path) -> None:
    save(parsed("y = MatMul(x, w)", w=weight()), tmp_path / "model.onnx")
    options = ("--target", "xnnpack", "--float16", "keep-io", "-o", tmp_path / "out.onnx")
    result = run("optimize", tmp_path / "model.onnx", *options)
    assert result.exit_code == 2
    said = " ".join(message(result).split())
    assert "xnnpack takes no half tensors, it has float; --float16 storage" in said
    assert not (tmp_path / "out.onnx").exists()


def test_an_unknown_form_of_half_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'keep-io'"):
        Conversion(float16="keepio")


@pytest.mark.parametrize("form", ["storage", "keep-io"])
def test_the_command_writes_half_and_tells_what_half_arithmetic_keeps(
    tmp_path: Path, form: str
) -> None:
    save(parsed("a = MatMul(x, w) b = Relu(a) y = MatMul(b, w)", w=weight()), tmp_path / "m.onnx")
    options = ("--target", "cuda", "--passes", "simplify", "--float16", form)
    result = run("optimize", tmp_path / "m.onnx", *options, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    said = " ".join(message(result).split())
    assert ("half arithmetic, emulated" in said) is (form == "keep-io")
    assert (tmp_path / "out.onnx").stat().st_size < 0.7 * (tmp_path / "m.onnx").stat().st_size


def test_a_model_that_stores_half_behind_cast_has_the_layers_of_the_float_one(
    models: Path,
) -> None:
    given = onnxpress.load(models / "fashion_cnn.onnx")
    small, _ = stored_in_half(given)
    layers = [
        [(layer.name, layer.op_type) for layer in find_layers(model)]
        for model in (given, with_float_weights(small))
    ]
    assert layers[0] == layers[1]
    assert layers[0]


def test_a_model_that_stores_half_behind_cast_is_quantized_and_what_is_left_is_half(
    tmp_path: Path,
) -> None:
    body = "a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)"
    small, _ = stored_in_half(parsed(body, w=weight(1), v=weight(2)))
    save(small, tmp_path / "half.onnx")
    simplified = onnxpress.optimize(tmp_path / "half.onnx", passes=["simplify"]).model
    kinds = [tensor.dtype for tensor in simplified.graph.initializers.values()]
    assert kinds.count(ir.DataType.FLOAT16) == 2
    assert len(to_bytes(simplified)) < 1.1 * (tmp_path / "half.onnx").stat().st_size
    data = {"x": np.concatenate([feed["x"] for feed in drawn(number=8)])}
    found = onnxpress.optimize(
        tmp_path / "half.onnx", passes=["quantize"], calibration=data, goal="size"
    )
    decided = {d.site for stage in found.stages for d in stage.decisions if d.layers}
    assert decided >= {"w", "v"}
