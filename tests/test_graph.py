"""What every pass needs of a graph."""

import onnx
import onnx_ir as ir
import pytest
from bodies import IF

from onnxpress.graph import graphs_of

NESTED = """<ir_version: 10, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = If (c) <
        then_branch = t () => (float[n] p) {
            p = If (c) <then_branch = a () => (float[n] q) { q = Neg (x) },
                        else_branch = b () => (float[n] r) { r = Relu (x) }> },
        else_branch = e () => (float[n] s) { s = Abs (x) }>
}"""


@pytest.mark.parametrize("text", [NESTED, IF.replace("{opset}", "17")])
def test_graphs_are_those_that_onnx_ir_finds_in_its_order(text: str) -> None:
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert graphs_of(model.graph) == list(model.graphs())
    assert len(graphs_of(model.graph)) > 1
