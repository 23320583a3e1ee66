"""Small graphs as ONNX text, and the text they become: reviewed as a diff."""

import onnx
import onnx_ir as ir
import pytest
from simplification import SINCE_1_23

from onnxpress.passes.simplify import simplify


def body(model: ir.Model) -> list[str]:
    """The nodes of a model as ONNX's printer writes them, without names and spaces."""
    text = onnx.printer.to_text(ir.to_proto(model)).partition("=>")[2]
    inside = text[text.index("{") + 1 : text.rindex("}")]
    lines = [line.strip() for line in inside.splitlines() if line.strip()]
    return [line.partition("] ")[2] or line for line in lines]


@SINCE_1_23
@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        (
            """
            a = Identity (x)
            b = Dropout (a)
            y = Relu (b)
            """,
            ["y = Relu (x)"],
        ),
        (
            """
            three = Constant <value = float {3}> ()
            zero = Constant <value = float {0}> ()
            six = Constant <value = float {6}> ()
            s = Add (x, three)
            c = Clip (s, zero, six)
            m = Mul (x, c)
            y = Div (m, six)
            """,
            [
                "val_0 = HardSigmoid <alpha: float = 0.16666667, beta: float = 0.5> (x)",
                "y = Mul (x, val_0)",
            ],
        ),
        (
            """
            a = Relu (x)
            b = Relu (x)
            y = Add (a, b)
            """,
            ["a = Relu (x)", "y = Add (a, a)"],
        ),
        (
            """
            shape = Constant <value = int64[2] {2, -1}> ()
            a = Reshape (x, shape)
            b = Neg (x)
            y = Neg (b)
            unused = Exp (b)
            """,
            ["b = Neg (x)", "y = Neg (b)"],
        ),
    ],
    ids=["idle nodes", "h-swish", "twins", "dead nodes"],
)
def test_graph_becomes(nodes: str, wanted: list[str]) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4] x) => (float[2, 4] y) {{{nodes}}}"""
    )
    simplify(model)
    assert body(model) == wanted
