"""What onnx's checker lets pass and nothing can work with; refused before any work.

- an attribute that stands for one of a function, in a graph that is none;
- functions that call themselves, or double so often that their nodes could not be written out;
- a Split into another number of parts than it names: two thousand million take shape inference
  17 GB;
- a tensor of dimensions that no array can have, or of another number of values than they say.
"""

import functools
import math
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress.external_data import tensors

__all__ = ["bodies", "require_sound"]

_MOST_NODES = 20_000_000
_MOST_BYTES = 1 << 62
_LARGEST_ITEM_BYTES = 16


def require_sound(model: onnx.ModelProto, file: Path) -> None:
    """Refuse a model that nothing can work with.

    Args:
        model: what the checker lets pass.
        file: where it was read from, for messages.

    Raises:
        ModelError: what stands where, and what was expected.
    """
    _require_own_attributes(model.graph, file)
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        _require_named_parts(nodes, file)
    _require_finite_functions(model, file)
    for tensor in tensors(model):
        problem = _problem(tensor)
        if problem:
            raise ModelError(
                f"{file}: tensor {tensor.name!r} {problem}; the file is damaged: export the model "
                "again [M003]"
            )


def _problem(tensor: onnx.TensorProto) -> str:
    """What is wrong with a tensor, or nothing; weights in other files are looked at elsewhere."""
    dims = list(tensor.dims)
    if math.prod(dim for dim in dims if dim) * _LARGEST_ITEM_BYTES > _MOST_BYTES or any(
        dim < 0 for dim in dims
    ):
        return f"has dimensions {dims}, which no array can have"
    try:
        kind = ir.DataType(tensor.data_type)
    except ValueError:
        return f"is of type {tensor.data_type}, which ONNX does not have"
    if tensor.data_location == onnx.TensorProto.EXTERNAL or kind == ir.DataType.UNDEFINED:
        return ""
    count = math.prod(dims)
    if tensor.HasField("raw_data"):
        found, what = len(tensor.raw_data), "bytes"
        expected = 0 if kind == ir.DataType.STRING else math.ceil(count * kind.bitwidth / 8)
    else:
        found = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
        what = "values"
        parts = 2 if kind in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128) else 1
        packed = kind != ir.DataType.STRING and kind.bitwidth < 8
        expected = math.ceil(count * kind.bitwidth / 8) if packed else count * parts
    if found != expected:
        return f"of dimensions {dims} holds {found:,} {what}; expected {expected:,}"
    return ""


def _require_own_attributes(graph: onnx.GraphProto, file: Path) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise ModelError(
                    f"{file}: node {node.name or node.op_type!r} takes its {attribute.name!r} from "
                    f"{attribute.ref_attr_name!r} of a function, and is in none; expected a value; "
                    "export the model again [M003]"
                )
            for body in bodies(attribute):
                _require_own_attributes(body, file)


def _require_named_parts(nodes: Iterable[onnx.NodeProto], file: Path) -> None:
    for node in nodes:
        for attribute in node.attribute:
            parts = attribute.i if attribute.name == "num_outputs" and not node.domain else 0
            if node.op_type == "Split" and parts > len(node.output):
                raise ModelError(
                    f"{file}: node {node.name or node.op_type!r} splits into {parts:,} parts and "
                    f"names {len(node.output)}; expected as many; export the model again [M003]"
                )
            for body in bodies(attribute):
                _require_named_parts(body.node, file)


def _require_finite_functions(model: onnx.ModelProto, file: Path) -> None:
    if not model.functions:
        return
    known = {(f.domain, f.name, f.overload): list(f.node) for f in model.functions}
    open_calls: set[tuple[str, str, str]] = set()

    @functools.cache
    def written_out(key: tuple[str, str, str]) -> int:
        if key in open_calls:
            raise ModelError(
                f"{file}: function {key[1]!r} calls itself; expected functions that end; export "
                "the model again [M003]"
            )
        open_calls.add(key)
        total = count(known[key])
        open_calls.remove(key)
        return total

    def count(nodes: list[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += written_out(key) if key in known else 1
            for attribute in node.attribute:
                total += sum(count(list(body.node)) for body in bodies(attribute))
        return total

    if count(list(model.graph.node)) > _MOST_NODES:
        raise ModelError(
            f"{file}: its functions, written out, are more than {_MOST_NODES:,} nodes; expected a "
            "graph that fits into memory; export the model without such functions [M003]"
        )


def bodies(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The graphs that an attribute holds."""
    return [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
