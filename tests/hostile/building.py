"""A small valid model, and what hostile ones are built with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

__all__ = [
    "Kind",
    "collecting",
    "field",
    "info",
    "is_external",
    "model_of",
    "node",
    "saved",
    "unsized",
    "valid",
    "weight",
]

Kind = Callable[[Path], Path]
"""Writes a file of its kind into a folder and says which one is given to the command."""

node = make_node


def collecting(kinds: dict[str, Kind]) -> Callable[[Kind], Kind]:
    """A decorator that enters a kind by its name."""

    def register(kind: Kind) -> Kind:
        kinds[kind.__name__] = kind
        return kind

    return register


def info(name: str, shape: Sequence[int | str | None] = ("n", 8), kind: int = 1) -> Any:
    """A typed input or output."""
    return make_tensor_value_info(name, kind, shape)


def unsized() -> Any:
    """The output y, of four dimensions that nobody knows."""
    return info("y", [None, None, None, None])


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds bytes or another message."""
    length, size = len(content), bytearray()
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


def weight(name: str, *shape: int) -> onnx.TensorProto:
    """Random numbers."""
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return onnx.numpy_helper.from_array(array, name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    weights: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of x [n, 8] to y [n, 8], unless said otherwise."""
    graph = make_graph(nodes, "g", inputs or [info("x")], outputs or [info("y")], weights)
    return make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=9)


def valid() -> onnx.ModelProto:
    """Two layers and what is between them."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="between"),
        node("MatMul", ["b", "v"], ["y"], name="second"),
    ]
    return model_of(nodes, weights=[weight("w", 8, 8), weight("v", 8, 8)])


def saved(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    """Write it."""
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def is_external(tensor: onnx.TensorProto, **entries: str | int) -> None:
    """Let a tensor lie elsewhere."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
