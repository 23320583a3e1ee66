"""Half precision: float32 tensors in float16, with Casts where some of it stays float32.

Each operator is half or not as it was chosen (`precision`, `fewest_casts`), in bodies of If, Loop
and Scan too; a tensor that is read in both precisions has one Cast behind what gives it. Inputs
and outputs keep their types behind Casts; `strip_casts` takes those away afterwards. Nothing is
clipped: what half cannot hold is not put into it (`half_range`).
"""

from collections.abc import Collection

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.beyond_ir import from_proto, to_proto
from onnxpress.conversion.precision import Flow, Place, Slot, Unit, flow_of
from onnxpress.errors import ModelError, brief
from onnxpress.graph import Names, add_initializer, graphs_of, insert_behind, name_nodes_apart
from onnxpress.model_file import PROTOBUF_LIMIT_BYTES, held_bytes

__all__ = [
    "_drop_round_trips",
    "computes_in_half",
    "key_of",
    "prepared",
    "refusal",
    "strip_casts",
    "to_half",
]

_INTEGERS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
)
_CONSTANTS = ("value", "value_float", "value_floats")


def refusal(model: ir.Model) -> str | None:
    """Why a model cannot be in half precision as a whole, or `None`."""
    operators = {node.op_type for node in model.graph.all_nodes()}
    mixed = sorted(operators & set(_INTEGERS))
    if mixed:
        return f"the model computes in integers already ({mixed[0]})"
    if held_bytes(model) >= PROTOBUF_LIMIT_BYTES:
        return "the model is larger than 2 GB"
    if model.functions:
        return "the model has functions; simplify puts them in line"
    return None


def computes_in_half(model: ir.Model) -> bool:
    """Whether an operator gives half numbers; weights that are only stored in half do not count."""
    return any(
        value.dtype == ir.DataType.FLOAT16
        for node in model.graph.all_nodes()
        for value in node.outputs
    )


def prepared(model: ir.Model) -> ir.Model:
    """A copy with the types of all tensors, names of nodes apart, and constants as initializers.

    Raises:
        ModelError: the types contradict each other.
    """
    copy = model.clone()
    name_nodes_apart(copy)
    copy = from_proto(_inferred(to_proto(copy)))
    for graph in graphs_of(copy.graph):
        for node in list(graph):
            if node.op_type == "Constant" and not node.outputs[0].is_graph_output():
                _as_initializer(graph, node)
    return copy


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With types; those that the file claims, and other converters leave wrong, may be dropped."""
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except onnx.shape_inference.InferenceError:
        del proto.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(
            f"the types of its tensors contradict each other: {brief(error)}"
        ) from error


def _as_initializer(graph: ir.Graph, node: ir.Node) -> None:
    name = next((name for name in _CONSTANTS if name in node.attributes), None)
    if name is None or node.attributes[name].is_ref():
        return
    attribute = node.attributes[name]
    if name == "value":
        tensor: ir.TensorProtocol = attribute.as_tensor()
    else:
        given = attribute.as_float() if name == "value_float" else attribute.as_floats()
        tensor = ir.tensor(np.asarray(given, np.float32))
    if tensor.dtype != ir.DataType.FLOAT:
        return
    value = node.outputs[0]
    made = ir.Value(
        name=value.name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=ir.Tensor(tensor.numpy(), name=value.name),
    )
    ir.convenience.replace_all_uses_with(value, made)
    graph.remove(node, safe=True)
    graph.register_initializer(made)


def to_half(model: ir.Model, narrow: Collection[tuple[str, int]]) -> ir.Model:
    """A copy with some units in half precision.

    Args:
        model: as `prepared` gives it; not changed.
        narrow: the keys (`key_of`) of units that are half.
    """
    half = model.clone()
    flow, names = flow_of(half), Names(half)
    chosen = {unit for unit in flow.units if key_of(unit) in narrow}
    for value, giver in flow.givers.items():
        _cast(names, flow, value, giver if giver in chosen else None, chosen)
    for graph in graphs_of(half.graph):
        for value in list(graph.initializers.values()):
            if value not in flow.givers:
                _store(names, flow, graph, value, chosen)
    for unit in chosen:
        if isinstance(unit, ir.Node):
            _give_half(unit)
    for graph in graphs_of(half.graph):
        _drop_round_trips(graph)
    return half


def key_of(unit: Unit) -> tuple[str, int]:
    """What a unit is called in copies of its model: the name of its node, and the slot or -1."""
    if isinstance(unit, Slot):
        return unit.node.name or "", unit.index
    return unit.name or "", -1


def _cast(
    names: Names, flow: Flow, value: ir.Value, giver: Unit | None, chosen: Collection[Unit]
) -> None:
    """Give a computed tensor its precision, and the other to those who read it so."""
    own, other = ir.DataType.FLOAT, ir.DataType.FLOAT16
    if giver is not None:
        own, other = other, own
    places = flow.places.get(value, ())
    strangers = [p for p in places if (p.unit in chosen) != (giver is not None)]
    value.type = ir.TensorType(own)
    if not strangers:
        return
    cast = ir.node("Cast", [value], {"to": other}, name=names.free(f"{value.name}_cast"))
    made = cast.outputs[0]
    made.type, made.shape = ir.TensorType(other), value.shape
    made.name = names.free(f"{value.name}_{'half' if giver is None else 'float'}")
    graph = value.graph
    assert graph is not None
    for place in strangers:
        _replace(place, made)
    insert_behind(graph, value, [cast])
    if any(place.reader is graph and isinstance(place.reader, ir.Graph) for place in strangers):
        # Outputs keep their names.
        value.name, made.name = made.name, value.name


def _replace(place: Place, value: ir.Value) -> None:
    if isinstance(place.reader, ir.Node):
        place.reader.replace_input_with(place.index, value)
    else:
        place.reader.outputs[place.index] = value


def _store(
    names: Names, flow: Flow, graph: ir.Graph, value: ir.Value, chosen: Collection[Unit]
) -> None:
    """A half copy of a constant for those who read it in half."""
    places = [place for place in flow.places.get(value, ()) if place.unit in chosen]
    tensor = value.const_value
    if not places or tensor is None:
        return
    with np.errstate(over="ignore"):
        array = tensor.numpy().astype(np.float16)
    half = add_initializer(names, graph, f"{value.name}_half", array)
    for place in places:
        _replace(place, half)
    if not value.uses() and not value.is_graph_output():
        name = value.name or ""
        del graph.initializers[name]
        del graph.initializers[half.name or ""]
        half.name = name
        graph.register_initializer(half)


def _give_half(node: ir.Node) -> None:
    """Attributes that say the type of what a node gives."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16)
    if node.op_type == "ConstantOfShape":
        given = node.attributes.get("value")
        array = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array.astype(np.float16)))


