"""Weights of integer kernels in fewer than 8 bits: unpacked at load to what the kernels take."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from bodies import draw, feeds, if_model, loop_model, scan_model
from generated import initialized
from hypothesis import given, settings
from hypothesis import strategies as st
from low_bit_models import codes_of, evaluated, initializers
from weights_anywhere import checked

from onnxpress import model_file
from onnxpress.contract import Candidate, Decision
from onnxpress.data import Samples, load_samples, random_samples
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.integers import static_integers
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.simplify import simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target

LAYERS = {
    "conv": ("[b, 8, 9, 9] x, float[12, 8, 3, 3] w", "[b, 12, 7, 7]", "Conv (x, w)"),
    "groups": ("[b, 8, 9, 9] x, float[12, 4, 3, 3] w", "[b, 12, 7, 7]", "Conv <group = 2> (x, w)"),
    "gemm": ("[b, 37] x, float[37, 24] w, float[24] c", "[b, 24]", "Gemm (x, w, c)"),
    "turned": ("[b, 37] x, float[24, 37] w", "[b, 24]", "Gemm <transB = 1> (x, w)"),
    "matmul": ("[s, b, 37] x, float[37, 24] w", "[s, b, 24]", "MatMul (x, w)"),
}
WIDE = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[64, 128] x, float[128, 256] w) => (float[64, 256] y) { y = MatMul (x, w) }"""
KINDS = ("", "_codebook", "_row_codebook", "_log", "_power_sums")


