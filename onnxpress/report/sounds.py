"""Waveforms as a page can play them: WAV files of 16 bits and one channel, as `data:` addresses.

RIFF WAVE with PCM, as Microsoft and IBM describe it ("Multimedia Programming Interface", 1991).
"""

import base64
import io
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxpress.judge import Heard
from onnxpress.runtime import Array

__all__ = ["heard_document", "sound_address"]

_SECONDS = 4.0
"""That are kept, from the start: 170 kB at 16,000 values a second."""
_LEAST_SECONDS = 0.1
_FULL = 32767


def sound_address(array: Array, rate: int, loudest: float | None = None) -> str | None:
    """A waveform to be played; `None` of what is no single one, not finite, or too short to hear.

    Args:
        array: values along one axis, all others of size 1.
        rate: values a second.
        loudest: which value is as loud as can be; without, 1 or its own largest where that is
            more, and of integers 32,767.
    """
    values = np.squeeze(array)
    if values.ndim != 1 or values.dtype.kind not in "fi" or len(values) < _LEAST_SECONDS * rate:
        return None
    kept = values[: round(_SECONDS * rate)].astype(np.float64)
    if not np.isfinite(kept).all():
        return None
    if loudest is None:
        loudest = _FULL if values.dtype.kind == "i" else max(1.0, float(np.abs(kept).max()))
    integers = np.clip(np.rint(kept / loudest * _FULL), -_FULL, _FULL).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(integers.tobytes())
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def heard_document(heard: Sequence[Heard]) -> list[dict[str, Any]]:
    """What both models give as sound, equally loud where they are equal."""
    found = []
    for one in heard:
        arrays = one.original, one.optimized
        finite = [np.abs(array[np.isfinite(array)]) for array in arrays]
        loudest = max(1.0, *(float(values.max()) if values.size else 0.0 for values in finite))
        before, after = (sound_address(array, one.rate, loudest) for array in arrays)
        if before is not None and after is not None:
            found.append({"output": one.output, "original": before, "optimized": after})
    return found
