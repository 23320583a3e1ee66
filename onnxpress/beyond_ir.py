"""What onnx-ir cannot hold, or only at many times its size: maps, ensembles, sparse weights.

Maps are types of `ai.onnx.ml` (ZipMap gives a sequence of them). Inputs and outputs of such types
are kept without a type, and get it back when the model is written. Long attributes, of which a tree
ensemble consists, stay in protobuf's arrays: as Python's numbers they take eight times as much.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

__all__ = [
    "ML_DOMAIN",
    "PackedAttribute",
    "bytes_in_attributes",
    "from_proto",
    "gives_maps",
    "holds_map",
    "to_proto",
    "with_map_types",
]

ML_DOMAIN = "ai.onnx.ml"
_LONG = 4096
"""Elements of an attribute that is left packed."""
_NUMBER_BYTES = 4
_TYPES = "onnxpress.map_types"
"""In the graph's `meta`, which its clones share: types by name, as protobuf has them."""


class PackedAttribute(ir.Attr):
    """A long list of numbers or texts, unpacked each time it is asked for.

    Attributes:
        proto: the list as it was read.
    """

    def __init__(self, proto: onnx.AttributeProto) -> None:
        """Hold the attribute of a file."""
        super().__init__(proto.name, ir.AttributeType(proto.type), None)
        self.proto = proto

    @property
    def value(self) -> Any:  # noqa: ANN401 - as onnx-ir's
        """All of it, as a tuple."""
        if self.proto.type == onnx.AttributeProto.STRINGS:
            return tuple(text.decode("utf-8") for text in self.proto.strings)
        ints = self.proto.type == onnx.AttributeProto.INTS
        return tuple(self.proto.ints if ints else self.proto.floats)


def bytes_in_attributes(node: ir.Node) -> int:
    """Of what a node of `ai.onnx.ml` holds in its attributes, about: lists and tensors."""
    total = 0
    for attribute in node.attributes.values() if node.domain == ML_DOMAIN else ():
        if isinstance(attribute, PackedAttribute):
            total += int(attribute.proto.ByteSize())
        elif attribute.type == ir.AttributeType.TENSOR:
            total += attribute.as_tensor().nbytes
        elif isinstance(attribute.value, tuple):
            total += _NUMBER_BYTES * len(attribute.value)
    return total


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model of a file; `proto` is used up.

    Raises:
        SerdeError: onnx-ir cannot read the rest either.
    """
    _expand(proto.graph)
    for function in proto.functions:
        _expand_nodes(function.node)
    types = {}
    for value in (*proto.graph.input, *proto.graph.output):
        if holds_map(value.type):
            types[value.name] = value.type.SerializeToString()
            value.ClearField("type")
    for info in [info for info in proto.graph.value_info if holds_map(info.type)]:
        proto.graph.value_info.remove(info)
    packed = [_taken(node) for node in proto.graph.node]
    model = ir.from_proto(proto)
    for node, attributes in zip(model.graph, packed, strict=True):
        for attribute in attributes:
            node.attributes.add(PackedAttribute(attribute))
    _mend(model)
    if types:
        model.graph.meta[_TYPES] = types
    return model


def _expand(graph: onnx.GraphProto) -> None:
    """Make sparse weights dense, as onnxruntime does when it loads them.

    Raises:
        ValueError: a place lies outside the weight, or the dense one is larger than a file may be.
    """
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, sparse.values.name))
    del graph.sparse_initializer[:]
    _expand_nodes(graph.node)


def _expand_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor, node.output[0]))
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
            for body in (attribute.g, *attribute.graphs):
                if body.node or body.sparse_initializer:
                    _expand(body)


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    values, places = (onnx.numpy_helper.to_array(t) for t in (sparse.values, sparse.indices))
    shape = tuple(sparse.dims)
    if math.prod(shape) * values.itemsize > onnx.checker.MAXIMUM_PROTOBUF:
        raise ValueError(f"sparse weight {name!r} of shape {list(shape)} is too large as dense")
    dense = np.zeros(shape, values.dtype)
    try:
        linear = np.ravel_multi_index(tuple(places.T), shape) if places.ndim == 2 else places
        dense.reshape(-1)[linear] = values
    except (IndexError, ValueError) as error:
        raise ValueError(f"sparse weight {name!r} has places outside {list(shape)}") from error
    return onnx.numpy_helper.from_array(dense, name)


def _mend(model: ir.Model) -> None:
    """What the checker takes and onnx-ir does not write, where nothing depends on it.

    Protobuf hands texts that are not UTF-8 over as bytes.

    Raises:
        ValueError: a tensor has such a name.
    """
    model.producer_name = _text(model.producer_name)
    model.producer_version = _text(model.producer_version)
    model.domain, model.doc_string = _text(model.domain), _text(model.doc_string)
    for graph in model.graphs():
        graph.name, graph.doc_string = _text(graph.name), _text(graph.doc_string)
        named = [*graph.inputs, *graph.initializers.values()]
        if any(isinstance(value.name, bytes) for value in named):
            raise ValueError("the name of a tensor is not UTF-8")
    for node in model.graph.all_nodes():
        node.name, node.doc_string = _text(node.name), _text(node.doc_string)
        if any(isinstance(value.name, bytes) for value in node.outputs):
            raise ValueError("the name of a tensor is not UTF-8")
        if node.device_configurations:
            named_ones = [c for c in node.device_configurations if c.configuration is not None]
            node.device_configurations = tuple(named_ones)


def _text(given: str | bytes | None) -> str | None:
    return given.decode("utf-8", "replace") if isinstance(given, bytes) else given


def _taken(node: onnx.NodeProto) -> list[onnx.AttributeProto]:
    """Long attributes, taken from a node of `ai.onnx.ml`."""
    if node.domain != ML_DOMAIN:
        return []
    found = []
    for index in reversed(range(len(node.attribute))):
        attribute = node.attribute[index]
        if max(len(attribute.ints), len(attribute.floats), len(attribute.strings)) > _LONG:
            own = onnx.AttributeProto()
            own.CopyFrom(attribute)
            found.append(own)
            del node.attribute[index]
    return found


def holds_map(kind: onnx.TypeProto) -> bool:
    """Whether a type is a map, or one of maps."""
    if kind.HasField("sequence_type"):
        return holds_map(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return holds_map(kind.optional_type.elem_type)
    return bool(kind.HasField("map_type"))


def gives_maps(model: ir.Model, name: str) -> bool:
    """Whether an input or output is of such a type."""
    return name in model.graph.meta.get(_TYPES, {})


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, with its map types."""
    proto = with_map_types(model, ir.to_proto(model))
    _drop_types_of_weights(proto.graph)
    return proto


def with_map_types(model: ir.Model, proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto`, which onnx-ir made of the model, with its map types put in."""
    types = model.graph.meta.get(_TYPES, {})
    for value in (*proto.graph.input, *proto.graph.output) if types else ():
        if value.name in types and not value.HasField("type"):
            value.type.ParseFromString(types[value.name])
    return proto


def _drop_types_of_weights(graph: onnx.GraphProto) -> None:
    """What onnx-ir says of initializers a second time; of a small quantized CNN a tenth."""
    names = {tensor.name for tensor in graph.initializer}
    kept = [info for info in graph.value_info if info.name not in names]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node or body.initializer:
                    _drop_types_of_weights(body)
