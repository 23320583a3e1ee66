"""Constants per output: where they can be added, and what they then add."""

import numpy as np
from generated import initialized

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.data import random_samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.runtime import Session


def test_bias_goes_where_outputs_run() -> None:
    """Into Gemm's C, into the Add behind a MatMul, nowhere for a left side."""
    model = initialized(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4, 32] x, float[32, 24] w, float[24] b, float[4, 4] l) => (float[4, 24] y) {
            a = MatMul (x, w)  c = Add (b, a)  y = MatMul (l, c) }""",
        scale=0.125,
    )
    layers = {layer.name: layer for layer in find_layers(model)}
    assert takes_bias(layers["w"])
    assert not takes_bias(layers["l"])
    session = Session(model)
    feed = random_samples(session, 1, seed=0).feeds[0]
    before = session.run(feed)["y"]
    offset = np.arange(24, dtype=np.float64)
    shift_bias(Names(model), model.graph, layers["w"].node, offset)
    left = model.graph.initializers["l"].const_value
    assert left is not None
    moved = left.numpy() @ np.broadcast_to(offset, (4, 24))
    wanted = np.asarray(before, np.float64) + moved
    found = np.asarray(Session(model).run(feed)["y"], np.float64)
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3)
    assert "b" not in model.graph.initializers


def test_bias_that_another_node_reads_stays_as_it_is() -> None:
    model = initialized(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4] x, float[4, 4] w, float[4, 4] v, float[4] b)
            => (float[2, 4] y, float[2, 4] z) { y = Gemm (x, w, b)  z = Gemm (x, v, b) }"""
    )
    session = Session(model)
    feed = random_samples(session, 1, seed=0).feeds[0]
    before = session.run(feed)
    first = next(layer for layer in find_layers(model) if layer.name == "w")
    shift_bias(Names(model), model.graph, first.node, np.ones(4))
    after = Session(model).run(feed)
    moved = np.asarray(after["y"], np.float64) - np.asarray(before["y"], np.float64)
    np.testing.assert_allclose(moved, 1.0, rtol=1e-5)
    np.testing.assert_array_equal(after["z"], before["z"])
