"""Grids of quantized activations, against the values themselves."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.statistics import TensorStatistics, activation_grids

MODEL = """<ir_version: 10, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y)
<float step = {0.02}, uint8 zero = {30},
 float[4] steps = {1, 1, 1, 1}, uint8[4] zeros = {0, 0, 0, 0}> {
    a = Relu (x)
    i = QuantizeLinear (a, step, zero)  d = DequantizeLinear (i, step, zero)
    b = Neg (d)
    j = QuantizeLinear <axis = 1> (b, steps, zeros)
    y = DequantizeLinear <axis = 1> (j, steps, zeros)
}"""


def observed(values: np.ndarray) -> TensorStatistics:
    found = TensorStatistics()
    found.update(float(values.min()), float(values.max()), values.astype(np.float32))
    return found


def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(MODEL))


def test_grid_and_histogram_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).normal(1, 2, 200_000)
    (grid,) = activation_grids(model(), {"a": observed(values), "b": observed(values)})
    assert (grid.tensor, grid.bits) == ("a", 8)
    assert [grid.step, grid.first, grid.last] == pytest.approx([0.02, -0.6, 4.5])
    assert sum(grid.counts) == pytest.approx(len(values), abs=32)
    expected, _ = np.histogram(values, 32, (values.min(), values.max()))
    assert np.abs(np.array(grid.counts) - expected).sum() < 0.02 * len(values)


def test_noise_and_clipping_are_those_of_quantizing() -> None:
    values = np.random.default_rng(1).normal(1, 2, 200_000)
    (grid,) = activation_grids(model(), {"a": observed(values)})
    integers = np.clip(np.round(values / 0.02) + 30, 0, 255)
    noise = np.mean(np.square((integers - 30) * 0.02 - values)) / np.var(values)
    # Bins are 8 / 4096 · 2 wide, a fifth of a step.
    assert grid.noise == pytest.approx(noise, rel=0.02)
    clipped = np.mean((values < -0.6) | (values > 4.5))
    assert grid.clipped == pytest.approx(clipped, rel=0.05)


def test_what_was_not_observed_or_is_constant_has_no_grid() -> None:
    assert activation_grids(model(), {}) == ()
    assert activation_grids(model(), {"a": observed(np.ones(10))}) == ()


def test_the_worst_come_first_and_few_are_kept() -> None:
    nodes = "".join(
        f"i{n} = QuantizeLinear (x{n}, s{n}, z) x{n + 1} = DequantizeLinear (i{n}, s{n}, z) "
        for n in range(12)
    )
    steps = ", ".join(f"float s{n} = {{{0.01 * (n + 1)}}}" for n in range(12))
    text = f"""<ir_version: 10, opset_import: ["" : 17]>
    g (float[1, 4] x0) => (float[1, 4] x12) <uint8 z = {{128}}, {steps}> {{ {nodes} }}"""
    values = observed(np.random.default_rng(2).uniform(-0.5, 0.5, 1000))
    tensors = {f"x{n}": values for n in range(12)}
    grids = activation_grids(ir.from_proto(onnx.parser.parse_model(text)), tensors)
    assert [grid.tensor for grid in grids] == [f"x{n}" for n in range(11, 3, -1)]
