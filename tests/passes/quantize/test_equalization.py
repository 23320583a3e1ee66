"""Dividing a tensor by channel inside what computes it changes nothing else."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from generated import hold
from onnx.reference import ReferenceEvaluator
from refitting import refined_decisions

import onnxpress
from onnxpress.contract import Decision
from onnxpress.data import from_arrays
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.folding import divide, divisible
from onnxpress.pinning import Pins
from onnxpress.pool import Pool
from onnxpress.runtime import Array, Session, executed_operators
from onnxpress.selectable import selectable_sites
from onnxpress.selection import Selection, Selector
from onnxpress.targets import load_target

CHAINS = {
    "conv": ("c = Conv <pads = [1, 1, 1, 1]> (x, w, b)", 1),
    "relu": ("t = Conv (x, w, b)  c = Relu (t)", 1),
    "leaky": (
        (
            "t = Conv (x, w, b)  u = LeakyRelu <alpha = 0.2> (t)  c = MaxPool "
            "<kernel_shape = [2, 2]> (u)"
        ),
        1,
    ),
    "depthwise": ("t = Conv (x, w, b)  c = Conv <group = 6> (t, d)", 1),
    "normalized": ("f = Flatten (x)  t = MatMul (f, m)  c = LayerNormalization (t, b, b)", -1),
    "apart": ("f = Flatten (x)  t = MatMul (f, m)  u = Mul (t, b)  c = Add (b, u)", -1),
}
REFUSED = {
    "clip": ("t = Conv (x, w, b)  c = Clip (t, lo, hi)", 1),
    "sigmoid": ("t = Conv (x, w, b)  c = Sigmoid (t)", 1),
    "shared": ("t = Conv (x, w, b)  c = Relu (t)  z = Sigmoid (t)", 1),
}


def chain(body: str) -> ir.Model:
    output = "float[N] z" if "z =" in body else ""
    made = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4, 5, 5] x, float[6, 4, 3, 3] w,
        float[6] b, float[6, 1, 3, 3] d, float[100, 6] m, float lo, float hi)
        => (float[K] y{", " + output if output else ""}) {{ {body}  y = Identity (c) }}"""
    )
    rng = np.random.default_rng(0)
    shapes = {"w": (6, 4, 3, 3), "b": (6,), "d": (6, 1, 3, 3), "m": (100, 6)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    ends = {"lo": np.asarray(0.0, np.float32), "hi": np.asarray(6.0, np.float32)}
    return hold(made, {**arrays, **ends})


def found(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def run(model: ir.Model, x: Array) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    outputs: Any = ReferenceEvaluator(ir.to_proto(model)).run(["y"], {"x": x})
    return np.asarray(outputs[0], np.float32)


@pytest.mark.parametrize("name", CHAINS)
def test_division_is_exact_by_the_reference_evaluator(name: str) -> None:
    body, axis = CHAINS[name]
    model = chain(body)
    x = np.random.default_rng(1).standard_normal((1, 4, 5, 5)).astype(np.float32)
    before = run(model, x)
    scales = np.exp(np.random.default_rng(2).standard_normal(6))
    assert divide(Names(model), found(model, "c"), axis, scales)
    shape = [1] * before.ndim
    shape[axis] = 6
    wanted = before / scales.reshape(shape)
    np.testing.assert_allclose(run(model, x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_homogeneous_or_has_other_readers_is_left(name: str) -> None:
    body, axis = REFUSED[name]
    model = chain(body)
    x = np.random.default_rng(1).standard_normal((1, 4, 5, 5)).astype(np.float32)
    before = run(model, x)
    assert not divisible(found(model, "c"), axis)
    assert not divide(Names(model), found(model, "c"), axis, np.full(6, 2.0))
    np.testing.assert_array_equal(run(model, x), before)


def uneven() -> ir.Model:
    """Conv → Relu → Conv with channels whose ranges differ a thousandfold, then MatMul."""
    made = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4, 8, 8] x, float[8, 4, 3, 3] w,
        float[8] b, float[6, 8, 3, 3] v, float[6] c) => (float[1, 6, 4, 4] y) {
        t = Conv (x, w, b)  r = Relu (t)  y = Conv (r, v, c) }"""
    )
    rng = np.random.default_rng(3)
    spread = np.geomspace(1e-2, 10, 8)
    arrays = {
        "w": rng.standard_normal((8, 4, 3, 3)) * spread[:, None, None, None],
        "b": rng.standard_normal(8) * spread,
        "v": rng.standard_normal((6, 8, 3, 3)) / spread[None, :, None, None],
        "c": rng.standard_normal(6),
    }
    return hold(made, {name: array.astype(np.float32) for name, array in arrays.items()})


def test_equalized_convolutions_are_nearer_and_run_no_extra_operator() -> None:
    """Without it such channels leave 7 dB, with it 35."""
    rng = np.random.default_rng(4)
    data = {"x": rng.standard_normal((24, 4, 8, 8)).astype(np.float32)}
    result = onnxpress.optimize(
        uneven(),
        calibration=data,
        evaluation={"x": rng.standard_normal((8, 4, 8, 8)).astype(np.float32)},
        passes=[Quantize(form="static")],
        metric="none",
        min_sqnr=30.0,
        goal="size",
        clock=BY_WORK,
    )
    assert result.within_budget, result.problems
    assert executed_operators(result.model, integer_only=True) == {"QLinearConv": 2}
    assert not [node for node in result.model.graph if node.op_type == "Mul"]
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


def test_layers_behind_folded_scales_are_fitted_again_to_what_they_are_fed() -> None:
    """A tensor divided by channel is not what its name stood for: fitted to it, -4 dB were left."""
    rng = np.random.default_rng(4)
    model = uneven()
    before = Session(model, threads=1)
    draw = [rng.standard_normal((count, 4, 8, 8)).astype(np.float32) for count in (64, 16)]
    seen, unseen = (from_arrays({"x": x}, before.inputs, "drawn") for x in draw)
    pool = Pool((Quantize(form="static", refinement=True),))
    context = pool.context(model, load_target("cpu"), seen, threads=1)
    decisions = refined_decisions(pool, context)
    assert any("smoothing" in decision.candidate.parameters for decision in decisions)
    wanted = np.concatenate([before.run(feed)["y"] for feed in unseen])
    lost = []
    for rewritten in (
        pool.rewrite(context, decisions),
        pool.rewrite_refined(context, decisions, seen, threads=1),
    ):
        assert not [node for node in rewritten.graph if node.op_type == "Mul"]
        found = np.concatenate([Session(rewritten).run(feed)["y"] for feed in unseen])
        lost.append(float(np.square(found - wanted).sum()))
    assert lost[1] < 1.1 * lost[0]


@pytest.mark.parametrize("kept", ["w", "v"])
def test_nothing_is_folded_into_or_out_of_a_layer_that_is_kept(kept: str) -> None:
    model = uneven()
    rng = np.random.default_rng(4)
    samples = from_arrays(
        {"x": rng.standard_normal((24, 4, 8, 8)).astype(np.float32)}, Session(model).inputs, "drawn"
    )
    selection = Selection((Selector(kept),))
    pool = Pool((Quantize(form="static"),), Pins.of(selection, selectable_sites(model)))
    context = pool.context(model, load_target("cpu"), samples)
    offer = pool.offer(context)
    (proposal,) = offer.proposals
    assert not proposal.candidates[0].parameters.get("smoothing")
    # The candidate that would be folded, as a recipe made without the pin has it.
    free = Pool(pool.passes).offer(context)
    folded = [Decision(item.site, item.candidates[0]) for item in free.proposals]
    assert any(decision.candidate.parameters.get("smoothing") for decision in folded)
    allowed, left = pool.permitted(context, folded)
    assert [skip.site for _, skip in left] == [kept]
    rewritten = pool.rewrite(context, allowed)
    before = {layer.name: layer.read() for layer in context.layers}
    after = {layer.name: layer.read() for layer in find_layers(rewritten)}
    np.testing.assert_array_equal(after[kept], before[kept])
    onnx.checker.check_model(ir.to_proto(rewritten), full_check=True)
