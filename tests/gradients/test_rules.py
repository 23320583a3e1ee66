"""Each operator's gradient against finite differences in float64 by onnx's reference evaluator."""

from dataclasses import replace

import numpy as np
import pytest
from finite_differences import Case, by_differences, by_rules

from onnxpress.gradients.rules import RULES


def drawn(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


X = {"x": drawn(2, 3, 4)}
POSITIVE = {"x": drawn(2, 3, 4, low=0.3)}
PAIR = {"a": drawn(2, 3, 4), "b": drawn(3, 1, seed=1, low=0.5)}
IMAGE = {"x": drawn(2, 4, 7, 6)}
BN = {"mean": drawn(4, seed=3), "variance": drawn(4, low=0.5, seed=4)}

CELL = {
    "x": drawn(4, 3, 2, low=-1, high=1),
    "w": drawn(1, 12, 2, seed=1, low=-1, high=1),
    "r": drawn(1, 12, 3, seed=2, low=-1, high=1),
    "b": drawn(1, 24, seed=3, low=-1, high=1),
    "h": drawn(1, 3, 3, seed=4, low=-1, high=1),
    "c": drawn(1, 3, 3, seed=5, low=-1, high=1),
}
GRU = {
    **{name: CELL[name] for name in ("x", "h")},
    "w": CELL["w"][:, :9],
    "r": CELL["r"][:, :9],
    "b": CELL["b"][:, :18],
}
ENDS = {"lengths": np.asarray([4, 1, 3], np.int32)}
# All outputs, so that the last states have gradients of their own.
_JOINED = "last = Mul(yh, yh) y = Add(t, last)"


def both(cell: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With a second direction of other numbers."""
    return {
        name: array if name == "x" else np.concatenate([array, array[..., ::-1]])
        for name, array in cell.items()
    }


RECURRENT = {
    "LSTM": Case(
        "t, yh, yc = LSTM<hidden_size=3>(x, w, r, b, , h, c) last = Mul(yh, yc) y = Add(t, last)",
        CELL,
    ),
    "LSTM reverse without states": Case(
        'y = LSTM<hidden_size=3, direction="reverse">(x, w, r, b)',
        {name: CELL[name] for name in ("x", "w", "r", "b")},
    ),
    "LSTM without biases": Case(
        "y = LSTM<hidden_size=3>(x, w, r)", {name: CELL[name] for name in ("x", "w", "r")}
    ),
    "GRU": Case(f"t, yh = GRU<hidden_size=3>(x, w, r, b, , h) {_JOINED}", GRU),
    "GRU linear": Case(
        f"t, yh = GRU<hidden_size=3, linear_before_reset=1>(x, w, r, b, , h) {_JOINED}", GRU
    ),
    "GRU reverse": Case(
        'y = GRU<hidden_size=3, direction="reverse", linear_before_reset=1>(x, w, r)',
        {name: GRU[name] for name in ("x", "w", "r")},
    ),
}

CASES = {
    "Abs": Case("y = Abs(x)", X),
    "Add": Case("y = Add(a, b)", PAIR),
    "Cast": Case("wide = Cast<to=11>(x) square = Mul(wide, wide) y = CastLike(square, x)", X),
    "CastLike": Case("wide = Cast<to=11>(x) y = CastLike(wide, x)", X),
    "Clip": Case(
        "low = Constant<value_float=-1.0>() high = Constant<value_float=0.7>() "
        "y = Clip(x, low, high)",
        X,
    ),
    "Cos": Case("y = Cos(x)", X),
    "Div": Case("y = Div(a, b)", PAIR),
    "Dropout": Case("y = Dropout(x)", X),
    "Elu": Case("y = Elu<alpha=0.7>(x)", X),
    "Erf": Case("y = Erf(x)", X, step=3e-3),
    "Exp": Case("y = Exp(x)", X),
    "Gelu": Case("y = Gelu(x)", X, opset=20, step=3e-3),
    "Gelu tanh": Case('y = Gelu<approximate="tanh">(x)', X, opset=20),
    "HardSigmoid": Case("y = HardSigmoid<alpha=0.4, beta=0.3>(x)", X),
    "HardSwish": Case("y = HardSwish(x)", {"x": drawn(2, 3, 4, low=-5, high=5)}),
    "Identity": Case("y = Identity(x)", X),
    "LeakyRelu": Case("y = LeakyRelu<alpha=0.2>(x)", X),
    "Log": Case("y = Log(x)", POSITIVE),
    "LogSoftmax": Case("y = LogSoftmax<axis=1>(x)", X),
    "Max": Case("y = Max(a, b)", PAIR),
    "Mean": Case("y = Mean(a, b)", PAIR),
    "Min": Case("y = Min(a, b)", PAIR),
    "Mul": Case("y = Mul(a, b)", PAIR),
    "Neg": Case("y = Neg(x)", X),
    "PRelu": Case("y = PRelu(x, slope)", {**X, "slope": drawn(3, 1, seed=1)}),
    "Pow": Case("y = Pow(a, b)", {"a": drawn(2, 3, low=0.5), "b": drawn(3, seed=1)}),
    "Reciprocal": Case("y = Reciprocal(x)", POSITIVE),
    "Relu": Case("y = Relu(x)", X),
    "Sigmoid": Case("y = Sigmoid(x)", X),
    "Sin": Case("y = Sin(x)", X),
    "Softmax": Case("y = Softmax<axis=1>(x)", X),
    "Softplus": Case("y = Softplus(x)", X),
    "Softsign": Case("y = Softsign(x)", X),
    "Sqrt": Case("y = Sqrt(x)", POSITIVE),
    "Sub": Case("y = Sub(a, b)", PAIR),
    "Sum": Case("y = Sum(a, b)", PAIR),
    "Tanh": Case("y = Tanh(x)", X),
    "Where": Case("y = Where(c, a, b)", PAIR, {"c": drawn(3, 4) > 0}),
    "Gemm": Case(
        "y = Gemm(a, b, c)",
        {"a": drawn(3, 4), "b": drawn(4, 5, seed=1), "c": drawn(5, seed=2)},
    ),
    "Gemm turned and scaled": Case(
        "y = Gemm<alpha=0.5, beta=2.0, transA=1, transB=1>(a, b, c)",
        {"a": drawn(4, 3), "b": drawn(5, 4, seed=1), "c": drawn(3, 1, seed=2)},
    ),
    "Gemm turned left": Case(
        "y = Gemm<transA=1>(a, b)", {"a": drawn(4, 3), "b": drawn(4, 5, seed=1)}
    ),
    "Gemm turned right": Case(
        "y = Gemm<transB=1>(a, b)", {"a": drawn(3, 4), "b": drawn(5, 4, seed=1)}
    ),
    "MatMul": Case("y = MatMul(a, b)", {"a": drawn(2, 3, 4), "b": drawn(4, 5, seed=1)}),
    "MatMul batched": Case(
        "y = MatMul(a, b)", {"a": drawn(2, 1, 3, 4), "b": drawn(5, 4, 2, seed=1)}
    ),
    "MatMul of the same batch": Case(
        "y = MatMul(a, b)", {"a": drawn(2, 3, 4), "b": drawn(2, 4, 5, seed=1)}
    ),
    "MatMul of a matrix from the left": Case(
        "y = MatMul(a, b)", {"a": drawn(3, 4), "b": drawn(2, 4, 5, seed=1)}
    ),
    "MatMul of a vector": Case("y = MatMul(a, b)", {"a": drawn(4), "b": drawn(2, 4, 5, seed=1)}),
    "MatMul by a vector": Case("y = MatMul(a, b)", {"a": drawn(2, 3, 4), "b": drawn(4, seed=1)}),
    "Conv": Case(
        "y = Conv<pads=[1,1,1,1]>(x, w, b)",
        {**IMAGE, "w": drawn(5, 4, 3, 3, seed=1), "b": drawn(5, seed=2)},
    ),
    "Conv 1x1": Case("y = Conv(x, w)", {**IMAGE, "w": drawn(5, 4, 1, 1, seed=1)}),
    "Conv strided": Case(
        "y = Conv<strides=[2,3], pads=[1,0,2,1]>(x, w)", {**IMAGE, "w": drawn(5, 4, 3, 2, seed=1)}
    ),
    "Conv strided 1x1": Case(
        "y = Conv<strides=[2,2]>(x, w)", {**IMAGE, "w": drawn(5, 4, 1, 1, seed=1)}
    ),
    "Conv dilated": Case(
        "y = Conv<dilations=[2,1], pads=[2,1,2,1]>(x, w)",
        {**IMAGE, "w": drawn(3, 4, 3, 3, seed=1)},
    ),
    "Conv in groups": Case(
        "y = Conv<group=2, strides=[2,1]>(x, w)", {**IMAGE, "w": drawn(6, 2, 3, 3, seed=1)}
    ),
    "Conv depthwise": Case(
        "y = Conv<group=4, pads=[1,1,1,1], strides=[2,2]>(x, w)",
        {**IMAGE, "w": drawn(4, 1, 3, 3, seed=1)},
    ),
    "Conv SAME_UPPER": Case(
        'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)',
        {**IMAGE, "w": drawn(3, 4, 3, 3, seed=1)},
    ),
    "Conv SAME_LOWER": Case(
        'y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)',
        {**IMAGE, "w": drawn(3, 4, 4, 4, seed=1)},
    ),
    "Conv 1-D": Case(
        "y = Conv<pads=[2,1], strides=[2]>(x, w, b)",
        {"x": drawn(2, 4, 9), "w": drawn(3, 4, 3, seed=1), "b": drawn(3, seed=2)},
    ),
    "ConvTranspose": Case(
        "y = ConvTranspose<strides=[2,2], pads=[1,0,1,1], output_padding=[1,0]>(x, w, b)",
        {"x": drawn(2, 4, 4, 3), "w": drawn(4, 3, 3, 3, seed=1), "b": drawn(3, seed=2)},
    ),
    "ConvTranspose in groups": Case(
        "y = ConvTranspose<strides=[2,2], group=2>(x, w)",
        {"x": drawn(2, 4, 4, 3), "w": drawn(4, 3, 2, 2, seed=1)},
        reference="x1, x2 = Split<axis=1, num_outputs=2>(x) w1, w2 = Split<num_outputs=2>(w) "
        "y1 = ConvTranspose<strides=[2,2]>(x1, w1) y2 = ConvTranspose<strides=[2,2]>(x2, w2) "
        "y = Concat<axis=1>(y1, y2)",
    ),
    "BatchNormalization": Case(
        "y = BatchNormalization<epsilon=0.01>(x, s, b, mean, variance)",
        {**IMAGE, "s": drawn(4, seed=1), "b": drawn(4, seed=2)},
        BN,
    ),
    "InstanceNormalization": Case(
        "y = InstanceNormalization<epsilon=0.01>(x, s, b)",
        {**IMAGE, "s": drawn(4, seed=1), "b": drawn(4, seed=2)},
    ),
    "LayerNormalization": Case(
        "y = LayerNormalization<epsilon=0.01>(x, s, b)",
        {**X, "s": drawn(4, seed=1), "b": drawn(4, seed=2)},
    ),
    "LayerNormalization of two axes": Case(
        "y = LayerNormalization<axis=1>(x, s)", {**X, "s": drawn(3, 4, seed=1)}, opset=17
    ),
    "GlobalAveragePool": Case("y = GlobalAveragePool(x)", IMAGE),
    "GlobalMaxPool": Case("y = GlobalMaxPool(x)", IMAGE),
    "AveragePool": Case("y = AveragePool<kernel_shape=[3,2], strides=[2,2]>(x)", IMAGE),
    "AveragePool padded": Case(
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)", IMAGE
    ),
    "AveragePool counting the padding": Case(
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)", IMAGE
    ),
    "MaxPool": Case("y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)", IMAGE),
    "MaxPool overlapping": Case("y = MaxPool<kernel_shape=[3,3]>(x)", IMAGE),
    "ReduceSum": Case("y = ReduceSum<keepdims=0>(x, axes)", X, {"axes": integers(1, -1)}),
    "ReduceSum of all": Case("y = ReduceSum<keepdims=0>(x)", X),
    "ReduceMean": Case("y = ReduceMean(x, axes)", X, {"axes": integers(1)}),
    "ReduceMean before opset 18": Case("y = ReduceMean<axes=[0,2], keepdims=0>(x)", X, opset=17),
    "ReduceMax": Case("y = ReduceMax<keepdims=0>(x, axes)", X, {"axes": integers(2)}),
    "ReduceMin": Case("y = ReduceMin(x, axes)", X, {"axes": integers(2)}),
    "ReduceL2": Case("y = ReduceL2(x, axes)", X, {"axes": integers(2)}),
    "ReduceSumSquare": Case("y = ReduceSumSquare(x, axes)", X, {"axes": integers(2)}),
    "ReduceLogSumExp": Case("y = ReduceLogSumExp(x, axes)", X, {"axes": integers(2)}),
    "Reshape": Case("y = Reshape(x, to)", X, {"to": integers(4, 6)}),
    "Flatten": Case("y = Flatten<axis=2>(x)", X),
    "Squeeze": Case("y = Squeeze(x, axes)", {"x": drawn(3, 1, 4)}, {"axes": integers(1)}),
    "Unsqueeze": Case("y = Unsqueeze(x, axes)", X, {"axes": integers(0, 2)}),
    "Transpose": Case("y = Transpose<perm=[2,0,1]>(x)", X),
    "Transpose reversed": Case("y = Transpose(x)", X),
    "Concat": Case(
        "y = Concat<axis=1>(a, b, a)", {"a": drawn(2, 3, 4), "b": drawn(2, 1, 4, seed=1)}
    ),
    "Split": Case("y, unread = Split<axis=1>(x, sizes)", X, {"sizes": integers(1, 2)}),
    "Slice": Case(
        "y = Slice(x, starts, ends, axes, steps)",
        X,
        {
            "starts": integers(-1, 0),
            "ends": integers(-4, 2),
            "axes": integers(2, 1),
            "steps": integers(-2, 1),
        },
    ),
    "Slice of first axes": Case(
        "y = Slice(x, starts, ends)", X, {"starts": integers(1), "ends": integers(9)}
    ),
    "Gather": Case("y = Gather<axis=1>(x, i)", X, {"i": np.asarray([[0, -1], [0, 2]], np.int64)}),
    "Gather of one": Case("y = Gather<axis=-1>(x, i)", X, {"i": np.asarray(1, np.int64)}),
    "Gather of rows": Case("y = Gather(x, i)", {"x": drawn(5, 3)}, {"i": integers(4, 1, 1)}),
    "GatherElements": Case(
        "y = GatherElements<axis=1>(x, i)", {"x": drawn(2, 3)}, {"i": np.asarray([[0, 0], [2, 1]])}
    ),
    "Einsum": Case(
        'y = Einsum<equation="bij,bjk->bki">(a, b)',
        {"a": drawn(2, 3, 4), "b": drawn(2, 4, 5, seed=1)},
    ),
    "Einsum that sums alone": Case(
        'y = Einsum<equation="ijk,kl->il">(a, b)',
        {"a": drawn(2, 3, 4), "b": drawn(4, 5, seed=1)},
    ),
    **RECURRENT,
    "Pad": Case("y = Pad(x, pads)", X, {"pads": integers(0, 1, 2, 2, 0, 1)}),
    "Pad by reflection": Case(
        'y = Pad<mode="reflect">(x, pads)', X, {"pads": integers(0, 1, 2, 1, 0, 1)}
    ),
    "Pad by the edge": Case(
        'y = Pad<mode="edge">(x, pads)', X, {"pads": integers(0, 1, 2, 2, 0, 1)}
    ),
    "Expand": Case("y = Expand(x, to)", {"x": drawn(3, 1)}, {"to": integers(2, 3, 4)}),
    "DepthToSpace": Case("y = DepthToSpace<blocksize=2>(x)", IMAGE),
    "SpaceToDepth": Case("y = SpaceToDepth<blocksize=2>(x)", {"x": drawn(2, 3, 4, 6)}),
    "Resize nearest": Case(
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", '
        'nearest_mode="floor">(x, , scales)',
        {"x": drawn(2, 3, 4, 3)},
        {"scales": np.asarray([1, 1, 2, 3], np.float32)},
    ),
    "Resize linear to sizes": Case(
        'y = Resize<mode="linear">(x, , , sizes)',
        {"x": drawn(1, 2, 4, 3)},
        {"sizes": integers(1, 2, 7, 2)},
    ),
    "Resize linear by scales": Case(
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , scales)',
        {"x": drawn(1, 2, 4, 3)},
        {"scales": np.asarray([1, 1, 2, 2], np.float32)},
    ),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_finite_differences(name: str, *, dynamic: bool) -> None:
    given = CASES[name]
    case = replace(given, dynamic=dynamic)
    found, expected = by_rules(case), by_differences(case)
    for parameter, gradient in expected.items():
        looked_at = ~np.isnan(gradient)
        scale = np.abs(gradient[looked_at]).max() + 1e-3
        # float32 against float64.
        np.testing.assert_allclose(
            found[parameter][looked_at] / scale, gradient[looked_at] / scale, atol=2e-4
        )


def test_every_rule_is_compared() -> None:
    steps = {"Ceil", "Floor", "Round", "Sign"}
    apart = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    apart |= {"MatMulInteger", "ConvInteger"}
    assert {name.split()[0] for name in CASES} == set(RULES) - steps - apart
