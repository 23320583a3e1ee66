"""ONNX's shape inference, kept from tensors it would build, and with types other than tensors."""

import contextlib
import logging
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from onnxpress.beyond_ir import holds_map, to_proto
from onnxpress.graph import bodies, constant, is_standard, static_shape
from onnxpress.growth import GROWING, made_elements
from onnxpress.passes.simplify.folding import symbols

__all__ = ["InferShapes", "all_known", "describe"]

logger = logging.getLogger(__name__)

_LARGE_BYTES = 1000
_MOST = 1 << 16
"""Elements of a tensor that data propagation may build; shapes have a few."""


class InferShapes(ir.passes.InPlacePass):
    """Write inferred types and shapes into a model; where inference fails it stays as it is.

    Data propagation (shapes computed in the graph) builds the tensors it follows: an Expand to
    10⁹ elements takes over 20 GB. Where one may be built, shapes are inferred without it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Infer in place, where anything is left to find."""
        if all_known(model):
            return ir.passes.PassResult(model, modified=False)
        follow = not _builds_large(model)
        with _without_weights(model):
            proto: onnx.ModelProto = to_proto(model)
        try:
            inferred = onnx.shape_inference.infer_shapes(
                proto, check_type=True, strict_mode=True, data_prop=follow
            )
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            first = next(iter(str(error).strip().splitlines()), "")
            logger.info("shapes are not inferred: %s", first[:200])
            return ir.passes.PassResult(model, modified=False)
        return ir.passes.PassResult(model, modified=_learn(model.graph, inferred.graph))


def all_known(model: ir.Model) -> bool:
    """Whether all types and shapes are known, and no dimensions but those that inputs have."""
    given = {dim for value in model.graph.inputs for dim in symbols(value)}
    return all(
        value.type is not None and value.shape is not None and given.issuperset(symbols(value))
        for node in model.graph.all_nodes()
        for value in node.outputs
    )


def _learn(graph: ir.Graph, found: onnx.GraphProto) -> bool:
    """Take over types where none is known, and shapes, in a graph and its bodies."""
    changed = False
    infos = {info.name: info.type for info in (*found.value_info, *found.output)}
    for node, proto in zip(graph, found.node, strict=True):
        for value in node.outputs:
            kind = infos.get(value.name or "")
            if kind is None or holds_map(kind):
                continue
            if value.type is not None and value.shape is not None and _same(value.shape, kind):
                continue
            if value.type is None:
                value.type = ir.serde.deserialize_type_proto_for_type(kind)
                changed = True
            shape = ir.serde.deserialize_type_proto_for_shape(kind)
            if shape is not None and shape != value.shape:
                value.shape = shape
                changed = True
        within = [attribute.g for attribute in proto.attribute if attribute.HasField("g")]
        for body, inner in zip(bodies(node), within, strict=True):
            changed |= _learn(body, inner)
    return changed


def _same(shape: ir.Shape, found: onnx.TypeProto) -> bool:
    """Whether a tensor's shape is what was found; reading it anew takes several times as long."""
    if found.WhichOneof("value") != "tensor_type" or not found.tensor_type.HasField("shape"):
        return False
    dims = found.tensor_type.shape.dim
    return len(dims) == len(shape) and all(
        (dim if isinstance(dim, int) else dim.value) == (new.dim_value or new.dim_param or None)
        for dim, new in zip(shape, dims, strict=True)
    )


def describe(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Give a value the type and shape of its tensor, which is about to be taken from it."""
    value.type = value.type or ir.TensorType(tensor.dtype)
    if value.shape is None:
        value.shape = ir.Shape(tensor.numpy().shape)


@contextlib.contextmanager
def _without_weights(model: ir.Model) -> Iterator[None]:
    """Let large initializers be inputs, whose content nobody copies."""
    graph = model.graph
    given = len(graph.inputs)
    taken: list[ir.Value] = []
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _LARGE_BYTES or value.is_graph_input():
            continue
        describe(value, tensor)
        taken.append(value)
        del graph.initializers[value.name or ""]
        graph.inputs.append(value)
    try:
        yield
    finally:
        while len(graph.inputs) > given:
            graph.inputs.pop()
        for value in taken:
            graph.register_initializer(value)


def _builds_large(model: ir.Model) -> bool:
    """Whether a tensor in the model has, or for all that is known may get, many elements."""
    for node in model.graph.all_nodes():
        if not is_standard(node) or node.op_type not in GROWING:
            continue
        made = made_elements(node)
        if (made is None and _largest_number(node) > _MOST) or (made or 0) > _MOST:
            return True
    return False


def _largest_number(node: ir.Node) -> int:
    """The largest number that can be a factor of a node's size: of constants and of dimensions."""
    largest = 0
    seen = {node}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        for place, value in enumerate(current.inputs):
            if value is None or (current.op_type == "Slice" and place > 0):
                continue  # the ends of a slice are often the largest integer
            if current is node and place == 0 and node.op_type not in ("ConstantOfShape", "Range"):
                continue  # what is made larger, not by how much
            if current.op_type == "Shape":
                largest = max(largest, *(dim for dim in static_shape(value) or (0,)), 0)
                continue
            array = constant(value) if _is_small(value) else None
            if array is not None and array.dtype.kind in "iu" and array.size:
                largest = max(largest, int(array.max()))
            producer = value.producer()
            if producer is not None and producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return largest


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes <= _LARGE_BYTES
