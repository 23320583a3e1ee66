"""What a model was fed, small enough for a report: a picture, or the first values in words.

Pictures are PNG files (ISO/IEC 15948) of at most 96 pixels a side as `data:` addresses, their
lowest value black and their highest white, as it is not known how they were prepared.
"""

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxpress.report.sounds import sound_address
from onnxpress.runtime import Array, Feed

__all__ = ["fed_document"]

_INPUTS = 3
_SIDE = 96
_LEAST_SIDE = 8
_VALUES = 16
_CHANNELS = (1, 3)
Pixels = npt.NDArray[np.uint8]


def fed_document(feed: Feed, rates: Mapping[str, int]) -> list[dict[str, Any]]:
    """The first inputs of a sample: name, shape, and a picture, a sound or the first values."""
    return [_input(name, array, rates.get(name)) for name, array in list(feed.items())[:_INPUTS]]


def _input(name: str, array: Array, rate: int | None) -> dict[str, Any]:
    pixels = None if rate is not None else _pixels(array)
    return {
        "input": name,
        "shape": list(array.shape),
        "picture": None if pixels is None else _data_address(pixels),
        "sound": None if rate is None else sound_address(array, rate),
        "values": "" if pixels is not None else _in_words(array),
    }


def _in_words(array: Array) -> str:
    first = array.reshape(-1)[:_VALUES].tolist()
    more = ", …" if array.size > _VALUES else ""
    return ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v)[:80] for v in first) + more


def _pixels(array: Array) -> Pixels | None:
    """[height, width, channels]; `None` of what is no picture."""
    if array.dtype.kind not in "fu" or array.ndim not in (3, 4):
        return None
    if array.ndim == 4 and len(array) != 1:
        return None
    plane = array[0] if array.ndim == 4 else array
    if plane.shape[0] in _CHANNELS:
        plane = plane.transpose(1, 2, 0)
    if plane.shape[2] not in _CHANNELS or min(plane.shape[:2]) < _LEAST_SIDE:
        return None
    values = _shrunk(plane.astype(np.float64))
    if not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.asarray((255 * scaled).round(), np.uint8)


def _shrunk(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over squares, so that neither side is longer than 96."""
    step = -(-max(plane.shape[:2]) // _SIDE)
    height, width = (max(1, side // step) for side in plane.shape[:2])
    cut = plane[: height * step, : width * step]
    if step == 1 or min(plane.shape[:2]) < step:
        return plane[:: max(step, 1), :: max(step, 1)]
    return np.asarray(cut.reshape(height, step, width, step, -1).mean(axis=(1, 3)))


def _data_address(pixels: Pixels) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode("ascii")


def _png(pixels: Pixels) -> bytes:
    height, width, channels = pixels.shape
    colour = 0 if channels == 1 else 2
    rows = pixels.reshape(height, -1)
    # Each row is preceded by its filter; 0 is none.
    plain = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(plain, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
