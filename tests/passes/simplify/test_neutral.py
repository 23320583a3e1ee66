"""Arithmetic that changes nothing goes; what is nearly nothing may be all there is, and stays."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxpress.passes.simplify import simplify

TINY = ("1e-10", "1e-20", "1e-37")


def of(lines: str) -> ir.Model:
    return ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"g (float[n, 4] x) => (float[n, 4] y) {{ {lines} }}"
    )


@pytest.mark.parametrize("tiny", TINY)
@pytest.mark.parametrize(
    "lines",
    [
        "c = Constant <value = float {{{e}}}> ()  s = Add (x, c)  y = Log (s)",
        "c = Constant <value = float {{{e}}}> ()  s = Add (c, x)  y = Log (s)",
        "c = Constant <value = float[1] {{{e}}}> ()  s = Add (x, c)  y = Reciprocal (s)",
        "c = Constant <value = float {{-{e}}}> ()  s = Sub (x, c)  y = Log (s)",
    ],
)
def test_what_keeps_a_logarithm_finite_stays(lines: str, tiny: str) -> None:
    model = of(lines.format(e=tiny))
    x = np.zeros((2, 4), np.float32)
    (wanted,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    simplify(model)
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    np.testing.assert_array_equal(found, wanted)
    assert len(model.graph) == 2


def test_factor_beside_one_stays() -> None:
    model = of("c = Constant <value = float {1.000005}> ()  y = Mul (x, c)")
    simplify(model)
    assert [node.op_type for node in model.graph] == ["Mul"]


@pytest.mark.parametrize(
    "lines",
    [
        "c = Constant <value = float {0.0}> ()  s = Add (c, x)  y = Relu (s)",
        "c = Constant <value = float {0.0}> ()  s = Sub (x, c)  y = Relu (s)",
        "c = Constant <value = float {1.0}> ()  s = Mul (c, x)  y = Relu (s)",
        "c = Constant <value = float {1.0}> ()  s = Div (x, c)  y = Relu (s)",
        "c = Constant <value = float[1, 4] {1.0, 1.0, 1.0, 1.0}> ()  s = Mul (x, c)  y = Relu (s)",
    ],
)
def test_what_changes_nothing_goes(lines: str) -> None:
    model = of(lines)
    simplify(model)
    assert [node.op_type for node in model.graph] == ["Relu"]


def test_scalar_goes_where_the_rank_is_unknown() -> None:
    model = of("c = Constant <value = float {1.0}> ()  s = Mul (x, c)  y = Relu (s)")
    model.graph.inputs[0].shape = None
    simplify(model)
    assert [node.op_type for node in model.graph] == ["Relu"]
