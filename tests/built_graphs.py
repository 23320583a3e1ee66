"""Graphs that are put together operator by operator."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

__all__ = ["STEPS", "Builder", "attention", "build", "neighbours", "unknown"]


class Builder:
    """Adds operators to a graph of [2, channels, 6, 6] tensors."""

    def __init__(self, seed: int, channels: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels = channels
        self.value = "x"

    def constant(self, array: npt.NDArray[np.generic]) -> str:
        """A constant's name."""
        name = f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def drawn(self, *shape: int) -> str:
        """A random constant's name."""
        return self.constant((0.4 * self.rng.standard_normal(shape)).astype(np.float32))

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """The outputs of a new node."""
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(make_node(op_type, inputs, names, **attributes))
        return names

    def conv(self, channels: int, *, groups: int = 1, kernel: int = 3) -> None:
        """A convolution that keeps height and width."""
        weight = self.drawn(channels, self.channels // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        bias = self.drawn(channels)
        (self.value,) = self.add("Conv", self.value, weight, bias, group=groups, pads=pads)
        self.channels = channels

    def model(
        self, inputs: list[int | str], outputs: list[int | str] | None, opset: int = 17
    ) -> ir.Model:
        """From x through what was added to its last output, shapes inferred."""
        output = self.nodes[-1].output[0]
        graph = make_graph(
            self.nodes,
            "built",
            [make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
            [make_tensor_value_info(output, TensorProto.FLOAT, outputs)],
            self.weights,
        )
        ir_version = 6 if opset < 13 else 9
        proto = make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=ir_version)
        return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def _conv(b: Builder) -> None:
    b.conv(int(b.rng.integers(2, 5)) * 4)


def _depthwise(b: Builder) -> None:
    b.conv(b.channels, groups=b.channels)


def _widening_depthwise(b: Builder) -> None:
    b.conv(2 * b.channels, groups=b.channels)
    b.conv(8, kernel=1)


def _grouped(b: Builder) -> None:
    b.conv(b.channels, groups=2)


def _batch_norm(b: Builder) -> None:
    parameters = [b.drawn(b.channels) for _ in range(3)]
    variance = b.constant(b.rng.uniform(0.5, 2, b.channels).astype(np.float32))
    (b.value,) = b.add("BatchNormalization", b.value, *parameters, variance)


def _activation(b: Builder) -> None:
    kind = str(b.rng.choice(["Relu", "Sigmoid", "HardSwish", "PRelu", "LeakyRelu"]))
    slope = [b.drawn(b.channels, 1, 1)] if kind == "PRelu" else []
    (b.value,) = b.add(kind, b.value, *slope)


def _residual(b: Builder) -> None:
    before, channels = b.value, b.channels
    b.conv(12)
    _activation(b)
    b.conv(channels)
    (b.value,) = b.add("Add", before, b.value)


def _concat(b: Builder) -> None:
    before, channels = b.value, b.channels
    b.conv(8)
    (b.value,) = b.add("Concat", before, b.value, axis=1)
    b.channels += channels


def _split(b: Builder) -> None:
    half = b.channels // 2
    sizes = b.constant(np.array([half, b.channels - half], np.int64))
    one, other = b.add("Split", b.value, sizes, outputs=2, axis=1)
    (b.value,) = b.add("Concat", other, one, axis=1)


def _slice(b: Builder) -> None:
    ends = [b.constant(np.array([n], np.int64)) for n in (2, b.channels, 1)]
    (b.value,) = b.add("Slice", b.value, *ends)
    b.channels -= 2
    b.conv(8)


def _gather(b: Builder) -> None:
    order = b.rng.permutation(b.channels).astype(np.int64)
    (b.value,) = b.add("Gather", b.value, b.constant(order), axis=1)


def _channel_shuffle(b: Builder) -> None:
    apart = b.constant(np.array([0, 2, b.channels // 2, 6, 6], np.int64))
    together = b.constant(np.array([0, b.channels, 6, 6], np.int64))
    (b.value,) = b.add("Reshape", b.value, apart)
    (b.value,) = b.add("Transpose", b.value, perm=[0, 2, 1, 3, 4])
    (b.value,) = b.add("Reshape", b.value, together)


def _squeeze_excite(b: Builder) -> None:
    before, channels = b.value, b.channels
    (b.value,) = b.add("GlobalAveragePool", b.value)
    b.conv(6, kernel=1)
    (b.value,) = b.add("Relu", b.value)
    b.conv(channels, kernel=1)
    (b.value,) = b.add("HardSigmoid", b.value)
    (b.value,) = b.add("Mul", before, b.value)


def _pool(b: Builder) -> None:
    pads = [1, 1, 1, 1]
    (b.value,) = b.add("AveragePool", b.value, kernel_shape=[3, 3], pads=pads)


def neighbours(b: Builder) -> None:
    (b.value,) = b.add("LRN", b.value, size=3)


def _transposed(b: Builder) -> None:
    weight = b.drawn(b.channels, 8, 3, 3)
    (b.value,) = b.add("ConvTranspose", b.value, weight, pads=[1, 1, 1, 1])
    b.channels = 8


def _pixel_shuffle(b: Builder) -> None:
    b.conv(16)
    mode = str(b.rng.choice(["DCR", "CRD"]))
    (b.value,) = b.add("DepthToSpace", b.value, blocksize=2, mode=mode)
    (b.value,) = b.add("SpaceToDepth", b.value, blocksize=2)
    b.conv(8)


def _resize(b: Builder) -> None:
    sizes = b.constant(np.array([2, b.channels, 6, 6], np.int64))
    (b.value,) = b.add("Resize", b.value, "", "", sizes)


def _computed_reshape(b: Builder) -> None:
    (shape,) = b.add("Shape", b.value)
    first = b.constant(np.array([0, 1], np.int64))
    (head,) = b.add("Gather", shape, first)
    (target,) = b.add("Concat", head, b.constant(np.array([36], np.int64)), axis=0)
    (flat,) = b.add("Reshape", b.value, target)
    (b.value,) = b.add("Reshape", flat, shape)


def unknown(b: Builder) -> None:
    (b.value,) = b.add("Softmax", b.value, axis=1)
    b.conv(8)


STEPS: list[Callable[[Builder], None]] = [
    _conv,
    _depthwise,
    _widening_depthwise,
    _grouped,
    _batch_norm,
    _activation,
    _residual,
    _concat,
    _split,
    _slice,
    _gather,
    _channel_shuffle,
    _squeeze_excite,
    _pool,
    neighbours,
    _transposed,
    _pixel_shuffle,
    _resize,
    _computed_reshape,
    unknown,
]


def build(steps: list[Callable[[Builder], None]], seed: int) -> ir.Model:
    b = Builder(seed, 3)
    b.conv(8)
    for step in steps:
        step(b)
    b.conv(8)
    flat = b.add("Flatten", b.value)
    b.add("Gemm", flat[0], b.drawn(8 * 36, 5), b.drawn(5))
    return b.model([2, 3, 6, 6], [2, 5])


def attention(heads: int = 4, width: int = 16) -> ir.Model:
    """x[batch, steps, 16] → attention with shapes computed at run time → y, and a GRU behind."""
    b = Builder(0, 0)

    def projected(source: str, inputs: int, outputs: int) -> str:
        (made,) = b.add("MatMul", source, b.drawn(inputs, outputs))
        return b.add("Add", made, b.drawn(outputs))[0]

    (shape,) = b.add("Shape", "x")
    (lead,) = b.add("Slice", shape, *(b.constant(np.array([n], np.int64)) for n in (0, 2)))
    size = width // heads
    (target,) = b.add("Concat", lead, b.constant(np.array([heads, size], np.int64)), axis=0)
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        (apart,) = b.add("Reshape", projected("x", 16, width), target)
        parts += b.add("Transpose", apart, perm=perm)
    (scores,) = b.add("MatMul", parts[0], parts[1])
    (weights,) = b.add("Softmax", scores, axis=-1)
    (mixed,) = b.add("MatMul", weights, parts[2])
    (mixed,) = b.add("Transpose", mixed, perm=[0, 2, 1, 3])
    (whole,) = b.add("Concat", lead, b.constant(np.array([width], np.int64)), axis=0)
    (merged,) = b.add("Reshape", mixed, whole)
    hidden = b.add("Relu", projected(projected(merged, width, 16), 16, 12))[0]
    (steps,) = b.add("Transpose", hidden, perm=[1, 0, 2])
    recurrent = [b.drawn(1, 15, 12), b.drawn(1, 15, 5)]
    b.add("GRU", steps, *recurrent, hidden_size=5)
    return b.model(["batch", "steps", 16], None)