def _drop_round_trips(graph: ir.Graph) -> None:
    """Take out Casts to the type that a tensor has, and from a type to half or float32 and back.

    Between two Casts it may not fit, or nothing is lost by leaving them out.
    """
    for node in list(graph):
        if node.op_type != "Cast" or node.inputs[0] is None:
            continue
        source, cast = node.inputs[0], node.outputs[0]
        to = node.attributes["to"].as_int()
        first = source.producer()
        if source.dtype != to and first is not None and first.op_type == "Cast":
            before = first.inputs[0]
            floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
            if before is None or before.dtype != to or source.dtype not in floats:
                continue
            source = before
        elif source.dtype != to:
            continue
        if cast.is_graph_output() or (source.graph is not graph and source.is_graph_output()):
            continue
        ir.convenience.replace_all_uses_with(cast, source)
        graph.remove(node, safe=True)
        if first is not None and first.op_type == "Cast":
            _drop(first)


def _drop(cast: ir.Node) -> None:
    made = cast.outputs[0]
    if not made.uses() and not made.is_graph_output() and cast.graph is not None:
        cast.graph.remove(cast, safe=True)


def strip_casts(model: ir.Model) -> ir.Model:
    """A copy whose inputs and outputs are half where only a Cast makes them float32."""
    stripped = model.clone()
    graph = stripped.graph
    for value in list(graph.inputs):
        users = [use.node for use in value.uses()]
        if value.dtype == ir.DataType.FLOAT and users and all(_to_half_inside(n) for n in users):
            value.type = ir.TensorType(ir.DataType.FLOAT16)
            for node in users:
                ir.convenience.replace_all_uses_with(node.outputs[0], value)
                graph.remove(node, safe=True)
    for index, value in enumerate(list(graph.outputs)):
        cast = value.producer()
        if cast is None or cast.op_type != "Cast" or value.dtype != ir.DataType.FLOAT:
            continue
        source = cast.inputs[0]
        if source is None or source.dtype != ir.DataType.FLOAT16 or value.uses():
            continue
        if source.is_graph_input() or source.is_graph_output():
            continue
        name = value.name
        graph.outputs[index] = source
        graph.remove(cast, safe=True)
        source.name, source.shape = name, value.shape
    return stripped


def _to_half_inside(node: ir.Node) -> bool:
    to_half = node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16
    return to_half and not node.outputs[0].is_graph_output()
