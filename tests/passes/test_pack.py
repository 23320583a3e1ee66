"""Packed files against dense ones."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from generated import hold

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Proposal, Skip
from onnxpress.passes.pack import Pack
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8])
@pytest.mark.parametrize("shape", [(37, 53), (8, 16, 3, 3), (4096,)])
def test_packed_weight_is_the_dense_one(dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Bit by bit, in onnxruntime and in ONNX's reference evaluator."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 100, shape)
    background = 128 if dtype is np.uint8 else 0
    array = np.where(rng.random(shape) < 0.9, background, numbers).astype(dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["w"], ["y"], to=onnx.TensorProto.FLOAT)],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(array, "w")],
    )
    assert graph.initializer[0].data_type == kind
    opset = onnx.helper.make_opsetid("", 13)
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8))
    context = Context(model, load_target("cpu"))
    # The smallest ones are not worth their nodes; what is written must be right all the same.
    (offered,) = Pack().propose(context)
    assert isinstance(offered, Skip) == (array.nbytes < 1900)
    candidate = Candidate(family="bit_mask", keeps_kernels=True)
    packed = Pool((Pack(),)).rewrite(context, [Decision("w", candidate)])
    onnx.checker.check_model(ir.to_proto(packed), full_check=True)
    for found in (
        Session(packed).run({})["y"],
        next(iter(onnx.reference.ReferenceEvaluator(ir.to_proto(packed)).run(None, {}))),
    ):
        np.testing.assert_array_equal(np.asarray(found), array.astype(np.float32))


def test_dense_weights_are_not_packed(models: Path) -> None:
    context = Context(onnxpress.load(models / "fashion_mlp.onnx"), load_target("cpu"))
    (skip,) = Pack().propose(context)
    assert isinstance(skip, Skip)
    assert "no weight has so many zeros" in skip.reason


@pytest.mark.parametrize(("least_gain", "offers"), [(0.6, True), (0.7, False)])
def test_saved_bytes_are_those_of_the_file_and_decide(least_gain: float, *, offers: bool) -> None:
    """90% zeros of 10,000 floats: 31 of 40 kB are saved, 1 of them lost to the nodes."""
    rng = np.random.default_rng(0)
    array = np.where(rng.random((100, 100)) < 0.7, 0, rng.standard_normal((100, 100)))
    model = hold(
        ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["" : 17]>
            g (float[1, 100] x, float[100, 100] w) => (float[1, 100] y) { y = MatMul (x, w) }"""
        ),
        {"w": array.astype(np.float32)},
    )
    context = Context(model, load_target("cpu"))
    (found,) = Pack(least_gain=least_gain).propose(context)
    assert isinstance(found, Proposal) is offers
    if isinstance(found, Proposal):
        packed = Pool((Pack(),)).rewrite(context, [Decision("w", found.candidates[0])])
        saved = len(model_file.to_bytes(model)) - len(model_file.to_bytes(packed))
        assert saved == pytest.approx(found.candidates[0].saved_bytes, abs=300)
