"""Codes of 2 to 7 bits in bytes, and tables by which standard operators take them out again.

A code is the sum of *planes* of 4, 2 or 1 bits, whose parts fill bytes: 5 bits are 4 and 1. A byte
of a plane is the index into a table of 256 rows, which hold the numbers that its parts stand for:
Gather, of every opset, unpacks it, and the planes are added. Part k of a byte is in its bits
k·width and up, as ONNX packs INT4 (`onnx.proto`, TensorProto.raw_data).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["packed", "planes", "table", "table_bytes", "unpacked"]

Codes = npt.NDArray[np.uint8]

_BYTE = 8
_WIDTHS = (4, 2, 1)


def planes(bits: int) -> Iterator[tuple[int, int]]:
    """Widths of the planes of codes of so many bits, each with the lowest bit that it holds."""
    shift = 0
    for width in _WIDTHS:
        if bits & width:
            yield width, shift
            shift += width


def packed(codes: Codes, bits: int) -> list[Codes]:
    """The bytes of each plane, of codes in their order; the last byte is filled up with zeros."""
    flat = codes.reshape(-1)
    found = []
    for width, shift in planes(bits):
        parts = _BYTE // width
        own = (flat >> shift) & (2**width - 1)
        rest = -len(own) % parts
        own = np.concatenate([own, np.zeros(rest, np.uint8)]) if rest else own
        found.append(
            np.bitwise_or.reduce(
                own.reshape(-1, parts) << (np.arange(parts, dtype=np.uint8) * width),
                axis=1,
                dtype=np.uint8,
            )
        )
    return found


def table(width: int, shift: int, offset: int) -> npt.NDArray[np.int8]:
    """`[256, parts]` what the parts of each byte of a plane add to a number, and `offset`."""
    parts = np.arange(_BYTE // width) * width
    values = (np.arange(256)[:, None] >> parts) & (2**width - 1)
    return np.asarray((values << shift) + offset, np.int8)


def table_bytes(bits: int) -> int:
    """Of the tables for codes of so many bits."""
    return sum(256 * _BYTE // width for width, _ in planes(bits))


def unpacked(bytes_of_planes: list[Codes], bits: int, count: int) -> Codes:
    """The first `count` codes."""
    found = np.zeros(count, np.uint8)
    for plane, (width, shift) in zip(bytes_of_planes, planes(bits), strict=True):
        rows = table(width, shift, 0)[plane]
        found += rows.reshape(-1)[:count].astype(np.uint8)
    return found
