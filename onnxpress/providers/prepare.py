"""The files a worker is given: models with named nodes, samples as plain bytes, multiply-adds.

Onnxruntime says by node names what it placed where, so every node gets one. Nothing else of a
model changes, but that inputs are fixed to a sample's shape where the provider needs it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxpress import model_file
from onnxpress.conversion.convert import dynamic_inputs
from onnxpress.conversion.shapes import fix_shapes
from onnxpress.errors import DataError
from onnxpress.runtime import Array, Feed

__all__ = [
    "fixed",
    "multiply_adds",
    "read_outputs",
    "write_feeds",
    "write_model",
]


def fixed(model: ir.Model, feed: Feed) -> ir.Model:
    """A copy whose inputs have the shapes of `feed`."""
    requests = [
        f"{name}={'x'.join(str(dim) for dim in feed[name].shape)}"
        for name in dynamic_inputs(model)
        if name in feed
    ]
    return fix_shapes(model, requests)


def write_model(model: ir.Model, path: Path) -> None:
    """Write `model` with a name for every node."""
    named = model.clone()
    taken = {node.name for graph in named.graphs() for node in graph if node.name}
    index = 0
    for graph in named.graphs():
        for node in graph:
            while not node.name:
                index += 1
                name = f"{node.op_type}_{index}"
                node.name = None if name in taken else name
    model_file.save(named, path)


def write_feeds(feeds: Sequence[Feed], path: Path) -> list[list[dict[str, Any]]]:
    """Write samples one after the other; the index that comes back says where each array is.

    Raises:
        DataError: an input does not hold numbers.
    """
    index: list[list[dict[str, Any]]] = []
    with path.open("wb") as stream:
        for feed in feeds:
            entries = []
            for name, array in feed.items():
                if array.dtype.kind not in "fiub":
                    raise DataError(
                        f"input {name} has elements of type {array.dtype}; only numbers can be "
                        "handed to another process"
                    )
                # Typed arrays of JavaScript must begin at a multiple of their element's size.
                offset = stream.tell() + -stream.tell() % 8
                stream.write(bytes(offset - stream.tell()))
                stream.write(np.ascontiguousarray(array).tobytes())
                entries.append(
                    {
                        "name": name,
                        "dtype": array.dtype.name,
                        "shape": list(array.shape),
                        "count": array.size,
                        "offset": offset,
                    }
                )
            index.append(entries)
    return index


def read_outputs(
    path: Path, index: Iterable[Iterable[Mapping[str, Any]]], names: Sequence[str]
) -> list[dict[str, Array]]:
    """What a worker wrote: for each sample the outputs by name."""
    content = path.read_bytes()
    return [
        {
            name: np.frombuffer(
                content, np.dtype(entry["dtype"]), int(entry["count"]), int(entry["offset"])
            ).reshape(entry["shape"])
            for name, entry in zip(names, entries, strict=True)
        }
        for entries in index
    ]


def multiply_adds(path: Path, feed: Feed) -> dict[str, int]:
    """Multiply-adds of one run by node name, from the shapes that onnxruntime really saw.

    Counted for convolutions, matrix products and recurrent layers, in subgraphs too.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_name("shapes"))
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, dict(feed))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    counts: dict[str, int] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        arguments = event["args"]
        inputs, outputs = (
            [tuple(next(iter(shape.values()))) for shape in arguments.get(f"{side}_type_shape", [])]
            for side in ("input", "output")
        )
        count = _count(str(arguments["op_name"]), inputs, outputs)
        if count:
            node = name.removesuffix("_kernel_time")
            counts[node] = counts.get(node, 0) + count
    return counts


def _count(
    operator: str, inputs: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]]
) -> int:
    if not outputs or len(inputs) < 2:
        return 0
    out = math.prod(outputs[0])
    if operator in ("Conv", "FusedConv", "ConvInteger"):
        return out * math.prod(inputs[1][1:])
    if operator == "QLinearConv":
        return out * math.prod(inputs[3][1:])
    if operator == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if operator in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM") and len(inputs[0]) == 3:
        return inputs[0][0] * inputs[0][1] * (math.prod(inputs[1]) + math.prod(inputs[2]))
    if operator in ("Gemm", "QGemm", "FusedGemm"):
        return out * math.prod(inputs[0]) // max(1, outputs[0][0])
    if "MatMul" in operator and inputs[0]:
        return out * inputs[0][-1]
    return 0
