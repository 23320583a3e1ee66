"""Models that store half weights behind Cast are quantized: in 8 bits like float ones."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.contract import Context, Decision
from onnxpress.conversion import stored_again, with_float_weights
from onnxpress.lossless import lossless
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target

SHAPES: dict[str, tuple[int, ...]] = {
    "words": (600, 96),
    "matmul": (96, 96),
    "gemm": (96, 96),
    "conv": (32, 16, 3, 3),
    "transposed": (32, 16, 3, 3),
}
INPUTS = "int64[n] ids, float[b, 16, 8, 8] picture"
BODY = """
   e = Gather (words_w, ids)
   m = MatMul (e, matmul_w)
   y = Gemm <transB: int = 1> (m, gemm_w)
   c = Conv <pads: ints = [1, 1, 1, 1]> (picture, conv_w)
   z = ConvTranspose (c, transposed_w)
"""


def made(dtype: type[np.floating]) -> ir.Model:
    """Weights of the type, behind a Cast to float32 where it is another one."""
    half = dtype is np.float16
    casts = "".join(f"{name}_w = Cast <to: int = 1> ({name})\n" for name in SHAPES if half)
    kind = "float16" if half else "float"
    names = {name: name if half else f"{name}_w" for name in SHAPES}
    declared = ", ".join(
        f"{kind}[{', '.join(map(str, shape))}] {names[name]}" for name, shape in SHAPES.items()
    )
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    net ({INPUTS}) => (float[n, 96] y, float[b, 16, 10, 10] z) <{declared}> {{ {casts} {BODY} }}
    """
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        # Numbers of half precision in both, so that both networks are the same.
        array = rng.normal(0, 0.1, shape).astype(np.float16).astype(dtype)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, names[name]))
    return ir.from_proto(model)


def pressed(model: ir.Model, **settings: Any) -> tuple[dict[str, str], ir.Model]:
    """Families by site without what stands behind the name, and the model, all sites taken."""
    target = load_target("cpu")
    simple = lossless(Simplify(), with_float_weights(model), target, 0).model
    pool = Pool((Quantize(form="weight_only", **settings),))
    context = Context(simple, target)
    decisions = [Decision(item.site, item.candidates[0]) for item in pool.offer(context).proposals]
    families = {d.site.removesuffix("_w"): d.candidate.family for d in decisions}
    return families, stored_again(pool.rewrite(context, decisions))


def test_in_eight_bits_they_answer_like_float_weights() -> None:
    half, ours = pressed(made(np.float16), weight_bits=(8,))
    single, theirs = pressed(made(np.float32), weight_bits=(8,))
    assert half == single
    assert set(half) == set(SHAPES)
    onnx.checker.check_model(ir.to_proto(ours), full_check=True)
    rng = np.random.default_rng(1)
    feed: dict[str, Any] = {
        "ids": rng.integers(0, 600, 7),
        "picture": rng.normal(0, 1, (2, 16, 8, 8)).astype(np.float32),
    }
    wanted, found = Session(theirs).run(feed), Session(ours).run(feed)
    for name in ("y", "z"):
        array = np.asarray(wanted[name], np.float64)
        lost = np.asarray(found[name], np.float64) - array
        # What codes stand for is rounded to half before the Cast: a 2^-11 of each at most.
        assert np.square(lost).sum() <= 1e-5 * np.square(array).sum()


@pytest.mark.parametrize("bits", [2, 4])
def test_in_fewer_bits_they_get_the_forms_of_float_weights(bits: int) -> None:
    half, _ = pressed(made(np.float16), weight_bits=(bits,))
    single, _ = pressed(made(np.float32), weight_bits=(bits,))
    assert half == single


def test_the_file_is_smaller_than_that_of_half_weights() -> None:
    model = made(np.float16)
    _, found = pressed(model, weight_bits=(4,))
    before = len(ir.to_proto(model).SerializeToString())
    assert len(ir.to_proto(found).SerializeToString()) < 0.45 * before
