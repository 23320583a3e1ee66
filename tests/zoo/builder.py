"""A builder of small ONNX models whose heads are fitted, so that their answers mean something."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnxpress.runtime import Feed, Session

__all__ = ["Array", "Made", "Net", "Shape", "fitted", "floats", "opened", "with_changed_weights"]

Array = npt.NDArray[Any]
Shape = Sequence[Any]
_OPSET = 17
_RIDGE = 1e-3
_WEIGHTS = 16
"""Elements from which an array of floats is a weight, which noise and rounding change."""


@dataclass(frozen=True)
class Made:
    """A model, and samples of its inputs."""

    model: onnx.ModelProto
    feeds: tuple[Feed, ...]


class Net:
    """Collects nodes and constants; arrays given as inputs become initializers."""

    def __init__(self, seed: int = 0, prefix: str = "") -> None:
        """Begin with nothing; the prefix keeps names apart where a graph is added to."""
        self.rng = np.random.default_rng(seed)
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: npt.ArrayLike, name: str = "") -> str:
        """The name of a new initializer."""
        name = name or f"{self.prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ops(self, kind: str, *inputs: str | Array, number: int = 1, **attributes: Any) -> list[str]:
        """Add a node; the names of its outputs."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        place = len(self.nodes)
        outputs = [f"{self.prefix}t{place}.{index}" for index in range(number)]
        label = f"{self.prefix}{kind}_{place}"
        self.nodes.append(helper.make_node(kind, names, outputs, name=label, **attributes))
        return outputs

    def op(self, kind: str, *inputs: str | Array, **attributes: Any) -> str:
        """Add a node with one output, and give its name."""
        return self.ops(kind, *inputs, **attributes)[0]

    def normal(self, *shape: int, fan: int = 1, gain: float = 1.4) -> Array:
        """A random weight that sums `fan` inputs."""
        return (self.rng.standard_normal(shape) * gain / math.sqrt(fan)).astype(np.float32)

    def conv(self, x: str, channels: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
        """A random convolution with Relu."""
        weight = self.normal(outputs, channels, kernel, kernel, fan=channels * kernel**2)
        bias = self.normal(outputs, gain=0.1)
        pads = [kernel // 2] * 4
        return self.op("Relu", self.op("Conv", x, weight, bias, pads=pads, strides=[stride] * 2))

    def pointwise(self, x: str, fit: tuple[Array, Array]) -> str:
        """A 1×1 convolution with fitted weights."""
        weight, bias = fit
        return self.op("Conv", x, np.ascontiguousarray(weight.T[:, :, None, None]), bias)

    def linear(self, x: str, fit: tuple[Array, Array]) -> str:
        """MatMul and Add with fitted weights, over the last axis."""
        return self.op("Add", self.op("MatMul", x, fit[0]), fit[1])

    def reshaped(self, x: str, *shape: int) -> str:
        """A Reshape."""
        return self.op("Reshape", x, np.array(shape, np.int64))

    def model(
        self, inputs: Mapping[str, tuple[str, Shape]], outputs: Mapping[str, tuple[str, str, Shape]]
    ) -> onnx.ModelProto:
        """The model.

        Args:
            inputs: type and shape by name.
            outputs: what gives it, type and shape, by name.
        """
        nodes = list(self.nodes)
        nodes += [
            helper.make_node("Identity", [source], [name], name=f"out_{name}")
            for name, (source, _, _) in outputs.items()
        ]
        graph = helper.make_graph(
            nodes,
            "made",
            [_value(name, *spec) for name, spec in inputs.items()],
            [_value(name, kind, shape) for name, (_, kind, shape) in outputs.items()],
            self.constants,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8
        )

    def computed(
        self, name: str, inputs: Mapping[str, tuple[str, Shape]], feed: Feed
    ) -> npt.NDArray[np.float32]:
        """What the graph so far computes at a value."""
        model = self.model(inputs, {"features": (name, "float", ())})
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        return opened(model).run(feed)["features"]  # type: ignore[return-value]


def floats(values: Any) -> Array:
    """In 32 bits."""
    return np.asarray(values, np.float32)


def fitted(x: Array, y: Array, ridge: float = _RIDGE) -> tuple[Array, Array]:
    """Weight [in, out] and bias by least squares from rows x to rows y."""
    wide = np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)
    gram = wide.T @ wide
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    solution = np.linalg.solve(gram, wide.T @ y).astype(np.float32)
    return solution[:-1], solution[-1]


def opened(model: onnx.ModelProto) -> Session:
    """A session on one thread."""
    return Session(ir.serde.deserialize_model(model), threads=1)


def with_changed_weights(
    model: onnx.ModelProto, change: Callable[[npt.NDArray[np.float32]], Array]
) -> onnx.ModelProto:
    """The model with every weight changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size >= _WEIGHTS:
            tensor.CopyFrom(numpy_helper.from_array(change(array), tensor.name))
    return changed


def _value(name: str, kind: str, shape: Shape) -> onnx.ValueInfoProto:
    types = {
        "float": onnx.TensorProto.FLOAT,
        "int64": onnx.TensorProto.INT64,
        "bool": onnx.TensorProto.BOOL,
    }
    return helper.make_tensor_value_info(name, types[kind], shape)
