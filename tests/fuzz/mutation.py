"""Mutations of files: of bytes, of the fields of a protobuf message, of arrays, of TOML."""

import io
import random
import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["mutated_bytes", "mutated_model", "mutated_samples", "mutated_text"]

_WHOLE = (0, 1, -1, 2, 3, 7, 64, 127, 128, 255, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 32)
_HUGE = (10**12, (1 << 62) + 1, (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "", "x", "y", "\x1b[2J", "a\rb", "\u202e", "n" * 3000, "../../etc/passwd", "/etc/passwd", ".",
    "Conv", "MatMul", "Gemm", "If", "Loop", "Split", "Reshape", "Expand", "ConstantOfShape", "LSTM",
    "Constant", "Identity", "Concat", "Slice", "Resize", "com.microsoft", "ai.onnx.ml",
)  # fmt: skip
_NAMES_OF_TENSORS = ("input", "output")
_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, left out, repeated or cut off, in one to four places."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(5):
            case 0:
                data[place : place + length] = rng.randbytes(length)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case 3:
                data[place : place + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))])
            case 4:
                del data[max(place, len(data) // 2) :]
    return bytes(data)


def mutated_model(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to three fields of a model changed, or its bytes; `other` lends nodes and tensors."""
    if rng.random() < 0.1:
        return mutated_bytes(content, rng)
    model = onnx.load_from_string(content)
    lender = onnx.load_from_string(other)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(model))
        _change(*rng.choice(places), model, lender, rng)
    return model.SerializeToString()


def _places(message: Message) -> Iterator[tuple[Message, Any]]:
    """Every field of every message; those that are set three times, as most are not."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
    for field, value in message.ListFields():
        yield message, field
        yield message, field
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _places(part)


def _change(
    owner: Message,
    field: Any,
    model: onnx.ModelProto,
    lender: onnx.ModelProto,
    rng: random.Random,
) -> None:
    if not field.is_repeated:
        if rng.random() < 0.2:
            owner.ClearField(field.name)
        elif field.message_type is not None:
            _take(getattr(owner, field.name), model, lender, rng)
        else:
            setattr(owner, field.name, _value(owner, field, model, rng))
        return
    items: Any = getattr(owner, field.name)
    place = rng.randrange(len(items)) if items else 0
    action = rng.randrange(5)
    if not items or action == 0:
        if field.message_type is not None:
            _take(items.add(), model, lender, rng)
        else:
            items.append(_value(owner, field, model, rng))
    elif action == 1:
        del items[place]
    elif action == 2:
        items.extend([items[place]])
    elif action == 3 and len(items) > 1:
        first, second = list(items)[:: max(len(items) - 1, 1)][:2]
        rest = list(items)[1:-1]
        copies = [_copy(item) for item in (second, *rest, first)]
        del items[:]
        items.extend(copies)
    elif field.message_type is not None:
        _take(items[place], model, lender, rng)
    else:
        items[place] = _value(owner, field, model, rng)


def _copy(item: Any) -> Any:
    if not isinstance(item, Message):
        return item
    made = type(item)()
    made.CopyFrom(item)
    return made


def _take(
    message: Message, model: onnx.ModelProto, lender: onnx.ModelProto, rng: random.Random
) -> None:
    """Let a message be a copy of another one of its kind."""
    kind = message.DESCRIPTOR.full_name
    found = [m for m in _messages(rng.choice((model, lender))) if m.DESCRIPTOR.full_name == kind]
    if found:
        message.CopyFrom(_copy(rng.choice(found)))
    else:
        message.SetInParent()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def _value(
    owner: Message, field: FieldDescriptor, model: onnx.ModelProto, rng: random.Random
) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        kinds = field.enum_type
        assert kinds is not None
        return rng.choice([value.number for value in kinds.values])
    if field.cpp_type in _NUMBERS:
        huge = field.cpp_type == FieldDescriptor.CPPTYPE_INT64 and rng.random() < 0.4
        small = [n for n in _WHOLE if -(1 << 31) <= n < 1 << 31]
        if field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
            return abs(rng.choice(small[:-1]))
        return rng.choice(_HUGE if huge else small)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        old = getattr(owner, field.name)
        return mutated_bytes(old, rng) if isinstance(old, bytes) else rng.randbytes(8)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.name in _NAMES_OF_TENSORS or rng.random() < 0.5:
            names = [name for node in model.graph.node for name in (*node.output, *node.input)]
            return rng.choice(names or _TEXTS)
        return rng.choice(_TEXTS)
    return rng.random() < 0.5


def mutated_samples(arrays: dict[str, np.ndarray], rng: random.Random) -> bytes:
    """A `.npz` file, one array of which, or whose bytes, are changed."""
    arrays = dict(arrays)
    with np.errstate(all="ignore"):
        return _mutated_samples(arrays, rng)


def _mutated_samples(arrays: dict[str, np.ndarray], rng: random.Random) -> bytes:
    for _ in range(rng.choice((0, 1, 1, 2))):
        if not arrays:
            break
        name = rng.choice(sorted(arrays))
        array = arrays.pop(name)
        match rng.randrange(9):
            case 0:
                continue
            case 1:
                # No other way back from texts, objects and complex numbers than to leave them.
                kinds = ["f8", "f2", "i8", "u1", "c8", "U3", "S2", "?"]
                array = array.astype(rng.choice(kinds)) if array.dtype.kind in "fiub" else array
            case 2:
                array = array[rng.choice((0, -1))] if array.ndim and len(array) else array
            case 3:
                array = array[..., None]
            case 4:
                array = np.full_like(array, rng.choice((0, 1)))
                if array.dtype.kind == "f":
                    array[:] = rng.choice(_FLOATS)
            case 5:
                array = array[:0]
            case 6:
                array = np.array([array, None, "x"], object)
            case 7:
                name = rng.choice(("", "__labels__", "__groups__", "\x1b[2J", "a/../b", "x" * 300))
            case 8:
                array = np.moveaxis(array, 0, -1) if array.ndim else array
        arrays[name] = array
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    content = stream.getvalue()
    return mutated_bytes(content, rng) if rng.random() < 0.5 else content


def mutated_text(text: str, rng: random.Random) -> bytes:
    """A text with tokens changed, lines moved, repeated or left out."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines)) if lines else 0
        match rng.randrange(7):
            case 0 if lines:
                del lines[place]
            case 1 if lines:
                lines.insert(rng.randrange(len(lines)), lines[place])
            case 2 if lines and "=" in lines[place]:
                key = lines[place].split("=")[0]
                lines[place] = f"{key}= {rng.choice(_TOML_VALUES)}"
            case 3:
                lines.insert(place, f"{rng.choice(string.ascii_letters)} = {_nested(rng)}")
            case 4 if lines:
                lines[place] = lines[place].replace('"', rng.choice(("'", "", '"""')), 1)
            case 5:
                lines.insert(place, rng.choice(("[[pass]]", "[pass]", "[calibration]", "[x.y]")))
            case _:
                return mutated_bytes("\n".join(lines).encode(), rng)
    return "\n".join(lines).encode()


_TOML_VALUES = (
    "0", "-1", "1e400", "nan", "inf", "9223372036854775808", "[]", "{}", '""', "true", "[[1], [2]]",
    '"\\u001b[2J"', "1979-05-27T07:32:00Z", '"../../x"', '["a", 1]', "9" * 5000, '"evil:go"',
)  # fmt: skip


def _nested(rng: random.Random) -> str:
    depth = rng.choice((3, 100, 3000))
    return "[" * depth + "]" * depth
