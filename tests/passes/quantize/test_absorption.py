"""What a channel always exceeds moves into the next bias, and nothing else changes."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from generated import hold
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from refitting import refined_decisions

import onnxpress
from onnxpress.bias import shift_bias
from onnxpress.contract import Context
from onnxpress.data import load_samples
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.absorbing import absorb, absorbable, carried_over, shorter_range
from onnxpress.passes.quantize.ranges import range_between
from onnxpress.pool import Pool
from onnxpress.runtime import Array, Session
from onnxpress.targets import load_target

CHAINS = {
    "pointwise": "t = Conv (x, w, b)  r = Relu (t)  y = Conv (r, p, c)",
    "unpadded": "t = Conv (x, w, b)  r = Relu (t)  y = Conv (r, v, c)",
    "depthwise": "t = Conv (x, w)  r = Relu (t)  y = Conv <group = 6> (r, d)",
    "gemm": "f = Flatten (x)  t = Gemm (f, m, b)  r = Relu (t)  y = Gemm (r, n, c)",
    "matmul": (
        "f = Flatten (x)  s = MatMul (f, m)  t = Add (s, b)  r = Relu (t)  "
        "u = MatMul (r, n)  y = Add (u, c)"
    ),
}
REFUSED = {
    "padded": "t = Conv (x, w, b)  r = Relu (t)  y = Conv <pads = [1, 1, 1, 1]> (r, v, c)",
    "shared": "t = Conv (x, w, b)  r = Relu (t)  y = Conv (r, p, c)  z = Sigmoid (r)",
    "pooled": "t = Conv (x, w, b)  q = Relu (t)  r = GlobalAveragePool (q)  y = Conv (r, p, c)",
}
SHAPES = {
    "w": (6, 4, 3, 3),
    "b": (6,),
    "p": (5, 6, 1, 1),
    "v": (5, 6, 3, 3),
    "c": (5,),
    "d": (6, 1, 3, 3),
    "m": (256, 6),
    "n": (6, 5),
}


def chain(body: str, seed: int, lift: float) -> ir.Model:
    """With positive weights, so that positive inputs keep channels above zero."""
    inputs = ", ".join(f"float[{', '.join(map(str, s))}] {name}" for name, s in SHAPES.items())
    output = "float[A, B]" if "Flatten" in body else "float[A, B, C, D]"
    made = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4, 8, 8] x, {inputs})
        => ({output} y{", float[A, B, C, D] z" if "z =" in body else ""}) {{ {body} }}"""
    )
    rng = np.random.default_rng(seed)
    arrays = {}
    for value in made.graph.inputs[1:]:
        name = value.name or ""
        array = rng.standard_normal(SHAPES[name])
        if name in ("w", "m"):
            array = np.abs(array)
        if name == "b":
            array = lift * np.abs(array)
        arrays[name] = array.astype(np.float32)
    hold(made, arrays)
    for name, value in list(made.graph.initializers.items()):
        if not value.uses():
            del made.graph.initializers[name]
    return made


def images(seed: int, count: int = 12) -> Array:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.8, 1.2, (count, 4, 8, 8)).astype(np.float32)


def observed(model: ir.Model) -> Context:
    samples = load_samples({"x": images(0)}, Session(model).inputs)
    return Pool((Quantize(),)).context(model, load_target("cpu"), samples)


def run(model: ir.Model, x: Array) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    outputs: Any = ReferenceEvaluator(ir.to_proto(model)).run(["y"], {"x": x})
    return np.asarray(outputs[0], np.float32)


@pytest.mark.parametrize("name", CHAINS)
@given(seed=st.integers(0, 1000), lift=st.sampled_from([0.0, 3.0, 30.0]))
@settings(max_examples=8, deadline=None)
def test_absorption_is_exact_by_the_reference_evaluator(name: str, seed: int, lift: float) -> None:
    context = observed(chain(CHAINS[name], seed, lift))
    model = context.model
    last = context.layers[-1]
    wide = range_between(0.0, 1e6, signed=False)
    found = shorter_range(context, last, wide, 0.0)
    assert found is not None
    before = run(model, images(0)[:1])
    carried = carried_over(context, last, last.read(), 0.0)
    absorb(context, [last], {last.name: {"absorbed": True}})
    shift_bias(context.names, model.graph, last.node, carried)
    np.testing.assert_allclose(run(model, images(0)[:1]), before, rtol=1e-4, atol=1e-4)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    shorter = observed(model)
    seen, now = (c.statistics for c in (context, shorter))
    assert seen is not None
    assert now is not None
    assert now.tensors["r"].minimum >= 0
    assert now.tensors["r"].maximum < seen.tensors["r"].maximum
    assert 255 * found.scale == pytest.approx(now.tensors["r"].maximum, rel=0.05)


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_in_zeros_or_has_other_readers_is_left(name: str) -> None:
    context = observed(chain(REFUSED[name], 0, 30.0))
    last = next(layer for layer in context.layers if layer.name in ("p", "v"))
    assert absorbable(last, context.layers) is None


@pytest.mark.parametrize("name", CHAINS)
def test_absorbed_network_is_nearer_in_eight_bits(name: str) -> None:
    model = chain(CHAINS[name], 3, 30.0)
    plain, absorbed = (
        onnxpress.optimize(
            model,
            calibration={"x": images(1, 64)},
            evaluation={"x": images(2)},
            passes=[Quantize(form="static", layout="u8s8", absorption=absorption)],
            min_sqnr=5.0,
            goal="size",
            clock=BY_WORK,
        )
        for absorption in (False, True)
    )
    onnx.checker.check_model(ir.to_proto(absorbed.model), full_check=True)
    assert plain.validation is not None
    assert absorbed.validation is not None
    before = plain.validation.measurement.worst_sqnr_db
    # A Conv's own output is rounded to 8 bits too, which hides most of the gain.
    gain = 0.5 if "y = Conv" in CHAINS[name] else 3.0
    assert absorbed.validation.measurement.worst_sqnr_db > before + gain


@pytest.mark.parametrize("name", CHAINS)
def test_absorbed_layers_are_fitted_again_without_being_shifted_twice(name: str) -> None:
    model = chain(CHAINS[name], 3, 30.0)
    samples = load_samples({"x": images(1, 64)}, Session(model).inputs)
    pool = Pool((Quantize(form="static", layout="u8s8", absorption=True),))
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    decisions = refined_decisions(pool, context)
    assert any(decision.candidate.parameters.get("absorbed") for decision in decisions)
    plain = pool.rewrite(context, decisions)
    again = pool.rewrite_refined(context, decisions, samples, threads=1)
    answers = [
        np.asarray(Session(found).run({"x": images(2)[:1]})["y"], np.float64)
        for found in (model, plain, again)
    ]
    lost = [np.square(found - answers[0]).mean() for found in answers[1:]]
    assert lost[1] < 1.5 * lost[0]
