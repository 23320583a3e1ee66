"""Half precision keeps in float32 what does not fit, seen in real half arithmetic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from command_line import message, run
from onnx.reference import ReferenceEvaluator

from onnxpress.conversion import Conversion, convert_form, convert_interface
from onnxpress.conversion.emulation import emulated
from onnxpress.conversion.half import key_of, prepared, to_half
from onnxpress.conversion.half_range import Magnitudes
from onnxpress.conversion.precision import flow_of
from onnxpress.data import Samples, from_feeds
from onnxpress.model_file import save
from onnxpress.runtime import Session
from onnxpress.statistics.magnitudes import observe_magnitudes
from onnxpress.targets import load_target

HALF = Conversion(float16="keep-io")
WIDTH = 64


def model_of(body: str, *, output: str = "float[n, 64]", **constants: npt.ArrayLike) -> ir.Model:
    """From x [n, 64] to y, in ONNX text; constants are float32."""
    text = f"""
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[n, 64] x) => ({output} y) {{ {body} }}
    """
    proto = onnx.parser.parse_model(text)
    for name, array in constants.items():
        kept = np.asarray(array)
        kept = kept.astype(np.float32) if kept.dtype.kind == "f" else kept
        proto.graph.initializer.append(onnx.numpy_helper.from_array(kept, name))
    onnx.checker.check_model(proto)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def samples_of(model: ir.Model, scale: float, offset: float = 0.0) -> Samples:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((3, WIDTH)).astype(np.float32) for _ in range(4)]
    feeds = [{"x": array * np.float32(scale) + np.float32(offset)} for array in arrays]
    return from_feeds(feeds, Session(model).inputs, source="drawn")


def halved(model: ir.Model, samples: Samples) -> tuple[ir.Model, list[str]]:
    def observe(named: ir.Model) -> Magnitudes:
        return observe_magnitudes(named, [samples], most=4, made_up=False)

    return convert_form(model, load_target("cuda"), HALF, samples.feeds[:2], observe)


def all_half(model: ir.Model) -> ir.Model:
    """Whatever may be half is."""
    typed = prepared(model)
    return to_half(typed, {key_of(unit) for unit in flow_of(typed).units})


def is_half(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT16


def kept_db(model: ir.Model, half: ir.Model, samples: Samples) -> float:
    """What the answers keep where half is computed in half (onnx's reference evaluator)."""
    exact, evaluator = Session(model), ReferenceEvaluator(ir.to_proto(half))
    noise = power = 0.0
    with np.errstate(all="ignore"):
        for feed in samples.feeds:
            wanted = np.asarray(exact.run(feed)["y"], np.float64)
            answers = evaluator.run(None, dict(feed))
            assert isinstance(answers, list)
            found = np.asarray(answers[0], np.float64)
            if not np.isfinite(found).all():
                return -np.inf
            noise, power = noise + np.sum((wanted - found) ** 2), power + np.sum(wanted**2)
    return float(10 * np.log10(power / max(noise, 1e-30)))


EYE, AXIS = np.eye(WIDTH), np.array([-1])
NORM = "a = MatMul(x, w) b = Mul(a, a) c = ReduceMean<axes=[-1]>(b) "
CASES: dict[str, tuple[Callable[[], ir.Model], float, float]] = {
    "squares": (lambda: model_of(NORM + "d = Sqrt(c) y = Div(a, d)", w=EYE * 900), 1, 0),
    "squares in one operator": (
        lambda: model_of("a = ReduceL2<axes=[-1]>(x) y = Div(x, a)"),
        900,
        0,
    ),
    "a power": (
        lambda: model_of(
            "a = Pow(x, e) b = ReduceMean<axes=[-1]>(a) c = Sqrt(b) y = Div(x, c)", e=2.0
        ),
        900,
        0,
    ),
    "a sum": (lambda: model_of("a = ReduceSum(x, i) b = Div(x, a) y = Add(b, b)", i=AXIS), 1, 3000),
    "an exponential": (
        lambda: model_of("a = Exp(x) b = Add(a, one) y = Log(b)", one=1.0),
        1,
        20,
    ),
    "the output": (lambda: model_of("y = Mul(x, k)", k=1e6), 1, 0),
    "a constant": (lambda: model_of("a = Mul(x, k) y = Div(a, k)", k=1e30), 1, 0),
    "a normalization": (
        lambda: model_of("y = LayerNormalization(x, s, b)", s=np.ones(WIDTH), b=np.ones(WIDTH)),
        3000,
        0,
    ),
    "an epsilon": (
        lambda: model_of(NORM + "d = Add(c, e) f = Sqrt(d) y = Div(a, f)", w=EYE, e=1e-12),
        1e-4,
        0,
    ),
    "an epsilon inside an operator": (
        lambda: model_of(
            "a = Mul(x, k) b = LayerNormalization<epsilon=0.000000000001>(a, s, z) y = Add(b, b)",
            k=0.01,
            s=np.ones(WIDTH),
            z=np.zeros(WIDTH),
        ),
        2e-3,
        0,
    ),
    "a divisor": (lambda: model_of("a = Exp(x) b = Reciprocal(a) c = Log(b) y = Neg(c)"), 0.5, -14),
    "large integers": (
        lambda: model_of("a = Cast<to=7>(x) b = Cast<to=1>(a) y = Mul(b, k)", k=np.array([1e-6])),
        1e6,
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_in_half_is_computed_in_float32(case: str) -> None:
    build, scale, offset = CASES[case]
    model = build()
    samples = samples_of(model, scale, offset)
    assert kept_db(model, all_half(model), samples) < 20, "all of it in half breaks"
    half, notes = halved(model, samples)
    assert kept_db(model, half, samples) > 40
    assert any("stay in float32" in note and "65504" in note for note in notes)


def test_what_fits_is_all_in_half() -> None:
    model = model_of("a = MatMul(x, w) b = Relu(a) y = MatMul(b, w)", w=EYE)
    samples = samples_of(model, 10)
    half, notes = halved(model, samples)
    assert not notes
    floats = [n.op_type for n in half.graph if n.outputs[0].dtype == ir.DataType.FLOAT]
    assert floats == ["Cast"], "of the output"


def test_a_model_of_which_nothing_fits_stays_float32_and_is_told_why() -> None:
    model = model_of("y = Mul(x, x)")
    same, notes = halved(model, samples_of(model, 1000))
    assert same is model
    assert "no part of it fits" in notes[0]
    assert "x reaches" in notes[1] or "y reaches" in notes[1]


def test_a_mask_that_half_cannot_hold_leaves_no_row_undefined() -> None:
    model = model_of(
        "a = Greater(x, z) b = Where(a, z, m) p = MatMul(x, w) c = Add(p, b) d = Softmax(c) "
        "y = MatMul(d, w)",
        z=10.0,
        m=-3.4e38,
        w=EYE,
    )
    samples = samples_of(model, 1)
    half, notes = halved(model, samples)
    assert kept_db(model, half, samples) > 40
    assert any("3.4e+38" in note for note in notes)


def test_an_output_beyond_half_stays_float32_where_half_was_asked_for() -> None:
    model = model_of("a = Mul(x, k) y = Relu(a)", k=1e6)
    samples = samples_of(model, 1)
    half, _ = halved(model, samples)
    whole, notes = convert_interface(half, Conversion(float16="all"), samples.feeds[:2])
    assert not notes
    assert whole.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert kept_db(model, half, samples) > 40


def test_what_goes_beyond_half_in_a_body_alone_stays_in_float32() -> None:
    model = model_of(
        """
        s = ReduceMax<keepdims=0>(x)
        t = Greater(s, zero)
        a = MatMul(x, w)
        b = If (t) <then_branch = th () => (float[n, 64] p) { o = Mul(a, a) p = Mul(o, k) },
                    else_branch = el () => (float[n, 64] q) { q = Identity(x) }>
        y = MatMul(b, w)
        """,
        zero=0.0,
        k=1e-3,
        w=EYE,
    )
    samples = samples_of(model, 300, 300)
    assert kept_db(model, all_half(model), samples) < 20, "all of it in half breaks"
    half, notes = halved(model, samples)
    assert any("o reaches" in note for note in notes)
    assert kept_db(model, half, samples) > 40
    types = {node.op_type: node.outputs[0].dtype for node in half.graph.all_nodes()}
    assert (types["MatMul"], types["Mul"]) == (ir.DataType.FLOAT16, ir.DataType.FLOAT)


def test_rounding_every_tensor_shows_what_half_arithmetic_gives() -> None:
    model = model_of(NORM + "d = Sqrt(c) y = Div(a, d)", w=EYE * 900)
    samples = samples_of(model, 1)
    half, _ = convert_form(model, load_target("cuda"), HALF, [])
    evaluator = ReferenceEvaluator(ir.to_proto(half))
    rounded = Session(emulated(half), optimize=False)
    with np.errstate(all="ignore"):
        answers = evaluator.run(None, dict(samples.feeds[0]))
    assert isinstance(answers, list)
    wanted = np.asarray(answers[0], np.float32)
    found = np.asarray(rounded.run(samples.feeds[0])["y"], np.float32)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-6)


def test_what_fits_and_loses_much_stays_in_float32_with_what_it_loses() -> None:
    # Half has steps of 8 at 10 000: the difference of neighbours is gone, though all of it fits.
    model = model_of("m = MatMul(x, w) a = Add(m, k) b = Relu(a) y = Sub(b, k)", w=EYE, k=10_000.0)
    samples = samples_of(model, 1)
    assert kept_db(model, all_half(model), samples) < 20
    half, notes = halved(model, samples)
    assert kept_db(model, half, samples) > 40
    assert any("because of what they lose" in note and "Add_a" in note for note in notes)
    assert any(node.op_type == "MatMul" and is_half(node.outputs[0]) for node in half.graph)


def test_ranges_without_data_are_said_to_be_of_random_inputs(tmp_path: Path) -> None:
    save(model_of("a = MatMul(x, w) y = Relu(a)", w=EYE), tmp_path / "model.onnx")
    options = ("--target", "cuda", "--float16", "keep-io", "-o", tmp_path / "out.onnx")
    result = run("optimize", tmp_path / "model.onnx", *options)
    assert result.exit_code == 0
    assert "not on real data: give --calibration" in " ".join(message(result).split())