def model_with(kind: str, opset: int = 17) -> ir.Model:
    inputs, output, body = LAYERS[kind]
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float{inputs}) => (float{output} y) {{ y = {body} }}"""
    return initialized(text, seed=3)


def samples_of(model: ir.Model, seed: int = 1) -> Samples:
    return random_samples(Session(model), 16, seed, model)


def pool_of(form: Any, **given_settings: Any) -> Pool:
    return Pool((Quantize(form=form, refinement=False, **given_settings),))


def pressed(
    model: ir.Model, family: str, *, base: str = "static", parameters: Any = None, **more: Any
) -> tuple[ir.Model, Any, Candidate]:
    """The layer in its kernel's form, the weight in a family's, whatever that saves."""
    pool = pool_of(base, **more)
    context = pool.context(model, load_target("cpu"), samples_of(model), threads=1)
    (proposal,) = [p for p in pool.offer(context).proposals if p.site == "w"]
    plain = next(c for c in proposal.candidates if c.family == base)
    chosen = plain
    if family != base:
        given_parameters = {**plain.parameters, **(parameters or {})}
        chosen = replace(plain, family=family, parameters=given_parameters)
    others = [
        Decision(p.site, p.candidates[0])
        for p in pool.offer(context).proposals
        if p.site != "w" and p.candidates[0].family == base
    ]
    return pool.rewrite(context, [Decision("w", chosen), *others]), context, chosen


def opened(model: ir.Model, folder: Path, level: Any) -> onnx.ModelProto:
    """What onnxruntime runs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "opened.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(checked(model), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "opened.onnx")


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def integers_in(model: onnx.ModelProto, size: int) -> npt.NDArray[Any]:
    """The one constant of 8-bit integers that is as large as the weight."""
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    (found,) = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in kinds and np.prod(tensor.dims) == size
    ]
    return found


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("base", ["static", "dynamic"])
def test_onnxruntime_runs_the_operators_that_it_runs_for_eight_bits(
    kind: str, base: str, tmp_path: Path
) -> None:
    if base == "dynamic" and kind in ("conv", "groups"):
        pytest.skip("there is no dynamic form of Conv")
    model = model_with(kind)
    everything = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    of_bytes, _, _ = pressed(model, base, base=base)
    packed, _, _ = pressed(model, f"{base}_4_bit", base=base)
    wanted = opened(of_bytes, tmp_path, everything)
    found = opened(packed, tmp_path, everything)
    assert operators(found) == operators(wanted)
    assert {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"} & {
        *operators(found)
    } or base == "dynamic"


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from(sorted(LAYERS)),
    bits=st.integers(2, 7),
    block_size=st.sampled_from([0, 8, 32]),
    levels=st.sampled_from(KINDS),
    symmetric=st.booleans(),
    layout=st.sampled_from(["u8s8", "u8u8", "u8s7"]),
    per_channel=st.booleans(),
)
def test_integers_are_those_that_were_judged(
    kind: str,
    bits: int,
    block_size: int,
    levels: str,
    symmetric: bool,  # noqa: FBT001 - drawn
    layout: Any,
    per_channel: bool,  # noqa: FBT001 - drawn
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = model_with(kind)
    parameters = {"block_size": block_size, "symmetric": symmetric}
    packed, context, chosen = pressed(
        model,
        f"static_{bits}_bit{levels}",
        parameters=parameters,
        layout=layout,
        per_channel=per_channel,
    )
    folder = tmp_path_factory.mktemp("opened")
    level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    shape = model.graph.initializers["w"].shape
    assert shape is not None
    found = integers_in(opened(packed, folder, level), int(np.prod(shape.numpy())))
    assert found.dtype == (np.uint8 if layout == "u8u8" else np.int8)
    fitted = Quantize(form="static", layout=layout, per_channel=per_channel)._fitted(context)
    kinds: Any = levels.removeprefix("_") or "uniform"
    form = LowBitForm(bits, block_size, symmetric, kinds)
    scale = float(chosen.parameters["input_scale"])
    wanted = static_integers(fitted, fitted.layer("w"), chosen.parameters, scale, form)
    np.testing.assert_array_equal(found.reshape(-1), wanted.weight.values.reshape(-1))
    highest = 63 if layout == "u8s7" else 127
    centred = found.astype(int) - (128 if layout == "u8u8" else 0)
    assert np.abs(centred).max() <= highest
    # Of each block there are no more numbers than codes.
    assert len(codes_of(initializers(packed), f"w_{bits}_bits", bits)) >= found.size


@pytest.mark.parametrize("kind", LAYERS)
def test_the_reference_evaluator_answers_like_the_kernel(kind: str) -> None:
    model = model_with(kind, opset=19)
    packed, _, _ = pressed(model, "static_4_bit", parameters={"block_size": 16})
    feed = samples_of(model, seed=2).feeds[0]
    found = np.asarray(Session(packed).run(feed)["y"], np.float32)
    wanted = evaluated(packed, feed)
    # The kernel's sums are of integers; a result may fall on the other side of a half.
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("base", ["static", "dynamic"])
def test_error_is_near_what_was_predicted(base: str) -> None:
    pool, wide = pool_of(base, weight_bits=(3,)), initialized(WIDE)
    samples = samples_of(wide)
    context = pool.context(wide, load_target("cpu"), samples, threads=1)
    (proposal,) = pool.offer(context).proposals
    (candidate,) = proposal.candidates
    assert candidate.family == f"{base}_3_bit"
    made = pool.rewrite(context, [Decision("w", candidate)])
    before, after = (
        np.asarray(Session(m).run(samples.feeds[0])["y"], np.float64) for m in (wide, made)
    )
    lost = float(np.square(after - before).sum() / np.square(before).sum())
    # Predicted of nearest rounding; what is decided is rounded better.
    assert 0.1 * candidate.predicted_error < lost < 1.2 * candidate.predicted_error
    sizes = [len(model_file.to_bytes(m)) for m in (wide, made)]
    assert sizes[0] - sizes[1] == pytest.approx(candidate.saved_bytes, abs=1500)


def test_candidates_are_those_of_the_bits_that_were_asked_for() -> None:
    model = initialized(WIDE)
    samples = samples_of(model)

    def families(**given_settings: Any) -> list[str]:
        pool = pool_of(**given_settings)
        context = pool.context(model, load_target("cpu"), samples, threads=1)
        (proposal,) = pool.offer(context).proposals
        return [candidate.family for candidate in proposal.candidates]

    assert families(form="static") == ["static"]
    assert families(form="static", weight_bits=(4, 2)) == ["static_2_bit", "static_4_bit"]
    assert families(form="dynamic", weight_bits=(8, 4)) == ["dynamic_4_bit", "dynamic"]
    of_levels = families(form="static", weight_bits=(4,), levels=("codebook",))
    assert of_levels == ["static_4_bit_codebook"]


@pytest.mark.parametrize("make", [if_model, loop_model, scan_model], ids=["if", "loop", "scan"])
@pytest.mark.parametrize("opset", [13, 21])
def test_weights_in_bodies_are_unpacked_there(make: Any, opset: int, tmp_path: Path) -> None:
    model = make(opset)
    simplify(model)
    pool = pool_of("static")
    samples = load_samples(draw(model), Session(model).inputs)
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    chosen = []
    for proposal in pool.offer(context).proposals:
        candidate = proposal.candidates[-1]
        if "input_scale" in candidate.parameters:
            candidate = replace(candidate, family="static_4_bit")
        chosen.append(Decision(proposal.site, candidate))
    assert any(d.candidate.family == "static_4_bit" for d in chosen)
    made = pool.rewrite(context, chosen)
    opened(made, tmp_path, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    for feed in feeds(draw(model, 2, seed=3)):
        wanted, found = Session(model).run(feed), Session(made).run(feed)
        for name, array in wanted.items():
            power = np.square(np.asarray(array, np.float64)).sum()
            noise = np.square(
                np.asarray(found[name], np.float64) - np.asarray(array, np.float64)
            ).sum()
            assert noise < 0.05 * power
