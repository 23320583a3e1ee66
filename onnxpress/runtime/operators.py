"""What onnxruntime makes of a graph: the operators that it runs, and what it shows a provider."""

import collections
import itertools
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxpress.beyond_ir import from_proto
from onnxpress.runtime.session import Session
from onnxpress.temporary import temporary_folder

__all__ = ["executed_operators", "is_integer_operator", "nodes_of", "seen_by_providers"]

_INTEGER_PREFIXES = (
    "QLinear",
    "QGemm",
    "QAttention",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantizeMatMul",
)


def is_integer_operator(name: str) -> bool:
    """Whether an operator of onnxruntime's computes in 8-bit integers."""
    return name.startswith(_INTEGER_PREFIXES)


def seen_by_providers(model: ir.Model) -> ir.Model:
    """The graph as an execution provider is asked about it: after the basic optimizations.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    with temporary_folder() as folder:
        path = Path(folder, "basic.onnx")
        Session(model, threads=1, optimize="basic", optimized_path=path)
        proto = onnx.load(path, load_external_data=False)
    return from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def executed_operators(model: ir.Model | Path, *, integer_only: bool = False) -> dict[str, int]:
    """How many nodes of each operator onnxruntime runs, in subgraphs too, as it optimizes them.

    With `integer_only`, those that compute in 8-bit integers.
    """
    if integer_only and isinstance(model, ir.Model) and not _has_integers(model):
        return {}
    with temporary_folder() as folder:
        optimized = Path(folder, "optimized.onnx")
        Session(model, threads=1, optimized_path=optimized)
        proto = onnx.load(optimized, load_external_data=False)
    counts = collections.Counter(node.op_type for node in nodes_of(proto.graph))
    return {
        name: count
        for name, count in sorted(counts.items())
        if not integer_only or is_integer_operator(name)
    }


def _has_integers(model: ir.Model) -> bool:
    """Whether a node computes in integers or marks what onnxruntime may compute so."""
    functions = (node for function in model.functions.values() for node in function.all_nodes())
    return any(
        is_integer_operator(node.op_type) or "quantize" in node.op_type.lower()
        for node in itertools.chain(model.graph.all_nodes(), functions)
    )


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of bodies behind the node that holds them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)
