"""Write a model's own file with its weights inside, one after the other, never all in memory.

Protobuf puts a message's fields one behind the other, those inside with their length before them
(protobuf.dev, "Encoding"), and its serializers write them in the order of their numbers. So what
comes before and behind the weights is serialized as usual, and the weights are copied from where
they are. The bytes are those that protobuf itself would write.
"""

from typing import IO, TypeVar

import onnx_ir as ir
from google.protobuf.message import Message

from onnxpress.beyond_ir import to_proto

__all__ = ["whole_bytes", "write_whole"]

M = TypeVar("M", bound=Message)

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Numbers of fields: of ModelProto, of GraphProto, of TensorProto."""
_LENGTH_DELIMITED = 2
_EXTERNAL = ("external_data", "data_location")


def write_whole(model: ir.Model, stream: IO[bytes]) -> None:
    """Write a model whose weights may lie in other files; those are put into this one.

    Args:
        model: tensors of its attributes and bodies are in memory; it is not changed.
        stream: of a regular file.
    """
    for part in _parts(model):
        if isinstance(part, bytes):
            stream.write(part)
        else:
            part.tofile(stream)


def whole_bytes(model: ir.Model) -> int:
    """How many bytes `write_whole` writes."""
    parts = _parts(model)
    return sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)


def _parts(model: ir.Model) -> list[bytes | ir.ExternalTensor]:
    """What the file consists of: bytes, and weights that are copied from where they are."""
    proto = to_proto(model)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    outer = _around(proto, _GRAPH)
    inner = _around(proto.graph, _INITIALIZER)
    parts: list[bytes | ir.ExternalTensor] = [inner[0]]
    for written, tensor in zip(proto.graph.initializer, tensors, strict=True):
        if not isinstance(tensor, ir.ExternalTensor):
            content = _bytes(written)
            parts.append(_head(_INITIALIZER, len(content)) + content)
            continue
        for field in _EXTERNAL:
            written.ClearField(field)
        before, behind = _around(written, _RAW_DATA)
        before += _head(_RAW_DATA, tensor.nbytes)
        size = len(before) + tensor.nbytes + len(behind)
        parts += [_head(_INITIALIZER, size) + before, tensor, behind]
    parts.append(inner[1])
    total = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)
    return [outer[0] + _head(_GRAPH, total), *parts, outer[1]]


def _around(message: M, number: int) -> tuple[bytes, bytes]:
    """What is written of a message before a field and behind it."""
    before, behind = type(message)(), type(message)()
    for field, value in message.ListFields():
        if field.number == number:
            continue
        part = before if field.number < number else behind
        if field.is_repeated:
            getattr(part, field.name).extend(value)
        elif field.type == field.TYPE_MESSAGE:
            getattr(part, field.name).CopyFrom(value)
        else:
            setattr(part, field.name, value)
    return _bytes(before), _bytes(behind)


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _head(number: int, length: int) -> bytes:
    """The tag of a field and the length of what follows."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
