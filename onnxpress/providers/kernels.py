"""Which kernels computed in integers, and whether a processor's integer sums are cut off."""

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.providers.catalogue import Provider
from onnxpress.runtime import is_integer_operator

__all__ = ["from_qnn_graphs", "integer_kernels", "write_saturation_probe"]


def integer_kernels(
    entry: Provider, report: Mapping[str, Any], work: Path
) -> Mapping[str, int] | None:
    """From the provider's own graph where it writes one, else from onnxruntime's profile."""
    if entry.dump:
        return from_qnn_graphs(sorted(work.glob("*.json")))
    kernels = report.get("kernels")
    placed = (report.get("placement") or {}).get(entry.execution_provider, [])
    if kernels is None or any(len(part) > 1 for part in placed):
        return None
    return {name: count for name, count in sorted(kernels.items()) if is_integer_operator(name)}


def from_qnn_graphs(paths: Sequence[Path]) -> Mapping[str, int]:
    """Compute nodes of QNN's graphs whose inputs and outputs are all fixed-point tensors.

    QNN's data types: 0x03… signed and 0x04… unsigned fixed point (QnnTypes.h).
    """
    counts: collections.Counter[str] = collections.Counter()
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        graph = content.get("graph") if isinstance(content, dict) else None
        if graph is None:
            continue
        types = {name: int(tensor["data_type"]) >> 8 for name, tensor in graph["tensors"].items()}
        for node in graph["nodes"].values():
            names = [*node["input_names"], *node["output_names"]]
            moves = node["type"] in ("Quantize", "Dequantize", "Transpose", "Reshape", "Convert")
            if not moves and all(types.get(name) in (3, 4) for name in names):
                counts[node["type"]] += 1
    return dict(sorted(counts.items()))


def write_saturation_probe(path: Path) -> None:
    """A product of the largest 8-bit numbers: without fused dot products its sum is cut off."""
    weight = ir.Value(name="w", const_value=ir.tensor(np.full((4, 16), 127, np.int8), name="w"))
    left = ir.Value(name="a", shape=ir.Shape((1, 4)), type=ir.TensorType(ir.DataType.UINT8))
    node = ir.node("MatMulInteger", inputs=[left, weight])
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    node.outputs[0].shape = ir.Shape((1, 16))
    graph = ir.Graph(
        [left], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 13}, name="p"
    )
    model_file.save(ir.Model(graph, ir_version=8), path)
