"""Models with a weight for each kind of operator, stored in few bits, and what is read of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from weights_anywhere import checked, model_of

from onnxpress.contract import Candidate, Context, Decision
from onnxpress.enforcement import rewritten
from onnxpress.passes.quantize import Quantize
from onnxpress.runtime import Feed
from onnxpress.targets import load_target

__all__ = [
    "KINDS",
    "WRONG_IN_THE_REFERENCE",
    "codes_of",
    "evaluated",
    "initializers",
    "model_with",
    "stored",
]

KINDS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "right": ("float[b, 37] x", "y = MatMul (x, w)", (37, 24)),
    "batch": ("float[3, b, 37] x", "y = MatMul (x, w)", (3, 37, 8)),
    "left": ("float[37, b] x", "y = MatMul (w, x)", (24, 37)),
    "gemm": ("float[b, 37] x", "y = Gemm (x, w)", (37, 24)),
    "turned": ("float[b, 37] x", "y = Gemm <transB = 1> (x, w)", (24, 37)),
    "conv": ("float[b, 6, 7, 7] x", "y = Conv <group = 2> (x, w)", (8, 3, 3, 3)),
    "transposed": (
        "float[b, 6, 5, 5] x",
        "y = ConvTranspose <strides = [2, 2]> (x, w)",
        (6, 4, 3, 3),
    ),
    "grouped": (
        "float[b, 6, 5, 5] x",
        "y = ConvTranspose <group = 2, strides = [2, 2]> (x, w)",
        (6, 4, 3, 3),
    ),
    "table": ("int64[b] x", "y = Gather (w, x)", (41, 18)),
    "einsum": ("float[b, 20] x", 'y = Einsum <equation = "bc,rc->br"> (x, w)', (30, 20)),
    "shared": (
        "float[b, 37] x",
        "m = MatMul (x, w)\n n = Neg (x)\n o = MatMul (n, w)\n y = Sub (m, o)",
        (37, 24),
    ),
    "lstm": (
        "float[s, b, 12] x",
        "y = LSTM <hidden_size = 5> (x, w, r)",
        (1, 20, 12),
    ),
}
WRONG_IN_THE_REFERENCE = ("grouped",)
"""onnx 1.23's ConvTranspose takes all outputs for those of a group."""


def model_with(kind: str) -> ir.Model:
    inputs, body, shape = KINDS[kind]
    more = {"r": (1, 20, 5)} if kind == "lstm" else {}
    return model_of(inputs, "float y", body, w=shape, **more)


def stored(
    model: ir.Model, bits: int, block_size: int, *, symmetric: bool, kind: str = "", **more: bool
) -> ir.Model:
    """The model with w in such a form, whatever it saves."""
    parameters = {"block_size": block_size, "symmetric": symmetric, **more}
    family = f"weight_only_{bits}_bit" + (f"_{kind}" if kind else "")
    candidate = Candidate(parameters, family=family, keeps_kernels=True)
    context = Context(model, load_target("cpu"))
    return rewritten(Quantize(), context, [Decision("w", candidate)])


def initializers(model: ir.Model) -> dict[str, npt.NDArray[Any]]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def evaluated(model: ir.Model, feed: Feed) -> npt.NDArray[Any]:
    """What ONNX's own reference answers."""
    answers = ReferenceEvaluator(onnx.load_from_string(checked(model))).run(None, dict(feed))
    assert isinstance(answers, list)
    return np.asarray(answers[0])


def codes_of(arrays: dict[str, npt.NDArray[Any]], stem: str, bits: int) -> npt.NDArray[np.int64]:
    """Of planes of bits, by NumPy's own unpacking."""
    shift, total = 0, None
    own = [name for name in arrays if name.startswith(stem)]
    for name, width in zip(sorted(own), [w for w in (4, 2, 1) if bits & w], strict=True):
        ones = np.unpackbits(arrays[name], bitorder="little").reshape(-1, width)
        numbers = (ones.astype(np.int64) << np.arange(width)).sum(axis=1) << shift
        total = numbers if total is None else total[: len(numbers)] + numbers[: len(total)]
        shift += width
    assert total is not None
    return np.asarray(total, np.int64)
