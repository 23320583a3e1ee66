"""Gradients against those of PyTorch 2.14, which `benchmarks/torch_gradients.py` wrote down."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.gradients import differentiate
from onnxpress.runtime import Session

REFERENCE = Path(__file__).with_name("torch_reference.npz")
_LSTM = 'LSTM<hidden_size=3, direction="bidirectional">'
_GRU = 'GRU<hidden_size=3, direction="bidirectional", linear_before_reset=1>'
_OF_LSTM = "last = Mul(yh, yc) y = Add(t, last)"
_OF_GRU = "last = Mul(yh, yh) y = Add(t, last)"
NODES = {
    "LSTM": f"t, yh, yc = {_LSTM}(x, w, r, b, , h, c) {_OF_LSTM}",
    "LSTM with lengths": f"t, yh, yc = {_LSTM}(x, w, r, b, lengths, h, c) {_OF_LSTM}",
    "GRU": f"t, yh = {_GRU}(x, w, r, b, , h) {_OF_GRU}",
    "GRU with lengths": f"t, yh = {_GRU}(x, w, r, b, lengths, h) {_OF_GRU}",
    "Conv": "y = Conv<strides=[2,1], pads=[1,2,1,2], dilations=[1,2], group=2>(x, w, b)",
    "Conv depthwise": "y = Conv<strides=[2,2], pads=[1,1,1,1], group=4>(x, w)",
    "ConvTranspose": "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>"
    "(x, w, b)",
    "LayerNormalization": "y = LayerNormalization(x, s, b)",
    "Gelu": "y = Gelu(x)",
    "HardSwish": "y = HardSwish(x)",
    "Softmax": "y = Softmax<axis=1>(x)",
    "MaxPool": "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
    "AveragePool": "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], "
    "count_include_pad=1>(x)",
    "Resize": 'y = Resize<mode="linear">(x, , scales)',
    "Gather": "y = Gather(x, places)",
    "Einsum": 'y = Einsum<equation="bij,bjk->kbi">(a, b)',
}
CONSTANTS: dict[str, np.ndarray] = {
    "lengths": np.asarray([5, 2, 3], np.int32),
    "scales": np.asarray([1, 1, 2, 2], np.float32),
    "places": np.asarray([[0, 5, 5], [2, 0, 1]], np.int64),
}


def stored(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Parameters, their gradients, and the weights of the sum."""
    with np.load(REFERENCE) as archive:
        own = {
            key.partition("/")[2]: archive[key]
            for key in archive.files
            if key.partition("/")[0] == name
        }
    weights = own.pop("weights")
    gradients = {key[1:]: own[key] for key in own if key[:1] == "d" and key[1:] in own}
    return {key: own[key] for key in gradients}, gradients, weights


@pytest.mark.parametrize("name", NODES)
def test_gradient_is_that_of_pytorch(name: str, caplog: pytest.LogCaptureFixture) -> None:
    parameters, expected, weights = stored(name)
    nodes = list(onnx.parser.parse_graph(f"g () => () {{ {NODES[name]} }}").node)
    nodes.append(helper.make_node("Mul", ["y", "weights"], ["weighted"]))
    nodes.append(helper.make_node("ReduceSum", ["weighted"], ["loss"], keepdims=0))
    arrays: dict[str, np.ndarray] = {**parameters, **CONSTANTS, "weights": weights}
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])
    initializers = [numpy_helper.from_array(array, key) for key, array in arrays.items()]
    graph = helper.make_graph(nodes, "case", [], [loss], initializers)
    opsets = [helper.make_opsetid("", 20)]
    proto = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9)
    )
    derived = differentiate(ir.from_proto(proto), "loss", parameters)
    assert not derived.untrained
    found = Session(derived.model, threads=1).run(parameters)
    for key, gradient in expected.items():
        scale = np.abs(gradient).max()
        # float32 against float64.
        np.testing.assert_allclose(
            found[derived.gradients[key]] / scale, gradient / scale, atol=2e-5, err_msg=key
        )
    assert not caplog.records
